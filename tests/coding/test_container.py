"""The container refuses whatever it has not written, quickly and with a reason."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lc_bench.coding import varint
from lc_bench.coding.container import Header, Identity, pack, unpack
from lc_bench.coding.head import Escapes, Exceptions
from lc_bench.coding.segment import _write_exceptions
from lc_bench.coding.tiles import TileFile, pack_tiles, tiles_of
from lc_bench.errors import StreamError

IDENTITY = Identity(b"a", b"www")
GOLDEN = "4c430161777777a22840500566697273747365636f6e649aa3cd22"
SIZES = st.lists(st.integers(1, 4000), min_size=1, max_size=2)


LEVELS = st.none() | st.integers(0, 10_000)
NAMES = st.text("abcxyz-019 =", max_size=200)


@given(SIZES, LEVELS, NAMES, st.lists(st.binary(max_size=300), min_size=1, max_size=15))
def test_round_trip(sizes: list[int], level: int | None, name: str, segments: list[bytes]) -> None:
    header = Header(IDENTITY, tuple(sizes), level, model=name)
    assert unpack(pack(header, segments)) == (header, segments)


@given(st.data(), st.integers(64, 4096), LEVELS, NAMES, st.integers(1, 15))
def test_round_trip_of_tiles(data: st.DataObject, tile: int, level: int | None, name: str, count: int) -> None:
    size = data.draw(st.integers(1, 4 * tile)), data.draw(st.integers(1, 4 * tile))
    header = Header(IDENTITY, size, level, tile, name)
    rows, columns = tiles_of(header)
    segments = [[data.draw(st.binary(min_size=1, max_size=9))] * count for _ in range(rows * columns)]
    file = TileFile(pack_tiles(header, segments))
    assert file.header == header
    for number in reversed(range(rows * columns)):
        assert file.segments(number) == segments[number]


def test_a_plain_header_has_no_bytes_for_tiles_and_names() -> None:
    """Golden: streams of whole images without a name are what they were before there were any."""
    assert pack(Header(IDENTITY, (64, 80), 40), [b"first", b"second"]).hex() == GOLDEN


def test_random_bytes_after_a_head_of_tiles() -> None:
    head = pack_tiles(Header(IDENTITY, (4000, 4000), None, 64), [[b"x", b"y"]] * 63**2)[:20]
    for seed in range(200):
        with pytest.raises(StreamError):
            TileFile(head + random.Random(seed).randbytes(20_000))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(StreamError):
        unpack(data)


@given(st.data())
def test_every_flipped_bit_and_every_cut_is_seen(data: st.DataObject) -> None:
    stream = bytearray(pack(Header(IDENTITY, (64, 80)), [b"first", b"second"]))
    if data.draw(st.booleans()):
        stream = stream[: data.draw(st.integers(0, len(stream) - 1))]
    else:
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StreamError):
        unpack(bytes(stream))


def test_absurd_sizes_with_a_valid_checksum_are_refused() -> None:
    with pytest.raises(StreamError, match="not decoded"):
        unpack(pack(Header(IDENTITY, (1 << 20, 1 << 20)), [b""]))
    body = b"LC\x01awww\x21\x00\x08"
    with pytest.raises(StreamError, match="sizes"):
        unpack(body + zlib.crc32(body).to_bytes(4, "little"))


def test_newer_versions_are_named() -> None:
    with pytest.raises(StreamError, match="version 9"):
        unpack(b"LC\x09" + bytes(20))


@given(st.integers(0, (1 << 35) - 1))
def test_varints(value: int) -> None:
    assert varint.read(varint.write(value), 0) == (value, len(varint.write(value)))


@given(st.lists(st.integers(-(1 << 32), 1 << 32)))
def test_signed_varints(values: list[int]) -> None:
    escapes = Escapes(b"".join(map(varint.write_signed, values)))
    assert escapes.take(len(values)) == values
    assert not escapes


@given(st.lists(st.integers(0, (1 << 35) - 1)), st.binary(max_size=9))
def test_tables_of_varints(values: list[int], rest: bytes) -> None:
    """All at once what `read` reads one by one."""
    data = b"head" + b"".join(map(varint.write, values))
    found, end = varint.read_table(data + rest, 4, len(values))
    assert found.tolist() == values
    assert end == len(data)
    for short in (data[:-1], data[:-1] + b"\xff" * 6) if values else ():
        with pytest.raises(StreamError):
            varint.read_table(short, 4, len(values))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(-9, 9)), unique_by=lambda pair: pair[0]), st.lists(st.integers(0, 60)))
def test_exceptions_come_as_they_are_due(pairs: list[tuple[int, int]], ends: list[int]) -> None:
    listed = Exceptions(_write_exceptions(sorted(pairs)))
    taken = [pair for end in [*sorted(ends), 51] for pair in listed.take(end)]
    assert taken == sorted(pairs)
    assert not listed
