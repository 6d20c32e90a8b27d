"""What runs told their loggers, read back from the files that these wrote."""

from __future__ import annotations

import json
import math
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from forked import run_command
from PIL import Image

from lc_bench.__main__ import main
from lc_bench.tracking import git_state

SECRET = "never-to-be-written-0451"
ALL = "logger=[csv,wandb,tensorboard]"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's repository with one commit and five photographs, as the working folder."""
    folder = tmp_path / "project"
    (folder / "photos").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for i in range(5):
        rows, columns = np.meshgrid(np.linspace(0, 3 + i, 72), np.linspace(0, 6, 80), indexing="ij")
        waves = np.stack([np.sin(rows + c) * np.cos(columns * (c + 1)) for c in range(3)], 2)
        pixels = (128 + 90 * waves + draw.normal(0, 3, waves.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    (folder / "notes.txt").write_text("first")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "notes.txt")
    git(folder, "commit", "-q", "-m", "first")
    monkeypatch.chdir(folder)
    return folder


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *who, "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout.strip()


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["lc_bench", *arguments])
    main()


SMALL = ["model=bmshj2018-hyperprior", "model.N=8", "model.M=12", "data=folder", "threads=1"]


def train(monkeypatch: pytest.MonkeyPatch, project: Path, out: Path, *more: str) -> None:
    run = ["run=train", "quality=3", f"data.path={project / 'photos'}", "run.batch=2", "run.crop=64", "run.workers=0", "run.log_every=1"]
    call(monkeypatch, *SMALL, *run, "run.steps=6", "run.save_every=3", "run.val_every=3", f"hydra.run.dir={out}", *more)


def bench(monkeypatch: pytest.MonkeyPatch, project: Path, out: Path, *more: str) -> None:
    run = [f"data.path={project / 'photos'}", "quality=[1,3]", "weights=none", "anchor=[jpeg]", f"hydra.run.dir={out}"]
    call(monkeypatch, *SMALL, *run, *more)


def wandb_records(path: Path) -> Iterator[Any]:
    """Messages of an offline run: a file header of 7 bytes, then blocks of 32 KiB with pieces (CRC-32, length, kind) of messages, the
    log format of LevelDB."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, message = 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        piece = data[position + 7 : position + 7 + length]
        position += 7 + length
        message = piece if kind in (1, 2) else message + piece  # whole, first | middle, last
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(message)
            yield record


def until_ended(path: Path) -> list[Any]:
    """All messages, when the last of them is there: wandb's own process may still be writing."""
    patience = time.monotonic() + 60
    while True:
        records = list(wandb_records(path))
        if any(r.WhichOneof("record_type") == "exit" for r in records) or time.monotonic() > patience:
            return records
        time.sleep(0.1)


