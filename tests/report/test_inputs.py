"""What reports are made from: folders, sweeps, patterns, labels, curves of others; pictures that runs left; intervals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from lc_bench.errors import UserError
from lc_bench.report.inputs import gather, joined, read_curve
from lc_bench.report.pictures import load, save
from lc_bench.report.ranking import intervals, rank, with_anchor
from lc_bench.report.records import curve_of, curves_of, stamps_of


def table(codec: str = "mine", factor: float = 1.0, data: str = "kodak", **more: object) -> pd.DataFrame:
    rows = [
        {"codec": codec, "kind": "learned", "level": level, "version": "1", "data": data, "image": "a.png", "content": "5a",
         "bpp": factor * 0.1 * 2**level,
         "bytes": 10, "psnr-rgb": 28.0 + 2 * level, "ms-ssim-rgb": 0.9, "encode_s": 1.0, "decode_s": 1.0, **more}
        for level in range(5)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def put(records: pd.DataFrame, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    records.to_csv(folder / "records.csv", index=False)
    return folder


def test_folders_sweeps_patterns_and_files(tmp_path: Path) -> None:
    for codec in "ab":
        put(table(codec), tmp_path / "sweep" / codec)
    assert [set(t.codec) for t in gather(str(tmp_path / "sweep")).tables] == [{"a"}, {"b"}]
    assert len(gather([str(tmp_path / "*" / "b")]).tables) == 1
    assert len(gather([str(tmp_path / "sweep" / "a" / "records.csv")]).tables) == 1
    put(pd.concat([table("a"), table("b")]), tmp_path / "sweep")  # its joint report: jobs do not count twice
    found = gather([str(tmp_path / "sweep")])
    assert len(found.tables) == 1
    assert len(joined(found)[0]) == 10
    for given, words in (("nowhere", "no records.csv"), ("no*where", "nothing matches"), (str(tmp_path / "empty"), "nor below it")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=words):
            gather([given])


def test_equal_codecs_keep_the_last_and_say_so_or_are_told_apart(tmp_path: Path) -> None:
    old, new = put(table(factor=2), tmp_path / "old"), put(table(bytes=9), tmp_path / "new")
    records, notes = joined(gather([str(old), str(new)]))
    assert len(records) == 5
    assert set(records.bytes) == {9}
    assert len(notes) == 1
    assert "mine: inputs differ in 5 records" in notes[0]
    assert joined(gather([str(old), str(old)]))[1] == []
    records, notes = joined(gather({"old": str(old), "new": str(new)}))
    assert set(records.codec) == {"mine [old]", "mine [new]"}
    assert notes == []


def test_curves_of_others_are_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "theirs.json"
    results = {"bpp": [0.4, 0.1, 0.2], "psnr-rgb": [34, 30, None], "encoding_time": [1, 2, 3]}
    file.write_text(json.dumps({"name": "theirs", "description": "of a paper", "results": results}))
    curve = gather([str(file)]).curves[0]
    assert (curve.name, curve.kind, curve.bpp) == ("theirs (published)", "published", [0.1, 0.2, 0.4])
    assert curve.values["psnr-rgb"][::2] == [30, 34]
    assert math.isnan(curve.values["psnr-rgb"][1])
    assert curve.encode_s == [2, 3, 1]
    with pytest.raises(UserError, match="curves alone"):
        joined(gather([str(file)]))
    for bad in ("{", "[]", '{"results": {"bpp": [1], "psnr-rgb": [1, 2]}}', '{"results": {"bpp": ["x"]}}', '{"results": {"bpp": [null]}}'):
        file.write_text(bad)
        with pytest.raises(UserError, match="not a curve"):
            read_curve(file)


def test_any_curve_is_an_anchor() -> None:
    curves = curves_of(table(factor=0.5))
    theirs = curve_of("theirs (published)", "", {"bpp": [0.1, 0.2, 0.4, 0.8, 1.6], "psnr-rgb": [28, 30, 32, 34, 36]})
    for name in ("theirs", "theirs (published)"):
        ranks = rank([*curves, theirs], name)
        assert [r.curve.name for r in ranks] == ["mine", "theirs (published)"]
        assert ranks[0].bd["psnr-rgb"][0] == pytest.approx(-50)
    assert with_anchor(["hm"], "vtm", ["mine"], "kodak") == ["hm", "vtm"]
    assert with_anchor([], "vtm", ["vtm"], "kodak") == []


def test_intervals_are_declared_and_kept() -> None:
    metrics = ("psnr-rgb", "ms-ssim-rgb")
    assert intervals(None, metrics) == {}
    assert intervals([28, 34], metrics) == {"psnr-rgb": (28, 34)}
    assert intervals({"ms-ssim-rgb": [10, 12.5]}, metrics) == {"ms-ssim-rgb": (10, 12.5)}
    for wrong in ([34, 28], 28, [28], ["a", "b"], {"bpp": [0, 1]}, "ab"):
        with pytest.raises(UserError, match="give low and high"):
            intervals(wrong, metrics)
    with pytest.raises(UserError, match="psnr-rgb, ms-ssim-rgb, bpp"):
        intervals({"ssim": [1, 2]}, metrics)
    base, own = curves_of(table("base"))[0], curves_of(table("own", 0.5))[0]
    deltas = {r.curve.name: r for r in rank([base, own], "base", {"bpp": (0.2, 0.8)})}
    assert deltas["own"].bd["psnr-rgb"] == (pytest.approx(-50), "30.00 .. 34.00")  # where the anchor has those rates
    assert deltas["own"].quality == (pytest.approx(2), "0.200 .. 0.800")
    outside = {r.curve.name: r for r in rank([base, own], "base", {"psnr-rgb": (20, 34)})}
    assert math.isnan(outside["own"].bd["psnr-rgb"][0])
    assert "not 20.00 .. 34.00" in outside["own"].bd["psnr-rgb"][1]


def test_pictures_come_back_from_a_folder(tmp_path: Path) -> None:
    image, cloud = torch.full((3, 8, 9), 77, dtype=torch.uint8), torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    save(tmp_path / "run", {("a/b, c", 2.5, "x/y.png"): image}, {"x/y.png": image})
    decoded, originals = load(tmp_path / "run")
    assert list(decoded) == [("a/b, c", 2.5, "x/y.png")]
    assert originals["x/y.png"][:4] == b"RIFF"
    save(tmp_path / "again", decoded, originals)
    assert load(tmp_path / "again") == (decoded, originals)
    save(tmp_path / "clouds", {}, {"c": cloud})
    points = load(tmp_path / "clouds")[1]["c"]
    assert torch.equal(points[points[:, 0].argsort()], cloud[cloud[:, 0].argsort()])
    assert load(tmp_path / "nothing") == ({}, {})
    (tmp_path / "run" / "pictures" / "index.json").write_text('[{"codec": 1}]')
    with pytest.raises(UserError, match="pictures cannot be read"):
        load(tmp_path / "run")


def test_stamps() -> None:
    assert stamps_of(table()) == ("not recorded",)
    both = pd.concat([table(machine="CPU x, 1 of 2 threads", torch="2.1"), table()])
    assert stamps_of(both) == ("CPU x, 1 of 2 threads, torch 2.1", "not recorded")
