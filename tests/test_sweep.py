"""Sweeps: whatever launches them, whatever ends a job or all of them, they end in one report and go on by their name."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from forked import run_command, start_command, wait_until
from omegaconf import OmegaConf
from PIL import Image

from lc_bench.config import compose, explain, given_in, groups, job_folder
from lc_bench.errors import UserError
from lc_bench.runs.apart import Apart
from lc_bench.runs.sweep import Status, arguments_of, check_same, digest, for_jobs_only, read_status, run_apart, threads_of
from lc_bench.runs.sweep_end import benchmarks_of, differences, joined_levels, told_apart

TINY = ["weights=none", "model.N=8", "model.M=12", "anchor=[jpeg]", "threads=1"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(generator.integers(0, 256, (66, 80, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's configurations, with a data set that brings the process down."""
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "boom.yaml").write_text("_target_: boom.crash\n")
    (tmp_path / "boom.py").write_text("import os, signal\n\ndef crash(**_):\n    os.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "conf"


def states(sweep: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["state"] for path in sorted(sweep.glob("*/.status.json"))}


def test_killed_and_continued_ends_in_one_report(photos: Path, tmp_path: Path, forks: None) -> None:
    """2 qualities x 2 models on joblib: killed with everything it started, and called again."""
    sweep = tmp_path / "sweep"
    words = ["-m", "model=bmshj2018-factorized,mbt2018-mean", "quality=1,2", "data=folder", f"data.path={photos}", *TINY]
    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.launcher.backend=multiprocessing", f"hydra.sweep.dir={sweep}"]
    first = start_command(words, tmp_path / "first.log")
    wait_until(lambda: "ok" in states(sweep).values(), first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = [name for name, state in states(sweep).items() if state == "ok"]
    assert 1 <= len(done) < 4, (tmp_path / "first.log").read_text()
    before = {name: (sweep / name / "records.csv").stat().st_mtime_ns for name in done}
    code, told = run_command(words, tmp_path / "second.log")
    assert code == 0, told
    assert all((sweep / name / "records.csv").stat().st_mtime_ns == stamp for name, stamp in before.items()), "done jobs ran again"
    assert told.count("done before") == len(done)
    records = pd.read_csv(sweep / "records.csv")
    learned = records[records.kind == "learned"]
    assert learned.groupby(["codec", "level"]).size().to_dict() == {
        (f"{model} (untrained)", quality): 2 for model in ("bmshj2018-factorized", "mbt2018-mean") for quality in (1, 2)
    }
    assert not records.duplicated(["codec", "level", "image"]).any()
    page = (sweep / "index.html").read_text()
    assert "mbt2018-mean" in page
    assert "bmshj2018-factorized" in page


@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_a_failed_job_is_named_and_ends_alone(launcher: str, photos: Path, crashing: Path, tmp_path: Path, forks: None) -> None:
    """A crash of the process under the basic launcher, a user's mistake under submitit, whose workers are new interpreters."""
    wrong = ["data=boom,folder", "quality=1"] if launcher == "basic" else ["data=folder", "quality=9,1"]
    words = ["--config-dir", str(crashing), "-m", "model=bmshj2018-factorized", *wrong, f"+data.path={photos}", *TINY]
    words = [w.replace("+data.path", "data.path") if launcher != "basic" else w.replace("+data.path", "++data.path") for w in words]
    words += [f"hydra/launcher={launcher}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    code, told = run_command(words, tmp_path / "log")
    assert code == 2, told
    cause = "SIGSEGV" if launcher == "basic" else "1..8"
    assert [line for line in told.splitlines() if line.startswith("lc_bench: model-") and cause in line], told
    assert sorted(states(tmp_path / "sweep").values()) == ["failed", "ok"]
    assert len(pd.read_csv(tmp_path / "sweep" / "records.csv").query("kind == 'learned'")) == 2


def test_ctrl_c_tells_how_to_go_on(photos: Path, tmp_path: Path, forks: None) -> None:
    words = ["-m", "model=bmshj2018-factorized", "quality=1,2", "data=folder", f"data.path={photos}", *TINY]
    sweep = tmp_path / "s"
    running = start_command([*words, f"hydra.sweep.dir={sweep}"], tmp_path / "log")
    wait_until(lambda: "running" in states(sweep).values(), running)
    running.send_signal(signal.SIGINT)
    code, told = running.wait(120), (tmp_path / "log").read_text()
    assert code == 130, told
    assert "not run" in told
    assert "what is left is done by\n  python -m lc_bench -m model=" in told
    assert set(states(sweep).values()) <= {"interrupted", "running"}  # running: it came before the job was watched


def test_trainings_end_in_a_table(photos: Path, tmp_path: Path) -> None:
    """With joblib's own way to start workers, which are new interpreters."""
    words = ["-m", "run=train", "model=bmshj2018-factorized", "model.N=8", "model.M=12", "quality=1", "data=folder", f"data.path={photos}"]
    words += ["run.steps=4", "run.batch=2", "run.crop=64", "run.workers=0", "run.log_every=1", "trainer.accelerator=cpu", "threads=1"]
    words += ["optimizer.lr=0.001,0.01", "hydra/launcher=joblib", f"hydra.sweep.dir={tmp_path}"]
    code, told = run_command(words, tmp_path / "log")
    assert code == 0, told
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert list(runs.job) == ["model-bmshj2018-factorized+data-folder+quality-1+optimizer.lr-" + lr for lr in ("0.001", "0.01")]
    for row in runs.itertuples():
        logged = pd.read_csv(Path(str(row.weights)).parent / "metrics.csv")["train/loss"].dropna()
        assert row.step == 4
        assert runs["train/loss"][row.Index] == pytest.approx(logged.mean())
    assert f"weights={tmp_path}" in told


@pytest.mark.parametrize(
    ("code", "state"),
    [(0, "ok"), (2, "failed"), (-9, "failed"), (143, "interrupted"), (130, "interrupted"), (138, "interrupted"), (-15, "interrupted")],
)
def test_a_job_that_was_asked_to_end_is_unfinished(code: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By somebody else than the sweep: its other jobs go on."""

    class Ended(Apart):
        def __init__(self, arguments: list[str], folder: Path, *_: object, **__: object) -> None:
            self.folder, self.log = folder, None
            self.process = SimpleNamespace(returncode=code, poll=lambda: code)  # type: ignore[assignment]

    monkeypatch.setattr("lc_bench.runs.sweep.Apart", Ended)
    status = Status()
    run_apart(status, tmp_path / "job", [], 0, in_terminal=True)
    assert status.state == state
    assert bool(status.cause) == (state == "failed")
    assert not (tmp_path / ".stop").exists()


def test_names_of_folders() -> None:
    words = ["data=kodak", "quality=1", "model=mbt2018-mean", "run.images=2", "seed=3"]
    assert job_folder(words, ["quality"]) == "model-mbt2018-mean+data-kodak+quality-1"
    assert job_folder(words, []) == job_folder(words, ["model", "quality"]), "a wider sweep would not find its jobs"
    assert job_folder(words, ["seed"]) == "model-mbt2018-mean+data-kodak+quality-1+seed-3"
    assert job_folder([], []) == "job"
    odd, other = (job_folder([f"x='{c} b'"], ["x"]) for c in "/:")
    assert odd != other
    assert job_folder(["x=" + 200 * "y"], ["x"]) != job_folder(["x=" + 201 * "y"], ["x"])
    assert all(len(n) < 120 and all(c.isalnum() or c in "_.+-" for c in n) for n in (odd, other, job_folder(["x=" + 200 * "y"], ["x"])))


def test_keys_of_swept_models_are_left_to_the_jobs() -> None:
    words = ["-m", "model=a,b", "model.N=8", "model.act='x,y'", "quality=1,2", "hydra.x.y=1", "+run.z=1", "sweep=s"]
    ours = for_jobs_only(words, groups())
    assert ours == ["-m", "model=a,b", "model.N=choice(8)", "model.act=choice('x,y')", "quality=1,2", "hydra.x.y=1", "+run.z=1", "sweep=s"]
    assert for_jobs_only(["-m", "quality=1,2", "model.N=8"], groups()) == ["-m", "quality=1,2", "model.N=8"]
    assert for_jobs_only(["-m", "model=a,b", "run.val=null", "data.path=[a,null]"], groups())[2:] == [
        "run.val=null",
        "data.path=choice([a,null])",
    ]
    assert for_jobs_only(["model=a", "model.N=8"], groups()) == ["model=a", "model.N=8"]


def test_what_makes_a_configuration_another_one() -> None:
    same = [compose("quality=1", *more) for more in ([], ["threads=1"], ["sweep=x"], ["run.resume=auto"], ["output=/tmp"])]
    assert len({digest(cfg) for cfg in same}) == 1
    other = [compose("quality=1", *more) for more in (["seed=1"], ["model=mbt2018"], ["run.images=1"])]
    assert len({digest(cfg) for cfg in [same[0], *other]}) == 4


def test_jobs_go_on_from_their_own_checkpoints(tmp_path: Path) -> None:
    """Unless the command says from what; overwrite=true is of runs alone, and would remove what a job is to go on from."""
    cfg = OmegaConf.create({"run": {"resume": None}})
    for given, made in (
        (["quality=1"], ["quality=1", "run.resume=auto"]),
        (["run.resume=auto", "overwrite=true"], ["run.resume=auto"]),
        (["ckpt_path=auto"], ["run.resume=auto"]),
        (["run.resume=a.ckpt"], ["run.resume=a.ckpt", "overwrite=true"]),
        (["ckpt_path=a.ckpt"], ["ckpt_path=a.ckpt", "overwrite=true"]),
    ):
        hydra = OmegaConf.create({"overrides": {"hydra": [], "task": given}})
        assert arguments_of(cfg, hydra, tmp_path, given_in(given))[:-1] == made


def test_a_folder_of_another_configuration_is_not_continued(tmp_path: Path) -> None:
    Status(state="interrupted", digest="a").write(tmp_path)
    check_same(read_status(tmp_path), Status(digest="b", run="bench"), tmp_path, given=False)  # nothing in it that could be taken over
    (tmp_path / "records.csv").touch()
    check_same(read_status(tmp_path), Status(digest="a", run="bench"), tmp_path, given=False)
    with pytest.raises(UserError, match="records.csv of another configuration: give another sweep=NAME"):
        check_same(read_status(tmp_path), Status(digest="b", run="bench"), tmp_path, given=False)
    with pytest.raises(UserError, match="sweep=NAME"):
        check_same(Status(), Status(digest="b", run="train"), tmp_path, given=True)


def test_one_codec_in_several_jobs_is_told_apart() -> None:
    """Jobs that differ in what records do not say (a seed) are curves of their own; those that differ in the level stay one."""
    rows = [
        ("m", "learned", 1, "x"),
        ("m", "learned", 1, "y"),
        ("m", "learned", 2, "x"),
        ("n", "learned", 1, "z"),
        ("jpeg", "anchor", 5, "x"),
    ]
    records = pd.DataFrame(rows, columns=["codec", "kind", "level", "job"]).assign(image="i", data="d")
    records = pd.concat([records, records.tail(1).assign(job="y")], ignore_index=True)
    words = differences({"x": ["quality=1", "seed=0", "data.path=a"], "y": ["quality=2", "seed=1", "data.path=b"], "z": ["seed=0"]})
    assert words == {"x": "seed=0", "y": "seed=1", "z": "seed=0"}
    assert sorted(told_apart(records, words).codec) == ["jpeg", "m, seed=0", "m, seed=0", "m, seed=1", "n"]
    apart = records[records.job != "y"].reset_index(drop=True)
    assert sorted(told_apart(apart, words).codec) == ["jpeg", "m", "m", "n"]


def test_weights_of_each_quality_are_one_curve() -> None:
    rows = [(f"m ({w})", w, level) for w, level in (("a/x", 1), ("b/x", 2), ("untrained", 1))]
    records = pd.DataFrame(rows, columns=["codec", "weights", "level"]).assign(kind="learned", image="i", data="d")
    assert list(joined_levels(records).codec) == ["m (own weights)", "m (own weights)", "m (untrained)"]
    assert list(joined_levels(records.assign(level=1)).codec) == list(records.codec), "two files at one level are two codecs"


def test_how_to_benchmark_trainings() -> None:
    names = {f"model-{m}+quality-{q}": ["run=train", f"model={m}", f"quality={q}", "model.N=8", "data=d"] for m in "ab" for q in (1, 2)}
    (line,) = benchmarks_of(Path("s"), names)
    assert line == ["-m", "model=a,b", "quality=1,2", "model.N=8", "weights=s/model-${model.name}+quality-${quality}/model.safetensors"]
    names = {f"quality-1+seed-{s}": ["quality=1", f"seed={s}"] for s in (0, 1)}
    assert benchmarks_of(Path("s"), names) == [["quality=1", f"weights=s/quality-1+seed-{s}/model.safetensors"] for s in (0, 1)]


def test_jobs_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def threads(target: str, jobs: int, **more: object) -> str | None:
        launcher = {"_target_": f"x.{target}", **more}
        return threads_of(OmegaConf.create({"threads": None, "hydra": {"launcher": launcher}}), jobs).get("OMP_NUM_THREADS")

    assert threads("JoblibLauncher", 6, n_jobs=2) == "4"
    assert threads("JoblibLauncher", 6, n_jobs=-1) == "1"
    assert threads("JoblibLauncher", 2, n_jobs=-1) == "4"
    assert threads("LocalLauncher", 4) == "2"
    assert threads("BasicLauncher", 4) is None
    assert threads("SlurmLauncher", 4) is None
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads("JoblibLauncher", 6, n_jobs=2) is None


def test_a_launcher_that_is_not_installed_is_told() -> None:
    from hydra.errors import HydraException

    told = explain(HydraException("In 'config': Could not find 'hydra/launcher/ray'"))
    assert isinstance(told, UserError)
    assert "lc_bench[sweep]" in str(told)
