"""What a training is given: splits and validation sets, values, keys in YAML files, callbacks, and Lightning's own names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, refused
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch.optim.lr_scheduler import OneCycleLR

import lc_bench.task
from lc_bench.config import compose, conf_dir, make
from lc_bench.data import ImageSet
from lc_bench.errors import UserError
from lc_bench.runs.train import course_of, make_callbacks
from lc_bench.runs.training_data import set_of, validation_set
from lc_bench.runs.values import RULES, check_training_values, check_values, take_aliases
from lc_bench.selection import Average, Patience
from lc_bench.task import Task


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of pictures of 70 x 66: four to learn from, two beside them."""
    top = tmp_path_factory.mktemp("choices")
    generator = np.random.default_rng(3)
    for folder, count in (("photos", 4), ("held", 2)):
        (top / folder).mkdir()
        for i in range(count):
            Image.fromarray(generator.integers(0, 255, (66, 70, 3), np.uint8)).save(top / folder / f"{i}.png")
    return top


def words(photos: Path, out: Path, *more: str) -> list[str]:
    own = ["run=train", "model=bmshj2018-factorized", "model.N=4", "model.M=4", "quality=3", "data=folder"]
    run = ["run.batch=2", "run.crop=64", "run.steps=4", "run.log_every=1", "run.workers=0", "threads=1", "optimizer.lr=1e-2"]
    return [*own, f"data.path={photos / 'photos'}", *run, f"hydra.run.dir={out}", "trainer.accelerator=cpu", *more]


def validations(out: Path) -> dict[int, float]:
    table = pd.read_csv(out / "metrics.csv").dropna(subset="val/loss")
    return dict(zip(table["step"], table["val/loss"], strict=True))


@pytest.mark.parametrize(
    ("run", "name", "split"),
    [
        ("train", "clic2020-mobile", "train"),
        ("bench", "clic2020-professional", "test"),
        ("train", "div2k", "train"),
        ("bench", "div2k", "val"),
        ("train", "bsds500", "train"),
        ("bench", "bsds500", "test"),
        ("bench", "imagenet", "val"),
        ("bench", "vimeo90k", "test"),
        ("train", "kodak", "test"),
        ("train", "shapenet-part", "train"),
    ],
)
def test_a_run_has_its_split(run: str, name: str, split: str) -> None:
    assert compose(f"run={run}", f"data={name}").data.split == split


