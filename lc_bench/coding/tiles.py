"""The file of an image in tiles: any tile is found, checked and read without reading the others.

    header with a side of tiles | lengths of all tiles, row by row (varints) | CRC-32 of all that (4) | tiles

A tile: lengths of all its segments but the last (varints) | segments | CRC-32 (4) of the header's CRC-32, the tile's number
(4, little endian) and all of the tile before. So a tile that is another file's, or stands in another place, is found out.
"""

from __future__ import annotations

import itertools

from ..errors import StreamError
from . import varint
from .container import CRC, Header, Stream, checksum, join, read_head, split, write_head

SMALLEST = CRC + 1  # bytes of a tile


def tiles_of(header: Header) -> tuple[int, int]:
    """Rows and columns of tiles."""
    assert header.tile is not None
    height, width = header.sizes
    return -(-height // header.tile), -(-width // header.tile)


def pack_tiles(header: Header, tiles: list[list[bytes]]) -> bytes:
    """tiles: the segments of each, row by row, long enough for what they hold."""
    bodies = [join(tile) for tile in tiles]
    head = write_head(header, len(tiles[0])) + b"".join(varint.write(len(body) + CRC) for body in bodies)
    seal = checksum(head)
    return b"".join([head, seal, *(body + _seal(seal, number, body) for number, body in enumerate(bodies))])


def _seal(head: bytes, number: int, body: bytes) -> bytes:
    return checksum(head + number.to_bytes(4, "little") + body)


class TileFile:
    """The header, and the segments of any tile. stream: bytes, or a file that is mapped into memory."""

    def __init__(self, stream: Stream) -> None:
        self.header, self.segment_count, position = read_head(stream)
        if self.header.tile is None:
            raise StreamError("the stream is of a whole image, it has no tiles")
        self.rows, self.columns = tiles_of(self.header)
        count = self.rows * self.columns
        if count * SMALLEST > len(stream):  # before anything is made for each of them
            raise StreamError(f"damaged stream or cut short: {count} tiles in {len(stream)} bytes")
        lengths = []
        table = stream[position : position + 5 * count]
        place = 0
        for _ in range(count):
            length, place = varint.read(table, place, len(stream))
            lengths.append(length)
        position += place
        self.seal = stream[position : position + CRC]
        if checksum(stream[:position]) != self.seal:
            raise StreamError("damaged stream or cut short: the checksum of its header does not match")
        self.starts = [*itertools.accumulate(lengths, initial=position + CRC)]
        if self.starts[-1] != len(stream) or min(lengths) < SMALLEST:
            raise StreamError(f"damaged stream or cut short: {len(stream)} bytes instead of {self.starts[-1]}")
        self.stream = stream

    def segments(self, number: int) -> list[bytes]:
        """Of the tile with that number, rows before columns."""
        tile = self.stream[self.starts[number] : self.starts[number + 1]]
        if _seal(self.seal, number, tile[:-CRC]) != tile[-CRC:]:
            raise StreamError(f"damaged stream: the checksum of tile {number} does not match")
        return split(tile[:-CRC], self.segment_count)
