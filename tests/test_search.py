"""run=search: crashes are single trials, a killed search goes on, fronts are fronts, and hopeless trials are pruned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pandas as pd
import pytest
from conftest import ROOT
from forked import command, run_command, start_command, wait_until
from PIL import Image

from lc_bench.__main__ import main
from lc_bench.config import compose
from lc_bench.errors import UserError
from lc_bench.runs.curves import read_curves
from lc_bench.runs.search import Running, look_at, start, validations
from lc_bench.runs.search_end import finish
from lc_bench.runs.space import Choice, Real, Whole, parse_space
from lc_bench.runs.sweep_end import last_figures

CRASH_ONCE = """
import os, signal, pathlib, torch

def adam(parameters, lr, mark):
    mark = pathlib.Path(mark)
    if lr > 5e-3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return torch.optim.Adam(parameters, lr)
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a small search, with an optimiser that crashes its first trial at a high rate."""
    photos, held_out = tmp_path / "photos", tmp_path / "data" / "bsds500" / "val"
    generator = np.random.default_rng(0)
    for folder, name in ((photos, "a.png"), (photos, "b.png"), (held_out, "c.jpg")):
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (66, 80, 3), dtype=np.uint8)).save(folder / name)
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "boom.yaml").write_text(f"_target_: boom.adam\nlr: 1e-3\nmark: {tmp_path / 'mark'}\n")
    (tmp_path / "boom.py").write_text(CRASH_ONCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path / "data"))
    words = ["run=search", "model=bmshj2018-factorized", "model.N=8", "model.M=12", "quality=3", "data=folder", f"data.path={photos}"]
    words += ["run.steps=6", "run.val=bsds500", "run.val_every=3", "run.batch=2", "run.crop=64", "run.workers=0", "run.log_every=1"]
    return ["--config-dir", str(tmp_path / "conf"), *words, "threads=1", "trainer.accelerator=cpu", f"hydra.run.dir={tmp_path / 'out'}"]


def test_killed_search_of_eight_with_a_crash_ends_with_seven(base: list[str], tmp_path: Path, forks: None) -> None:
    """Killed at work, called again: what had ended counts, what was at work goes on under its number, and the crash has its name."""
    words = [*base, "optimizer=boom", "run.space={optimizer.lr: log 1e-3 1e-2}", "run.trials=8", "run.jobs=2", "run.prune=false"]
    first = start_command(words, tmp_path / "first.log")
    wait_until((tmp_path / "out" / "trial-3").exists, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = (tmp_path / "first.log").read_text()
    assert first.returncode == -signal.SIGKILL, before
    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("trial-*/model.safetensors")}
    code, told = run_command(words, tmp_path / "second.log")
    assert code == 0, told
    assert "(continued)" in told
    trials = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert list(trials.trial) == list(range(8))
    assert trials.ended.value_counts().to_dict() == {"ok": 7, "failed": 1}
    (failed,) = trials[trials.ended == "failed"].itertuples()
    assert failed.cause.startswith("killed by SIGSEGV")
    assert f"trial {failed.trial} failed: killed by SIGSEGV" in told
    assert trials.best.sum() == 1
    assert trials.loss[trials.best].item() == trials.loss.min()
    known = [f"trial {i}: loss" for i in range(8) if f"trial {i}: loss" in before]
    assert not [line for line in known if line in told], "an ended trial ran again"
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in weights.items() if f"{path.parent.name[6:]}: loss" in before)
    assert (tmp_path / "out" / "trials.png").read_bytes()[:4] == b"\x89PNG"
    best = trials[trials.best].iloc[0]
    assert "run=train model=bmshj2018-factorized" in told
    assert f"optimizer.lr={best['optimizer.lr']:.6g}" in told


def test_several_objectives_give_a_front(base: list[str], tmp_path: Path) -> None:
    """By new interpreters, as users start them."""
    words = [*base, "run.space={rate.lmbda: log 1e-3 1e-1}", "run.objective=[bpp,psnr]", "run.trials=2", "run.jobs=2"]
    done = subprocess.run(command(words), cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert trials[["bpp", "psnr"]].notna().all(None)
    dominated = [((trials.bpp < t.bpp) & (trials.psnr > t.psnr)).any() for t in trials.itertuples()]
    assert [not d for d in dominated] == list(trials.best)
    logged = validations(tmp_path / "out" / "trial-0")
    assert trials.bpp[0] == logged[max(logged)]["bpp"]


def test_front_and_failures_of_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    for bpp, psnr in ((0.5, 30.0), (0.4, 31.0), (0.8, 33.0), (0.9, 32.0)):
        trial = study.ask({"a": optuna.distributions.FloatDistribution(0, 1)})
        trial.set_user_attr("overrides", [f"a={trial.params['a']:.6g}"])
        study.tell(trial, (bpp, psnr))
    broken = study.ask({"a": optuna.distributions.FloatDistribution(0, 1)})
    broken.set_user_attr("cause", "ValueError: no")
    study.tell(broken, state=optuna.trial.TrialState.FAIL)
    assert finish(study, ["bpp", "psnr"], tmp_path, ["run=train"]) == 0.5
    assert list(pd.read_csv(tmp_path / "trials.csv").best) == [False, True, True, False, False]
    assert "trial 4 failed: ValueError: no" in capsys.readouterr().out
    empty = optuna.create_study()
    lost = empty.ask()
    lost.set_user_attr("cause", "ValueError: no")
    empty.tell(lost, state=optuna.trial.TrialState.FAIL)
    with pytest.raises(UserError, match="no trial has a result yet; trial 0: ValueError: no"):
        finish(empty, ["loss"], tmp_path, [])


def test_hopeless_trials_are_pruned_and_others_are_not(tmp_path: Path) -> None:
    """Only the process is a stand-in: figures are read from metrics.csv while it is at work, and the median decides."""
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0))
    killed: list[int] = []

    def trial(losses: list[float], ended: bool, interrupted: bool = False) -> tuple[str, str]:
        one = study.ask()
        folder = tmp_path / str(one.number)
        folder.mkdir()
        rows = [f"{step},{'' if step % 2 else losses[step // 2]}" for step in range(2 * len(losses))]
        (folder / "metrics.csv").write_text("\n".join(["step,val/loss", *rows, ""]))
        process = SimpleNamespace(folder=folder, ended=ended, interrupted=interrupted, cause=None, kill=lambda: killed.append(one.number))
        over = look_at(Running(one, process, 0.0), study, ["loss"])  # type: ignore[arg-type]
        return over, study.trials[one.number].state.name

    assert trial([5, 3, 2], ended=True) == ("ended", "COMPLETE")
    assert trial([6, 4, 2.5], ended=True) == ("ended", "COMPLETE")
    assert trial([5, 9], ended=False) == ("ended", "PRUNED")
    assert trial([4, 2], ended=False) == ("at work", "RUNNING")
    assert trial([float("nan")], ended=True) == ("ended", "FAIL")
    assert trial([4, 3], ended=True, interrupted=True) == ("interrupted", "RUNNING")
    assert killed == [2]
    assert study.best_value == 2


def test_interruptions_with_progress_are_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that gets on is begun as often as it takes; one that does not is given up."""
    monkeypatch.setattr("lc_bench.runs.search.Apart", lambda *_, **__: None)
    study = optuna.create_study()
    space = {"optimizer.lr": Real(1e-4, 1e-3, log=True)}
    moving, standing = study.ask(), study.ask()
    (tmp_path / "trial-0").mkdir()
    for attempt in range(1, 7):
        os.utime(checkpoint_in(tmp_path / "trial-0"), (attempt, attempt))
        assert start(moving, study, space, [], tmp_path, None) is not None
    begun = [start(standing, study, space, [], tmp_path, None) is not None for _ in range(4)]
    assert begun == [True, True, True, False]
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "FAIL"]


