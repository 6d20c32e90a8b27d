"""Several processes: their records are those of one, they stop together, and what one fails of ends all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from forked import start_command, wait_until
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from safetensors.torch import load_file

import lc_bench
from lc_bench.__main__ import main
from lc_bench.data.crops import share_of
from lc_bench.data.images import read_image, to_unit
from lc_bench.errors import UserError
from lc_bench.losses.images import psnr_of
from lc_bench.ops import stopping
from lc_bench.ops.means import Means, Whole
from lc_bench.runs import ranks

TWO = ["trainer=ddp_cpu", "trainer.devices=2", "threads=1"]
MODEL = ["model=bmshj2018-hyperprior", "model.N=8", "model.M=12"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five of 80x72, so that two processes have different shares."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for i in range(5):
        waves = np.sin(np.linspace(0, 3 + i, 72))[:, None, None] * np.cos(np.linspace(0, 6, 80))[:, None] * np.ones(3)
        Image.fromarray((128 + 90 * waves + generator.normal(0, 3, waves.shape)).clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["lc_bench", *arguments])
    main()


def measured(folder: Path) -> pd.DataFrame:
    """Without what is of the clock and of the process."""
    table = pd.read_csv(folder / "records.csv")
    return table.drop(columns=[c for c in table if c.endswith("_s") or c == "peak_memory_mib"])


def test_records_of_two_processes_are_those_of_one(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ["data=folder", f"data.path={photos}", "weights=none", "quality=[1,2]", "anchor=[jpeg]", *MODEL]
    call(monkeypatch, *common, "threads=1", f"hydra.run.dir={tmp_path / 'one'}")
    call(monkeypatch, *common, *TWO, f"hydra.run.dir={tmp_path / 'two'}")
    pd.testing.assert_frame_equal(measured(tmp_path / "one"), measured(tmp_path / "two"), check_exact=True)
    assert len(measured(tmp_path / "two")) == 5 * (2 + len(OmegaConf.load(Path("conf/anchor/jpeg.yaml")).levels))
    assert not list((tmp_path / "two").glob("records-rank*"))
    assert len((tmp_path / "two" / "index.html").read_text()) == pytest.approx(len((tmp_path / "one" / "index.html").read_text()), rel=0.01)


def test_two_processes_interrupted_and_resumed_equal_two_uninterrupted(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: None
) -> None:
    """Ctrl-C comes to the first process alone; both ranks end at one step, whose checkpoint goes on to the same weights."""
    chosen = ["run=train", "data=folder", f"data.path={photos}", "quality=3", *MODEL, *TWO, "optimizer.lr=1e-3"]
    chosen += ["run.batch=2", "run.crop=64", "run.steps=30", "run.save_every=1000", "run.log_every=1", "run.workers=0"]
    chosen += ["trainer.accumulate_grad_batches=2", "run.val=bsds500", "run.val_every=30"]
    held_out = tmp_path / "data" / "bsds500" / "val"
    held_out.mkdir(parents=True)
    for image in photos.glob("*.png"):
        Image.open(image).save(held_out / f"{image.stem}.jpg")
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path / "data"))
    call(monkeypatch, *chosen, f"hydra.run.dir={tmp_path / 'whole'}")
    running = start_command([*chosen, f"hydra.run.dir={tmp_path / 'cut'}"], tmp_path / "log")
    wait_until((tmp_path / "cut" / "metrics.csv").exists, running)
    running.send_signal(signal.SIGINT)
    code, told = running.wait(120), (tmp_path / "log").read_text()
    assert code == 130, told
    assert told.count("interrupted at step") == 1, told
    assert 0 < torch.load(tmp_path / "cut" / "last.ckpt", weights_only=False)["global_step"] < 30, "it had ended before"
    call(monkeypatch, *chosen, f"hydra.run.dir={tmp_path / 'cut'}", "run.resume=auto")
    ended, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(ended[key], resumed[key]) for key in ended)
    assert len(list((tmp_path / "cut").glob("metrics-part*.csv"))) == 1, "each rank moved the metrics aside"
    model = lc_bench.load("bmshj2018-hyperprior", weights=tmp_path / "whole" / "model.safetensors", N=8, M=12)
    images = [to_unit(read_image(path, path.name))[None] for path in sorted(held_out.iterdir())]
    with torch.no_grad():
        expected = np.mean([psnr_of(((model(x).x_hat - x) ** 2).mean()).item() for x in images])
    validated = pd.read_csv(tmp_path / "whole" / "metrics.csv")["val/psnr"].dropna()
    assert validated.iloc[-1] == pytest.approx(expected, abs=1e-3), "five images on two ranks"


def config(**keys: object) -> DictConfig:
    trainer = {"accelerator": "cpu", "strategy": "ddp", "devices": 2}
    return OmegaConf.create({"trainer": {**trainer, **keys}, "threads": 1, "output": "."})


def gathering(cfg: DictConfig) -> list[tuple[int, list[int]]]:
    us = ranks.join(cfg)
    return us.gather((us.rank, list(us.share(5))))


def rank_that_waits() -> None:
    """All but the second wait for it, without Lightning, which takes seconds to import."""
    torch.distributed.init_process_group("gloo")
    if torch.distributed.get_rank() != 1:
        torch.distributed.barrier()


def mistaken(cfg: DictConfig) -> None:
    rank_that_waits()
    raise UserError("this rank was told something wrong")


def crashing(cfg: DictConfig) -> None:
    rank_that_waits()
    raise ZeroDivisionError("a bug")


def killed(cfg: DictConfig) -> None:
    rank_that_waits()
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_sample_is_one_ranks(forks: None) -> None:
    assert ranks.launch(gathering, config()) == [(0, [0, 2, 4]), (1, [1, 3])]
    assert sorted([*share_of(5, 0, 2), *share_of(5, 1, 2)]) == list(range(5))
    assert list(share_of(1, 1, 2)) == [0], "with fewer samples than ranks each has all, and none waits"


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [(mistaken, UserError, "told something wrong"), (crashing, RuntimeError, "rank 1 failed:.*a bug"), (killed, UserError, "SIGKILL")],
    ids=["mistake", "crash", "kill"],
)
def test_a_rank_that_fails_ends_the_run_with_its_cause(body, kind: type[Exception], told: str) -> None:  # type: ignore[no-untyped-def]
    """The other rank waits for it, and would for half an hour."""
    start = time.monotonic()
    with pytest.raises(kind, match=f"(?s){told}"):
        ranks.launch(body, config())
    assert time.monotonic() - start < 120


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_mean_over_ranks_is_that_of_one(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads stand in for processes: what each says is what all hear."""
    values = [0.5, 1.0, 7.0, 3.0, 100.0]
    said: dict[int, object] = {}
    all_have = threading.Barrier(world)

    def gather(heard: list[object], own: object) -> None:
        said[rank_of.rank] = own
        all_have.wait(10)
        heard[:] = [said[rank] for rank in range(world)]

    rank_of = threading.local()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)

    def mean(rank: int) -> Whole:
        rank_of.rank = rank
        means = Means()
        means.complete = cut != rank
        for place in share_of(5, rank, world):
            means.add("val/loss", torch.tensor(values[place]), 1)
        return means.over_all()

    with ThreadPoolExecutor(world) as pool:
        cut = -1
        assert list(pool.map(mean, range(world))) == [Whole({"val/loss": sum(values) / 5}, complete=True)] * world
        cut = world - 1
        assert not any(whole.complete for whole in pool.map(mean, range(world)))


