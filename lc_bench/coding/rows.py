"""Samples of a batch advance together: steps that code one row of each, in sections of equal widths.

Samples have layouts of their own (`layout.Walk`), and chunks of unequal length, since only symbols with a choice are coded. Step
i of a chunk is the i-th row of every sample that has as many; where a sample has fewer lanes than the widest, the rest are
certain symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .layout import Lanes, Walk

# Symbols coded at once: enough to amortise a call, few enough to stay in the cache.
BLOCK = 1 << 16
LANES_ON_CPU = 1 << 12
WORTH_THREADS = 1 << 19


@dataclass(frozen=True)
class Piece:
    """rows x width lanes of one sample, for `count` symbols of a chunk from `start` on."""

    start: int
    count: int
    rows: int
    width: int


@dataclass(frozen=True)
class Section:
    """Steps in which no sample changes its width."""

    rows: int
    width: int
    pieces: tuple[Piece | None, ...]

    @property
    def alone(self) -> Piece | None:
        """The piece of a single sample that fills all rows: it is worked on in place."""
        piece = self.pieces[0]
        return piece if len(self.pieces) == 1 and piece is not None and piece.count == self.rows * self.width else None

    def gather(self, tokens: list[Tensor], pad: Tensor) -> Tensor:
        """tokens, of the chunk (n,) by sample -> (rows, B, width), to be overwritten; pad (1,) where there are none."""
        alone = self.alone
        if alone is not None:
            return tokens[0][alone.start : alone.start + alone.count].view(self.rows, 1, self.width)
        out = pad.new_empty(self.rows, len(self.pieces), self.width)
        if any(p is None or p.count < self.rows * self.width for p in self.pieces):
            out.copy_(pad)
        for sample, (own, piece) in enumerate(zip(tokens, self.pieces, strict=True)):
            if piece is not None:
                whole = piece.count // piece.width
                end = piece.start + whole * piece.width
                out[:whole, sample, : piece.width] = own[piece.start : end].view(whole, piece.width)
                if whole < piece.rows:
                    out[whole, sample, : piece.count - whole * piece.width] = own[end : piece.start + piece.count]
        return out

    def scatter(self, values: Tensor, into: list[Tensor]) -> None:
        """values (rows, B, width), which were gathered from `into` -> their places there, (n,) by sample."""
        if self.alone is not None:
            return
        for sample, (own, piece) in enumerate(zip(into, self.pieces, strict=True)):
            if piece is not None:
                lanes = values[: piece.rows, sample, : piece.width].reshape(-1)
                own[piece.start : piece.start + piece.count] = lanes[: piece.count]


def sections(walks: list[Walk], counts: list[int]) -> list[Section]:
    """Of a chunk with so many symbols by sample. The walks move on."""
    runs = [walk.take(count) for walk, count in zip(walks, counts, strict=True)]
    starts = [0] * len(counts)
    out: list[Section] = []
    while any(runs):
        width = max(own[0][2] for own in runs if own)
        most = max(1, BLOCK // (width * len(counts)))
        rows = min(most, *(own[0][1] for own in runs if own))
        pieces: list[Piece | None] = []
        for sample, own in enumerate(runs):
            if not own:
                pieces.append(None)
                continue
            symbols, left, its_width = own.pop(0)
            count = min(rows * its_width, symbols)
            pieces.append(Piece(starts[sample], count, rows, its_width))
            starts[sample] += count
            if left > rows:
                own.insert(0, (symbols - count, left - rows, its_width))
        out.append(Section(rows, width, tuple(pieces)))
    return out


def side_by_side(symbols: int, function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """function of the first entries of all columns, of the second ones, ...; on as many threads as torch may use.

    Most of the work is in torch, which lets other threads run meanwhile. symbols: how many there are to code; few are not worth it.
    """
    threads = min(torch.get_num_threads(), len(columns[0]))
    if threads < 2 or symbols < WORTH_THREADS:
        return list(map(function, *columns))
    inference = torch.is_inference_mode_enabled()

    def in_mode(*entries: Any) -> Any:
        with torch.inference_mode(inference):  # a mode belongs to its thread
            return function(*entries)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(in_mode, *columns))


def together(lanes: list[Lanes], device: torch.device) -> list[slice]:
    """Which neighbours in a batch advance together: on a CPU as many as its caches hold, on a GPU all."""
    most = LANES_ON_CPU if device.type == "cpu" else 1 << 30
    groups: list[slice] = []
    start, width = 0, 0
    for sample, own in enumerate(lanes):
        width = max(width, own.most)
        if sample > start and width * (sample + 1 - start) > most:
            groups.append(slice(start, sample))
            start, width = sample, own.most
    return [*groups, slice(start, len(lanes))]
