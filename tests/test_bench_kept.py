"""What a benchmark takes from before and what it leaves: resumed records, caches of anchors, samples that a codec refuses, warm-up."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, refused
from PIL import Image

import lc_bench
from lc_bench.bench import kept, learned
from lc_bench.bench.commands import Commands
from lc_bench.report.records import read_records
from lc_bench.runs import bench

TINY = ("model=bmshj2018-factorized", "model.N=8", "model.M=8", "weights=none", "quality=1", "threads=1", "data=folder")
FEW = ("anchor=[jpeg,webp]", "anchor.jpeg.levels=[30,60]", "anchor.webp.levels=[30,60]")


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(
        os.fsencode(path).decode(errors="surrogateescape")
    )


def test_records_of_another_folder_are_never_taken(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, seed in (("A", 0), ("B", 1)):
        picture(here / folder / "test" / "x" / "1.png", seed)
        picture(here / folder / "test" / "y" / "1.png", 2)  # the same in both
    call(monkeypatch, *TINY, *FEW, "data.path=A/test", "output=a")
    call(monkeypatch, *TINY, *FEW, "data.path=B/test", "output=b", "run.resume=a")
    first, second = (read_records(Path(folder)).query("kind == 'learned'").set_index("image") for folder in ("a", "b"))
    assert first.encode_s["y/1.png"] == second.encode_s["y/1.png"]  # taken
    assert first.encode_s["x/1.png"] != second.encode_s["x/1.png"]
    assert first.content["x/1.png"] != second.content["x/1.png"]
    assert "earlier records are of other samples than those of data=test" in Path("b/index.html").read_text()
    told = refused_report(monkeypatch, "inputs=[a,b]")
    assert "two data sets that are both called test (x/1.png is another sample)" in told
    old = read_records(Path("a")).drop(columns=["content", "settings"])
    Path("old").mkdir()
    old.to_csv("old/records.csv", index=False)
    call(monkeypatch, *TINY, *FEW, "data.path=A/test", "output=c", "run.resume=old")
    assert read_records(Path("c")).query("kind == 'learned'").set_index("image").encode_s["x/1.png"] != first.encode_s["x/1.png"]


def refused_report(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    from lc_bench.config import compose
    from lc_bench.errors import UserError
    from lc_bench.runs import report

    with pytest.raises(UserError) as error:
        report.main(compose("run=report", *arguments))
    return str(error.value)


def test_samples_that_a_codec_cannot_take(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(here / "set" / "a.png", 0)
    picture(here / "set" / "pixel.png", 1, (1, 1))
    picture(here / "set" / "wide.png", 2, (1, 16_390))
    picture(here / "set" / os.fsdecode(b"caf\xe9.png"), 3)
    (here / "set" / "[b] $x^{.png").write_bytes((here / "set" / "a.png").read_bytes())
    call(monkeypatch, *TINY, *FEW, "data.path=set", "output=o")
    records, page = read_records(here / "o"), (here / "o" / "index.html").read_text()
    assert records.groupby("codec").image.nunique().to_dict() == {"jpeg": 5, "webp": 4, "bmshj2018-factorized (untrained)": 5}
    assert "wide.png: webp cannot code 16390x1 pixels" in page
    assert "webp, level 30: 4 of 5 images; left out of curves and ranking" in page
    assert page.count("data:image/png;base64,") >= 2
    assert "could not be made" not in page
    assert r"caf\xe9.png" in set(records.image)


def test_a_model_that_refuses_a_sample_leaves_the_others(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in range(3):
        picture(here / "set" / f"{place}.png", place)
    true = learned.code_image

    def code_image(sender, receiver, name, pixels):  # type: ignore[no-untyped-def]
        if name in broken:
            raise learned.UserError(f"not {tuple(pixels.shape)}")
        return true(sender, receiver, name, pixels)

    monkeypatch.setattr(learned, "code_image", code_image)
    broken = {"1.png"}
    call(monkeypatch, *TINY, "anchor=[jpeg]", "anchor.jpeg.levels=[30]", "data.path=set", "output=o")
    records = read_records(here / "o")
    assert set(records[records.kind == "learned"].image) == {"0.png", "2.png"}
    assert "1.png: bmshj2018-factorized (untrained): not (3, 40, 50)" in (here / "o" / "index.html").read_text()
    broken = {"0.png", "1.png", "2.png"}
    told = refused(monkeypatch, capsys, *TINY, "anchor=[jpeg]", "anchor.jpeg.levels=[30]", "data.path=set", "output=p")
    assert "could code no sample" in told[-1]
    assert len(read_records(here / "p")) == 3

    def crash(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(learned, "code_image", crash)
    with pytest.raises(ValueError, match="a bug"):
        call(monkeypatch, *TINY, "anchor=[jpeg]", "anchor.jpeg.levels=[30]", "data.path=set", "output=q")
    assert len(read_records(here / "q")) == 3


def test_a_pass_that_is_not_timed_comes_first(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in range(2):
        picture(here / "set" / f"{place}.png", place, (300, 280))
    model, calls = lc_bench.build("mbt2018-mean", N=8, M=12), []
    true = learned.code_image

    def code_image(sender, receiver, name, pixels):  # type: ignore[no-untyped-def]
        calls.append((name, tuple(pixels.shape), len(sender.frozen._exact), len(receiver.frozen._exact)))
        return true(sender, receiver, name, pixels)

    monkeypatch.setattr(learned, "code_image", code_image)
    records = lc_bench.benchmark(model, "folder", path=str(here / "set"))
    assert [name for name, *_ in calls] == ["warm-up", "0.png", "1.png"]
    assert calls[0][1:] == ((3, 256, 256), 0, 0)
    assert all(ours > 0 and theirs > 0 for *_, ours, theirs in calls[1:])
    assert len(records) == 2
    known = records.to_dict("records")
    calls.clear()
    source = lc_bench.api.make(lc_bench.api.compose("data=folder", f"data.path={here}/set").data)
    label = str(records.codec[0])
    assert len(list(learned.run_model(model, model, source, label, 0, range(2), known))) == 2
    assert calls == []  # nothing is measured, so nothing is warmed up


def test_a_damaged_cache_is_measured_anew(tmp_path: Path) -> None:
    pixels = torch.zeros(3, 4, 5, dtype=torch.uint8)
    numbers = dict.fromkeys(kept.NUMBERS, 1.5)
    count = []

    def measure() -> dict[str, float]:
        count.append(1)
        return {**numbers, "psnr-rgb": float("inf"), "ms-ssim-rgb": float("nan")}

    first = kept.recorded(tmp_path / "c", pixels, ["x"], measure)
    assert kept.recorded(tmp_path / "c", pixels, ["x"], measure)["psnr-rgb"] == float("inf")
    assert len(count) == 1
    (file,) = (tmp_path / "c").rglob("*.json")
    whole = file.read_text()
    for damaged in (whole[: len(whole) // 2], "", "null", "[]", "{}", whole.replace('"bytes": 1.5', '"bytes": "1"'), "\xff\0", 9999 * "["):
        file.write_text(damaged, encoding="latin-1")
        before = len(count)
        assert kept.recorded(tmp_path / "c", pixels, ["x"], measure).keys() == first.keys()
        assert len(count) == before + 1
        assert file.read_text() == whole
    (tmp_path / "file").write_text("in the way")
    assert kept.recorded(tmp_path / "file", pixels, ["x"], measure)["bytes"] == 1.5  # nothing can be kept there
    assert not list(tmp_path.rglob("*.part"))


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    "wrapper",
    [
        '#!/bin/sh\nexec {real} "$@"\n',
        '#!/bin/sh\nexec "$(dirname "$0")/real" "$@"\n',
        '#!/bin/sh\nHERE="${{0%/*}}"\n"$HERE/real" "$@"\n',
        "#!/bin/sh\nexec real-in-path $1\n",
        "#!/usr/bin/env python3\nimport subprocess\nsubprocess.run(['{real}'])\n",
        "#!/usr/bin/env python3\nimport helper\nhelper.run()\n",
        '#!/bin/sh\n. "$REAL_HOME/real"\n',
        "#!/bin/sh\nexec {second}\n",
    ],
)
def test_a_binary_behind_a_wrapper_is_seen(wrapper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my tools"
    real = script(tmp_path / "bin" / "real", "\x7fELF one")
    for name in ("real", "helper.py"):
        script(folder / name, "\x7fELF one")
    script(tmp_path / "bin" / "real-in-path", "\x7fELF one")
    second = script(tmp_path / "second", f"#!/bin/sh\nexec {real}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("REAL_HOME", f"{tmp_path}/bin")
    enc = script(folder / "enc", wrapper.format(real=real, second=second))
    commands = Commands("x", f"'{enc}' {{input}} {{stream}}", f"'{enc}' {{stream}} {{output}}", 9, "")
    before = commands.fingerprint()
    assert commands.fingerprint() == before
    for path in (real, folder / "real", folder / "helper.py", tmp_path / "bin" / "real-in-path"):
        path.write_text("\x7fELF other")
    assert commands.fingerprint() != before


def test_arguments_and_versions_are_part_of_a_build(tmp_path: Path) -> None:
    enc, said = script(tmp_path / "run.py", "print(1)"), tmp_path / "said"
    said.write_text("version 1")
    lines = (f"python3 {enc} {{input}} {{stream}}", f"python3 {enc} {{stream}} {{output}}")
    plain = Commands("x", *lines, 9, "")
    asked = Commands("x", *lines, 9, "", version=f"sh -c 'cat {said}; exit 1'")
    before = plain.fingerprint(), asked.fingerprint()
    said.write_text("version 2")
    asked = Commands("x", *lines, 9, "", version=f"sh -c 'cat {said}; exit 1'")
    assert plain.fingerprint() == before[0]
    assert asked.fingerprint() != before[1]
    enc.write_text("print(2)")
    assert plain.fingerprint() != before[0]


def test_two_speeds_in_one_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(here / "set" / "a.png", 0)
    keys = ["anchor=[jpeg,avif]", "anchor.jpeg.levels=[30]", "anchor.avif.levels=[50]"]
    keys_of_fast = "name: avif, codec: avif, levels: [50], options: {speed: 10}, description: x"
    other = f"+anchor.fast={{_target_: lc_bench.bench.anchors.Anchor, {keys_of_fast}}}"
    call(monkeypatch, *TINY, *keys, other, "data.path=set", "output=o")
    assert set(read_records(here / "o").codec) >= {"avif [speed=8]", "avif [speed=10]"}
    table = pd.read_csv(here / "o" / "records.csv")
    assert json.loads(table[table.codec == "jpeg"].settings.iloc[0]) == {"codec": "jpeg"}
    with pytest.raises(bench.UserError, match="options=.*spede"):
        call_options(here)


def call_options(here: Path) -> None:
    from lc_bench.bench.anchors import Anchor

    Anchor("avif", "avif", [50], {"spede": 8}, "x", None).measure(torch.zeros(3, 8, 8, dtype=torch.uint8), 50)
