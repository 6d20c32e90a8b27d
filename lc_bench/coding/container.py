"""The file: a header that says what the stream is, its segments, a checksum.

    "LC" | version (1) | architecture (1) | weights (3) | segments | sizes << 4 | 0x40 with flags | 0x80 with a level (1) |
    flags (1, if there are any) | place (2, if bound to one) | level (varint, if there is one) |
    sizes (varints: height, width of an image) | side of the tiles in pixels (varint, if there are any) |
    model (varint length and text, if it is named) |
    centre and scale of a cloud (4 float32, if it is placed; the centre as 3 float64, if it is far) |
    side of the cubes (float32, if it is in cubes) | ...
    ... a whole image or cloud: lengths of all segments but the last (varints) | segments | CRC-32 (4, little endian)

What follows instead for an image in tiles is in tiles.py, for a cloud in cubes in cubes.py. A reader checks all of it before it
decodes anything.
"""

from __future__ import annotations

import math
import mmap
import struct
import zlib
from dataclasses import dataclass, replace

from ..errors import StreamError
from . import seal, varint

Stream = bytes | mmap.mmap

MAGIC = b"LC"
VERSION = 1
HAS_LEVEL, HAS_FLAGS = 0x80, 0x40
TILED, NAMED, BOUND, PLACED, CUBED, FAR, PLACE_SEALED = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
KNOWN = TILED | NAMED | BOUND | PLACED | CUBED | FAR | PLACE_SEALED
# Sizes up to 2^24 on a side and 2^28 in all keep what a header can ask for within a few gigabytes.
LARGEST_SIDE = 1 << 24
LARGEST_AREA = 1 << 28  # of an image in tiles
LARGEST_WHOLE = 1 << 26  # of one that is not
# A header alone can ask for FREE_AREA pixels; a larger image, or tile, has bytes for them, and zeros at its end if it has too few: one for
# AREA_PER_BYTE pixels up to DENSE_AREA, which nothing that is not asked for exceeds, and one for DENSE_PER_BYTE beyond.
FREE_AREA, AREA_PER_BYTE = 1 << 20, 1 << 13
DENSE_AREA, DENSE_PER_BYTE = 1 << 22, 1 << 9
# The same for points, which take longer: of all cubes of a cloud together. A piece is a cube, or a whole cloud.
FREE_POINTS, POINTS_PER_BYTE = 1 << 13, 1 << 4
LARGEST_PIECE = 1 << 17
SMALLEST_TILE, LARGEST_TILE = 64, 4096  # pixels on a side
LONGEST_NAME = 200  # bytes
CRC = 4  # bytes
PLACE = 2  # bytes


@dataclass(frozen=True)
class Identity:
    """Which model a stream belongs to: digests of its architecture, and of its weights and probability tables."""

    architecture: bytes  # 1
    weights: bytes  # 3


@dataclass(frozen=True)
class Header:
    """tile: side of the tiles in pixels, None for a whole image; model: which one wrote it, for a reader to find; may be empty.

    place: 2 bytes that say where alone the stream decodes, if the model has networks without an exact form.
    scale: centre (x, y, z) and scale of a cloud that was coded as (points - centre) / scale; scale is a float32, the centre takes
    twelve bytes more where it is no float32.
    cube: side of the cubes of a cloud that is coded in such (float32), None for a whole one.
    place_sealed: whether the seal knows where a cloud, or its cubes, lie; it did not in the first streams.
    """

    identity: Identity
    sizes: tuple[int, ...]  # (height, width), or (points,)
    level: int | None = None
    tile: int | None = None
    model: str = ""
    place: bytes = b""
    scale: tuple[float, float, float, float] | None = None
    cube: float | None = None
    place_sealed: bool = True


def pack(header: Header, segments: list[bytes], area: int = 0) -> bytes:
    """The stream of a whole image or cloud. area: pixels of an image, padded."""
    least = least_of_points(header.sizes[0]) if len(header.sizes) == 1 else least_bytes(area)
    body = write_head(header, len(segments)) + join(segments, least)
    return body + checksum(body)


def join(segments: list[bytes], least: int = 0) -> bytes:
    """What `split` takes apart, in so many bytes at least."""
    lengths = b"".join(varint.write(len(s)) for s in segments[:-1])
    return b"".join([lengths, *segments]).ljust(least, b"\0")


def filled(segments: list[bytes], least: int) -> list[bytes]:
    """With so many bytes at least: the last one, which then must not have lost its end, goes on with zeros."""
    missing = least - sum(map(len, segments))
    return segments if missing <= 0 else [*segments[:-1], segments[-1] + bytes(missing)]


