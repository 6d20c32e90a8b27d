"""Which samples and settings records are of: sets of one name, renamed and repeated samples, two speeds of one codec."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from lc_bench.data.identity import content_of
from lc_bench.errors import UserError
from lc_bench.report.identity import labels, sets_of
from lc_bench.report.inputs import gather, joined
from lc_bench.report.records import read_records, write_records
from lc_bench.runs.sweep import Status
from lc_bench.runs.sweep_end import report_benchmarks


def rows(codec: str, samples: dict[str, str], data: str = "test", kind: str = "learned", **more: object) -> pd.DataFrame:
    """Records of five levels of a codec on samples, which are contents by name."""
    return pd.DataFrame(
        {"codec": codec, "kind": kind, "level": level, "weights": "untrained", "version": "1", "data": data, "image": image,
         "content": content,
         "width": 9, "height": 9, "bytes": 9, "bpp": 0.1 * 2**level, "psnr-rgb": 28.0 + level, "ms-ssim-rgb": 0.9, "encode_s": 1.0,
         "decode_s": 1.0, **more}
        for image, content in samples.items() for level in range(5)
    )  # fmt: skip


def put(table: pd.DataFrame, folder: Path) -> str:
    folder.mkdir(parents=True)
    write_records(table, folder / "records.csv")
    return str(folder)


def test_content_is_of_pixels_type_and_shape() -> None:
    pixels = torch.arange(24, dtype=torch.uint8).view(3, 2, 4)
    assert content_of(pixels) == content_of(pixels.clone())
    assert content_of(pixels.transpose(1, 2)) == content_of(pixels.transpose(1, 2).contiguous())
    changed = pixels.clone()
    changed[2, 1, 3] += 1
    assert len({content_of(x) for x in (pixels, changed, pixels.view(3, 4, 2), pixels.float())}) == 4


def test_words_stay_words(tmp_path: Path) -> None:
    """Names and digests that look like numbers, dates of nothing, or missing values."""
    names = {"1.0": "0012345678901234", "NA": "12e4567890123456", "null": "1111111111111111", 'a,"b"\n.png': "2222222222222222"}
    put(rows("007", names, data="2024"), tmp_path / "run")
    table = read_records(tmp_path / "run")
    assert dict(zip(table.image, table.content, strict=True)) == names
    assert set(table.codec) == {"007"}
    assert set(table.data) == {"2024"}
    assert set(table.weights) == {"untrained"}


def test_sets_of_one_name_are_not_joined(tmp_path: Path) -> None:
    a = put(rows("x", {"1.png": "aa", "2.png": "bb"}), tmp_path / "a")
    other = put(rows("y", {"1.png": "cc", "2.png": "bb"}), tmp_path / "other")
    disjoint = put(rows("y", {"3.png": "cc"}), tmp_path / "disjoint")
    for given in ([a, other], [other, a], [a, disjoint]):
        with pytest.raises(UserError, match="two data sets that are both called test"):
            joined(gather(given))
    part = put(rows("y", {"2.png": "bb"}), tmp_path / "part")  # an interrupted run, or run.images
    assert len(joined(gather([part, a]))[0]) == 15
    both = put(pd.concat([rows("x", {"1.png": "aa"}), rows("y", {"1.png": "cc"})]), tmp_path / "both")
    with pytest.raises(UserError, match=r"1\.png stands for different samples"):
        joined(gather(both))


def test_equal_base_names_and_repeated_images_are_samples_of_their_own(tmp_path: Path) -> None:
    samples = {"a/1.png": "aa", "b/1.png": "bb", "c/1.png": "aa"}
    run = put(rows("x", samples), tmp_path / "run")
    records, notes = joined(gather([run, run]))
    assert len(records) == 15
    assert notes == []
    (only,) = sets_of([records])
    assert only.samples == samples
    (renamed,) = sets_of([rows("x", {"z": "aa", "y": "aa", "x": "bb"})])
    assert renamed.digits == only.digits != sets_of([rows("x", {"a/1.png": "aa", "b/1.png": "bb"})])[0].digits


def test_records_of_earlier_versions_join_with_a_note(tmp_path: Path) -> None:
    new = put(rows("x", {"1.png": "aa"}), tmp_path / "new")
    old = put(rows("y", {"1.png": "aa"}).drop(columns="content"), tmp_path / "old")
    records, notes = joined(gather([old, new]))
    assert len(records) == 10
    assert len(notes) == 1
    assert "old/records.csv: written by an earlier version" in notes[0]


def test_a_sweep_over_folders_of_one_name_reports_each(tmp_path: Path) -> None:
    sets = {"a": {"1.png": "aa"}, "b": {"1.png": "bb"}, "c": {"1.png": "aa"}}
    statuses = {}
    for job, samples in sets.items():
        output = put(rows("x" if job < "c" else "z", samples), tmp_path / job)
        words = [f"data.path={job}/test"]
        statuses[job] = Status("ok", overrides=words, run="bench", output=output, settings={"bd_anchor": "jpeg"})
    reports = report_benchmarks(tmp_path, statuses)
    assert len(reports) == 2
    contents = [read_records(page.parent).groupby("codec").content.unique().map(list).to_dict() for page in reports]
    assert contents == [{"x": ["aa"], "z": ["aa"]}, {"x": ["bb"]}]
    assert all(page.parent.name.startswith("test-") for page in reports)
    assert "several data sets are called test" in reports[0].read_text()


def test_two_speeds_of_one_codec_are_two_curves(tmp_path: Path) -> None:
    folders = []
    for speed in (1, 9):
        settings = json.dumps({"codec": "avif", "speed": speed})
        folders.append(put(rows("avif", {"1.png": "aa"}, kind="anchor", settings=settings), tmp_path / f"s{speed}"))
    found = gather(folders)
    records, notes = joined(found)
    assert list(records.codec.unique()) == ["avif [speed=1]", "avif [speed=9]"]
    assert notes == []
    assert found.names == [{"avif": "avif [speed=1]"}, {"avif": "avif [speed=9]"}]
    old = put(rows("avif", {"1.png": "aa"}, kind="anchor"), tmp_path / "old")
    assert set(joined(gather([folders[0], old]))[0].codec) == {"avif"}  # it may be the same
    assert "avif [settings not recorded]" in set(joined(gather([*folders, old]))[0].codec)
    lines = [json.dumps({"encode": f"cjxl -e {effort} {{input}} {{stream}}", "depth": 8}) for effort in (3, 7)]
    assert labels(lines) == {lines[0]: "3", lines[1]: "7", "": "settings not recorded"}
