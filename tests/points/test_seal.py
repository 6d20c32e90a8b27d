"""Where clouds lie is sealed, few bytes claim few points, and lists are read no further than symbols ask."""

from __future__ import annotations

import hashlib
import json
import struct
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from coding.test_golden_streams import numbers
from torch import Tensor, nn

import lc_bench
from lc_bench.coding import container, segment, varint
from lc_bench.coding.container import LARGEST_PIECE, Header, checksum, least_of_points, pack, read_head, unpack
from lc_bench.coding.cubes import Cube, pack_cubes, unpack_cubes
from lc_bench.entropy import FactorizedPrior, GaussianPrior
from lc_bench.errors import StreamError, UserError
from lc_bench.models import PointCode, cubed, point_code

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "v1-clouds.json").read_text())


@torch.no_grad()
def filled() -> PointCode:
    """Weights from a formula, as golden streams of images have them."""
    model = lc_bench.build("hrtzxf2022-pcc-rec", hidden=8)
    assert isinstance(model, PointCode)
    for module in model.modules():
        if isinstance(module, FactorizedPrior):
            module.median.zero_()
            for place, bias in enumerate(module.biases):
                bias.copy_(numbers(bias.numel(), place).view(bias.shape) / 2)
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            assert module.bias is not None
            module.weight.copy_(numbers(module.weight.numel(), 1).view(module.weight.shape))
            module.bias.copy_(numbers(len(module.bias), 5))
    return model


def cloud() -> Tensor:
    """(120, 3), in several cubes of side 16."""
    return numbers(360, 3).view(120, 3) * 16 + torch.tensor([100.0, -30.0, 7.0])


def digest(latents: dict[str, list[Tensor]]) -> str:
    sha = hashlib.sha256()
    for name in sorted(latents):
        for values in latents[name]:
            sha.update(values.contiguous().numpy().astype("<f8").tobytes())
    return sha.hexdigest()


@pytest.fixture(scope="module")
def model() -> PointCode:
    return filled()


@pytest.mark.parametrize("kind", sorted(GOLDEN))
def test_streams_of_clouds_are_read_for_ever(kind: str, model: PointCode) -> None:
    """With and without the seal of their place. Latents are compared, bit for bit; what networks make of them is not."""
    golden = GOLDEN[kind]
    points, latents = cubed.decode(model, bytes.fromhex(golden["stream"]))
    assert digest(latents) == golden["sha256"]
    assert len(points) == golden["points"]
    assert read_head(bytes.fromhex(golden["stream"]))[0].place_sealed == ("sealed" in kind or kind == "whole")


def test_another_place_is_found_out(model: PointCode) -> None:
    """With a checksum that matches: the centre, the scale, the side, the place and number of points of a cube, its neighbour's."""
    stream = cubed.encode(model, cloud())
    header, segments = unpack(stream)
    assert header.scale is not None
    for scale in ((header.scale[0] + 1, *header.scale[1:]), (*header.scale[:3], 2 * header.scale[3])):
        with pytest.raises(StreamError):
            cubed.decode(model, pack(replace(header, scale=scale), segments))
    with pytest.raises(StreamError):
        cubed.decode(model, pack(replace(header, place_sealed=False), segments))
    stream = cubed.encode_cubes(model, cloud(), 16.0).streams[0]
    header, parts = unpack_cubes(stream)
    assert len(parts) > 3
    assert pack_cubes(header, parts) == stream
    a, b, *others = parts
    assert (a.count, a.place) != (b.count, b.place)
    for wrong in (
        [replace(a, place=(a.place[0] - 1, *a.place[1:])), b, *others],
        [replace(a, place=b.place), replace(b, place=a.place), *others],
        [b, a, *others],
    ):
        with pytest.raises(StreamError):
            cubed.decode(model, pack_cubes(header, wrong))
    with pytest.raises(StreamError):
        cubed.decode(model, pack_cubes(replace(header, cube=17.0), parts))


