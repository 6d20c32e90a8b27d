"""Clouds in reports: what the page turns, and stills."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from lc_bench.data.shapes import shapes
from lc_bench.report import write_report
from lc_bench.report.solids import MOST_CLOUDS, MOST_POINTS, draw_stills, for_page, some


def unpacked(cloud: dict) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(cloud["data"]), "<u2").reshape(-1, 3)
    return np.array(cloud["low"]) + cloud["step"] * values


def test_points_of_the_page_are_those_of_the_cloud() -> None:
    points = 50 * torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) + 1000
    packed = for_page({"a": {"original": points}})["a"]["original"]
    off = np.abs(unpacked(packed) - some(points)).max()
    assert off <= 0.51 * packed["step"]
    assert len(some(torch.rand(20_000, 3))) == MOST_POINTS
    assert np.array_equal(unpacked(for_page({"a": {"original": torch.ones(4, 3)}})["a"]["original"]), np.ones((4, 3)))


@pytest.fixture
def report(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """Of eight clouds, and the same without their lower halves as what a codec made of them."""
    originals = dict(list(shapes(points=400))[:8])
    decoded = {("codec", 3.0, name): x[x[:, 2] > 0] for name, x in originals.items()}
    rows = [
        {"codec": "codec", "kind": "learned", "level": 3.0, "version": "1", "data": "shapes", "image": name, "bpp": 1.25, "encode_s": 1.0,
         "decode_s": 1.0, "d1-psnr": 30.0, "d2-psnr": 31.0, "chamfer": 0.01} for name in originals
    ]  # fmt: skip
    write_report(pd.DataFrame(rows), tmp_path, "shapes", "draco", [], {}, [], decoded, originals)
    return tmp_path, originals


def test_page_and_stills(report: tuple[Path, dict[str, Tensor]]) -> None:
    folder, originals = report
    page = (folder / "index.html").read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    content = json.loads(found[1])
    assert 'id="solids"' in page
    assert list(content["solids"]) == list(originals)[:MOST_CLOUDS]
    for name, shown in content["solids"].items():
        assert list(shown) == ["original", "codec, 1.250 bpp, D1 30.00 dB"]
        assert len(unpacked(shown["original"])) == len(originals[name])
    assert len(found[1]) < MOST_CLOUDS * 2 * 12_000
    stills = sorted(folder.glob("cloud-*.png"))
    assert [p.name for p in stills] == sorted(f"cloud-{name}.png" for name in list(originals)[:MOST_CLOUDS])
    pixels = np.asarray(Image.open(folder / "cloud-ball.png").convert("RGB")).astype(int)
    drawn = (pixels.max(2) - pixels.min(2) > 40).astype(int)  # coloured: points, not text
    middle = drawn.shape[1] // 2
    left, right = drawn[:, :middle].sum(), drawn[:, middle:].sum()
    assert left > 1000
    assert 0.2 * left < right < 0.8 * left, "the decoded half cloud is not drawn as half a cloud"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stills_show_a_long_body_to_its_ends(axis: int, tmp_path: Path) -> None:
    """A rod with a ball at each end, at UTM coordinates: as many points are drawn at the ends as in the middle."""
    draw = torch.Generator().manual_seed(0)
    rod = torch.zeros(900, 3, dtype=torch.float64)
    rod[:, axis] = torch.linspace(-20, 20, 3).repeat_interleave(300)
    rod += 0.2 * torch.randn(900, 3, generator=draw) + torch.tensor([500_000.0, 5_400_000.0, 300.0])
    (path,) = draw_stills({"rod/a": {"original": rod}}, tmp_path)
    assert path.name == "cloud-rod-a.png"
    drawn = np.asarray(Image.open(path).convert("L"))[24:] < 230  # below the title
    rows, columns = np.nonzero(drawn)
    along = rows if np.ptp(rows) > np.ptp(columns) else columns
    ends = np.sort(along)[[0, -1]]
    thirds = np.histogram(along, 3, (ends[0], ends[1]))[0]
    assert np.ptp(ends) > 0.6 * drawn.shape[1]
    assert thirds.min() > 0.4 * thirds.max()
