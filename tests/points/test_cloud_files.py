"""Clouds of a user's own: files to streams and back in their own coordinates, whole and in cubes."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, refused, small
from torch import Tensor

import lc_bench
from lc_bench.bench.clouds import code_cloud
from lc_bench.coding import varint
from lc_bench.coding.container import Header, Identity, checksum, is_cubed, pack, read_head, unpack
from lc_bench.coding.cubes import Cube, pack_cubes, unpack_cubes
from lc_bench.data.cloud_files import read_cloud
from lc_bench.data.cloud_writers import WRITERS, write_cloud
from lc_bench.data.shapes import shapes
from lc_bench.errors import StreamError, UserError
from lc_bench.models import PointCode, cubed
from lc_bench.ops.cubes import cubes

HRTZ, SFU = "hrtzxf2022-pcc-rec", "sfu2024-pcc-rec-pointnet2-ssg"
TINY = [f"model={HRTZ}", "weights=none", "quality=1", "threads=1"]


@pytest.fixture(scope="module")
def model() -> PointCode:
    built = lc_bench.build(HRTZ, **small(HRTZ))
    assert isinstance(built, PointCode)
    return built


def street(count: int = 900) -> Tensor:
    """(N, 3): a plane and two walls, 40 m long, away from the origin."""
    draw = torch.Generator().manual_seed(3)
    points = 40 * torch.rand(count, 3, generator=draw)
    points[: count // 2, 2] = 0.0
    points[count // 2 :, 1] *= 0.02
    return points + torch.tensor([-20.0, 5.0, 300.0])


@pytest.mark.parametrize("kind", WRITERS)
def test_writers_and_readers(kind: str, tmp_path: Path) -> None:
    points = street() / 3
    write_cloud(tmp_path / f"a{kind}", points)
    assert torch.equal(read_cloud(tmp_path / f"a{kind}").points.float(), points)
    exact = points.double() + 5_400_000 + 1 / 3
    write_cloud(tmp_path / f"b{kind}", exact)
    assert torch.equal(read_cloud(tmp_path / f"b{kind}").points, exact)
    with pytest.raises(UserError, match="written as .ply"):
        write_cloud(tmp_path / "a.obj", points)


@pytest.mark.parametrize("name", [HRTZ, SFU])
def test_a_cloud_comes_back_in_its_place(name: str, cloud: Tensor) -> None:
    """The stream of points * 50 + offset gives what the stream of those points gives, * 50 + offset."""
    model = lc_bench.build(name, **small(name))
    assert isinstance(model, PointCode)
    points = cloud[0, : model.points]
    moved = 64 * points.double() + torch.tensor([1000.0, -3.0, 0.5])
    stream = cubed.encode(model, moved.float(), "some model")
    header = unpack(stream)[0]
    assert header.scale is not None
    assert header.model == "some model"
    centre, size = torch.tensor(header.scale[:3]), header.scale[3]
    assert torch.allclose(centre.double(), moved.mean(0), atol=1e-4)
    with pytest.raises(StreamError):  # where it lies is sealed, what its model is called is not
        model.decode([pack(replace(header, scale=None), unpack(stream)[1])])
    assert model.decode([pack(replace(header, model=""), unpack(stream)[1])])[0].shape == (1, *points.shape)
    scale = torch.tensor(header.scale, dtype=torch.float64)
    inside = model.decode(model.encode(((moved - scale[:3]) / scale[3]).float()[None]).streams)[0][0]
    found = lc_bench.decompress(model, [stream])[0]
    assert torch.equal(found, (inside.double() * size + centre.double()).float())
    (record, decoded, _) = code_cloud(model, model, points)
    assert len(decoded) == record["points_decoded"] == len(points)


def test_equal_points_come_back_as_such(model: PointCode) -> None:
    """Where they were, not as what the model makes of nothing."""
    bodies = [torch.tensor([[3.0, 4.0, 5.0]]), torch.full((40, 3), 7.0), torch.full((40, 3), 5_400_000.001, dtype=torch.float64)]
    at_origin = [torch.zeros(40, 3), torch.full((40, 3), 1e-39, dtype=torch.float64)]
    for points in bodies + at_origin:
        stream = cubed.encode(model, points)
        assert read_head(stream)[0].scale == (*points[0].tolist(), cubed.SMALLEST)
        assert torch.equal(cubed.decode(model, stream)[0].double(), points.double())


def test_far_from_the_origin_nothing_is_lost(model: PointCode, tmp_path: Path) -> None:
    """A body of three metres at UTM coordinates codes and comes back as it does at the origin, by file and in cubes."""
    body = 2 * torch.rand(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    far = torch.tensor([500_000.125, 5_400_000.0625, 300.0], dtype=torch.float64)
    write_cloud(tmp_path / "far.xyz", body + far)
    points = read_cloud(tmp_path / "far.xyz").points
    near, there = cubed.encode(model, body), cubed.encode(model, points)
    assert len(there) == len(near) + 12  # the centre as float64
    assert [len(part) for part in unpack(there)[1]] == [len(part) for part in unpack(near)[1]]  # which only seals tell apart
    found = cubed.decode(model, there)[0]
    assert found.dtype == torch.float64
    assert (found - far - cubed.decode(model, near)[0].double()).abs().max() < 1e-6
    assert len(found[:, 1].unique()) > 100
    write_cloud(tmp_path / "back.ply", found)
    assert torch.equal(read_cloud(tmp_path / "back.ply").points, found)
    moved = torch.tensor([500_000.0, 5_400_000.0, 300.0], dtype=torch.float64)  # by whole cubes
    cut, away = (cubed.encode_cubes(model, p, 2.0).streams[0] for p in (body, body + moved))
    # Seals know the place, and another start of the coder may need a byte more or less.
    lengths = [torch.tensor([[len(s) for s in cube.segments] for cube in unpack_cubes(stream)[1]]) for stream in (cut, away)]
    assert (lengths[0] - lengths[1]).abs().max() <= 1
    assert (cubed.decode(model, away)[0] - moved - cubed.decode(model, cut)[0].double()).abs().max() < 1e-6


@pytest.mark.parametrize("size", [1e-42, 1e-25, 1e25])
def test_very_small_and_large_bodies(size: float, model: PointCode) -> None:
    """They code as a body of size 1 does."""
    body = 2 * torch.rand(100, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    if size < cubed.SMALLEST:
        with pytest.raises(UserError, match="scale it up"):
            cubed.encode(model, body * size)
        return
    plain = cubed.decode(model, cubed.encode(model, body))[0].double()
    found = cubed.decode(model, cubed.encode(model, body * size))[0].double() / size
    assert (found - plain).abs().max() < 0.05 * (plain - plain.mean(0)).abs().max()


@pytest.mark.parametrize("side", [0.0, 1e-46, 1e-39, 1e39, float("inf"), float("nan")])
def test_sides_of_cubes_that_a_stream_does_not_hold(side: float, model: PointCode) -> None:
    with pytest.raises(UserError, match=r"give the side of the cubes, .* to 1e\+30"):
        cubed.encode_cubes(model, torch.zeros(4, 3), side)


def test_cubes_are_coded_each_for_itself(model: PointCode) -> None:
    points, side = street(), 12.5
    seen: list[tuple[int, int]] = []
    coded = cubed.encode_cubes(model, points, side, name="m", tell=lambda done, count: seen.append((done, count)))
    (stream,) = coded.streams
    header, parts = unpack_cubes(stream)
    expected = cubes(points, side)
    assert [(p.place, p.count) for p in parts] == [(place, len(x)) for place, x in expected]
    assert seen[-1] == (len(points), len(points))
    assert (header.sizes, header.cube, header.model) == ((len(points),), side, "m")
    decoded, latents = cubed.decode(model, stream)
    assert torch.equal(lc_bench.decompress(model, [stream])[0], decoded)
    assert all(torch.equal(a, b) for name in latents for a, b in zip(latents[name], coded.latents[name], strict=True))
    start = 0
    for place, x in expected:
        alone = model.decode(model.encode(x[None]).streams)[0][0]
        there = (alone.double() * side / 2 + (torch.tensor(place) + 0.5) * side).float()
        assert torch.equal(decoded[start : start + len(x)], there)
        start += len(x)
    # Headers, tables and lanes: 17 bytes a cube here, of 60 in all.
    ideal = sum(float(b[0]) for b in coded.bits.values()) / 8
    assert sum(coded.segment_bytes[0].values()) < len(stream) < ideal + 25 * len(parts) + 40
    with pytest.raises(StreamError, match="cubes"):
        unpack(stream)
    with pytest.raises(StreamError, match="no cubes"):
        unpack_cubes(pack(Header(Identity(b"a", b"abc"), (3,)), [b"x"]))


def test_damage_is_found(model: PointCode) -> None:
    stream = cubed.encode_cubes(model, street(60), 20.0).streams[0]
    assert is_cubed(stream)
    for end in range(len(stream)):
        with pytest.raises(StreamError):
            cubed.decode(model, stream[:end])
    for place in range(0, len(stream), 3):
        flipped = bytearray(stream)
        flipped[place] ^= 4
        with pytest.raises(StreamError):
            cubed.decode(model, bytes(flipped))
    header, parts = unpack_cubes(stream)
    sealed = lambda body: body + checksum(body)  # noqa: E731
    for wrong, told in (
        (pack_cubes(header, parts[:-1]), "promises"),
        (pack_cubes(header, [replace(parts[0], count=0), *parts[1:]]), "0 points"),
        (pack_cubes(header, [replace(parts[0], place=(1 << 25, 0, 0)), *parts[1:]]), "points at"),
        (sealed(stream[:-4] + b"more"), "end at byte"),
        (pack_cubes(header, [Cube(p.place, p.count, [*p.segments, b"x"]) for p in parts]), "segments"),
    ):
        with pytest.raises(StreamError, match=told):
            cubed.decode(model, wrong)
    head = stream[: read_head(stream)[2]]
    with pytest.raises(StreamError, match="1000000 cubes"):
        unpack_cubes(sealed(head + varint.write(1_000_000) + bytes(20)))


def test_places_that_are_none_are_refused() -> None:
    header = Header(Identity(b"a", b"abc"), (3,))
    for scale in ((0.0, 0.0, 0.0, -1.0), (0.0, float("nan"), 0.0, 1.0), (0.0, 0.0, 0.0, float("inf"))):
        with pytest.raises(StreamError, match="scale"):
            unpack(pack(replace(header, scale=scale), [b"x"]))
    with pytest.raises(StreamError, match="sizes"):
        unpack(pack(replace(header, sizes=(3, 4), scale=(0.0, 0.0, 0.0, 1.0)), [b"x"]))
    placed = replace(header, scale=(0.5, -1.0, 2.0, 3.0), model="m")
    assert unpack(pack(placed, [b"x"]))[0] == placed
    assert len(pack(placed, [b"x"])) == len(pack(replace(header, model="m"), [b"x"])) + struct.calcsize("4f")


def test_clouds_that_cannot_be_coded_are_refused(model: PointCode) -> None:
    for bad in (torch.nan, torch.inf, 1e31):
        points = street(50)
        points[3, 1] = bad
        for coded in (lambda p: cubed.encode(model, p), lambda p: cubed.encode_cubes(model, p, 5.0)):
            with pytest.raises(UserError, match="finite"):
                coded(points)
    for side in (0.0, -1.0, torch.nan, torch.inf):
        with pytest.raises(UserError, match="cube="):
            cubed.encode_cubes(model, street(50), side)
    with pytest.raises(UserError, match="larger cubes"):
        cubed.encode_cubes(model, street(50), 1e-6)


def test_by_command(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of kinds there and back; the model and the kind of file are found by the stream."""
    for name in ("a.ply", "b.xyz", "c.npy"):
        write_cloud(here / "in" / name, street(300))
    call(monkeypatch, "run=compress", "input=in", "output=out", *TINY)
    call(monkeypatch, "run=decompress", "input=out", "output=back", "threads=1")
    decoded = {p.name: read_cloud(p).points for p in (here / "back").iterdir()}
    assert sorted(decoded) == ["a.ply", "b.ply", "c.ply"]
    assert torch.equal(decoded["a.ply"], decoded["b.ply"])
    centre = street(300).mean(0)
    assert (decoded["a.ply"] - centre).norm(dim=1).max() < 200, "not where it was"
    call(monkeypatch, "run=compress", "input=in/a.ply", "output=cut.lcb", "cube=16", "points=200", *TINY)
    call(monkeypatch, "run=decompress", "input=cut.lcb", "output=cut.xyz", "threads=1")
    assert read_cloud(here / "cut.xyz").points.shape == (200, 3)
    capsys.readouterr()
    call(monkeypatch, "run=inspect", "input=cut.lcb")
    told = capsys.readouterr().out
    assert "of side 16" in told
    assert "bit/point" in told


