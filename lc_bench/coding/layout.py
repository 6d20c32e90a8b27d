"""Which lane codes which symbol: rows, widths and start-up.

A segment is coded by lanes that advance together, one row of symbols per step. A state takes 14 bits, so only a few lanes start from a
constant. The encoder works from the last row to the first; it starts with those few and doubles them as soon as it has
written enough: the new ones take as states the bits that the old ones have written. The decoder runs the other way: its
lanes halve towards the end and hand those bits back. What is left of the cost is a few bits for each of the first lanes.

Symbols arrive in chunks (a context model knows the tables of a chunk only after decoding the one before). Every chunk starts a new
row; what its last row lacks are certain symbols, which cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .ans import LOG

# (lanes that start from a constant, doublings) by code: none, which readers refuse; 1, 2, 4 ... 1024; 4 x 16 ... 4 x 512;
# 16 x 8 ... 16 x 256; 64 x 16 ... 64 x 128.
SHAPES = [
    (0, 0),
    *((1, d) for d in range(11)),
    *((4, d) for d in range(4, 10)),
    *((16, d) for d in range(3, 9)),
    *((64, d) for d in range(4, 8)),
]
MAX_STAGE = 31
PER_FIRST = 14000.0  # bits of payload for each lane that starts from a constant, which costs its 14 bits: 0.1 %
IN_FLIGHT = 0.3  # of the bits, at most, are in the states of lanes; they cost 0.4 % of that
ROW, LANE = 8.0, 0.004  # microseconds that a row and a lane in it take, about: to choose by


def stage_rows(code: int) -> int:
    """Rows of a stage by its code 0 .. 31: 2, 3, 4, 6, 8, 12, ... 98304."""
    return 2 + (code & 1) << (code >> 1)


@dataclass(frozen=True)
class Lanes:
    """first * 2^doublings lanes for the first `full` symbols; then half of them for stage_rows(stage) rows, a quarter, ... and `first`."""

    first: int
    doublings: int
    stage: int = 0
    full: int = 0

    @property
    def most(self) -> int:
        return self.first << self.doublings

    def tail_width(self, row: int) -> int:
        """Of the row with that number after the full ones."""
        return self.most >> min(1 + row // stage_rows(self.stage), self.doublings)


class Walk:
    """Goes through the rows of a segment, chunk by chunk."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self.full = lanes.full  # symbols that are still to come in rows of all lanes
        self.row = 0  # since those

    @property
    def width(self) -> int:
        """Of the next row."""
        if self.full:
            return self.lanes.most
        return self.lanes.tail_width(self.row)

    def take(self, symbols: int) -> list[tuple[int, int, int]]:
        """(symbols, rows, width) that take the next so many symbols; the last row of each may not be filled."""
        runs = []
        length = stage_rows(self.lanes.stage)
        while symbols:
            width = self.width
            count = min(symbols, self.full or symbols)
            rows = -(-count // width)
            if self.full:
                self.full -= count
            else:
                if width > self.lanes.first:
                    rows = min(rows, length - self.row % length)
                    count = min(count, rows * width)
                self.row += rows
            runs.append((count, rows, width))
            symbols -= count
        return runs


def choose_lanes(tail_bits: Callable[[int], float], chunks: list[int]) -> Lanes:
    """Lanes for chunks of so many symbols, of which the last k take tail_bits(k) bits."""
    symbols = sum(chunks)
    if symbols == 0:
        return Lanes(1, 0)  # for the seal: 2 bytes, without which an empty segment could stand for any
    bits = tail_bits(symbols)
    best, least = Lanes(1, 0, 0, 0), float("inf")
    allowed = [s for s in SHAPES[1:] if (s[0] == 1 or s[0] * PER_FIRST <= bits) and (not s[1] or (s[0] << s[1]) * LOG <= IN_FLIGHT * bits)]
    for first, doublings in allowed:
        if (first, doublings + 2) in allowed and len(chunks) == 1:
            continue  # in one chunk the widest are the fastest
        found = _start_up(tail_bits, chunks, first, doublings)
        if found is not None and found[1] < least:
            best, least = found
    return best


def _start_up(tail_bits: Callable[[int], float], chunks: list[int], first: int, doublings: int) -> tuple[Lanes, float] | None:
    """The shortest stages in which each doubling finds the bits that it needs, and about how long all rows take."""
    if doublings == 0:
        rows = sum(-(-c // first) for c in chunks)
        return Lanes(first, 0), rows * (ROW + LANE * first)
    for stage in range(MAX_STAGE + 1):
        length = stage_rows(stage)
        rows, time, taken, ready = 0, 0.0, 0, True
        left = chunks[::-1]
        place = 0
        for doubling in range(doublings):  # from the end on, as the encoder goes
            width = first << doubling
            remaining = length
            while remaining and place < len(left):
                some = min(remaining, -(-left[place] // width))
                got = min(left[place], some * width)
                left[place] -= got
                taken += got
                remaining -= some
                place += left[place] == 0
            time += length * (ROW + LANE * width)
            # 14 bits for each new lane, and a bit for what the states may have gained since.
            if remaining or tail_bits(taken) < 1.02 * (LOG + 1) * (2 * width - first) + 8:
                ready = False
                break
        if ready:
            most = first << doublings
            rows = sum(-(-c // most) for c in left[place:])
            return _to_the_end(Lanes(first, doublings, stage, sum(left)), chunks), time + rows * (ROW + LANE * most)
        if place >= len(left):
            return None
    return None


def _to_the_end(lanes: Lanes, chunks: list[int]) -> Lanes:
    """With so many symbols less in full rows that the last stage is reached: a chunk that ends amid the stages leaves lanes without
    a symbol at its end, which counting from the end of the segment puts at its beginning."""
    rows = lanes.doublings * stage_rows(lanes.stage)
    for _ in range(8):
        walk = Walk(lanes)
        for chunk in chunks:
            walk.take(chunk)
        missing = sum(lanes.tail_width(row) for row in range(walk.row, rows))
        if not missing or not lanes.full:
            break
        lanes = replace(lanes, full=max(0, lanes.full - missing))
    return lanes
