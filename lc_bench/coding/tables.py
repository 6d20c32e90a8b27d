"""Probability tables: integers that sum to 2^16, in which every symbol can be coded.

A table covers a range of symbols; its last entry is the escape, after which a symbol outside the range is written in
full. Tables are made once, when a model is frozen, in float64 on the CPU.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .rans import PRECISION

TOTAL = 1 << PRECISION
MOST_WIDE = 100
ESCAPE = -(1 << 31)  # stands for a symbol outside its table; the largest real one has 31 bits
TAIL = 2.0**-18  # probability on each side that a table leaves to its escape


def quantise_pmf(pmf: np.ndarray) -> np.ndarray:
    """pmf (T, W), 0 where a table has no entry -> integer frequencies (T, W), at least 1 each, rows summing to 2^16.

    Finds for each table the factor a with sum(max(1, floor(a p))) just under the total, then hands the rest to the
    largest remainders: the integer table closest to the pmf among those without a zero.
    """
    used = pmf > 0
    if (used.sum(1) > TOTAL).any():
        raise ValueError(f"a table has {int(used.sum(1).max())} symbols; {TOTAL} is the most for {PRECISION} bits")
    low, high = np.zeros((len(pmf), 1)), np.full((len(pmf), 1), 2.0 * TOTAL)
    for _ in range(64):
        middle = (low + high) / 2
        over = np.where(used, np.maximum(1, np.floor(middle * pmf)), 0).sum(1, keepdims=True) > TOTAL
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    exact = low * pmf
    frequency = np.where(used, np.maximum(1, np.floor(exact)), 0).astype(np.int64)
    remainder = np.where(used & (exact >= 1), exact - np.floor(exact), np.where(used, 0.0, -1.0))
    for row in range(len(pmf)):
        left = TOTAL - int(frequency[row].sum())
        order = np.argsort(-remainder[row], kind="stable")[: int(used[row].sum())]
        frequency[row, order] += left // len(order)
        frequency[row, order[: left % len(order)]] += 1
    return frequency


@dataclass(frozen=True)
class Tables:
    """Tables laid end to end. Symbol s of table t is entry base[t] + s - offset[t]; its escape is entry base[t] + count[t] - 1.

    A table of one entry is certain of its symbol: that costs nothing and takes no step, and another symbol in its place is
    an exception, written with its position. A last such table, `certain`, pads rows.
    """

    frequency: Tensor  # (E,) int64
    start: Tensor  # (E,) int64, sum of the frequencies before it in its table
    base: Tensor  # (T,) int64
    count: Tensor  # (T,) int64, escape included
    offset: Tensor  # (T,) int64, smallest symbol

    @classmethod
    def from_pmf(cls, pmf: np.ndarray, count: np.ndarray, offset: np.ndarray) -> Tables:
        """pmf (T, W) float64: row t has count[t] probabilities, of offset[t], offset[t] + 1, ... and last of the escape."""
        width = np.arange(pmf.shape[1])[None] < count[:, None]
        frequency = quantise_pmf(np.where(width, np.maximum(pmf, 1e-30), 0.0))
        start = np.cumsum(frequency, 1) - frequency
        flat_frequency = np.append(frequency[width], TOTAL)
        base = np.append(np.cumsum(count) - count, count.sum())
        return cls(
            frequency=torch.from_numpy(flat_frequency),
            start=torch.from_numpy(np.append(start[width], 0)),
            base=torch.from_numpy(base),
            count=torch.from_numpy(np.append(count, 1)),
            offset=torch.from_numpy(np.append(offset, 0)),
        )

    @property
    def certain(self) -> int:
        return len(self.base) - 1

    @cached_property
    def packed(self) -> Tensor:
        """(T * 2^16,): frequency << 16 | (slot - start) of the symbol that owns the slot.

        In int64 for few tables; for many (one per channel), which would fill 100 MB and more, less 65536 in int32.
        """
        offset = torch.arange(len(self.base) * TOTAL, device=self.base.device) & (TOTAL - 1)
        offset -= self.start.repeat_interleave(self.frequency)
        value = (self.frequency << PRECISION).repeat_interleave(self.frequency) | offset
        if len(self.base) <= MOST_WIDE:
            return value
        value -= TOTAL
        return torch.where(value >= 1 << 31, value - (1 << 32), value).to(torch.int32)

    @cached_property
    def owner(self) -> Tensor:
        """(T * 2^16,) int32: the symbol that owns a slot, or ESCAPE."""
        table = torch.repeat_interleave(torch.arange(len(self.base), device=self.base.device), self.count)
        symbol = torch.arange(len(self.frequency), device=self.base.device) - self.base[table] + self.offset[table]
        symbol[(self.base + self.count - 1)[self.count > 1]] = ESCAPE
        return symbol.to(torch.int32).repeat_interleave(self.frequency)

    @cached_property
    def cost(self) -> Tensor:
        """(E,) float32: bits of every entry."""
        return (PRECISION - self.frequency.double().log2()).float()

    @cached_property
    def span(self) -> tuple[Tensor, Tensor, Tensor]:
        """By table, int32: what to add to a symbol to get its entry, the first entry, and the end of those that are symbols
        (the escape, but for a certain table)."""
        first, count = self.base.to(torch.int32), self.count.to(torch.int32)
        return first - self.offset.to(torch.int32), first, first + torch.where(count > 1, count - 1, count)

    @cached_property
    def open(self) -> Tensor:
        """(T,) bool: tables with a choice; the others take no step of the coder."""
        return self.count > 1

    @cached_property
    def open_entry(self) -> Tensor:
        """(E,) bool: entries of tables with a choice."""
        return self.frequency < TOTAL

    def to(self, device: torch.device) -> Tables:
        if self.base.device == device:
            return self
        moved = {name: getattr(self, name).to(device) for name in ("frequency", "start", "base", "count", "offset")}
        return replace(self, **moved)

    def digest(self) -> bytes:
        sha = hashlib.sha256()
        for part in (self.frequency, self.count, self.offset):
            sha.update(part.cpu().numpy().astype("<i8").tobytes())
        return sha.digest()
