"""The stream of a cloud in cubes: the cubes of a grid that hold points, each coded for itself.

header with a side of cubes | number of cubes (varint) | of each cube: its place on the grid, less that of the cube before (3 zigzag
varints), its number of points (varint), lengths of all its segments (varints) | the segments, cube by cube | CRC-32 (4) of all that
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ..errors import StreamError
from . import varint
from .container import CRC, Header, Stream, checksum, read_head, write_head

SMALLEST = 5  # bytes of a cube in the table, with one segment
FARTHEST = 1 << 24  # cubes from the origin, on an axis


@dataclass(frozen=True)
class Cube:
    """place: on the grid, in sides; count: number of points."""

    place: tuple[int, ...]
    count: int
    segments: list[bytes]


def pack_cubes(header: Header, cubes: list[Cube]) -> bytes:
    """One at least; all of as many segments."""
    parts = [write_head(header, len(cubes[0].segments)), varint.write(len(cubes))]
    for before, cube in itertools.pairwise([Cube((0, 0, 0), 0, []), *cubes]):
        parts += [varint.write_signed(a - b) for a, b in zip(cube.place, before.place, strict=True)]
        parts += [varint.write(cube.count), *(varint.write(len(s)) for s in cube.segments)]
    body = b"".join([*parts, *(s for cube in cubes for s in cube.segments)])
    return body + checksum(body)


def unpack_cubes(stream: Stream) -> tuple[Header, list[Cube]]:
    """StreamError says what is wrong with anything that `pack_cubes` has not written."""
    if len(stream) < 13 or checksum(stream[:-CRC]) != stream[-CRC:]:
        raise StreamError("damaged stream or cut short: its checksum does not match")
    header, segments, position = read_head(stream)
    if header.cube is None:
        raise StreamError("the stream is of a whole cloud, it has no cubes")
    body = stream[position:-CRC]
    count, position = varint.read(body, 0)
    if count * SMALLEST > len(body):  # before anything is made for each of them
        raise StreamError(f"damaged stream: {count} cubes in {len(stream)} bytes")
    table, place = [], [0, 0, 0]
    for _ in range(count):
        for axis in range(3):
            step, position = varint.read(body, position)
            place[axis] += varint.signed(step)
        points, position = varint.read(body, position, header.sizes[0])
        lengths = []
        for _ in range(segments):
            length, position = varint.read(body, position, len(body))
            lengths.append(length)
        table.append((tuple(place), points, lengths))
        if not points or max(map(abs, place)) > FARTHEST:
            raise StreamError(f"damaged stream: a cube of {points} points at {place}")
    if sum(points for _, points, _ in table) != header.sizes[0]:
        raise StreamError(f"damaged stream: its cubes do not hold the {header.sizes[0]} points that it promises")
    cubes = []
    for where, points, lengths in table:
        ends = [*itertools.accumulate(lengths, initial=position)]
        cubes.append(Cube(where, points, [body[a:b] for a, b in itertools.pairwise(ends)]))
        position = ends[-1]
    if position != len(body):
        raise StreamError(f"damaged stream: its cubes end at byte {position} of {len(body)}")
    return header, cubes
