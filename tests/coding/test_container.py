"""The container refuses whatever it has not written, quickly and with a reason."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lc_bench.coding import varint
from lc_bench.coding.container import Header, Identity, pack, unpack
from lc_bench.errors import StreamError

IDENTITY = Identity(b"a", b"www")
SIZES = st.lists(st.integers(1, 4000), min_size=1, max_size=2)


@given(SIZES, st.none() | st.integers(0, 10_000), st.lists(st.binary(max_size=300), min_size=1, max_size=15))
def test_round_trip(sizes: list[int], level: int | None, segments: list[bytes]) -> None:
    header = Header(IDENTITY, tuple(sizes), level)
    assert unpack(pack(header, segments)) == (header, segments)


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
    assert varint.read_all_signed(b"".join(map(varint.write_signed, values))) == values
