"""Which lane codes which symbol: rows, widths and start-up.

A stream is coded by `lanes` independent rANS states that advance together, one row of symbols per step. Every state
that is stored costs its size, so only a few lanes start from a constant. The encoder works from the last row to the
first; after each `startup` rows it doubles its lanes, and the new ones take as initial states the words that the old
ones have emitted so far. The decoder runs the other way: its lanes halve towards the end and hand those words back.

Symbols arrive in chunks (a context model knows the tables of a chunk only after decoding the one before). A chunk
always starts in a new row; what is missing to fill its first row are certain symbols, which cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Kept lanes cost about 4.75 bits each (3.5 for the unknown exponent of a stored state, 24 for one lane in 32 that
# starts from a constant, and half a bit where a start-up word is rounded), so this many bits per lane is 0.85 %.
BITS_PER_LANE = 560
MAX_DOUBLINGS = 5
# (lanes that start from a constant, doublings) by code: 1, 4, 8, 16, 32, 48, 64, 96, ... 6144 lanes in all.
SHAPES = [(1, 0), (1, 2), (1, 3), (1, 4), (1, 5), (3, 4)]
SHAPES += [(first << k, MAX_DOUBLINGS) for k in range(7) for first in (2, 3)]
MAX_STARTUP = 31
MAX_QUIET = 15


def stage_rows(code: int) -> int:
    """Rows of a stage by its code 0 .. 31: 2, 3, 4, 6, 8, 12, ... 98304."""
    return 2 + (code & 1) << (code >> 1)


@dataclass(frozen=True)
class Lanes:
    """first * 2**doublings lanes; each stage of the start-up lasts stage_rows(startup) rows.

    The last `quiet` chunks have too few bits to start lanes from: the first lanes code them alone, and stages are counted
    from there.
    """

    first: int
    doublings: int
    startup: int
    quiet: int = 0

    def width(self, row_from_end: int) -> int:
        return self.first << min(row_from_end // stage_rows(self.startup), self.doublings)


@dataclass(frozen=True)
class Run:
    """Rows of equal width inside one chunk, in decoding order."""

    width: int
    rows: int


@dataclass(frozen=True)
class Chunk:
    size: int
    padding: int  # certain symbols before the first real one
    runs: tuple[Run, ...]


def lay_out(sizes: list[int], lanes: Lanes) -> list[Chunk]:
    """Rows of every chunk. Sender and receiver both derive this from the header and the shapes alone."""
    chunks: list[Chunk] = []
    stage = stage_rows(lanes.startup)
    row = 0  # counted from the end of the stream, or of what comes before the quiet chunks
    for place, size in enumerate(reversed(sizes)):
        runs: list[Run] = []
        missing = size
        if place < lanes.quiet and size:
            rows = -(-size // lanes.first)
            runs.append(Run(lanes.first, rows))
            missing -= rows * lanes.first
        while missing > 0:
            width = lanes.width(row)
            rows = -(-missing // width)
            if row // stage < lanes.doublings:
                rows = min(rows, stage - row % stage)
            runs.append(Run(width, rows))
            row += rows
            missing -= rows * width
        chunks.append(Chunk(size, -missing, tuple(reversed(runs))))
    return chunks[::-1]


def choose_lanes(tail_bits: Callable[[int], float], sizes: list[int]) -> Lanes:
    """Lanes for a stream of chunks of these sizes, whose last k symbols take tail_bits(k) bits: as many as it can carry at
    under 1 %, with stages just long enough to emit what the next lanes start from, after so many quiet chunks that the
    fewest steps are narrow (a bit in a quiet chunk is taken for a step). Few shapes: streams of a batch fall into few
    groups."""
    symbols = sum(sizes)
    bits = tail_bits(symbols)
    # Chunks of a wavefront are small and alike: none of them is quiet.
    most_quiet = len(sizes) - 1 if len(sizes) <= MAX_QUIET + 1 else 0
    quiet_symbols = [sum(sizes[len(sizes) - quiet :]) for quiet in range(most_quiet + 1)]
    for first, doublings in reversed(SHAPES[1:]):
        if (first << doublings) * BITS_PER_LANE > bits:
            continue
        # Two words for each lane, one bit of spread, and the 8 bits by which a first lane grows before it emits.
        needs = [first * (33 * ((2 << stage) - 1) + 10) for stage in range(doublings)]
        stages = [[first * stage_rows(s) * ((2 << stage) - 1) for stage in range(doublings)] for s in range(MAX_STARTUP + 1)]
        found: list[tuple[float, Lanes]] = []
        for quiet, before in enumerate(quiet_symbols):
            for startup, ends in enumerate(stages):
                if ends[-1] > (symbols - before) // 2:
                    break
                if all(tail_bits(before + end) >= need for end, need in zip(ends, needs, strict=True)):
                    narrow = doublings * stage_rows(startup) + tail_bits(before) / first
                    found.append((narrow, Lanes(first, doublings, startup, quiet)))
                    break
        if found:
            return min(found, key=lambda choice: choice[0])[1]
    return Lanes(1, 0, 0)
