"""G-PCC by a binary that stands in for tmc3: its stream is the ply file itself."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from lc_bench.bench.gpcc import PLACED, Gpcc
from lc_bench.config import compose, make
from lc_bench.data.shapes import shapes
from lc_bench.errors import UserError
from lc_bench.runs.bench import make_anchors

FAKE = """#!{python}
import shutil, sys
given = dict(word.lstrip("-").split("=") for word in sys.argv[1:])
if "fail" in given:
    sys.exit("no such profile")
if given["mode"] == "0":
    shutil.copy(given["uncompressedDataPath"], given["compressedStreamPath"])
else:
    shutil.copy(given["compressedStreamPath"], given["reconstructedDataPath"])
"""


@pytest.fixture
def binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first tmc3 in PATH."""
    file = tmp_path / "tmc3"
    file.write_text(FAKE.format(python=sys.executable))
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return file


def gpcc(**keys: object) -> Gpcc:
    return make(compose("anchor=[gpcc]").anchor.gpcc, **keys)


def test_a_cloud_is_rounded_coded_and_put_back(binary: Path) -> None:
    points = next(iter(shapes(points=200)))[1] * 7 + 100
    before = 0.0
    for level in (4, 8, 12):
        record, decoded = gpcc().measure(points, level)
        step = (points.amax(0) - points.amin(0)).max() / (2**level - 1)
        assert (decoded - points).abs().max() <= 0.501 * step + 1e-5  # float32 about 100
        header = len(b"ply\nformat binary_little_endian 1.0\nelement vertex 200\nend_header\n") + 3 * len("property float x\n")
        assert record["bytes"] == header + 12 * 200 + PLACED
        assert record["bpp"] == 8 * record["bytes"] / 200
        assert record["d1-psnr"] > before + 20
        before = record["d1-psnr"]
    assert gpcc().measure(torch.ones(5, 3), 4)[1].tolist() == torch.ones(5, 3).tolist()


def test_failures_are_told(binary: Path) -> None:
    points = torch.rand(10, 3)
    with pytest.raises(UserError, match="no such profile"):
        gpcc(encode="tmc3 --fail=1 --in={input} --out={stream}").measure(points, 4)
    with pytest.raises(UserError, match="status 0"):
        gpcc(encode="true {input} {stream}").measure(points, 4)
    with pytest.raises(UserError, match="timed out"):
        gpcc(encode="sh -c 'sleep 5' {input} {stream}", timeout=0.2).measure(points, 4)
    with pytest.raises(UserError, match="has to name {stream}"):
        gpcc(decode="tmc3 {stream}")


def test_without_a_binary_it_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "tmc3 is not there" in gpcc().missing
    with caplog.at_level(logging.WARNING):
        assert make_anchors(compose("anchor=[gpcc]")) == []
    assert "build mpeg-pcc-tmc13" in caplog.text
    with pytest.raises(UserError, match="tmc3 is not there"):
        gpcc().run("a", torch.rand(10, 3), 4)


def test_in_a_benchmark(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lc_bench.__main__ import main

    keys = ["model=sfu2024-pcc-rec-pointnet2-ssg", "model.num_points=64", "weights=none", "quality=1", "threads=1", "data=shapes"]
    run = ["anchor=[gpcc]", "run.bd_anchor=gpcc", "anchor.gpcc.levels=[4,6]", "run.images=2", f"output={tmp_path}/out"]
    monkeypatch.setattr(sys, "argv", ["lc_bench", *keys, *run, f"hydra.run.dir={tmp_path}/out"])
    main()
    records = pd.read_csv(tmp_path / "out" / "records.csv")
    assert len(records[records.codec == "gpcc"]) == 4
    assert sorted(p.name for p in (tmp_path / "out").glob("cloud-*.png")) == ["cloud-ball.png", "cloud-ring.png"]
