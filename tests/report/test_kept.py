"""A report loses nothing: values that are not finite, rates of 0, codecs that refuse a sample, parts that fail, links, odd names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from lc_bench.errors import UserError
from lc_bench.metrics import bd_quality, bd_rate
from lc_bench.report import pictures, write, write_report
from lc_bench.report.inputs import gather, read_curve
from lc_bench.report.pictures import load, prepared, save
from lc_bench.report.ranking import rank
from lc_bench.report.records import curve_of, curves_of, notes_of, read_records

IMAGES = ("a.png", "b.png", "c.png")


def table(codec: str = "mine", psnr: dict[tuple[str, int], float] | None = None, **more: object) -> pd.DataFrame:
    """Five levels on three images; psnr: values by image and level in place of the usual ones."""
    return pd.DataFrame(
        {"codec": codec, "kind": "anchor", "level": level, "version": "1", "data": "three", "image": image, "content": image, "width": 9,
         "height": 9, "bytes": 9, "bpp": 0.1 * 2**level, "psnr-rgb": (psnr or {}).get((image, level), 28.0 + 2 * level + place),
         "ms-ssim-rgb": 0.9, "encode_s": 1.0, "decode_s": 1.0, **more}
        for place, image in enumerate(IMAGES) for level in range(5)
    )  # fmt: skip


def test_one_sample_without_loss_erases_no_curve(tmp_path: Path) -> None:
    # c.png is without loss at the two highest levels; nothing is lost at the highest of the other codec.
    some = table("some", {("c.png", 3): math.inf, ("c.png", 4): math.inf})
    last = table("last", {(image, 4): math.inf for image in IMAGES})
    known = {c.name: c for c in curves_of(pd.concat([some, last]))}
    assert known["some"].values["psnr-rgb"] == [28.5 + 2 * level for level in range(5)]  # of a and b, at every level
    assert known["last"].values["psnr-rgb"][:4] == [29 + 2 * level for level in range(4)]
    assert math.isnan(known["last"].values["psnr-rgb"][4])
    base = curves_of(table("base"))[0]
    for entry in rank([base, *known.values()], "base"):
        assert math.isfinite(entry.bd["psnr-rgb"][0]), entry.bd
        assert math.isfinite(entry.quality[0])
    write_report(pd.concat([some, last, table("base")]), tmp_path, "three", "base", [], {}, [])
    page = (tmp_path / "index.html").read_text()
    assert "PSNR: 1 of 3 samples is left out of the means of some" in page
    assert "PSNR of last has no finite value at level 4" in page
    # Each is without loss at another level: no sample is left for all levels, so that each level takes what it has.
    apart = curves_of(table("apart", {(image, place): math.inf for place, image in enumerate(IMAGES)}))[0]
    assert all(map(math.isfinite, apart.values["psnr-rgb"]))
    assert apart.left_out["psnr-rgb"] == 3
    nothing = curves_of(table("exact", {(image, level): math.inf for image in IMAGES for level in range(5)}))[0]
    assert notes_of([nothing]) == [
        "PSNR of exact has no finite value at any level (no loss, or not defined for such samples); no points there"
    ]


def test_a_rate_of_zero_is_left_out_of_bd_rates(tmp_path: Path) -> None:
    rate, quality = [0.1, 0.2, 0.4, 0.8], [28.0, 30.0, 32.0, 34.0]
    for bd in (bd_rate, bd_quality):
        expected = bd(rate, quality, [r / 2 for r in rate], quality)
        assert bd([0.0, *rate], [20.0, *quality], [0.0, *(r / 2 for r in rate)], [20.0, *quality]) == expected
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps({"name": "theirs", "results": {"bpp": [0, *rate], "psnr-rgb": [20, *quality]}}))
    theirs = read_curve(file)
    ranks = rank([*curves_of(table()), theirs], "theirs (published)", {"bpp": (0.2, 0.8)})
    assert all(math.isfinite(r.bd["psnr-rgb"][0]) for r in ranks)
    assert notes_of([theirs]) == ["theirs (published): 1 of 5 points have rate 0; BD-rate and BD-PSNR are without them"]
    for wrong in ("NaN", "-1", "Infinity", "1" + 400 * "0"):
        file.write_text(f'{{"results": {{"bpp": [{wrong}], "psnr-rgb": [30]}}}}')
        with pytest.raises(UserError, match="not a curve"):
            read_curve(file)
    records = table()
    records.loc[records.level == 0, "bpp"] = 0.0
    records.loc[records.level == 1, "bpp"] = math.nan
    write_report(records, tmp_path / "out", "three", "mine", [], {}, [])
    page = (tmp_path / "out" / "index.html").read_text()
    assert "mine: 1 of 4 points have rate 0" in page
    assert "mine: 3 records without a rate are left out" in page
    records.astype({"bpp": object}).replace({"bpp": {0.4: "much"}}).to_csv(tmp_path / "words.csv", index=False)
    with pytest.raises(UserError, match="column bpp has .*, which is no number"):
        read_records(tmp_path / "words.csv")


def test_pictures_that_webp_cannot_hold(tmp_path: Path) -> None:
    shapes = {"pixel": (1, 1), "row": (1, 70), "wide": (2, 17_000), "high": (17_000, 1)}
    originals = {name: torch.full((3, *shape), 77, dtype=torch.uint8) for name, shape in shapes.items()}
    decoded, own, notes = prepared({("x", 1.0, name): pixels for name, pixels in originals.items()}, originals)
    assert notes == []
    save(tmp_path, decoded, own)
    again = load(tmp_path)
    assert again == (decoded, own)
    kinds = {name: pictures.kind_of(data) for name, data in own.items()}
    assert kinds == {"pixel": "webp", "row": "webp", "wide": "png", "high": "png"}
    records = pd.DataFrame({"codec": "x", "level": 1.0, "image": name, "bpp": 1.0, "psnr-rgb": 30.0} for name in originals)
    shown = pictures.for_page(*again, records)
    assert shown["wide"][1]["uri"].startswith("data:image/png;base64,")
    nothing = torch.zeros(3, 0, 5, dtype=torch.uint8)
    decoded, own, notes = prepared({("x", 1.0, "none"): nothing}, {"none": nothing, "row": originals["row"]})
    assert list(own) == ["row"]
    assert decoded == {}
    assert len(notes) == 1


def test_a_part_that_fails_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("of the library")

    monkeypatch.setattr(write, "plot_curves", fail)
    monkeypatch.setattr(write, "save", fail)
    assert len(write_report(table(), tmp_path, "three", "mine", [], {}, [], {}, {"a.png": torch.zeros(3, 9, 9, dtype=torch.uint8)})) == 1
    page = (tmp_path / "index.html").read_text()
    assert "rd-psnr-rgb.png could not be made (RuntimeError: of the library)" in page
    assert "pictures could not be made" in page
    monkeypatch.setattr(write, "write_page", fail)
    (tmp_path / "index.html").unlink()
    write_report(table("other"), tmp_path, "three", "other", [], {}, [])
    assert "index.html could not be made" in capsys.readouterr().out
    assert set(read_records(tmp_path).codec) == {"other"}
    assert not list(tmp_path.rglob("*.part"))


def test_links_in_an_output_folder_are_replaced(tmp_path: Path) -> None:
    output, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    output.mkdir()
    elsewhere.mkdir()
    kept = {}
    for name in ("index.html", "records.csv", "rd-psnr-rgb.png"):
        kept[name] = elsewhere / name
        kept[name].write_text("mine")
        (output / name).symlink_to(kept[name])
    for name in ("summary", "pictures"):
        (elsewhere / name).mkdir()
        (output / name).symlink_to(elsewhere / name)
    write_report(table(), output, "three", "mine", [], {}, [], {}, {"a.png": torch.zeros(3, 9, 9, dtype=torch.uint8)})
    assert all(file.read_text() == "mine" for file in kept.values())
    assert not any(list((elsewhere / name).iterdir()) for name in ("summary", "pictures"))
    assert not any(path.is_symlink() for path in output.rglob("*"))
    assert (output / "summary" / "mine.json").is_file()


@pytest.mark.parametrize("linked", ["picture", "index", "folder"])
def test_links_in_a_strangers_folder_are_not_followed(linked: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    run = tmp_path / "run"
    save(run, {}, {"a.png": torch.zeros(3, 9, 9, dtype=torch.uint8)})
    file = next((run / "pictures").glob("*.webp"))
    if linked == "folder":
        (run / "pictures").rename(secret)
        (run / "pictures").symlink_to(secret)
    else:
        file = file if linked == "picture" else run / "pictures" / "index.json"
        file.rename(secret)
        file.symlink_to(secret)
    with pytest.raises(UserError, match="link that leads out of the folder"):
        load(run)


def test_a_strangers_files_are_pictures_or_nothing(tmp_path: Path) -> None:
    save(tmp_path, {}, {"a.png": torch.zeros(3, 9, 9, dtype=torch.uint8)})
    file = next((tmp_path / "pictures").glob("*.webp"))
    file.write_text("root:x:0:0")
    with pytest.raises(UserError, match="neither WebP nor PNG nor points"):
        load(tmp_path)
    huge = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 3), }".ljust(117) + b"\n"
    for wrong in (huge, _npy(np.zeros((3, 2), np.float32)), _npy(np.full((3, 3), np.nan, np.float32)), _npy(np.zeros((3, 3)))):
        file.write_bytes(wrong)
        with pytest.raises(UserError, match="cannot be read"):
            load(tmp_path)
    (tmp_path / "records.csv").symlink_to("/proc/self/environ")
    for given in (str(tmp_path), str(tmp_path.parent)):
        with pytest.raises(UserError, match="leads out of"):
            gather(given)


def _npy(values: np.ndarray) -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_names_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Markup of the terminal, of HTML and of plots; letters that no file has; two that would be one file."""
    monkeypatch.setenv("COLUMNS", "400")
    codecs = ["[bold]x[/]", "[/red]", "$\\frac{", "<img src=x onerror=alert(1)>", "a b", "a-b", "A-B", 300 * "é", "..", "_", "\udce9"]
    records = pd.concat([table(codec) for codec in codecs])
    ranks = write_report(records, tmp_path, "[/nothing] $x_{", codecs[0], [], {}, ["[/note]"])
    assert len(ranks) == len(codecs)
    told = capsys.readouterr().out
    for name in ("[bold]x[/]", "[/red]", "[/nothing]"):
        assert name in told
    assert [line for line in told.splitlines() if "could not be made" in line] == []
    assert len(list((tmp_path / "summary").glob("*.json"))) == len(codecs)
    assert "<img src=x" not in (tmp_path / "index.html").read_text()
    assert len(read_records(tmp_path)) == 15 * len(codecs)


def test_an_inspected_stream_may_name_anything() -> None:
    from lc_bench.coding.container import Header, Identity, pack
    from lc_bench.runs.files import table_of

    stream = pack(Header(Identity(b"a", b"bcd"), (4, 5), model="[/x] [bold]lite[/bold]"), [b"12"])
    console = Console(width=120, record=True)
    console.print(table_of("[/photo].lcb", stream))
    told = console.export_text()
    assert "[/x] [bold]lite[/bold]" in told
    assert "[/photo].lcb" in told


def test_curves_of_clouds_keep_what_is_finite() -> None:
    assert curve_of("x", "", {"bpp": [1, 2], "d1-psnr": [30, None], "d2-psnr": [math.inf, 40]}).values["d2-psnr"] == [math.inf, 40]