def write_head(header: Header, segments: int) -> bytes:
    """Everything before the first length."""
    name = header.model.encode()
    flags = (TILED if header.tile else 0) | (NAMED if name else 0) | (BOUND if header.place else 0)
    flags |= (PLACED if header.scale else 0) | (CUBED if header.cube else 0)
    far = header.scale is not None and any(single(c) != c for c in header.scale[:3])
    flags |= FAR if far else 0
    flags |= PLACE_SEALED if header.place_sealed and (header.scale or header.cube) else 0
    head = bytearray(MAGIC + bytes([VERSION]) + header.identity.architecture + header.identity.weights)
    head.append(segments | len(header.sizes) << 4 | (HAS_FLAGS if flags else 0) | (0 if header.level is None else HAS_LEVEL))
    if flags:
        head.append(flags)
    head += header.place
    if header.level is not None:
        head += varint.write(header.level)
    head += b"".join(map(varint.write, header.sizes))
    if header.tile:
        head += varint.write(header.tile)
    if name:
        head += varint.write(len(name)) + name
    if header.scale:
        head += struct.pack("<3df" if far else "<4f", *header.scale)
    head += struct.pack("<f", header.cube) if header.cube else b""
    return bytes(head)


def seal_of(header: Header, segments: int, part: int | None = None, place: bytes = b"") -> int:
    """Where the seal of a stream, or of one of its tiles or cubes, starts: names may be said later.

    part: number of the tile or cube; place: of a cube, as cubes.py has it.
    """
    scale = header.scale if header.place_sealed else None
    head = write_head(replace(header, model="", scale=scale), segments)
    return seal.of_header(head + (b"" if part is None else part.to_bytes(4, "little")) + (place if header.place_sealed else b""))


def least_bytes(area: int) -> int:
    """Of the segments of so many pixels."""
    return max(0, min(area, DENSE_AREA) - FREE_AREA) // AREA_PER_BYTE + max(0, area - DENSE_AREA) // DENSE_PER_BYTE


def least_of_points(points: int) -> int:
    """Bytes of the segments of so many points."""
    return max(0, points - FREE_POINTS) // POINTS_PER_BYTE


def check_points(points: int, size: int) -> None:
    """StreamError where a stream of clouds, or what it says of its points, is too few bytes for so many."""
    if size < least_of_points(points):
        raise StreamError(f"damaged stream: {points} points in {size} bytes; so many are not decoded")


def check_piece(points: int) -> None:
    """StreamError for more points than a cube, or a whole cloud, has."""
    if points > LARGEST_PIECE:
        raise StreamError(f"damaged stream: {points} points in one piece; more than {LARGEST_PIECE} are not decoded")


def check_claim(segments: list[bytes], area: int) -> None:
    """StreamError where segments are too few bytes for so many pixels, padded. Lengths are not counted, they are a few bytes."""
    size = sum(map(len, segments)) + 5 * len(segments)
    if area > LARGEST_WHOLE or size < least_bytes(area):
        raise StreamError(f"damaged stream: {area} pixels in {size} bytes; so many are not decoded")


def checksum(data: bytes, start: int = 0) -> bytes:
    """CRC-32, 4 bytes, little endian."""
    return zlib.crc32(data, start).to_bytes(CRC, "little")


def unpack(stream: Stream) -> tuple[Header, list[bytes]]:
    """-> header and segments of a whole image or cloud. StreamError says what is wrong with anything that `pack` has not written."""
    if not is_tiled(stream) and (len(stream) < 13 or checksum(stream[:-CRC]) != stream[-CRC:]):
        raise StreamError("damaged stream or cut short: its checksum does not match")
    header, count, position = read_head(stream)
    if header.tile:
        raise StreamError(
            "the stream is of an image in tiles; lc_bench.decompress(model, streams) decodes it, with region=... a part of it"
        )
    if header.cube:
        raise StreamError("the stream is of a cloud in cubes; lc_bench.decompress(model, [stream]) decodes it")
    if len(header.sizes) == 1:
        check_points(header.sizes[0], len(stream) - position)
        check_piece(header.sizes[0])
    return header, split(stream[position:-CRC], count)


def is_tiled(stream: Stream) -> bool:
    """As its header says. StreamError for what is no stream of this version."""
    if len(stream) < 4 or stream[:2] != MAGIC:
        raise StreamError(f"not an lc_bench stream: it starts with {stream[:2]!r} instead of {MAGIC!r}")
    if stream[2] != VERSION:
        raise StreamError(f"stream of format version {stream[2]}; this lc_bench reads version {VERSION}. Update lc_bench")
    return len(stream) > 8 and bool(stream[7] & HAS_FLAGS) and bool(stream[8] & TILED)