class WandbRun:
    """What one offline run holds."""

    def __init__(self, out: Path) -> None:
        (file,) = out.glob("wandb/offline-run-*/*.wandb")
        self.folder = file.parent
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.ended = None
        for record in until_ended(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.id, self.name, self.job = record.run.run_id, record.run.display_name, record.run.job_type
            elif kind == "config":
                self.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            elif kind == "summary":
                self.summary |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
            elif kind == "history":
                row: dict[str, Any] = {}
                for item in record.history.item:
                    *above, key = list(item.nested_key) or [item.key]
                    at = row
                    for part in above:
                        at = at.setdefault(part, {})
                    at[key] = json.loads(item.value_json)
                self.history.append(row)
            elif kind == "exit":
                self.ended = record.exit.exit_code

    def curve(self, key: str) -> dict[int, float]:
        return {row["trainer/global_step"]: row[key] for row in self.history if key in row}

    def table(self, key: str) -> pd.DataFrame:
        (told,) = [row[key] for row in self.history if key in row]
        read = json.loads((self.folder / "files" / told["path"]).read_text())
        return pd.DataFrame(read["data"], columns=read["columns"])

    def pictures(self, key: str) -> list[list[Image.Image]]:
        """Each time that pictures were told."""
        return [[Image.open(self.folder / "files" / name) for name in row[key]["filenames"]] for row in self.history if key in row]


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Who connects to where all traffic would go."""
    seen: list[object] = []
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            seen.append(address)
            connection.close()

    threading.Thread(target=accept, daemon=True).start()
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, address)
    yield seen
    server.close()


def test_wandb_holds_what_training_saw(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: list[object]) -> None:
    monkeypatch.setenv("A_TOKEN", SECRET)
    (project / "notes.txt").write_text("second")
    out = tmp_path / "out"
    train(monkeypatch, project, out, "logger=[csv,wandb]", "run.val=samples")
    run = WandbRun(out)
    metrics = pd.read_csv(out / "metrics.csv")
    columns = [c for c in metrics if c not in ("step", "epoch")]
    assert {"train/loss", "train/bpp", "train/psnr", "train/distortion", "train/bpp_y", "train/bpp_z", "lr-Adam", "val/bpp"} <= set(columns)
    for column in columns:
        rows = metrics[["step", column]].dropna()
        assert run.curve(column) == dict(zip(rows.step.astype(int), rows[column], strict=True)), column
    assert len(run.curve("train/loss")) == 6
    assert len(run.curve("val/psnr")) == 2
    assert np.allclose(metrics["train/bpp"], metrics["train/bpp_y"] + metrics["train/bpp_z"], rtol=1e-6, equal_nan=True)  # 2e-7 seen

    assert run.config["model"]["name"] == "bmshj2018-hyperprior"
    assert run.config["rate"]["lmbda"] == 0.0067
    assert run.config["run"]["steps"] == 6
    assert run.config["git"] == {"commit": git(project, "rev-parse", "HEAD"), "branch": "main", "dirty": True}
    assert run.config["versions"]["lc_bench"]
    assert (run.name, run.job) == ("bmshj2018-hyperprior quality 3", "train")
    assert run.ended == 0

    told = run.pictures("reconstructions")
    assert len(told) == 2, "one for each validation"
    assert [picture.size for picture in told[0]] == [(2 * 256 + 4, 256)] * 4
    steps = [row["trainer/global_step"] for row in run.history if "reconstructions" in row]
    assert steps == list(run.curve("val/psnr")), "pictures and curves count alike"
    (row,) = run.table("rd").to_dict("records")
    last = metrics["val/bpp"].dropna().iloc[-1]
    assert (row["measured"], row["steps"], row["bpp"]) == ("val", 6, pytest.approx(last, rel=1e-7))
    assert run.summary["rd/bpp"] == row["bpp"]

    for file in (f for f in out.rglob("*") if f.is_file()):
        assert SECRET.encode() not in file.read_bytes(), file
    assert not listening, "an offline run looked for the network"


def test_pictures_are_original_and_decoded(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a validation set the first training images are watched; training is what it is without loggers."""
    from safetensors.torch import load_file

    train(monkeypatch, project, tmp_path / "plain", "logger=[]")
    train(monkeypatch, project, tmp_path / "told", ALL)
    told = WandbRun(tmp_path / "told").pictures("reconstructions")
    assert len(told) == 2
    original = np.asarray(Image.open(project / "photos" / "0.png"))
    for pictures in told:
        shown = np.asarray(pictures[0])
        assert np.array_equal(shown[:, :80], original)
        assert shown.shape == (72, 164, 3)
        assert not np.array_equal(shown[:, 84:], original)
    assert not np.array_equal(np.asarray(told[0][0]), np.asarray(told[1][0])), "the model learned in between"
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "told"))
    assert all((one[k] == two[k]).all() for k in one)
    assert not list((tmp_path / "plain").glob("metrics*.csv"))


def events_of(out: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"tensors": 0, "images": 0, "scalars": 0})
    events.Reload()
    return events


