"""The head of a segment: its lanes, what was written in full, and where the bits begin. A reader trusts none of it.

Lists of what was written in full are as long as a stream says, so they are read as symbols ask for them, no further.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import StreamError
from . import varint
from .layout import MAX_STAGE, SHAPES, Lanes

HAS_ESCAPES, CARRIES, HAS_EXCEPTIONS = 0x20, 0x40, 0x80


class Escapes:
    """Values in the order of their places."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def __bool__(self) -> bool:
        return self.position < len(self.data)

    def take(self, count: int) -> list[int]:
        """The next so many; StreamError where there are fewer."""
        values = []
        for _ in range(count):
            if not self:
                raise StreamError("damaged stream: more escapes than were written")
            value, self.position = varint.read(self.data, self.position)
            values.append(varint.signed(value))
        return values


class Exceptions:
    """Pairs (place, value), places rising."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0
        self.place = -1  # of the last one
        self.ahead: tuple[int, int] | None = None  # read, and not yet taken

    def __bool__(self) -> bool:
        return self.ahead is not None or self.position < len(self.data)

    def take(self, end: int) -> list[tuple[int, int]]:
        """Those at places before `end`."""
        found = []
        while self:
            place, value = self.ahead or self._read()
            self.ahead = (place, value)
            if place >= end:
                break
            found.append((place, value))
            self.ahead = None
        return found

    def _read(self) -> tuple[int, int]:
        gap, self.position = varint.read(self.data, self.position)
        value, self.position = varint.read(self.data, self.position)
        if self.place >= 0 and not gap:
            raise StreamError("damaged stream: two exceptions for one symbol")
        self.place = max(self.place, 0) + gap
        return self.place, varint.signed(value)


@dataclass
class Head:
    """What a segment says of itself; lists are used up while reading."""

    lanes: Lanes
    escapes: Escapes
    exceptions: Exceptions
    body: bytes
    carries: bool


def split(data: bytes) -> Head:
    if not data:
        raise StreamError("stream cut short: an empty segment")
    code, position = data[0], 1
    if not 0 < code & 31 < len(SHAPES):  # 0 would have no lane to hold the seal
        raise StreamError(f"damaged stream: a segment that starts with {code}")
    first, doublings = SHAPES[code & 31]
    stage = full = 0
    if doublings:
        stage, position = varint.read(data, position, MAX_STAGE)
        full, position = varint.read(data, position)
    lists = []
    for flag in (HAS_ESCAPES, HAS_EXCEPTIONS):
        size = 0
        if code & flag:
            size, position = varint.read(data, position, len(data))
            if position + size > len(data):
                raise StreamError("stream cut short: it ends inside the escapes")
        lists.append(data[position : position + size])
        position += size
    lanes = Lanes(first, doublings, stage, full)
    return Head(lanes, Escapes(lists[0]), Exceptions(lists[1]), data[position:], bool(code & CARRIES))