def test_few_bytes_claim_few_points(model: PointCode) -> None:
    header = Header(model.frozen.identity, (1 << 20,))
    segments = unpack(model.encode(cloud()[None] / 200).streams[0])[1]
    plain = model.frozen.identity
    sealed = lambda body: body + checksum(body)  # noqa: E731
    for points in (1 << 20, 300_000):
        head = container.write_head(Header(plain, (points,)), len(segments))
        with pytest.raises(StreamError, match="not decoded"):
            lc_bench.decompress(model, [sealed(head + bytes(13_000))])
    long = container.write_head(Header(plain, (LARGEST_PIECE + 1,)), len(segments)) + bytes(least_of_points(LARGEST_PIECE + 1))
    with pytest.raises(StreamError, match="in one piece"):
        lc_bench.decompress(model, [sealed(long)])
    for count, told in ((1 << 20, "not decoded"), (LARGEST_PIECE + 1, "in one piece")):
        filling = 0 if told == "not decoded" else least_of_points(count)
        cube = Cube((0, 0, 0), count, [b"x", bytes(1 + filling)])
        with pytest.raises(StreamError, match=told):
            cubed.decode(model, pack_cubes(replace(header, sizes=(count,), cube=1.0), [cube]))
    with pytest.raises(UserError, match="in cubes"):
        model.encode(torch.zeros(1, LARGEST_PIECE + 1, 3))


def test_clouds_that_say_almost_nothing_are_filled_up(model: PointCode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and in cubes, of which only those have zeros that come when the bytes run out."""
    expected = model.decode(model.encode(cloud()[None] / 200).streams)[0]
    parts = cubed.encode_cubes(model, cloud(), 16.0).streams[0]
    there = cubed.decode(model, parts)[0]
    for free in (0, 60, -2000):
        monkeypatch.setattr(container, "FREE_POINTS", free)
        monkeypatch.setattr(container, "POINTS_PER_BYTE", 1 / 8)
        monkeypatch.setattr(container, "least_of_points", lambda points: max(0, int((points - container.FREE_POINTS) * 8)))
        for module in (cubed, point_code):
            monkeypatch.setattr(module, "least_of_points", container.least_of_points)
        (stream,) = model.encode(cloud()[None] / 200).streams
        assert len(stream) >= container.least_of_points(120)
        assert torch.equal(model.decode([stream])[0], expected)
        (stream,) = cubed.encode_cubes(model, cloud(), 16.0).streams
        assert sum(len(s) for part in unpack_cubes(stream)[1] for s in part.segments) >= container.least_of_points(120)
        assert torch.equal(cubed.decode(model, stream)[0], there)


def test_a_table_of_cubes_is_refused_before_anything_is_made_of_it(model: PointCode) -> None:
    """Megabytes of cubes without segments, as a reader may be sent them."""
    count = 400_000
    head = container.write_head(Header(model.frozen.identity, (count,), cube=1.0), 2)
    table = varint.write(count) + bytes([0, 0, 2, 1, 0, 0]) * count
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(StreamError, match="empty segment"):
        unpack_cubes(head + table + bytes(2 * count) + checksum(head + table + bytes(2 * count)))
    assert time.process_time() - began < 2
    assert tracemalloc.get_traced_memory()[1] < 20 * len(table)
    tracemalloc.stop()


@pytest.mark.parametrize("flag", [0x20, 0x80])
def test_lists_are_read_no_further_than_symbols_ask(flag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = GaussianPrior().make_tables()
    read = 0
    plain = varint.read

    def counted(data: bytes, position: int, *most: int) -> tuple[int, int]:
        nonlocal read
        read += 1
        return plain(data, position, *most)

    monkeypatch.setattr(varint, "read", counted)
    listed = bytes([1, 2]) * 500_000
    data = bytes([1 | flag]) + varint.write(len(listed)) + listed + struct.pack(">H", 0) * 200
    index = torch.full((1, 64), 60 if flag == 0x20 else 1, dtype=torch.int32)
    decoder = segment.Decoder([data], tables)
    with pytest.raises(StreamError):
        decoder.next(index)
        decoder.finish()
    assert read < 2 * 64 + 8


@pytest.mark.parametrize("centre", [1e39, -1e300])
def test_a_place_beyond_float32_is_found_out(centre: float, model: PointCode) -> None:
    """A header of a far cloud holds any float64; with a checksum that matches, the seal tells."""
    header, segments = unpack(cubed.encode(model, cloud().double() + 1e6))
    assert header.scale is not None
    stream = pack(replace(header, scale=(centre, *header.scale[1:])), segments)
    with pytest.raises(StreamError):
        lc_bench.decompress(model, [stream])
