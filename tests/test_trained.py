"""Files of weights that say what they are of: ours by path alone, checkpoints of others with their wrappers and sizes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from conftest import SMALL, call, refused
from safetensors import safe_open
from safetensors.torch import save_file

import lc_bench
from lc_bench.config import compose
from lc_bench.errors import UserError
from lc_bench.models import weights
from lc_bench.models.export import reference_state

NAME = "mbt2018-mean"
ODD = {"N": 16, "M": 24}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return lc_bench.build(NAME, seed=5, **ODD)


@pytest.fixture
def own(model: torch.nn.Module, tmp_path: Path) -> Path:
    """A file of ours, of quality 4."""
    path = tmp_path / "run" / "model.safetensors"
    weights.save(model, path, quality=4, metric="ms-ssim")
    return path


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.allclose(v, states[1][k]) for k, v in states[0].items())


def test_a_file_of_ours_is_enough(model: torch.nn.Module, own: Path) -> None:
    for loaded in (lc_bench.load(weights=own), lc_bench.load(NAME, weights=str(own)), lc_bench.load(NAME, 4, own, **ODD)):
        assert same(model, loaded)
        assert loaded.architecture == model.architecture
    with pytest.raises(UserError, match=r"model.N=32: .*N=16; leave N out"):
        lc_bench.load(NAME, weights=own, N=32)
    with pytest.raises(UserError, match="trained for quality 4"):
        lc_bench.load(NAME, quality=3, weights=own)
    with pytest.raises(UserError, match="made for mbt2018-mean"):
        lc_bench.load("mbt2018", weights=own)


def test_a_command_takes_model_metric_and_sizes_from_the_file(
    own: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "run=check", f"weights={own}")
    assert "mbt2018-mean quality 4: run/model.safetensors" in capsys.readouterr().out
    assert "model.M=32: " in refused(monkeypatch, capsys, "run=check", f"weights={own}", "model.M=32")[0]
    assert "trained for quality 4" in refused(monkeypatch, capsys, "run=check", f"weights={own}", "quality=2")[0]


def test_networks_that_were_altered_come_from_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    cfg = compose(f"model={NAME}", "quality=3", "model.N=8", "model.M=12", "model.net.g_a.act=relu", "model.net.g_s.act=relu")
    from lc_bench.api import build_from

    weights.save(build_from(cfg), path, quality=3, metric="mse")
    assert isinstance(lc_bench.load(weights=path).g_a[1], torch.nn.ReLU)


def with_architecture(own: Path, replace: dict[str, str], settings: str | None = None) -> Path:
    """A copy of the file whose metadata was altered."""
    with safe_open(own, "pt") as file:
        state, notes = {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata())  # noqa: SIM118
    for old, new in replace.items():
        assert old in notes["architecture"]
        notes["architecture"] = notes["architecture"].replace(old, new)
    notes["settings"] = notes["settings"] if settings is None else settings
    path = own.with_name("altered.safetensors")
    save_file(state, path, notes)
    return path


@pytest.mark.parametrize("target", ["os.system", "lc_bench.models.weights.save"])
def test_a_file_does_not_choose_what_is_called(target: str, own: Path) -> None:
    altered = with_architecture(own, {"lc_bench.layers.conv_stack": target})
    with pytest.raises(UserError, match=f"made by {target}"):
        lc_bench.load(weights=altered)


@pytest.mark.parametrize("settings", ["{", '{"N": "${oc.env:HOME}"}'])
def test_settings_of_a_file_are_plain_values(settings: str, own: Path) -> None:
    with pytest.raises(UserError, match=r"altered.safetensors: what it says of its sizes"):
        lc_bench.load(weights=with_architecture(own, {}, settings))


def test_files_without_settings_are_read_by_their_networks(model: torch.nn.Module, own: Path) -> None:
    """As they were written before sizes were kept."""
    assert same(model, lc_bench.load(weights=with_architecture(own, {}, "{}")))


def test_a_checkpoint_of_training_is_enough(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    photos = here / "photos"
    photos.mkdir()
    from PIL import Image

    Image.new("RGB", (80, 70), (90, 120, 40)).save(photos / "a.png")
    train = ["run=train", f"model={NAME}", "quality=2", "data=folder", f"data.path={photos}", "logger=[]", "threads=1"]
    brief = ["run.steps=1", "run.batch=1", "run.crop=64", "run.workers=0", f"output={here / 'run'}"]
    call(monkeypatch, *train, *brief, "model.N=16", "model.M=24")
    ended = lc_bench.load(weights=here / "run" / "model.safetensors")
    assert same(ended, lc_bench.load(weights=here / "run" / "last.ckpt"))
    # Training goes on from the file alone, with its sizes.
    call(monkeypatch, *train[:1], "quality=2", *train[3:], *brief[:-1], f"output={here / 'more'}", f"weights={here / 'run' / 'last.ckpt'}")
    assert lc_bench.load(weights=here / "more" / "model.safetensors").settings["N"] == 16


def held(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    ("holder", "prefix"),
    [
        (None, ""),
        ("state_dict", "model."),
        ("model", "module."),
        ("model_state_dict", "_orig_mod.module."),
        ("network", "model.module."),
    ],
)
def test_checkpoints_of_others_whatever_they_are_wrapped_in(holder: str | None, prefix: str, tmp_path: Path) -> None:
    """N and M come from the shapes: 16 and 24 where quality 3 has 128 and 192."""
    model = lc_bench.build(NAME, seed=6, **ODD)
    state = held(reference_state(model), prefix)
    whole = state if holder is None else {"epoch": 3, "args": argparse.Namespace(lr=1e-4), "optimizer": {"state": {}}, holder: state}
    torch.save(whole, tmp_path / "theirs.pth.tar")
    loaded = lc_bench.load(NAME, weights=tmp_path / "theirs.pth.tar")
    assert same(model, loaded)
    assert (loaded.settings["N"], loaded.settings["M"]) == (16, 24)
    assert same(model, _loaded_by_hand(whole))


def _loaded_by_hand(whole: dict[str, object]) -> torch.nn.Module:
    into = lc_bench.build(NAME, **ODD)
    lc_bench.load_reference_state(into, whole)  # type: ignore[arg-type]
    return into


@pytest.mark.parametrize("name", ["cheng2020-anchor", "mbt2018-mean-vbr"])
def test_sizes_of_every_kind_of_model(name: str, tmp_path: Path) -> None:
    keys = {key: value for key, value in ODD.items() if key in compose(f"model={name}").model}
    model = lc_bench.build(name, seed=6, **keys)
    save_file({key: value.contiguous() for key, value in reference_state(model).items()}, tmp_path / "theirs.safetensors")
    loaded = lc_bench.load(name, quality=1, weights=tmp_path / "theirs.safetensors")
    assert same(model, loaded)
    assert {key: loaded.settings[key] for key in keys} == keys


def test_networks_beside_the_model_are_left_out(tmp_path: Path, model: torch.nn.Module) -> None:
    state = held(reference_state(model), "model.") | {f"loss.vgg.{i}.weight": torch.zeros(2) for i in range(400)}
    torch.save({"state_dict": state}, tmp_path / "theirs.ckpt")
    assert same(model, lc_bench.load(NAME, weights=tmp_path / "theirs.ckpt"))


def test_what_does_not_fit_is_told_with_its_file_and_shapes(tmp_path: Path, model: torch.nn.Module) -> None:
    path = tmp_path / "theirs.pth.tar"
    state = reference_state(model)
    torch.save({"state_dict": state | {"h_s.4.weight": torch.zeros(48, 36, 1, 1)}}, path)
    with pytest.raises(UserError, match=r"theirs.pth.tar: .*h_s.4.weight is \(48, 36, 1, 1\), expected \(48, 36, 3, 3\)"):
        lc_bench.load(NAME, weights=path)
    with pytest.raises(UserError, match=r"theirs.pth.tar: .*g_a.0.weight is \(16, 3, 5, 5\), expected \(8, 3, 5, 5\)"):
        lc_bench.load(NAME, weights=path, **SMALL)
    with pytest.raises(UserError, match=r"theirs.pth.tar: not a state of mbt2018: missing \['codec.y.context"):
        lc_bench.load("mbt2018", weights=path)
    torch.save({"epoch": 3, "lr": 0.1}, path)
    with pytest.raises(UserError, match=r"no state dict in it.*model_state_dict.*'epoch', 'lr'"):
        lc_bench.load(NAME, weights=path)
    own = tmp_path / "own.safetensors"
    weights.save(model, own)
    with pytest.raises(UserError, match=r"own.safetensors: .*codec.h_a.0.weight is \(16, 24, 3, 3\), expected \(8, 12, 3, 3\)"):
        weights.load_file(lc_bench.build(NAME, **SMALL), own)


def test_what_a_file_says_of_itself(own: Path) -> None:
    notes = weights.read_metadata(own)
    assert (notes["model"], notes["quality"], notes["metric"]) == (NAME, "4", "ms-ssim")
    assert json.loads(notes["settings"]) == ODD
