"""Where the shared reference data is, and a cache of the tests' own."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import pytest
import torch
from forked import ROOT, forks  # noqa: F401 - a fixture

from lc_bench.__main__ import main
from lc_bench.config import compose

SHARED = Path(os.environ.get("LC_BENCH_SHARED") or ROOT.parent / "shared")
MODELS = sorted(p.stem for p in (ROOT / "conf" / "model").glob("*.yaml"))
CLOUD_MODELS = [m for m in MODELS if "-pcc-" in m]
IMAGE_MODELS = [m for m in MODELS if m not in CLOUD_MODELS]
SMALL = {"N": 8, "M": 12}
FURTHER = {"psi": 8, "groups": "[2,4,6]"}  # of some models


@functools.cache
def small(name: str) -> dict[str, object]:
    """Overrides that make a model of conf/model small; each takes the keys that it has."""
    keys = compose(f"model={name}").model
    if name in CLOUD_MODELS:
        return {k: v for k, v in {"num_points": 64, "hidden": 8, "widths": "[8,8,8,8,192]"}.items() if k in keys}
    return {k: v for k, v in {**SMALL, **FURTHER}.items() if k in keys}


torch.set_num_threads(1)  # two test processes on two cores
os.environ.setdefault("OMP_NUM_THREADS", "1")  # and what they start


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"no reference data in {SHARED} (set LC_BENCH_SHARED)")
    return SHARED


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the command."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["lc_bench", *arguments])
    main()


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """What a command says that ends with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *arguments)
    assert ended.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert all(line.startswith("lc_bench: ") for line in told), told
    return told


def two_images() -> torch.Tensor:
    """(2, 3, 72, 100) in [0, 1], smooth with texture; sides that no stride divides."""
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 72), torch.linspace(0, 5, 100), indexing="ij")
    generator = torch.Generator().manual_seed(1)
    waves = torch.stack([(rows * f).sin() * (columns * g).cos() for f, g in ((1, 2), (3, 1), (2, 5))])
    return (0.5 + 0.3 * waves + 0.05 * torch.randn(2, 3, 72, 100, generator=generator)).clamp(0, 1)


@pytest.fixture
def image() -> torch.Tensor:
    return two_images()


def two_clouds() -> torch.Tensor:
    """(2, 700, 3) on a ball and a box, in the unit sphere."""
    generator = torch.Generator().manual_seed(1)
    ball = torch.nn.functional.normalize(torch.randn(700, 3, generator=generator), dim=1)
    box = 2 * torch.rand(700, 3, generator=generator) - 1
    box[torch.arange(700), torch.arange(700) % 3] = box[torch.arange(700), torch.arange(700) % 3].sign()
    return torch.stack([ball, box / 3**0.5])


@pytest.fixture
def cloud() -> torch.Tensor:
    return two_clouds()
