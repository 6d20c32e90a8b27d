"""Probability tables: integers that sum to 2^14, in which every symbol can be coded.

A table covers a range of symbols. Where others are not all but impossible, its last entry is the escape, after which a
symbol outside the range is written in full; otherwise such a symbol is an exception, written with its position. Tables
are made once, when a model is frozen, in float64 on the CPU.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .ans import LOG, SLOTS

ESCAPE = -(1 << 31)  # stands for a symbol outside its table; the largest real one has 31 bits
STEP = (SLOTS >> 1) + (SLOTS >> 3) + 3  # odd: slot i STEP mod 2^14 goes to the i-th of all counts, which spreads a symbol's slots evenly
TAIL = 2.0**-16  # probability on each side that a table leaves to its escape


def quantise_pmf(pmf: np.ndarray) -> np.ndarray:
    """pmf (T, W), 0 where a table has no entry -> integer frequencies (T, W), at least 1 each, rows summing to 2^14.

    Finds for each table the factor a with sum(max(1, floor(a p))) just under the total, then hands the rest to the
    largest remainders: the integer table closest to the pmf among those without a zero.
    """
    used = pmf > 0
    if (used.sum(1) > SLOTS).any():
        raise ValueError(f"a table has {int(used.sum(1).max())} symbols; {SLOTS} is the most for {LOG} bits")
    low, high = np.zeros((len(pmf), 1)), np.full((len(pmf), 1), 2.0 * SLOTS)
    for _ in range(64):
        middle = (low + high) / 2
        over = np.where(used, np.maximum(1, np.floor(middle * pmf)), 0).sum(1, keepdims=True) > SLOTS
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    exact = low * pmf
    frequency = np.where(used, np.maximum(1, np.floor(exact)), 0).astype(np.int64)
    remainder = np.where(used & (exact >= 1), exact - np.floor(exact), np.where(used, 0.0, -1.0))
    for row in range(len(pmf)):
        left = SLOTS - int(frequency[row].sum())
        order = np.argsort(-remainder[row], kind="stable")[: int(used[row].sum())]
        frequency[row, order] += left // len(order)
        frequency[row, order[: left % len(order)]] += 1
    return frequency


@dataclass(frozen=True)
class Tables:
    """Tables laid end to end, the surest first. Symbol s of table t is entry base[t] + s - offset[t].

    A table of one entry is certain of its symbol: that costs nothing and takes no step. A last such table pads rows.
    """

    frequency: Tensor  # (E,) int64
    base: Tensor  # (T,) int64
    count: Tensor  # (T,) int64, escape included
    offset: Tensor  # (T,) int64, smallest symbol
    escapes: Tensor  # (T,) bool: the last entry is an escape
    rank: Tensor  # (T - 1,): where the table lies that the prior calls its i-th

    @classmethod
    def from_pmf(cls, pmf: np.ndarray, count: np.ndarray, offset: np.ndarray, escapes: np.ndarray | None = None) -> Tables:
        """pmf (T, W) float64: row t has count[t] probabilities, of offset[t], offset[t] + 1, ... and, where `escapes` (everywhere but in
        tables of one entry, if not given), last of the escape."""
        escapes = count > 1 if escapes is None else escapes
        width = np.arange(pmf.shape[1])[None] < count[:, None]
        frequency = quantise_pmf(np.where(width, np.maximum(pmf, 1e-30), 0.0))
        order = np.argsort(-frequency.max(1), kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        frequency, width, count = frequency[order], width[order], count[order]
        return cls(
            frequency=torch.from_numpy(np.append(frequency[width], SLOTS)),
            base=torch.from_numpy(np.append(np.cumsum(count) - count, count.sum())),
            count=torch.from_numpy(np.append(count, 1)),
            offset=torch.from_numpy(np.append(offset[order], 0)),
            escapes=torch.from_numpy(np.append(escapes[order], False)),
            rank=torch.from_numpy(rank),
        )

    @cached_property
    def key_type(self) -> torch.dtype:
        """What a table's number fits into; short numbers are sorted fast."""
        return torch.uint8 if len(self.base) <= 255 else torch.int16

    @cached_property
    def key(self) -> Tensor | None:
        """(T - 1,): `rank` as a key; None where it changes nothing."""
        same = torch.arange(len(self.rank), device=self.rank.device)
        return None if torch.equal(self.rank, same) else self.rank.to(self.key_type)

    @cached_property
    def closed(self) -> int:
        """How many tables have no choice; they come first."""
        return int((self.count[:-1] == 1).sum())

    @cached_property
    def table_of(self) -> Tensor:
        """(E,) int64: whose entry it is."""
        return torch.repeat_interleave(torch.arange(len(self.base), device=self.base.device), self.count)

    @cached_property
    def usual(self) -> Tensor:
        """(T,) int32: the entry that stands in for an exception, the likeliest."""
        wide = torch.zeros(len(self.base), int(self.count.max()), dtype=torch.int64, device=self.base.device)
        place = torch.arange(len(self.frequency), device=self.base.device) - self.base[self.table_of]
        wide[self.table_of, place] = self.frequency
        return (self.base + wide.argmax(1)).to(torch.int32)

    @cached_property
    def span(self) -> tuple[Tensor, Tensor]:
        """By table, int32: what to add to a symbol to get its entry; the end of the entries that are symbols."""
        end = self.base + self.count - self.escapes.long()
        return (self.base - self.offset).to(torch.int32), end.to(torch.int32)

    @cached_property
    def symbol(self) -> Tensor:
        """(E,) int32: of an entry; ESCAPE."""
        symbol = torch.arange(len(self.frequency), device=self.base.device) - (self.base - self.offset)[self.table_of]
        symbol[(self.base + self.count - 1)[self.escapes]] = ESCAPE
        return symbol.to(torch.int32)

    @cached_property
    def cost(self) -> Tensor:
        """(E,) float32: bits of every entry."""
        return (LOG - self.frequency.double().log2()).float()

    @cached_property
    def slots(self) -> tuple[Tensor, Tensor]:
        """(T 2^14,) int32: the entry that owns each slot, and how many of that entry's slots come before it."""
        device = self.base.device
        spread = torch.arange(SLOTS, device=device) * STEP % SLOTS
        owner = torch.arange(len(self.frequency), device=device).repeat_interleave(self.frequency).view(-1, SLOTS)
        owner = torch.empty_like(owner).scatter_(1, spread.expand_as(owner), owner).flatten()
        by_entry = torch.sort(owner.to(torch.int32), stable=True)[1]
        before = torch.empty_like(by_entry)
        before[by_entry] = torch.arange(len(owner), device=device) - self.before.repeat_interleave(self.frequency)
        return owner.to(torch.int32), before.to(torch.int32)

    @cached_property
    def before(self) -> Tensor:
        """(E,) int64: slots of all entries before."""
        return self.frequency.cumsum(0) - self.frequency

    @cached_property
    def encoding(self) -> tuple[Tensor, Tensor, Tensor]:
        """int32. By entry: delta, where (state + delta) >> 16 is how many bits to drop; shift, where what is left plus shift is
        where in the third, (T 2^14,), the next state stands."""
        owner, before = (part.long() for part in self.slots)
        # Bits to drop from the largest states; one less where the rest would fall below f.
        most = LOG - _floor_log2(self.frequency - 1)
        delta = (most << 16) - (self.frequency << most)
        state = torch.empty_like(owner)
        state[self.before[owner] + before] = SLOTS + torch.arange(len(owner), device=owner.device) % SLOTS
        return delta.to(torch.int32), (self.before - self.frequency).to(torch.int32), state.to(torch.int32)

    @cached_property
    def decoding(self) -> Tensor:
        """(T 2^14,) int32, by slot: the next state without the bits that are to be read, times 16, and how many they are."""
        owner, before = (part.long() for part in self.slots)
        left = self.frequency[owner] + before
        drop = LOG - _floor_log2(left)
        return ((left << drop) << 4 | drop).to(torch.int32)

    @cached_property
    def slot_symbol(self) -> Tensor:
        """(T 2^14,) int32: whose symbol a slot is."""
        return self.symbol.index_select(0, self.slots[0])

    @cached_property
    def sure(self) -> Tensor:
        """(T,) int32: the likeliest symbol."""
        return self.symbol.index_select(0, self.usual)

    @cached_property
    def base32(self) -> Tensor:
        return self.base.to(torch.int32)

    def to(self, device: torch.device) -> Tables:
        if self.base.device == device:
            return self
        moved = {name: getattr(self, name).to(device) for name in ("frequency", "base", "count", "offset", "escapes", "rank")}
        return replace(self, **moved)

    def digest(self) -> bytes:
        sha = hashlib.sha256()
        for part in (self.frequency, self.count, self.offset, self.escapes, self.rank):
            sha.update(part.cpu().long().numpy().astype("<i8").tobytes())
        return sha.digest()


def _floor_log2(x: Tensor) -> Tensor:
    """Of whole numbers, exactly; -1 of 0."""
    return torch.frexp(x.double())[1].long() - 1
