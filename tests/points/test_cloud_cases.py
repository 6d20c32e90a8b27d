"""Files of clouds that failed once, kept beside the repository: each ends as its README there expects.

The same kinds of file are made by the tests of each part; these are the originals. Where they are not, everything is skipped.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, call, small

import lc_bench
from lc_bench.data import clouds
from lc_bench.data.cloud_files import read_cloud
from lc_bench.data.cloud_sets import check_cloud
from lc_bench.errors import UserError
from lc_bench.models import PointCode, cubed
from lc_bench.report.solids import draw_stills

CASES = SHARED / "cases" / "points"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"no reported cases in {CASES} (set LC_BENCH_SHARED)")

# Points, and triangles where it is a mesh; or what the refusal says.
BODY, CLOUD, XYZ = (1536, 3072), (3000, None), (2000, None)
READ: dict[str, tuple[int, int | None] | str] = {
    "bin_five_floats/nuscenes.bin": (2400, None),
    "bin_five_floats/nuscenes_odd.bin": (2399, None),
    **{f"damaged_headers/fuzz_{n}": "not a readable" for n in ("1.pcd", "2.npy", "3.npy", "4.npy", "5.npy", "6.npy")},
    "flat_mesh/body.ply": BODY,
    "npy_forms/transposed.npy": "more columns than points",
    "npy_forms/npz_named.npy": "npz",
    "npy_forms/absurd_shape.npy": "are promised",
    "npy_forms/structured.npy": XYZ,
    "npy_forms/half.npy": CLOUD,
    "npy_forms/big_endian.npy": CLOUD,
    "npy_forms/batch.npy": "a cloud is (N, 3)",
    "npy_forms/bool.npy": "type bool",
    "npy_forms/huge_int.npy": "2^53",
    "npy_forms/not.npy": "not a readable",
    **{f"obj_dialects/{n}.obj": BODY for n in ("continuation", "continuation_v", "comment_after", "colours", "latin1")},
    "obj_dialects/negative.obj": (6144, 3072),
    "obj_dialects/points.obj": (1536, None),
    "obj_dialects/zero_index.obj": "counts from 1",
    "obj_dialects/w.obj": "weights are not 1",
    "obj_dialects/upper.obj": "no points",
    **{
        f"off_dialects/{n}.off": BODY
        for n in ("glued", "comment_first", "two_counts", "coff", "off_with_colours", "face_colours", "faces_in_one_line")
    },
    "off_dialects/noff.off": (1536, None),
    "off_dialects/off_cloud_colours.off": (1536, None),
    "off_dialects/huge_counts.off": "cut short",
    **{
        f"pcd_dialects/{n}.pcd": CLOUD
        for n in ("binary", "double", "compressed", "no_points", "padding", "crlf", "ascii_comments", "columns")
    },
    "pcd_dialects/bad_size.pcd": "SIZE 3",
    "pcd_dialects/bad_type.pcd": "TYPE D",
    "pcd_dialects/nan.pcd": "NaN",
    "pcd_dialects/ascii_nan.pcd": "NaN",
    **{f"ply_ascii_cut_faces/{n}.ply": "cut short" for n in ("half", "none", "midline", "binary_half")},
    "ply_cr_header/cr.ply": BODY,
    **{f"ply_cr_header/{n}.ply": CLOUD for n in ("cr_cloud", "cr_ascii", "crlf")},
    "ply_edges_between/edges.ply": BODY,
    "ply_edges_between/edges_ascii.ply": BODY,
    "ply_edges_between/tristrips.ply": (1536, 8),
    **{f"ply_other_first/{n}.ply": CLOUD for n in ("camera_first", "blank_line", "comment_end_header", "big_double")},
    "ply_other_first/list_in_vertex.ply": (3, None),
    "ply_other_first/zero.ply": "no points",
    "ply_scalar_before_list/flags.ply": BODY,
    "ply_scalar_before_list/flags3.ply": BODY,
    **{f"xyz_decimal_comma/{n}.xyz": "decimals with a point" for n in ("spaces", "tabs", "semicolon")},
    **{f"xyz_dialects/{n}.xyz": XYZ for n in ("commas", "header", "slashes", "count", "bom", "utf16", "sci", "fortran", "crlf_colour")},
    "xyz_dialects/molecule.xyz": "molecule",
    "xyz_dialects/two_columns.xyz": "three are needed",
    "xyz_dialects/nan.xyz": "NaN",
}
WHOLE = ("extents", "flat_inf", "flat_mesh", "long_cloud", "names", "same_points")  # in tests of their own


def case(name: str) -> Path:
    path = CASES / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def test_files_are_read_or_refused() -> None:
    files = [p.relative_to(CASES).as_posix() for p in CASES.glob("*/*") if p.name != "README"]
    assert sorted(n for n in files if not n.startswith(WHOLE)) == sorted(n for n in READ if not n.startswith(WHOLE))
    for name, expected in READ.items():
        path = case(name)
        if isinstance(expected, str):
            with pytest.raises(UserError) as refused:
                check_cloud(read_cloud(path).points, name)
            assert expected in str(refused.value)
            assert len(str(refused.value).splitlines()) == 1
        else:
            cloud = read_cloud(path)
            check_cloud(cloud.points, name)
            assert (len(cloud.points), None if cloud.triangles is None else len(cloud.triangles)) == expected, name


def test_dialects_of_one_body_agree() -> None:
    """Files that hold the same mesh in other words give the same triangles."""
    for folder in ("ply_scalar_before_list", "off_dialects"):
        found = [read_cloud(p) for p in sorted(case(folder).iterdir()) if READ.get(f"{folder}/{p.name}") == BODY]
        for other in found[1:]:
            assert torch.equal(found[0].triangles, other.triangles)  # type: ignore[arg-type]
            assert torch.allclose(found[0].points, other.points, atol=1e-5)


@pytest.fixture(scope="module")
def model() -> PointCode:
    built = lc_bench.build("hrtzxf2022-pcc-rec", **small("hrtzxf2022-pcc-rec"))
    assert isinstance(built, PointCode)
    return built


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("collinear", ""), ("planar", ""), ("same", ""), ("tiny", ""), ("large", ""), ("few", ""), ("one", ""), ("millimetres", ""),
        ("outlier", ""), ("duplicates", ""), ("denormal", "scale it up"), ("f64_over", "finite coordinates"),
    ],
)  # fmt: skip
def test_extents(name: str, told: str, model: PointCode) -> None:
    """Each is coded in its own place, as few points of it as make the test quick, or refused in one line."""
    points = check_cloud(read_cloud(case(f"extents/{name}.npy")).points, name)[-64:]
    if told:
        with pytest.raises(UserError, match=told):
            cubed.encode(model, points)
        return
    found = cubed.decode(model, cubed.encode(model, points))[0].double()
    assert found.shape == points.shape
    size = float((points - points.mean(0)).norm(dim=1).max())
    assert float((found - points.mean(0)).norm(dim=1).max()) <= 3 * size + 1e-9 * float(points.abs().max())


def test_extents_in_a_set(tmp_path: Path) -> None:
    """A benchmark normalises all of them but a place without size, and skips that if it is told to."""
    data = clouds(str(case("extents")), normalise="l2", on_error="skip")
    found = dict(data)
    assert sorted(set(data.names) - set(found)) == ["one.npy", "same.npy"]
    assert all(float(x.norm(dim=1).max()) == pytest.approx(1, abs=1e-5) for x in found.values())
    assert all("in one place" in told for told in data.skipped)


def test_same_points_come_back_as_such(model: PointCode) -> None:
    points = read_cloud(case("same_points/same.npy")).points
    assert (cubed.decode(model, cubed.encode(model, points))[0] - points).abs().max() < 1e-9


def test_a_mesh_without_area_is_named() -> None:
    data = clouds(str(case("flat_mesh")), points=64, on_error="fail")
    with pytest.raises(UserError, match="no_area.ply: a mesh without area"):
        list(data)


def test_a_long_body_is_drawn_to_its_ends(tmp_path: Path) -> None:
    from PIL import Image

    points = read_cloud(case("long_cloud/rod.npy")).points
    (path,) = draw_stills({"rod": {"original": points}}, tmp_path)
    drawn = np.asarray(Image.open(path).convert("L")) < 230
    columns = np.flatnonzero(drawn[80:].any(0))  # below the title
    assert 0.02 * drawn.shape[1] < columns[0] < 0.15 * drawn.shape[1]
    assert 0.85 * drawn.shape[1] < columns[-1] < 0.98 * drawn.shape[1]


def test_an_infinite_value_leaves_a_curve(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the flat cloud Draco's D2 is infinite; the means are those of the others, with a note."""
    pytest.importorskip("DracoPy")
    model = ["model=sfu2024-pcc-rec-pointnet2-ssg", "quality=3", "threads=1"]
    data = ["data=clouds", f"data.path={CASES / 'flat_inf'}", "anchor=[draco]", "run.bd_anchor=draco"]
    call(monkeypatch, *model, *data, "output=o")
    results = json.loads((here / "o" / "summary" / "draco.json").read_text())["results"]
    assert np.isfinite(np.array(results["d2-psnr"], dtype=float)).all()
    assert "1 of 3 samples is left out" in (here / "o" / "index.html").read_text()


def test_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of those that its README lists, by command; other commands tell the rest."""
    for name in ("a,b{c}'s (1).ply", "Möbel 100%=[$].ply"):
        shutil.copy(case("names/body.ply"), here / name)
        model = ["model=sfu2024-pcc-rec-pointnet2-ssg", "model.num_points=64", "weights=none", "quality=1", "points=64", "threads=1"]
        call(monkeypatch, "run=compress", f"input={name}", "output=x.lcb", "overwrite=true", *model)
        assert (here / "x.lcb").is_file()
