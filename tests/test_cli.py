"""The command line: the main path end to end, and one line for every wrong choice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import small
from PIL import Image

from lc_bench.__main__ import main

QUICK = ["weights=none", "threads=1"]
TINY = ["model.N=8", "model.M=12", *QUICK]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two small pictures of odd sizes, one too small for MS-SSIM."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, (height, width) in {"a.png": (180, 203), "b.png": (70, 90)}.items():
        ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
        Image.fromarray((ramp + generator.normal(0, 5, (height, width, 3))).clip(0, 255).astype(np.uint8)).save(folder / name)
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["lc_bench", *arguments])
    main()


@pytest.mark.parametrize("model", ["mbt2018-mean", "mbt2018-mean-gmm", "lite"])
def test_benchmark_writes_records_summary_plots_and_page(
    model: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    choice = [f"model={model}", "data=folder", f"data.path={photos}", "quality=[1,2]", f"hydra.run.dir={out}", *QUICK]
    choice += [f"model.{key}={value}" for key, value in small(model).items()]
    call(monkeypatch, *choice, "anchor=[jpeg,webp]")
    records = pd.read_csv(out / "records.csv")
    own = records[records.kind == "learned"]
    assert len(own) == 4
    assert set(own.codec) == {f"{model} (untrained)"}
    assert (own.bpp * own.width * own.height / 8 - own.bytes).abs().max() < 1e-6
    assert (own.encode_transform_s + own.encode_coding_s - own.encode_s).abs().max() < 1e-6
    assert own["ms-ssim-rgb"].isna().sum() == 2
    assert (own.encoder_kmacs_px > 0).all()
    assert set(records.codec) >= {"jpeg", "webp"}
    summary = json.loads((out / "summary" / "jpeg.json").read_text())
    assert summary["results"]["bpp"] == sorted(summary["results"]["bpp"])
    assert (out / "rd-psnr-rgb.png").read_bytes()[:4] == b"\x89PNG"
    page = (out / "index.html").read_text()
    assert "untrained" in page
    assert "http-equiv" not in page
    assert 'src="http' not in page
    assert "jpeg" in capsys.readouterr().out


def test_runs_join_into_one_report(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ["model=bmshj2018-factorized", "data=folder", f"data.path={photos}", "quality=1", *TINY]
    call(monkeypatch, *common, f"hydra.run.dir={tmp_path / 'a'}", "anchor=[jpeg]")
    call(monkeypatch, *common, "model=mbt2018-mean", f"hydra.run.dir={tmp_path / 'b'}", "run.anchors=false")
    call(monkeypatch, "run=report", f"inputs=[{tmp_path / 'a'},{tmp_path / 'b'}]", f"hydra.run.dir={tmp_path / 'c'}")
    codecs = set(pd.read_csv(tmp_path / "c" / "records.csv").codec)
    assert codecs == {"jpeg", "bmshj2018-factorized (untrained)", "mbt2018-mean (untrained)"}


def test_levels_that_lack_images_are_left_out_and_named(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ["model=bmshj2018-factorized", "data=folder", f"data.path={photos}", "quality=1", *TINY]
    call(monkeypatch, *common, f"hydra.run.dir={tmp_path / 'a'}", "anchor=[jpeg]", "run.images=1")
    call(monkeypatch, *common, f"hydra.run.dir={tmp_path / 'b'}", "anchor=[jpeg,webp]", "run.bd_anchor=webp")
    records = pd.concat(pd.read_csv(tmp_path / n / "records.csv") for n in "ab")
    records = records[(records.codec != "jpeg") | (records.image == "a.png")].drop_duplicates(["codec", "level", "image"])
    records.to_csv(tmp_path / "records.csv")
    call(monkeypatch, "run=report", f"inputs=[{tmp_path}]", "run.bd_anchor=webp", f"hydra.run.dir={tmp_path / 'c'}")
    page = (tmp_path / "c" / "index.html").read_text()
    assert "jpeg, level 5: 1 of 2 images" in page
    assert not (tmp_path / "c" / "summary" / "jpeg.json").exists()


def test_interrupted_benchmark_resumes(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = ["model=bmshj2018-factorized", "data=folder", f"data.path={photos}", "run.anchors=false", "quality=1", *TINY]
    call(monkeypatch, *choice, "run.images=1", f"hydra.run.dir={tmp_path / 'a'}")
    call(monkeypatch, *choice, f"run.resume={tmp_path / 'a'}", f"hydra.run.dir={tmp_path / 'b'}")
    first, second = (pd.read_csv(tmp_path / name / "records.csv") for name in "ab")
    assert list(second.image) == ["a.png", "b.png"]
    assert second.encode_s[0] == first.encode_s[0], "it was measured again"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=mbt"], "mbt2018-mean"),
        (["-m", "model=mbt2018,nothing"], "nothing"),
        (["data=kodac"], "kodak, .*samples"),
        (["anchor=[jpg]"], "jpeg2000"),
        (["quality=9", "weights=none"], "1..8"),
        (["quality=high"], "1..8"),
        (["quality=[0]"], "1..8"),
        (["run=train", "model=mbt2018", "quality=all", "weights=none"], "takes one"),
        (["nothing=3"], "quality"),
        (["model.K=3", "model=mbt2018"], "reference_names"),
        (["run=train", "run.step=5"], "round_from"),
        (["threads=abc"], "threads=abc: give a whole number"),
        (["seed=-1"], "seed=-1"),
        (["run.images=0", "weights=none"], "run.images=0"),
        (["run=train", "quality=1", "data=samples", "device=tpu"], "auto, cpu, cuda"),
        (["run.bd_anchor=x", "weights=none"], "jpeg2000"),
        (["run.published=[x]", "weights=none"], "kodak"),
        (["run.published=[x]", "data=folder", "data.path=.", "weights=none"], "no image|nothing is published"),
        (["device=tpu"], "auto, cpu, cuda"),
        (["rate.loss.metric=x", "run=train", "quality=1", "data=samples"], "mse, ms-ssim"),
        (["weights=/no/file", "quality=1"], "no such file"),
        (["run=report"], "inputs: give"),
        (["run.bd_interval=[9,3]", "weights=none"], "give low and high"),
        (["run=report", "inputs=[/nowhere]"], "no records.csv"),
        (["data=folder"], "data.path: has to be given"),
        (["model=mbt2018", "model.net.g_a.act=swish", "weights=none", "quality=1"], "gdn, igdn, relu"),
        (["quality=[1,"], "no viable alternative"),
    ],
)
def test_wrong_choices_are_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *arguments, f"hydra.run.dir={tmp_path}", f"hydra.sweep.dir={tmp_path}")
    told = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    assert told[-1].startswith("lc_bench: ")
    assert re.search(words, told[-1]), told
    assert len(told) == 1, told


def test_offline_says_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LC_BENCH_WEIGHTS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LC_BENCH_CACHE", str(tmp_path / "empty"))
    with pytest.raises(SystemExit):
        call(monkeypatch, "model=mbt2018", f"hydra.run.dir={tmp_path}", "run.anchors=false", "quality=1")
    assert "weights=none" in capsys.readouterr().err


def test_module_runs_from_any_folder(tmp_path: Path) -> None:
    """As a user calls it; --cfg composes without running."""
    done = subprocess.run(
        [sys.executable, "-m", "lc_bench", "model=mbt2018", "quality=3", "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "name: mbt2018" in done.stdout
