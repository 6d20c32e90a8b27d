"""A model of a user's own: one YAML and one file beside ours. And the commands that list, check and export models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import call

import lc_bench
from lc_bench.errors import UserError

MODEL = """
defaults: [mbt2018-mean, _self_]
name: mine
published: null
net:
  g_s:
    _target_: my_layers.smooth
"""
LAYER = """
from torch import nn
from lc_bench.layers import conv_stack

def smooth(**keys):
    return nn.Sequential(conv_stack(**keys), nn.Conv2d(3, 3, 3, padding=1))
"""
SMALL = ["model.N=8", "model.M=12", "quality=3", "weights=none"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(MODEL)
    (tmp_path / "my_layers.py").write_text(LAYER)
    return tmp_path


def test_own_model_by_command(project: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "lc_bench", "--config-dir", "conf", "run=check", "model=mine", *SMALL]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mine quality 3: untrained" in done.stdout + done.stderr
    assert "codes and decodes" in done.stdout + done.stderr


def test_own_model_from_python(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_CONF", str(project / "conf"))
    monkeypatch.syspath_prepend(str(project))
    model = lc_bench.build("mine", N=8, M=12)
    x = torch.rand(1, 3, 70, 64)
    assert lc_bench.decompress(model, lc_bench.compress(model, x)).shape == x.shape
    monkeypatch.setenv("LC_BENCH_CONF", str(project / "nowhere"))
    with pytest.raises(UserError, match="no such folder"):
        lc_bench.build("mine")


def test_list_of_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("lc_bench.runs.listing.choices", lambda _: ["bmshj2018-factorized", "bmshj2018-factorized-relu"])
    monkeypatch.setenv("COLUMNS", "120")
    call(monkeypatch, "run=models")
    lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if line.startswith("│")}
    assert "3.0-7.0" in lines["bmshj2018-factorized"]  # millions of parameters, as published with N, M = 128, 192 and 192, 320
    assert "mse, ms-ssim" in lines["bmshj2018-factorized"]
    assert "ms-ssim" not in lines["bmshj2018-factorized-relu"]


def test_export_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "exported.pth.tar"
    call(monkeypatch, "run=export", "model=mbt2018-mean", *SMALL, f"run.to={target}", f"output={tmp_path}")
    call(monkeypatch, "run=check", "model=mbt2018-mean", *SMALL[:3], f"weights={target}")
    for arguments, told in (
        (["run=export", "model=mbt2018-mean", *SMALL, f"run.to={target}"], "is there already"),
        (["run=export", "model=lite", "weights=none", f"run.to={tmp_path / 'lite.pth.tar'}"], "has no such model"),
        (["run=check", "model=bmshj2018-hyperprior", *SMALL[:3], f"weights={target}"], "weights of other sizes"),
    ):
        with pytest.raises(SystemExit):
            call(monkeypatch, *arguments)
        assert told in capsys.readouterr().err


def test_costs_that_ship_are_those_of_the_models() -> None:
    """After a change of conf/model: python -m lc_bench.runs.listing."""
    from conftest import MODELS

    from lc_bench.config import conf_dir
    from lc_bench.runs import listing

    rows = json.loads(listing.SHIPPED.read_text())[listing.digest([conf_dir() / "model"])]
    assert sorted(rows) == MODELS
    assert rows["bmshj2018-factorized"] == listing.count("bmshj2018-factorized")


def test_own_models_are_counted_once_and_broken_ones_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "conf" / "model" / "broken.yaml").write_text(MODEL.replace("mine", "broken").replace("smooth", "nothing"))
    monkeypatch.setenv("LC_BENCH_CONF", str(project / "conf"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.syspath_prepend(str(project))
    sys.modules.pop("my_layers", None)
    call(monkeypatch, "run=models")
    told = capsys.readouterr()
    assert "│ mine " in told.out
    assert "│ lite " in told.out
    assert "model=broken is left out: " in told.err
    monkeypatch.setattr("lc_bench.runs.listing.count", lambda name: pytest.fail(f"{name} is counted again"))
    (project / "conf" / "model" / "broken.yaml").unlink()
    from lc_bench.runs.listing import rows_of

    with pytest.raises(pytest.fail.Exception):  # another content
        rows_of(["mine"])
    (project / "conf" / "model" / "broken.yaml").write_text(MODEL.replace("mine", "broken").replace("smooth", "nothing"))
    assert rows_of(["mine", "lite"])[0]["mine"]["qualities"] == 8


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "--version")
    assert capsys.readouterr().out.startswith(f"lc_bench {lc_bench.__version__}, torch ")