def checkpoint_in(folder: Path) -> Path:
    (folder / "last.ckpt").touch()
    return folder / "last.ckpt"


def test_curves_that_are_being_written_or_were_cut(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == []
    file = tmp_path / "metrics.csv"
    for text in ("", "step,val/lo", "step,val/loss\n", "step,val/loss\n1,0.1", "step,val/loss\n1\n", "\0\0\n\0"):
        file.write_text(text)
        assert validations(tmp_path) == {}, text
        assert last_figures(tmp_path) == {}, text
    file.write_text("step,val/loss,train/loss\n0,,3\n1,0.25,\n2,,\n3,0.1")
    assert validations(tmp_path) == {1: {"loss": 0.25}}
    assert last_figures(tmp_path) == {"step": 3, "val/loss": 0.25, "train/loss": 3}
    for part, loss in ((10, 0.5), (2, 0.75)):
        (tmp_path / f"metrics-part{part}.csv").write_text(f"step,val/loss\n1,{loss}\n0,{loss}\n")
    assert [row["val/loss"] for row in read_curves(tmp_path) if row["step"] == 1] == [0.75, 0.5, 0.25], "parts in their order"


@pytest.mark.parametrize(("given", "made"), [("[]", ["csv"]), ("[tensorboard]", ["csv", "tensorboard"]), ("[wandb,csv]", ["wandb", "csv"])])
def test_trials_write_the_curves_that_a_search_reads(given: str, made: list[str], base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever loggers were asked for."""
    begun: list[str] = []

    def begin(words: list[str], *_: object, **__: object) -> None:
        begun.extend(words)
        raise UserError("seen")

    monkeypatch.setattr("lc_bench.runs.search.Apart", begin)
    monkeypatch.setattr(
        sys, "argv", ["lc_bench", *base[2:], "run.space={optimizer.lr: log 1e-4 1e-2}", f"logger={given}", "overwrite=true"]
    )
    with pytest.raises(SystemExit):
        main()
    assert not [word for word in begun if word.startswith("overwrite")], "a trial that goes on would lose what it has"
    assert list(compose(*(word for word in begun if not word.startswith("hydra."))).logger) == made


def test_forms_of_a_space() -> None:
    space = parse_space(
        {"a": "log 1e-5 1e-3", "b": "int 2 6", "c": "int 64 128 32", "d": "choice x y", "e": [1, True, None], "f": "float 0 1"}
    )
    assert space["a"] == Real(1e-5, 1e-3, log=True)
    assert (space["b"], space["c"]) == (Whole(2, 6), Whole(64, 128, 32))
    assert (space["d"], space["e"]) == (Choice(("x", "y")), Choice(("1", "true", "null")))
    assert space["f"] == Real(0, 1, log=False)


@pytest.mark.parametrize(
    "wrong", ["log 0 1", "log 1 0.1", "int 1.5 2", "int 1", "float a b", "choice", "uniform 0 1", "", "float 0 inf", []]
)
def test_wrong_forms_are_told(wrong: object) -> None:
    with pytest.raises(UserError, match="run.space: key: .*`log LOW HIGH`"):
        parse_space({"key": wrong})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["run.space={optimizer.lrr: log 1e-4 1e-2}"], "optimizer.lrr=.*lr"),
        (["run.space={model: [mbt2018,mbt]}"], "model=mbt: not known"),
        (["run.space={rate.lmbda: log 1e-3 1}"], r"run.objective=\[bpp,psnr\]"),
        (["run.space={optimizer.lr: log 1e-4 1e-2}", "run.objective=rate"], "loss, bpp, psnr"),
        (["run.space={optimizer.lr: log 1e-4 1e-2}", "run.objective=[bpp,psnr]", "run.prune=true"], "cannot prune"),
        (["run.space={optimizer.lr: log 1e-4 1e-2}", "run.trials=0"], "run.trials=0"),
        (["run.space={optimizer.lr: log 1e-4 1e-2}", "run.val=null"], "run.val"),
        (["run.space={optimizer.lr: log 1e-4 1e-2}", "ckpt_path=a.ckpt"], "run.resume=a.ckpt: each trial is a run of its own"),
        ([], "run.space: has to be given"),
    ],
)
def test_wrong_searches_are_one_line(
    more: list[str], words: str, base: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    monkeypatch.setattr(sys, "argv", ["lc_bench", *base[2:], *more])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    assert len(told) == 1, told
    assert re.search(words, told[0]), told