def test_a_mesh_by_a_model_of_fixed_size(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "box.off").write_text("OFF 4 2 0\n5 5 5\n6 5 5\n6 6 5\n5 6 5\n3 0 1 2\n3 0 2 3\n")
    fixed = [f"model={SFU}", "model.num_points=64", "weights=none", "quality=1", "threads=1"]
    call(monkeypatch, "run=compress", "input=box.off", *fixed)
    call(monkeypatch, "run=decompress", "input=box.lcb", *fixed)
    assert read_cloud(here / "box.ply").points.shape == (64, 3)
    write_cloud(here / "many.xyz", next(iter(shapes(points=300)))[1])
    assert "points=64 takes as many" in refused(monkeypatch, capsys, "run=compress", "input=many.xyz", *fixed)[-1]
    call(monkeypatch, "run=compress", "input=many.xyz", "points=64", *fixed)
    for wrong, told in (
        (["input=many.xyz", "cube=1"], "no cubes"),
        (["input=many.xyz", "points=0"], "from 1 on"),
        (["input=many.xyz", "columns=2"], "columns=2: give a whole number from 3 to 64, or null"),
        (["input=many.xyz", "tile=64"], "have no tile"),
        (["input=many.xyz", "points=3000"], "300 points, 3000 are wanted; lower points"),
        (["input=many.xyz", "cube=-1"], "above 0"),
    ):
        assert told in refused(monkeypatch, capsys, "run=compress", "overwrite=true", *wrong, *fixed)[-1]
    assert "written as .ply" in refused(monkeypatch, capsys, "run=decompress", "input=many.lcb", "output=many.png", *fixed)[-1]
    assert "region" in refused(monkeypatch, capsys, "run=decompress", "input=many.lcb", "output=b.ply", "region=[0,0,1,1]", *fixed)[-1]
    assert (
        "have no cube"
        in refused(monkeypatch, capsys, "run=compress", "input=box.off", "cube=3", "model=mbt2018-mean", "weights=none", "quality=1")[-1]
    )


def test_frames_are_benchmarked_in_cubes(here: Path, monkeypatch: pytest.MonkeyPatch, model: PointCode) -> None:
    """One record per frame, of the bytes of all its cubes, measured against the whole frame."""
    frame = street(400)
    (here / "kitti").mkdir()
    np.concatenate([frame.numpy(), np.zeros((400, 1), np.float32)], 1).tofile(here / "kitti" / "000000.bin")
    monkeypatch.setenv("LC_BENCH_DATA", str(here))
    (row,) = lc_bench.benchmark(model, data="kitti", split="test", points=None).to_dict("records")
    coded = cubed.encode_cubes(model, frame, 12.0)
    assert row["bytes"] == len(coded.streams[0])
    assert row["bpp"] == 8 * row["bytes"] / 400
    assert row["bytes_latent_feat"] == coded.segment_bytes[0]["latent_feat"]
    assert np.isfinite([row["d1-psnr"], row["d2-psnr"], row["bpp_estimated"]]).all()
    fixed = lc_bench.build(SFU, **small(SFU))
    with pytest.raises(UserError, match="no cubes of any number"):
        lc_bench.benchmark(fixed, data="kitti", split="test", points=None)
