"""The file: a header that says what the stream is, its segments, a checksum.

    "LC" | version (1) | architecture (1) | weights (3) | segments | sizes << 4 | 0x40 if bound to a place | 0x80 with a level (1) |
    level (varint, if there is one) | place (2, if it is bound to one) | sizes (varints: height, width of an image) |
    lengths of all segments but the last (varints) | segments | CRC-32 (4, little endian)

A reader checks all of it before it decodes anything.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from ..errors import StreamError
from . import varint

MAGIC = b"LC"
VERSION = 1
HAS_LEVEL = 0x80
HAS_PLACE = 0x40
# Sizes up to 2^24 on a side and 2^28 in all keep what a header can ask for within a few gigabytes.
LARGEST_SIDE = 1 << 24
LARGEST_AREA = 1 << 28


@dataclass(frozen=True)
class Identity:
    """Which model a stream belongs to: digests of its architecture, and of its weights and probability tables."""

    architecture: bytes  # 1
    weights: bytes  # 3


@dataclass(frozen=True)
class Header:
    identity: Identity
    sizes: tuple[int, ...]  # (height, width)
    level: int | None = None
    place: bytes | None = None  # 2, of where alone it decodes: the model has networks without an exact form


def pack(header: Header, segments: list[bytes]) -> bytes:
    body = bytearray(MAGIC + bytes([VERSION]) + header.identity.architecture + header.identity.weights)
    body.append(len(segments) | len(header.sizes) << 4 | (0 if header.level is None else HAS_LEVEL))
    body[-1] |= 0 if header.place is None else HAS_PLACE
    if header.level is not None:
        body += varint.write(header.level)
    body += header.place or b""
    body += b"".join(map(varint.write, header.sizes))
    body += b"".join(varint.write(len(s)) for s in segments[:-1])
    body += b"".join(segments)
    return bytes(body) + zlib.crc32(body).to_bytes(4, "little")


def unpack(stream: bytes) -> tuple[Header, list[bytes]]:
    """-> header and segments. StreamError says what is wrong with anything that `pack` has not written."""
    if len(stream) < 4 or stream[:2] != MAGIC:
        raise StreamError(f"not an lc_bench stream: it starts with {stream[:2]!r} instead of {MAGIC!r}")
    if stream[2] != VERSION:
        raise StreamError(f"stream of format version {stream[2]}; this lc_bench reads version {VERSION}. Update lc_bench")
    if len(stream) < 13 or zlib.crc32(stream[:-4]) != int.from_bytes(stream[-4:], "little"):
        raise StreamError("damaged stream or cut short: its checksum does not match")
    data = stream[:-4]
    counts, position, level = data[7], 8, None
    if counts & HAS_LEVEL:
        level, position = varint.read(data, position)
    place = None
    if counts & HAS_PLACE:
        place, position = data[position : position + 2], position + 2
    sizes, position = _numbers(data, position, counts >> 4 & 3, LARGEST_SIDE)
    if not 1 <= len(sizes) <= 3 or 0 in sizes or not counts & 15:
        raise StreamError(f"damaged stream: sizes {sizes}, {counts & 15} segments")
    area = 1
    for size in sizes:
        area *= size
    if area > LARGEST_AREA:
        raise StreamError(f"stream of {' x '.join(map(str, sizes))}: more than {LARGEST_AREA} samples are not decoded")
    lengths, position = _numbers(data, position, (counts & 15) - 1, len(data))
    lengths.append(len(data) - position - sum(lengths))
    if lengths[-1] < 0:
        raise StreamError(f"damaged stream: its segments are {-lengths[-1]} bytes longer than its body")
    segments = []
    for length in lengths:
        segments.append(data[position : position + length])
        position += length
    return Header(Identity(data[3:4], data[4:7]), tuple(sizes), level, place), segments


def _numbers(data: bytes, position: int, count: int, most: int) -> tuple[list[int], int]:
    numbers = []
    for _ in range(count):
        number, position = varint.read(data, position, most)
        numbers.append(number)
    return numbers, position
