"""The head of a segment: its lanes, what was written in full, and where the bits begin. A reader trusts none of it."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import StreamError
from . import varint
from .layout import MAX_STAGE, SHAPES, Lanes

HAS_ESCAPES, CARRIES, HAS_EXCEPTIONS = 0x20, 0x40, 0x80


@dataclass
class Head:
    """What a segment says of itself; lists are used up while reading."""

    lanes: Lanes
    escapes: list[int]
    exceptions: list[tuple[int, int]]
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
    return Head(lanes, varint.read_all_signed(lists[0]), _read_exceptions(lists[1]), data[position:], bool(code & CARRIES))


def _read_exceptions(data: bytes) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    place = position = 0
    while position < len(data):
        gap, position = varint.read(data, position)
        value, position = varint.read(data, position)
        if found and not gap:
            raise StreamError("damaged stream: two exceptions for one symbol")
        place += gap
        found.append((place, varint.signed(value)))
    return found