def read_head(stream: Stream) -> tuple[Header, int, int]:
    """-> header, number of segments, position after it. What it says is bounded, whatever it is; no checksum is looked at."""
    is_tiled(stream)
    data = stream[: 8 + 64 + LONGEST_NAME]
    if len(data) < 8:
        raise StreamError("stream cut short: it ends inside its header")
    counts, position, flags, level, tile, model = data[7], 8, 0, None, None, ""
    if counts & HAS_FLAGS:
        flags, position = data[8] if len(data) > 8 else 0, 9
        alone = (flags & FAR and not flags & PLACED) or (flags & PLACE_SEALED and not flags & (PLACED | CUBED))
        if not flags or flags & ~KNOWN or alone:
            raise StreamError(f"stream with flags {flags:#x}: damaged, or written by a newer lc_bench; update it")
    place = data[position : position + PLACE] if flags & BOUND else b""
    position += len(place)
    if counts & HAS_LEVEL:
        level, position = varint.read(data, position)
    sizes, position = _numbers(data, position, counts >> 4 & 3, LARGEST_SIDE)
    if not sizes or 0 in sizes or not counts & 15:
        raise StreamError(f"damaged stream: sizes {sizes}, {counts & 15} segments")
    area = 1
    for size in sizes:
        area *= size
    if area > LARGEST_AREA:
        raise StreamError(f"stream of {' x '.join(map(str, sizes))}: more than {LARGEST_AREA} samples are not decoded")
    if flags & TILED:
        tile, position = varint.read(data, position, LARGEST_TILE)
        if tile < SMALLEST_TILE or len(sizes) != 2:
            raise StreamError(f"damaged stream: tiles of {tile} pixels in {len(sizes)} dimensions")
    if flags & NAMED:
        length, position = varint.read(data, position, LONGEST_NAME)
        model, position = _text(data[position : position + length], length), position + length
    scale = cube = None
    if flags & PLACED:
        (*centre, size), position = _reals(data, position, "<3df" if flags & FAR else "<4f")
        scale = (centre[0], centre[1], centre[2], size)
    if flags & CUBED:
        (cube,), position = _reals(data, position, "<f")
    if flags & (PLACED | CUBED) and (len(sizes) != 1 or not (scale is None or scale[3] > 0) or not (cube is None or cube > 0)):
        raise StreamError(f"damaged stream: a cloud of sizes {sizes}, scale {scale}, in cubes of {cube}")
    sealed = bool(flags & PLACE_SEALED) or not flags & (PLACED | CUBED)
    header = Header(Identity(data[3:4], data[4:7]), tuple(sizes), level, tile, model, place, scale, cube, sealed)
    return header, counts & 15, position


def is_cubed(stream: Stream) -> bool:
    """As its header says. StreamError for what is no stream of this version."""
    is_tiled(stream)
    return len(stream) > 8 and bool(stream[7] & HAS_FLAGS) and bool(stream[8] & CUBED)


def split(data: bytes, count: int) -> list[bytes]:
    """Lengths of all segments but the last, and the segments -> the segments."""
    lengths, position = _numbers(data, 0, count - 1, len(data))
    lengths.append(len(data) - position - sum(lengths))
    if lengths[-1] < 0:
        raise StreamError(f"damaged stream: its segments are {-lengths[-1]} bytes longer than its body")
    segments = []
    for length in lengths:
        segments.append(data[position : position + length])
        position += length
    return segments


def _text(data: bytes, length: int) -> str:
    text = data.decode("ascii", "replace")
    if len(data) != length or not text.isascii() or not text.isprintable():
        raise StreamError("damaged stream: the name of its model is no text")
    return text


def single(value: float) -> float:
    """The nearest float32, infinite where there is none."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def _reals(data: bytes, position: int, form: str) -> tuple[tuple[float, ...], int]:
    """Numbers of this form (struct's), finite."""
    end = position + struct.calcsize(form)
    if end > len(data):
        raise StreamError("stream cut short: it ends inside its header")
    values = struct.unpack(form, data[position:end])
    if not all(map(math.isfinite, values)):
        raise StreamError(f"damaged stream: a place or scale of {values}")
    return values, end


def _numbers(data: bytes, position: int, count: int, most: int) -> tuple[list[int], int]:
    numbers = []
    for _ in range(count):
        number, position = varint.read(data, position, most)
        numbers.append(number)
    return numbers, position