def test_a_resumed_run_goes_on_where_it_was(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps 3 to 5 are run twice: TensorBoard keeps the second time, CSV both, wandb gets two parts of one run."""
    out = tmp_path / "out"
    train(monkeypatch, project, out, ALL, "run.save_every=4")
    first = WandbRun(out)
    first.folder.rename(tmp_path / "first")
    (out / "last.ckpt").unlink()
    train(monkeypatch, project, tmp_path / "short", "logger=[]", "run.steps=3", "scheduler.T_max=6")
    (tmp_path / "short" / "last.ckpt").rename(out / "last.ckpt")
    train(monkeypatch, project, out, ALL, "run.resume=auto")
    second = WandbRun(out)
    assert second.id == first.id == (out / "wandb-id").read_text().strip()
    assert list(first.curve("train/loss")) == [0, 1, 2, 3, 4, 5]
    assert list(second.curve("train/loss")) == [3, 4, 5]
    assert (out / "metrics-part1.csv").exists()
    told = [(e.step, e.value) for e in events_of(out).Scalars("train/loss")]
    assert [step for step, _ in told] == [0, 1, 2, 3, 4, 5]
    whole = first.curve("train/loss") | second.curve("train/loss")
    assert dict(told) == whole
    train(monkeypatch, project, out, "logger=[wandb]", "run.steps=1", "overwrite=true")
    assert (out / "wandb-id").read_text().strip() != first.id, "a new run in the same folder"


def test_tensorboard_holds_curves_pictures_and_configuration(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    train(monkeypatch, project, out, "logger=[csv,tensorboard]", "run.val=samples")
    events = events_of(out)
    metrics = pd.read_csv(out / "metrics.csv")
    for column in ("train/loss", "train/bpp_z", "val/psnr", "lr-Adam"):
        rows = metrics[["step", column]].dropna()
        told = {e.step: e.value for e in events.Scalars(column)}
        assert told == {int(s): pytest.approx(v, rel=1e-6) for s, v in rows.to_numpy()}, column  # kept as float32
    assert len([tag for tag in events.Tags()["images"] if tag.startswith("reconstructions/")]) == 4
    assert [e.step for e in events.Images("reconstructions/chelsea.png")] == [2, 5]
    config = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "commit: " + git(project, "rev-parse", "HEAD") in config
    last = metrics["val/bpp"].dropna().iloc[-1]
    assert events.Scalars("rd/bpp")[-1].value == pytest.approx(last, rel=1e-6)


def test_a_benchmark_tells_its_tables(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: list[object]) -> None:
    out = tmp_path / "out"
    bench(monkeypatch, project, out, ALL)
    run = WandbRun(out)
    records = pd.read_csv(out / "records.csv")
    told = run.table("records")
    assert list(told.columns) == list(records.columns)
    for (_, ours), (_, theirs) in zip(records.iterrows(), told.iterrows(), strict=True):
        for column in records:
            a, b = ours[column], theirs[column]
            same = b in ("", None) or math.isnan(b) if pd.isna(a) else a == b if isinstance(a, str) else b == pytest.approx(a, rel=1e-12)
            assert same, (column, a, b)
    curve = run.table("rd")
    means = records.groupby(["codec", "level"])[["bpp", "psnr-rgb"]].mean()
    assert len(curve) == len(means) == 2 + records[records.codec == "jpeg"].level.nunique()
    for row in curve.itertuples():
        assert row.bpp == pytest.approx(means.loc[(row.codec, float(row.level)), "bpp"], rel=1e-12)
    ranking = run.table("ranking")
    assert list(ranking.codec) == ["jpeg", "bmshj2018-hyperprior (untrained)"]
    assert ranking["BD-rate psnr-rgb (%)"][0] == 0
    assert [p.size[0] > 500 for p in run.pictures("plots")[0]] == [True, True]
    samples = run.pictures("samples")[0]
    assert len(samples) == 5
    assert samples[0].size == (3 * 80, 72), "original, decoded, JPEG at the nearest rate"
    assert run.config["quality"] == [1, 3]
    assert run.config["git"]["dirty"] is False
    assert (run.job, run.ended) == ("bench", 0)
    own = records[records.kind == "learned"]
    assert run.summary["rd/bpp"] == pytest.approx(own.bpp.mean(), rel=1e-12)
    events = events_of(out)
    text = events.Tensors("ranking/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.splitlines()[2].startswith("| 1 | jpeg | anchor | 0 |")
    assert {"plots/rd-psnr-rgb", "samples/0.png"} <= set(events.Tags()["images"])
    assert events.Scalars("rd/bpp")[0].value == pytest.approx(own.bpp.mean(), rel=1e-6)
    assert not listening, "an offline run looked for the network"


def test_csv_alone_adds_nothing_to_a_benchmark(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench(monkeypatch, project, tmp_path / "out", "quality=1")
    written = {p.name for p in (tmp_path / "out").iterdir()}
    assert not written & {"metrics.csv", "hparams.yaml", "wandb", "wandb-id", "tensorboard"}


def test_of_two_processes_the_first_tells(project: Path, tmp_path: Path, forks: None) -> None:
    run = [f"data.path={project / 'photos'}", "run=train", "quality=3", "run.batch=1", "run.crop=64", "run.workers=0", "run.log_every=1"]
    two = ["run.steps=3", "run.val_every=3", "trainer=ddp_cpu", ALL]
    code, printed = run_command([*SMALL, *run, *two, f"hydra.run.dir={tmp_path / 'out'}"], tmp_path / "log")
    assert code == 0, printed
    told = WandbRun(tmp_path / "out")
    assert [row["trainer/global_step"] for row in told.history if "train/loss" in row] == [0, 1, 2]
    assert len(told.pictures("reconstructions")) == 1
    assert [e.step for e in events_of(tmp_path / "out").Scalars("train/loss")] == [0, 1, 2]
    assert len(list((tmp_path / "out" / "tensorboard").glob("events*"))) == 1


def test_a_failed_run_says_so(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        train(monkeypatch, project, tmp_path / "out", "logger=[wandb]", "run.crop=75")
    assert WandbRun(tmp_path / "out").ended == 1


def test_clouds_are_drawn(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ["model=sfu2023-pcc-rec-pointnet", "quality=1", "data=shapes", "model.num_points=64", "threads=1"]
    run = ["run=train", "run.batch=2", "run.steps=2", "run.workers=0", "logger=[wandb]", f"hydra.run.dir={tmp_path / 'out'}"]
    call(monkeypatch, *own, *run)
    (told,) = WandbRun(tmp_path / "out").pictures("reconstructions")
    assert len(told) == 4
    assert np.asarray(told[0]).std() > 1


def test_without_tensorboard_the_extra_is_named(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        bench(monkeypatch, project, tmp_path / "out", "logger=[tensorboard]")
    assert "lc_bench[tensorboard]" in capsys.readouterr().err.splitlines()[-1]


def test_online_without_a_login_is_one_line(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(SystemExit):
        bench(monkeypatch, project, tmp_path / "out", "logger=[wandb]")
    assert "wandb sync" in capsys.readouterr().err.splitlines()[-1]


def test_disabled_writes_nothing(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    bench(monkeypatch, project, tmp_path / "out", "logger=[wandb]", "quality=1")
    assert not (tmp_path / "out" / "wandb").exists()


def test_git_state(project: Path, tmp_path: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    (project / "outputs").mkdir()
    (project / "outputs" / "new.csv").write_text("1")
    assert git_state(project) == {"commit": commit, "branch": "main", "dirty": False}
    (project / "notes.txt").write_text("changed")
    assert git_state(project / "photos")["dirty"]
    (tmp_path / "elsewhere").mkdir()
    assert git_state(tmp_path / "elsewhere") == {}
