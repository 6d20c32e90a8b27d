"""The stream of a cloud in cubes: the cubes of a grid that hold points, each coded for itself.

header with a side of cubes | number of cubes (varint) | of each cube: its place on the grid, less that of the cube before (3 zigzag
varints), its number of points (varint), lengths of all its segments (varints) | the segments, cube by cube | CRC-32 (4) of all that
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import StreamError
from . import varint
from .container import CRC, Header, Stream, check_piece, check_points, checksum, read_head, write_head

FARTHEST = 1 << 24  # cubes from the origin, on an axis
BLOCK = 1 << 14  # cubes whose numbers are taken apart at a time


@dataclass(frozen=True)
class Cube:
    """place: on the grid, in sides; count: number of points."""

    place: tuple[int, ...]
    count: int
    segments: list[bytes]


def in_seal(place: Sequence[int], count: int) -> bytes:
    """What the seal of a cube says of it."""
    return struct.pack("<3iI", *place, count)


def pack_cubes(header: Header, cubes: Sequence[Cube]) -> bytes:
    """One at least; all of as many segments."""
    parts = [write_head(header, len(cubes[0].segments)), varint.write(len(cubes))]
    for before, cube in itertools.pairwise([Cube((0, 0, 0), 0, []), *cubes]):
        parts += [varint.write_signed(a - b) for a, b in zip(cube.place, before.place, strict=True)]
        parts += [varint.write(cube.count), *(varint.write(len(s)) for s in cube.segments)]
    body = b"".join([*parts, *(s for cube in cubes for s in cube.segments)])
    return body + checksum(body)


class Cubes(Sequence[Cube]):
    """The cubes of a stream, of which each is made when it is asked for.

    places (n, 3), counts (n,), and ends (n, segments) of segments from `start` in `body` on.
    """

    def __init__(self, body: bytes, start: int, places: np.ndarray, counts: np.ndarray, ends: np.ndarray) -> None:
        self.body, self.start, self.places, self.counts, self.ends = body, start, places, counts, ends

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        first = 0 if number == 0 else int(self.ends[number - 1, -1])
        edges = [self.start + end for end in (first, *self.ends[number].tolist())]
        return Cube(tuple(self.places[number].tolist()), int(self.counts[number]), [self.body[a:b] for a, b in itertools.pairwise(edges)])


def unpack_cubes(stream: Stream) -> tuple[Header, Cubes]:
    """StreamError says what is wrong with anything that `pack_cubes` has not written, but for the segments, which are not looked into."""
    if len(stream) < 13 or checksum(stream[:-CRC]) != stream[-CRC:]:
        raise StreamError("damaged stream or cut short: its checksum does not match")
    header, segments, position = read_head(stream)
    if header.cube is None:
        raise StreamError("the stream is of a whole cloud, it has no cubes")
    body = stream[position:-CRC]
    points = header.sizes[0]
    check_points(points, len(body))
    count, position = varint.read(body, 0)
    columns = 4 + segments
    if count * (columns + segments) > len(body):  # a byte for each number, and for each segment
        raise StreamError(f"damaged stream: {count} cubes in {len(stream)} bytes")
    places, counts, ends = np.zeros((count, 3), np.int32), np.zeros(count, np.int32), np.zeros((count, segments), np.int64)
    last, end = np.zeros(3, np.int64), 0
    for start in range(0, count, BLOCK):
        some = slice(start, min(start + BLOCK, count))
        numbers, position = varint.read_table(body, position, (some.stop - start) * columns)
        table = numbers.reshape(-1, columns)
        steps = table[:, :3]
        there = last + np.where(steps % 2, -(steps >> 1) - 1, steps >> 1).cumsum(0)
        bad = (table[:, 3] < 1) | (table[:, 3] > points) | (np.abs(there).max(1) > FARTHEST)
        if bad.any():
            raise StreamError(f"damaged stream: a cube of {table[bad.argmax(), 3]} points at {there[bad.argmax()].tolist()}")
        if not table[:, 4:].all():
            raise StreamError("stream cut short: a cube with an empty segment")
        places[some], counts[some] = there, table[:, 3]
        ends[some] = end + table[:, 4:].reshape(-1).cumsum().reshape(-1, segments)
        last, end = there[-1], int(ends[some.stop - 1, -1])
    if int(counts.sum(dtype=np.int64)) != points:
        raise StreamError(f"damaged stream: its cubes do not hold the {points} points that it promises")
    check_piece(int(counts.max()))
    if position + end != len(body):
        raise StreamError(f"damaged stream: its cubes end at byte {position + end} of {len(body)}")
    return header, Cubes(body, position, places, counts, ends)
