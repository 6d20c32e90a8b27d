"""The entropy coder: tabled asymmetric numeral systems (tANS), many lanes at once, in torch operations.

A lane is a state in [2^14, 2^15). To code a symbol that owns f of the 2^14 slots of its table, the encoder drops as many low
bits of the state as bring it into [f, 2f), and looks up where that slot is; the decoder looks up the way back and reads the
bits. A step codes one symbol in every lane of every sample. All steps are table lookups and sums of 32-bit integers, with tensors for
constants: a scalar costs a loop of this kind three times the operation.

ANS: Duda 2013, arXiv 1311.2540; tables and the count of bits by one sum: Collet 2013, github.com/Cyan4973/FiniteStateEntropy.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LOG = 14
SLOTS = 1 << LOG


def _encode_rows(state: Tensor, delta: Tensor, shift: Tensor, table: Tensor) -> Tensor:
    """Code rows of symbols, the last row first. All int32.

    state (n,), one per lane; delta and shift (R, n) of every symbol. Both are overwritten: delta by the number of bits that
    each step drops, shift by the states after it. Returns the states at the end.
    """
    sixteen = torch.full_like(state, 16)
    y = torch.empty_like(state)
    x = state
    drops, states = list(delta.unbind(0)), list(shift.unbind(0))
    drops.reverse()
    states.reverse()
    for d, s in zip(drops, states):  # noqa: B905 (TorchScript has no `strict`)
        d.add_(x)
        d.bitwise_right_shift_(sixteen)
        torch.bitwise_right_shift(x, d, out=y)
        y.add_(s)
        torch.index_select(table, 0, y, out=s)
        x = s
    return x.clone()


def _decode_rows(state: Tensor, hits: Tensor, table: Tensor, window: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """Read rows of symbols back. All int32.

    state (B, L); hits (R, B, L): first slot of each symbol's table, less 2^14; overwritten by the slots that were hit.
    window: the 14 bits that follow each bit of the streams; top (B, 1): where each sample reads next. Returns states and tops.
    """
    batch, lanes = state.shape
    count = batch * lanes
    x = state.reshape(count).clone()
    entry, taken, word = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    four, fifteen, whole = torch.full_like(x, 4), torch.full_like(x, 15), torch.full_like(x, 14)
    by_sample = taken.view(batch, lanes)
    place = torch.empty_like(by_sample)
    flat_place = place.view(count)
    next_top = place[:, -1:]
    top = top.clone()
    for hit in hits.view(-1, count).unbind(0):
        hit.add_(x)
        torch.index_select(table, 0, hit, out=entry)
        torch.bitwise_and(entry, fifteen, out=taken)
        torch.cumsum(by_sample, 1, dtype=torch.int32, out=place)
        place.add_(top)
        top.copy_(next_top)
        place.sub_(by_sample)
        torch.index_select(window, 0, flat_place, out=word)
        torch.sub(whole, taken, out=taken)
        word.bitwise_right_shift_(taken)
        entry.bitwise_right_shift_(four)
        torch.add(entry, word, out=x)
    return x.view(batch, lanes), top


def _drops(state: Tensor, delta: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """After `encode_rows` from `state`: the bits that each step dropped, and how many they are; both (R, n)."""
    before = torch.cat([shift[1:], state[None]])
    return before - ((before >> delta) << delta), delta


def _pack(values: Tensor, sizes: Tensor) -> tuple[Tensor, int]:
    """values (n,) of `sizes` bits each, 14 at most, int32 -> words of 16 bits, first bit highest, int64; and the number of bits."""
    if len(values) % 2 == 1:
        values, sizes = torch.nn.functional.pad(values, (0, 1)), torch.nn.functional.pad(sizes, (0, 1))
    if len(values) == 0:
        return torch.zeros(0, dtype=torch.int64, device=values.device), 0
    high, low = values.view(-1, 2).unbind(1)
    high_size, low_size = sizes.view(-1, 2).unbind(1)
    pair = (high << low_size).add_(low)
    size = high_size + low_size
    end = size.cumsum(0, dtype=torch.int32)
    total = int(end[-1])
    start = end.sub_(size)
    # Each pair lies in three words of 16 bits at most. Its bits are no other pair's, so that sums put them together, in any order.
    shift = (start & 15).add_(size).neg_().add_(48)
    placed = pair.long().bitwise_left_shift_(shift)
    place = start.bitwise_right_shift_(4)
    count = max((total + 15) // 16, int(place[-1]) + 1)
    sums = torch.zeros(count, dtype=torch.int64, device=values.device).index_add_(0, place, placed)
    words = sums >> 32
    words[1:] += sums[:-1] >> 16 & 65535
    words[2:] += sums[:-2] & 65535
    return words, total


def _window(words: Tensor, count: int) -> Tensor:
    """The 14 bits from each of the first `count` bits of words of 16 bits on, int32."""
    padded = torch.nn.functional.pad(words.to(torch.int32), (0, 1))
    double = padded[:-1] << 15 | padded[1:] >> 1  # 31 bits, to stay positive
    shifts = torch.arange(17, 1, -1, dtype=torch.int32, device=words.device)
    return ((double[:, None] >> shifts) & 16383).flatten()[:count]


def _read(words: Tensor, start: int, count: int) -> Tensor:
    """`count` numbers of 14 bits, one after the other from bit `start` on; zeros past the end. int32."""
    place = start + 14 * torch.arange(count, device=words.device)
    need = (start + 14 * count) // 16 + 2
    padded = torch.nn.functional.pad(words, (0, max(0, need - len(words))))
    double = padded[place >> 4] << 16 | padded[(place >> 4) + 1]
    return (double >> (18 - (place & 15)) & 16383).to(torch.int32)


def _take(values: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of 14 bits from the front of packed bits (zeros where there are too few), and what is left of those, to be packed again."""
    words, total = _pack(values, sizes)
    left = max(0, total - 14 * count)
    whole = left // 14
    rest = _read(words, 14 * count, whole + 1)
    rest[-1] >>= 14 - (left - 14 * whole)
    rest_sizes = torch.full_like(rest, 14)
    rest_sizes[-1] = left - 14 * whole
    return _read(words, 0, count), rest, rest_sizes


def script(function: Callable[..., Any]) -> Any:
    """The one place that compiles. TorchScript is deprecated but works; the eager function is the same code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(function)


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return function if os.environ.get("LC_BENCH_EAGER") else script(function)


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return _compiled(function)(*arguments)

    return call


encode_rows, decode_rows = _compile(_encode_rows), _compile(_decode_rows)
drops, pack, window, read, take = _compile(_drops), _compile(_pack), _compile(_window), _compile(_read), _compile(_take)
