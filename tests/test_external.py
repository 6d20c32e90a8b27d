"""Codecs that are programs of the user's own, by stand-ins that really store what they are given."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lc_bench.bench.external import External, to_rgb, to_ycbcr
from lc_bench.config import compose, make
from lc_bench.errors import UserError
from lc_bench.runs.bench import make_anchors

# Stores (input // level * level) of what lies in the planes; counts its calls; one program for both directions.
FAKE = """#!{python}
import pathlib, sys, zlib
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(sys.argv[0] + ".calls", "a") as calls:
    calls.write("x")
if given.get("-q") == "99":
    sys.exit("first\\nsecond\\nno such QP")
if "-i" in given:
    data = pathlib.Path(given["-i"]).read_bytes()
    pathlib.Path(given["-b"]).write_bytes(zlib.compress(data))
else:
    data = zlib.decompress(pathlib.Path(given["-b"]).read_bytes())
    pathlib.Path(given["-o"]).write_bytes(data[: len(data) - int(given.get("--cut", 0))])
"""
ANCHORS = ("vtm", "hm", "bpg", "hevc-ffmpeg", "av1-ffmpeg")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "a folder" / "codec"
    file.parent.mkdir()
    file.write_text(FAKE.format(python=sys.executable))
    file.chmod(0o755)
    return file


def external(program: Path, **keys: object) -> External:
    lines = {"encode": f"'{program}' -q {{level}} -i {{input}} -b {{stream}}", "decode": f"'{program}' -b {{stream}} -o {{output}}"}
    return make(compose("anchor=[bpg]").anchor.bpg, **{**lines, **keys})


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (3, 50, 71), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def calls(program: Path) -> int:
    return len(Path(f"{program}.calls").read_text())


def test_planes_are_bt709_and_come_back(pixels: torch.Tensor) -> None:
    grey = torch.full((3, 2, 2), 128, dtype=torch.uint8)
    assert to_ycbcr(grey, 8)[:, 0, 0].tolist() == [128, 128, 128]
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    assert to_ycbcr(red, 10)[:, 0, 0].tolist() == [round(0.2126 * 1023), round((0.5 - 0.2126 / 1.8556) * 1023), 1023]
    every = torch.cartesian_prod(*3 * [torch.arange(0, 256, 15, dtype=torch.uint8)]).T[:, None]
    for depth, worst in ((8, 1), (10, 0), (12, 0)):  # of 255: what rounding of planes costs
        assert (to_rgb(to_ycbcr(every, depth), depth).int() - every.int()).abs().max() == worst
    assert to_ycbcr(pixels, 10).dtype.str == "<u2"


@pytest.mark.parametrize(("picture", "depth", "worst"), [("png", 8, 0), ("ycbcr444", 10, 0), ("ycbcr444", 8, 1)])
def test_a_picture_is_coded_and_comes_back(picture: str, depth: int, worst: int, program: Path, pixels: torch.Tensor) -> None:
    codec = external(program, picture=picture, depth=depth)
    record, decoded = codec.measure(pixels, 30)
    assert (decoded.int() - pixels.int()).abs().max() <= worst
    assert record["bpp"] == 8 * record["bytes"] / (50 * 71)
    assert record["bytes"] > 1000
    assert (record["width"], record["height"]) == (71, 50)
    assert record["encode_s"] > 0


def test_results_are_kept_by_content_settings_and_build(program: Path, pixels: torch.Tensor, tmp_path: Path) -> None:
    first = external(program, cache=tmp_path / "cache").run("a", pixels, 30)
    assert "threads" in first["machine"]
    assert calls(program) == 2
    again = external(program, cache=tmp_path / "cache").run("b", pixels, 30)
    assert again["encode_s"] == first["encode_s"]
    assert again["image"] == "b"
    assert calls(program) == 2
    for change in ({}, {"depth": 10, "picture": "ycbcr444"}):
        external(program, cache=tmp_path / "cache", **change).run("a", pixels, 31)
    assert calls(program) == 6
    program.write_text(program.read_text() + "\n# another build")
    external(program, cache=tmp_path / "cache").run("a", pixels, 30)
    assert calls(program) == 8


def test_failures_are_told(program: Path, pixels: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"codec' -q 99 .* status 1 and said: first \| second \| no such QP"):
        external(program).measure(pixels, 99)
    with pytest.raises(UserError, match="timed out"):
        external(program, encode="sh -c 'sleep 5' {input} {stream}", timeout=0.2).measure(pixels, 30)
    with pytest.raises(UserError, match="not 21300 of ycbcr444 planes of 10 bits, 71x50"):
        short = f"'{program}' -b {{stream}} -o {{output}} --cut 2"
        external(program, picture="ycbcr444", depth=10, decode=short).measure(pixels, 30)
    with pytest.raises(UserError, match="cfg.* is not known; .*{level}"):
        external(program, encode=f"'{program}' -c {{cfg}} -i {{input}} -b {{stream}}").measure(pixels, 30)
    with pytest.raises(UserError, match="has to name {stream}"):
        external(program, decode="codec {output}")
    with pytest.raises(UserError, match="png, ycbcr444"):
        external(program, picture="jpg")
    with pytest.raises(UserError, match="8 to 16 bits"):
        external(program, depth=10)


def test_what_is_absent_is_left_out_with_the_reason(
    program: Path, pixels: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with caplog.at_level(logging.WARNING):
        assert [a.name for a in make_anchors(compose(f"anchor=[jpeg,{','.join(ANCHORS)}]"))] == ["jpeg"]
    for word in (
        "EncoderAppStatic",
        "TAppDecoderStatic",
        "bpgenc and bpgdec is not there",
        "ffmpeg with libx265",
        "anchor.vtm.files.cfg (null)",
    ):
        assert word in caplog.text
    absent = external(program, files={"cfg": str(tmp_path / "none.cfg")})
    assert "none.cfg) is not there" in absent.missing
    with pytest.raises(UserError, match="none.cfg"):
        absent.run("a", pixels, 30)


def test_in_a_benchmark(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lc_bench.__main__ import main

    for name in ("EncoderAppStatic", "DecoderAppStatic"):
        fake = tmp_path / "bin" / name
        fake.parent.mkdir(exist_ok=True)
        # The stand-in reads -i, -b, -o: what else VTM is told is dropped here.
        fake.write_text(FAKE.format(python=sys.executable).replace('given.get("-q")', '""').replace('"-i" in given', name[0] + " == E"))
        fake.write_text(fake.read_text().replace("E == E", "True").replace("D == E", "False"))
        fake.chmod(0o755)
    (tmp_path / "intra.cfg").write_text("QP : 32")
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 70, 3), np.uint8)).save(tmp_path / "photos" / "a.png")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    keys = ["model=bmshj2018-factorized", "model.N=8", "model.M=12", "weights=none", "quality=1", "threads=1", "data=folder"]
    run = [f"data.path={tmp_path}/photos", "anchor=[jpeg,vtm]", f"anchor.vtm.files.cfg={tmp_path}/intra.cfg", "anchor.vtm.levels=[22,27]"]
    monkeypatch.setattr(sys, "argv", ["lc_bench", *keys, *run, "run.bd_interval=[20,30]", f"hydra.run.dir={tmp_path}/out"])
    main()
    records = pd.read_csv(tmp_path / "out" / "records.csv")
    assert len(records[records.codec == "vtm"]) == 2
    assert np.isinf(records[records.codec == "vtm"]["psnr-rgb"]).all()  # planes of 10 bits lose nothing, and are stored as they are
    assert records.machine.notna().all()
    assert "PSNR: 20 to 30 dB" in (tmp_path / "out" / "index.html").read_text()
    assert (tmp_path / "out" / "pictures" / "index.json").is_file()