def waiting_rank(cfg: DictConfig) -> None:
    Path(cfg.mark + os.environ["LOCAL_RANK"]).touch()
    time.sleep(60)


def test_ranks_that_were_asked_to_end_are_no_failure(tmp_path: Path) -> None:
    """The signal comes to one rank alone."""
    cfg = config()
    cfg.mark = str(tmp_path / "m")

    def ask(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        if (tmp_path / "m1").exists() and (tmp_path / "m0").exists():
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(int(multiprocessing.active_children()[0].pid or 0), signal.SIGTERM)

    before = signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with stopping.listening(), pytest.raises(KeyboardInterrupt):
            ranks.launch(waiting_rank, cfg)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stopping.ended() == signal.SIGTERM


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"devices": 0}, "trainer.devices=0"),
        ({"devices": "two"}, "trainer.devices=two"),
        ({"devices": True}, "trainer.devices=True"),
        ({"num_nodes": 2}, "torchrun or srun"),
        ({"accelerator": "cuda", "devices": 99}, "trainer.devices=99"),
    ],
)
def test_wrong_numbers_of_processes_are_told(keys: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        ranks.launch(gathering, config(**keys))


def processes(cfg: DictConfig) -> str:
    return "one of several" if ranks.started_elsewhere() else "alone"


def test_slurm_without_srun_starts_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(ranks, "_spawn", lambda body, cfg, count: f"{count} started")
    assert ranks.launch(processes, config()) == "2 started"
    assert ranks.launch(processes, config(devices=1)) == "alone"


@pytest.mark.parametrize("starter", ["srun", "torchrun"])
def test_another_number_of_processes_than_was_asked_for_is_told(starter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would train side by side, each for itself, in one folder."""
    names = {"srun": ("SLURM_STEP_ID", "SLURM_NTASKS"), "torchrun": ("TORCHELASTIC_RUN_ID", "WORLD_SIZE")}[starter]
    monkeypatch.setenv(names[0], "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    for started, devices in (("1", 2), ("4", 2), ("2", 1)):
        monkeypatch.setenv(names[1], started)
        with pytest.raises(UserError, match=f"trainer.devices={devices} .*{starter} started {started}"):
            ranks.launch(processes, config(devices=devices))
    monkeypatch.setenv(names[1], "2")
    assert ranks.launch(processes, config()) == "one of several"