def test_a_split_can_be_asked_for_by_either_name_or_is_refused(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert compose("run=train", "data=bsds500", "run.split=train+val").data.split == "train+val"
    assert compose("run=train", "data=bsds500", "data.split=test").data.split == "test"
    (line,) = refused(monkeypatch, capsys, *words(photos, tmp_path, "run.split=val"))
    assert "has no splits" in line
    (line,) = refused(monkeypatch, capsys, "data=div2k", "run.split=dev", f"hydra.run.dir={tmp_path}", "weights=none", "quality=1")
    assert "run.split=dev" in line
    assert "train, val" in line
    with pytest.raises(Exception, match="samples has test"):
        make(compose("data=samples", "data.split=train").data)


def test_every_set_with_splits_takes_that_of_the_run() -> None:
    for file in (conf_dir() / "data").glob("*.yaml"):
        raw = OmegaConf.load(file)
        assert isinstance(raw, DictConfig)
        if "splits" in raw:
            assert "split_of" in str(raw._get_node("split")._value()), file


@pytest.mark.parametrize("model", ["bmshj2018-factorized", "sfu2023-pcc-rec-pointnet"])
def test_training_without_data_is_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = refused(monkeypatch, capsys, "run=train", f"model={model}", "quality=1", f"hydra.run.dir={tmp_path}")
    assert line.startswith("lc_bench: data: has to be given")


def sets(monkeypatch: pytest.MonkeyPatch, top: Path) -> None:
    """A bsds500 of one picture in each split."""
    monkeypatch.setenv("LC_BENCH_DATA", str(top))
    for split in ("train", "val", "test"):
        (top / "bsds500" / split).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(top / "bsds500" / split / f"{split}.jpg")


def test_what_is_validated_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets(monkeypatch, tmp_path)
    monkeypatch.chdir(photos)

    cfg = compose("run=train")

    def names(val: object) -> list[str]:
        cfg.run.val = val
        held_out = validation_set(cfg, clouds=False)
        assert isinstance(held_out, ImageSet)
        return list(held_out.names)

    assert names("bsds500") == ["val/val.jpg"]
    assert names({"data": "bsds500", "split": "test"}) == ["test/test.jpg"]
    assert names("held") == names({"path": "held"}) == names({"data": "folder", "path": "held"}) == ["0.png", "1.png"]
    for wrong, told in (
        ("folder", "run.val=folder: path has to be given"),
        ("nowhere", "Or give a folder"),
        ("", "Or give a folder"),
        ({"data": "bsds500", "pth": 3}, "run.val.pth=3"),
        ({"path": "held", "on_error": "maybe"}, "fail, skip"),
    ):
        with pytest.raises(Exception, match=told):
            names(wrong)


def test_validation_at_the_end_of_samples_that_are_trained_on_is_warned_of(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, *words(photos, tmp_path, f"run.val={photos / 'photos'}", "run.val_every=3"))
    assert list(validations(tmp_path)) == [2, 3]
    assert "4 of its 4 samples are trained on too" in capsys.readouterr().out


WRONG = {
    "run.steps": ("-1", "0", "1.5", "abc", "true", "null"),
    "run.batch": ("0",),
    "run.crop": ("-64",),
    "run.workers": ("-1",),
    "run.clip": ("0", "-1", "abc"),
    "run.log_every": ("0",),
    "run.save_every": ("0", "null"),
    "run.val_every": ("0",),
    "run.quantiser": ("foo", "null"),
    "run.round_from": ("-1",),
    "run.turn": ("up",),
    "run.compile": ("1",),
    "run.overfit": ("0",),
    "trainer.accumulate_grad_batches": ("0", "1.5"),
    "trainer.limit_val_batches": ("0", "abc"),
    "trainer.benchmark": ("3",),
    "trainer.detect_anomaly": ("7",),
    "trainer.deterministic": ("abc",),
    "seed": ("-1", "99999999999999", "0.5"),
    "threads": ("0",),
    "data.cache": ("7",),
    "data.on_error": ("maybe",),
    "optimizer.lr": ("-1", "0", "abc", "inf", "null"),
    "optimizer.weight_decay": ("-1", "abc"),
    "optimizer.betas": ("[2,3]", "[a,b]"),
    "scheduler.T_max": ("0",),
    "scheduler.eta_min": ("-1", "abc"),
    "rate.lmbda": ("-1", "0", "abc", "null", "[]", "[1,-1]"),
    "rate.loss.balance": ("abc",),
    "model.N": ("0", "-3", "abc", "1.5"),
}


def test_wrong_values_are_told(tmp_path: Path) -> None:
    """Each by its key, before anything is built."""
    base = compose("run=train", "quality=3", "model=mbt2018-mean", "data=folder", f"data.path={tmp_path}")
    OmegaConf.set_struct(base, False)
    taken = []
    for key, values in WRONG.items():
        for value in values:
            cfg = base.copy()
            OmegaConf.update(cfg, key, OmegaConf.create(f"value: {value}").value)
            try:
                check_values(cfg)
                check_training_values(cfg)
                course_of(cfg)
            except UserError as error:
                if key.split(".")[0] in str(error):
                    continue
            taken.append((key, value))
    assert not taken


def test_sizes_of_a_model_of_ones_own_are_checked() -> None:
    cfg = compose("run=train", "quality=3", "model=mbt2018-mean")
    cfg.model.name = "mine"
    for wrong in ("abc", 0, 1.5):
        cfg.model.N = wrong
        with pytest.raises(UserError, match=f"model.N={wrong}"):
            check_training_values(cfg)


def test_a_data_set_has_to_be_one() -> None:
    with pytest.raises(UserError, match="collections.OrderedDict gives OrderedDict"):
        set_of(OmegaConf.create({"_target_": "collections.OrderedDict"}))


def test_every_number_of_training_has_a_rule() -> None:
    run = compose("run=train").run
    numbers = [f"run.{k}" for k in run if isinstance(run[k], int | float) or run[k] is None]
    assert not set(numbers) - set(RULES) - {"run.val", "run.resume"}


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    cfg = compose("run=train", "run.steps=2e5")
    check_values(cfg)
    assert cfg.run.steps == 200_000
    assert isinstance(cfg.run.steps, int)


def test_lightnings_names_are_ours() -> None:
    cfg = compose("run=train", "trainer.max_steps=7", "ckpt_path=a.ckpt", "trainer.gradient_clip_val=0.5", "quality=1")
    take_aliases(cfg)
    assert (cfg.run.steps, cfg.run.resume, cfg.run.clip, cfg.scheduler.T_max) == (7, "a.ckpt", 0.5, 7)
    assert cfg.trainer.max_steps is None
    both = ["trainer.max_steps=7", "run.steps=9"]
    with pytest.raises(UserError, match="trainer.max_steps=7 and run.steps=9: two names"):
        take_aliases(compose("run=train", *both), both)
    in_a_file = compose("run=train", *both)
    take_aliases(in_a_file, both[1:])
    assert in_a_file.run.steps == 9
    with pytest.raises(Exception, match="of training"):
        take_aliases(compose("ckpt_path=a.ckpt"))


@pytest.mark.parametrize(
    ("file", "text", "more", "told"),
    [
        ("experiment/mine.yaml", "# @package _global_\nrun: {stepz: 3}", ["experiment=mine"], "run.stepz=3: not known.*steps"),
        ("experiment/mine.yaml", "# @package _global_\nqualty: 3", ["experiment=mine"], "qualty=3: not known.*quality"),
        ("experiment/mine.yaml", "# @package _global_\nrate: {lambda: 3}", ["experiment=mine"], "rate.lambda=3: not known.*lmbda"),
        ("experiment/mine.yaml", "# @package _global_\nmodel: {n: 3}", ["experiment=mine"], "model.n=3: not known.* N,"),
        ("experiment/mine.yaml", "# @package _global_\noptimizer: {lrr: 3}", ["experiment=mine"], "optimizer.*lrr"),
        ("experiment/mine.yaml", "# @package _global_\ndata: {pth: 3}", ["experiment=mine"], "pth"),
        ("experiment/mine.yaml", "# @package _global_\ntrainer: {presicion: 3}", ["experiment=mine"], "trainer.presicion=3: not known"),
        ("run/slow.yaml", "defaults: [train, _self_]\nstepz: 3", ["run=slow"], "run.stepz=3: not known.*steps"),
    ],
)
def test_a_misspelt_key_in_a_file_is_told(
    file: str,
    text: str,
    more: list[str],
    told: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(text)
    monkeypatch.setenv("LC_BENCH_CONF", str(tmp_path))
    given = [word for word in words(photos, tmp_path / "o") if not (more[0].startswith("run=") and word == "run=train")]
    (line,) = refused(monkeypatch, capsys, *given, *more)
    assert re.search(told, line), line


def test_keys_that_are_read_or_meant_are_taken(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhalf: 2\nrun: {batch: '${half}', val: {path: " + str(photos / "held") + "}}\noptimizer: {weight_decay: 0.1}"
    )
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks" / "bars.yaml").write_text("bars: {_target_: lightning.pytorch.callbacks.DeviceStatsMonitor}")
    (tmp_path / "callbacks" / "no.yaml").write_text("no: {_target_: torch.nn.ReLU}")
    (tmp_path / "callbacks" / "parts.yaml").write_text(
        "parts: {_target_: lightning.pytorch.callbacks.GradientAccumulationScheduler, scheduling: {0: 2}}"
    )
    monkeypatch.setenv("LC_BENCH_CONF", str(tmp_path))
    given = [word for word in words(photos, tmp_path / "o", "run.steps=1") if not word.startswith("run.batch")]
    call(monkeypatch, *given, "experiment=mine", "+note=mine", "callbacks=[bars]")
    assert list(validations(tmp_path / "o")) == [0]
    for name, told in (("no", "gives no Callback"), ("parts", "trainer.accumulate_grad_batches")):
        cfg = compose("run=train", f"callbacks=[{name}]")
        with pytest.raises(UserError, match=told):
            make_callbacks(cfg, has_validation=True)


def test_average_best_and_patience_survive_a_resume(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after five steps, between validations, and resumed: the same files, bit for bit. The average is what is validated and kept."""
    more = ["callbacks=[best,ema,early_stopping]", "callbacks.ema.decay=0.5", f"run.val={photos / 'held'}", "run.val_every=2"]
    more += ["scheduler=constant", "run.save_every=1"]
    call(monkeypatch, *words(photos, tmp_path / "whole", *more, "run.steps=8"))
    call(monkeypatch, *words(photos, tmp_path / "cut", *more, "run.steps=5"))
    call(monkeypatch, *words(photos, tmp_path / "cut", *more, "run.steps=8", "run.resume=auto"))
    for name in ("model.safetensors", "best.safetensors"):
        whole, cut = (load_file(tmp_path / folder / name) for folder in ("whole", "cut"))
        assert all(torch.equal(whole[key], cut[key]) for key in whole), name
    measured = validations(tmp_path / "whole")
    with safe_open(tmp_path / "whole" / "best.safetensors", "pt") as file:
        told = file.metadata()
    assert json.loads(told["value"]) == pytest.approx(min(measured.values()), rel=1e-6)
    content = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)
    result = load_file(tmp_path / "whole" / "model.safetensors")
    assert torch.equal(content["state_dict"]["model.g_a.0.weight"], result["g_a.0.weight"])
    assert not torch.equal(content["current_model_state"]["model.g_a.0.weight"], result["g_a.0.weight"])


def test_an_average_that_is_not_begun_is_the_weights_as_they_are() -> None:
    """Not those that training began with."""
    model = make(compose("model=bmshj2018-factorized", "model.N=4", "model.M=4", "quality=3").model.net)
    task = Task(model, torch.nn.Identity(), torch.optim.Adam)
    average = Average(start=100)
    average.setup(None, task, "fit")  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data += 1
    kept = task.final().state_dict()
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    checkpoint = {"state_dict": task.state_dict()}
    average.on_save_checkpoint(None, task, checkpoint)  # type: ignore[arg-type]
    assert all(torch.equal(checkpoint["state_dict"][key], value) for key, value in task.state_dict().items())


def test_a_resumed_run_may_have_more_patience() -> None:
    longer = Patience(patience=5)
    longer.load_state_dict({**Patience(patience=2).state_dict(), "wait_count": 2})
    assert (longer.patience, longer.wait_count) == (5, 2)


def test_time_that_is_over_is_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, *words(photos, tmp_path, "trainer.max_time=00:00:00:00"))
    assert "step 0 of 4: the time of trainer.max_time=00:00:00:00" in capsys.readouterr().out


def test_patience_ends_a_run_for_good(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ["callbacks=[early_stopping]", "callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=1e9"]
    more += [f"run.val={photos / 'held'}", "run.val_every=1", "run.steps=9"]
    for _ in range(2):
        call(monkeypatch, *words(photos, tmp_path, *more, "run.resume=auto"))
        assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["callbacks=[best]"], "Give run.val"),
        (["callbacks=[ema]", "callbacks.ema.decay=2"], "callbacks.ema.decay=2"),
        (["callbacks=[early_stopping]", "run.val=HELD", "callbacks.early_stopping.patience=0"], "patience=0"),
        (["callbacks=[best]", "run.val=HELD", "callbacks.best.monitor=val/x"], "val/loss"),
        (["callbacks=[nothing]"], "best, early_stopping, ema"),
        (["+trainer.max_epochs=3"], "run.steps"),
        (["+trainer.foo=3"], "trainer.foo=3: not known"),
        (["trainer.profiler=zz"], "simple"),
        (["run.val=shapes"], "holds clouds"),
        (["rate=chamfer"], "a loss of clouds"),
        (["scheduler._target_=lc_bench.task.short", "~scheduler.T_max", "~scheduler.eta_min"], "OneCycleLR at step 3"),
    ],
)
def test_wrong_callbacks_and_keys_of_the_trainer_are_told(
    more: list[str], told: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lc_bench.task, "short", lambda optimizer: OneCycleLR(optimizer, 1e-3, total_steps=2), raising=False)
    given = [word.replace("HELD", str(photos / "held")) for word in more]
    (line,) = refused(monkeypatch, capsys, *words(photos, tmp_path, *given))
    assert told in line


def test_debugging(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [word for word in words(photos, tmp_path / "fast", f"run.val={photos / 'held'}") if "steps" not in word]
    call(monkeypatch, *few, "debug=fast_dev_run")
    assert list(validations(tmp_path / "fast")) == [0, 1]
    seen: list[str] = []
    monkeypatch.setattr("lc_bench.task.Task.on_before_optimizer_step", lambda task, _: seen.append(str(task._batch.x.sum().item())))
    call(monkeypatch, *words(photos, tmp_path / "overfit", "debug=overfit"))
    assert len(seen) == 4
    assert len(set(seen)) == 1


def test_lambdas_of_levels_are_kept_with_the_weights(
    photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list of one's own trains to its end and is written down; what is no number of levels is one line."""
    variable = ["model=mbt2018-mean-vbr", "quality=all", "model.levels=2", "run.steps=1"]
    call(monkeypatch, *words(photos, here / "out", *variable, "rate.lmbda=[0.01,0.02]"))
    with safe_open(here / "out" / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["lmbda"]) == [0.01, 0.02]
    for levels in ("abc", "0", "2.5", "null"):
        told = refused(monkeypatch, capsys, *words(photos, here / "no", *variable, f"model.levels={levels}"))
        assert f"model.levels={levels}" in told[-1]
