"""Files of clouds, sets of them, and training batches."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lc_bench.config import compose, make
from lc_bench.data import clouds, kitti, modelnet, shapes
from lc_bench.data.cloud_batches import TURNS, Clouds, cloud_loader, turn
from lc_bench.data.cloud_files import on_surface, read_cloud
from lc_bench.errors import UserError
from lc_bench.ops.cubes import cubes

POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0.5, 0.25, -3]], dtype=np.float32)
ROWS = "\n".join(" ".join(map(str, row)) for row in POINTS)
PLY = "ply\nformat {} 1.0\nelement vertex 4\nproperty float x\nproperty {} y\nproperty float z\n{}end_header\n"
FACE = "element face 1\nproperty list uchar int vertex_indices\n"
PCD = "# .PCD\nVERSION 0.7\nFIELDS x y z _\nSIZE 4 4 4 1\nTYPE F F F U\nCOUNT 1 1 1 2\nWIDTH 4\nHEIGHT 1\nPOINTS 4\nDATA {}\n"


def binary_ply(order: str) -> bytes:
    form = {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
    body = b"".join(struct.pack(f"{order}fdf", *map(float, row)) for row in POINTS)
    return PLY.format(form, "double", FACE).encode() + body + struct.pack(f"{order}B4i", 4, 0, 1, 2, 3)


FILES = {
    "joined.off": f"OFF4 1 0\n{ROWS}\n4 0 1 2 3\n".encode(),
    "plain.off": f"OFF\n# a note\n4 1 0\n{ROWS}\n4 0 1 2 3 255 0 0\n".encode(),
    "quad.obj": ("# a mesh\n" + "".join(f"v {r}\n" for r in ROWS.splitlines()) + "vn 0 0 1\nf 1//1 2//1 3//1 -1//1\n").encode(),
    "a.ply": (PLY.format("ascii", "double", FACE) + ROWS + "\n4 0 1 2 3\n").encode(),
    "b.ply": binary_ply("<"),
    "c.ply": binary_ply(">"),
    "a.pcd": (PCD.format("ascii") + "\n".join(f"{r} 7 8" for r in ROWS.splitlines()) + "\n").encode(),
    "b.pcd": PCD.format("binary").encode() + b"".join(row.tobytes() + b"\7\7" for row in POINTS),
    "a.xyz": f"# points\n{ROWS.replace(' ', ', ')}\n".encode(),
    "a.bin": np.concatenate([POINTS, np.ones((4, 1), np.float32)], 1).tobytes(),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "a.npy", POINTS.astype(np.float64))
    return tmp_path


def test_every_format_gives_the_same_points(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        cloud = read_cloud(path)
        assert np.array_equal(cloud.points.numpy(), POINTS), path.name
        is_mesh = path.suffix in (".off", ".obj", ".ply")
        assert (cloud.triangles.tolist() if cloud.triangles is not None else None) == ([[0, 1, 2], [0, 2, 3]] if is_mesh else None), (
            path.name
        )


@pytest.mark.parametrize("name", [*FILES, "a.npy"])
def test_every_cut_is_an_error_or_still_the_points(folder: Path, name: str) -> None:
    """At any byte: never a crash of another kind, never other points than were stored (but for text cut inside its last number)."""
    whole = (folder / name).read_bytes()
    path = folder / f"cut-{name}"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = read_cloud(path).points.numpy()
        except UserError:
            continue
        assert len(found) <= 4
        assert np.array_equal(found[: len(found) - 1], POINTS[: len(found) - 1])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.off", b"N 1 1 1", "does not start with OFF"),
        ("x.off", b"OFF 9 0 0\n1 2 3\n", "9 points are promised, 1 are there"),
        ("x.off", b"OFF 1 1 0\n1 2 3\n3 0 1 2\n", "a face names a point"),
        ("x.ply", b"plx", "no ply header"),
        ("x.pcd", PCD.format("gzip").encode(), "ascii, binary and binary_compressed"),
        ("x.bin", b"123", "cut short"),
        ("x.bin", b"", "cut short"),
        ("x.xyz", b"1 2 3\n4 5\n", "line 2 has 2 numbers"),
        ("x.xyz", b"", "no points"),
        ("x.npy", b"\x93NUMPY", "not a readable"),
        ("x.txt", b"1 2 3", "there are: .ply"),
    ],
)
def test_broken_files_are_told(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_cloud(tmp_path / name)


def test_meshes_are_sampled_evenly_by_area() -> None:
    corners = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 5], [1, 0, 5], [0, 1, 5]])
    drawn = on_surface(corners, torch.tensor([[0, 1, 2], [3, 4, 5]]), 20000, torch.Generator().manual_seed(0))
    low = drawn[:, 2] == 0
    assert low.double().mean() == pytest.approx(0.75, abs=0.015)  # 5 standard deviations
    assert torch.allclose(drawn[low].mean(0), torch.tensor([1.0, 1 / 3, 0]).double(), atol=0.03)
    assert (drawn[:, :2] >= 0).all()
    tiny = on_surface(1e-120 * corners.double(), torch.tensor([[0, 1, 2]]), 50, torch.Generator().manual_seed(0))
    assert tiny[:, 0].max() > 1e-120
    with pytest.raises(UserError, match="flat.ply: a mesh without area"):
        on_surface(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), 5, torch.Generator(), "flat.ply")


def test_folder_of_clouds(folder: Path) -> None:
    found = dict(clouds(str(folder), points=None, normalise="l2"))
    assert len(found) == len(FILES) + 1
    for cloud in found.values():
        assert cloud.norm(dim=1).max() == pytest.approx(1)
        assert cloud.mean(0).abs().max() < 1e-6
    cube = dict(clouds(str(folder), points=3, normalise="linf"))
    assert all(c.shape == (3, 3) and c.abs().max() == pytest.approx(1) for c in cube.values())
    assert all(torch.equal(c, cube[n]) for n, c in clouds(str(folder), points=3, normalise="linf"))
    (folder / "bad.xyz").write_text("1 2 nan\n1 2 3\n")
    with pytest.raises(UserError, match="1 of 2 points have NaN.*on_error=skip"):
        list(clouds(str(folder)))
    skipping = clouds(str(folder), points=4, on_error="skip")
    assert len(dict(skipping)) == len(FILES) + 1
    assert "bad.xyz" in skipping.skipped[0]
    with pytest.raises(UserError, match="4 points, 5 are wanted"):
        list(clouds(str(folder), points=5, recursive=False))


@pytest.mark.parametrize("scale", ["l2", "linf"])
def test_any_place_and_size_is_brought_to_one(scale: str, tmp_path: Path) -> None:
    """Points are centred before they are rounded, and squares of them stay within what numbers hold."""
    body = np.random.default_rng(0).uniform(-1, 1, (60, 3)).round(3)
    kinds = {"a": body, "b": body + np.array([5e5, 5.4e6, 300]), "c": body * 1e200, "d": body * 1e-200, "e": (body * 1e25).astype("<f4")}
    for name, points in kinds.items():
        np.save(tmp_path / f"{name}.npy", points)
    found = list(clouds(str(tmp_path), normalise=scale))
    assert all(x.dtype == torch.float32 and torch.allclose(x, found[0][1], atol=1e-6) for _, x in found)
    np.save(tmp_path / "f.npy", np.full((60, 3), 0.1))
    with pytest.raises(UserError, match="f.npy: all 60 points are in one place"):
        list(clouds(str(tmp_path), normalise=scale))
    raw = clouds(str(tmp_path), normalise="none", on_error="skip")
    assert list(dict(raw)) == ["a.npy", "e.npy"]
    assert "b.npy: coordinates up to 5.4e+06" in raw.skipped[0]


def test_wrong_choices_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path))
    for wrong, told in (
        (lambda: clouds("/nowhere"), "no such folder"),
        (lambda: clouds(str(tmp_path)), "no cloud in it"),
        (lambda: shapes(normalise="l3"), "none, l2, linf"),
        (lambda: shapes(points=0), "up to 8192"),
        (lambda: modelnet("modelnet10", "val", None), "train, test"),
        (lambda: modelnet("modelnet10", "test", None), "Set LC_BENCH_DATA"),
        (lambda: kitti(), "no .bin file"),
        (lambda: Clouds(shapes(), 0, "upside down"), "none, quarter, z, full"),
    ):
        with pytest.raises(UserError, match=told):
            wrong()
    (tmp_path / "points" / "modelnet10_1024").mkdir(parents=True)
    (tmp_path / "points" / "modelnet10_1024" / "test.npz").write_bytes(b"PK\3\4 cut")
    with pytest.raises(UserError, match="8 bytes, not a readable set of clouds"):
        modelnet("modelnet10", "test", None)


def test_shapes_lie_on_their_surfaces_and_repeat() -> None:
    first, again = dict(shapes(500)), dict(shapes(500))
    assert len(first) == 12
    assert all(torch.equal(first[n], again[n]) and first[n].shape == (500, 3) for n in first)
    raw = dict(shapes(500, normalise="none"))
    assert torch.allclose(raw["ball"].norm(dim=1), torch.ones(500))
    ring = raw["ring"]
    assert torch.allclose(((ring[:, :2].norm(dim=1) - 0.7) ** 2 + ring[:, 2] ** 2).sqrt(), torch.full((500,), 0.25), atol=1e-6)
    dresser = raw["dresser"].abs() / torch.tensor([0.6, 0.25, 0.45])
    assert torch.allclose(dresser.amax(1), torch.ones(500))
    assert not torch.equal(first["ball"], dict(shapes(500, seed=1))["ball"])


def test_cubes_part_a_frame() -> None:
    points = 40 * torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) - 20
    parts = cubes(points, 12.0)
    assert sum(len(p) for _, p in parts) == 3000
    back = torch.cat([p * 6 + 12 * (torch.tensor(place) + 0.5) for place, p in parts])
    assert torch.allclose(back.sort(0).values, points.sort(0).values, atol=1e-5)
    assert all(p.abs().max() <= 1 for _, p in parts)
    assert min(len(p) for _, p in cubes(points, 12.0, 60)) >= 60
    with pytest.raises(UserError, match="above 0"):
        cubes(points, 0.0)


def test_sets_of_real_data(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_DATA", str(shared / "data"))
    train, test = modelnet("modelnet10", "train", 1024), modelnet("modelnet10", "test", 512)
    assert (len(train), len(test)) == (3991, 908)
    assert train.cloud(5).norm(dim=1).max() == pytest.approx(1)
    # modelnet40 is stored in farthest-point order: its first points would be an even sample, which what is drawn must not be.
    dense = modelnet("modelnet40", "test", 256)
    drawn, first = dense.cloud(0), modelnet("modelnet40", "test", None).cloud(0)[:256]
    gap = lambda c: torch.cdist(c, c).fill_diagonal_(9).amin(1).min()  # noqa: E731
    assert gap(drawn) < 0.5 * gap(first)
    chairs = modelnet("modelnet10", "test", 1024, classes=["chair"])
    assert len(chairs) == 100
    assert {n[: n.index("_")] for n in chairs.names} == {"chair"}
    frames = kitti(cube=12.0)
    assert len(frames) == 54
    assert make(compose("data=modelnet10", "model=sfu2024-pcc-rec-pointnet2-ssg", "run=train").data).name == "modelnet10-train"
    for name in ("modelnet_off", "meshes_odedstein", "modelnet10_pcd_sample"):
        found = dict(clouds(str(shared / "data" / "points" / name), points=1024))
        assert all(c.shape == (1024, 3) for c in found.values())


@pytest.mark.parametrize("kind", TURNS)
def test_turns_keep_distances(kind: str) -> None:
    seen = set()
    for seed in range(60):
        rotation = turn(kind, torch.Generator().manual_seed(seed))
        assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-6)
        if kind != "full":
            assert torch.equal(rotation[2], torch.tensor([0.0, 0.0, 1.0]))
        seen.add(tuple(rotation.flatten().tolist()))
    assert len(seen) == {"none": 1, "quarter": 8, "z": 60, "full": 60}[kind]


def test_training_batches_are_a_function_of_their_position() -> None:
    def batches(step: int, workers: int, count: int) -> list[torch.Tensor]:
        source = iter(cloud_loader(shapes(64), "quarter", batch=5, seed=3, step=step, workers=workers))
        return [next(source).x for _ in range(count)]

    whole = batches(0, 0, 6)
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], batches(3, 1, 3), strict=True))
    assert whole[0].shape == (5, 64, 3)
    assert not torch.equal(whole[0], whole[1])
    assert whole[0].norm(dim=2).max() == pytest.approx(1)
