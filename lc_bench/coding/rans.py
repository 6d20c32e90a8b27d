"""The entropy coder: vectorised range asymmetric numeral systems (rANS) in torch operations.

States lie in [2^24, 2^40), words have 16 bits, probabilities 16 bits. One step codes one symbol in every lane of every
sample of a batch; the layout of lanes is told in `layout.py`, the tables in `tables.py`. The hot loops are compiled by
TorchScript and stay ordinary torch code that also runs eagerly (LC_BENCH_EAGER=1).

rANS: Duda 2013, arXiv 1311.2540; interleaved lanes: Giesen 2014, arXiv 1402.3392.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

PRECISION = 16
STATE_BITS = 24  # a resting state is at least 2**24
LOWER = 1 << STATE_BITS


def _encode_rows(state: Tensor, entries: Tensor, frequency: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Push rows of symbols, the last row first.

    state (B, L), the last lane first; entries (B, R, L) positions in the tables. Returns the states and, in the order
    of emission (R, B, L): states whose low 16 bits are the words, and 1 where a word is emitted.
    Lane 0 emits last in its row, so that the decoder, which reads from the top of the stack, serves it first.
    """
    batch, rows, lanes = entries.shape
    order = entries.flip(1, 2).transpose(0, 1).reshape(-1)
    shape = [rows, batch * lanes]
    f = frequency.index_select(0, order)
    c = start.index_select(0, order).view(shape).unbind(0)
    gap = (65536 - f).view(shape).unbind(0)
    limit = (f << 24).view(shape).unbind(0)
    f_rows = f.view(shape).unbind(0)
    emitted = torch.empty(shape, dtype=torch.int64, device=state.device)
    history = torch.empty([rows + 1, batch * lanes], dtype=torch.int64, device=state.device)
    history[0] = state.reshape(-1)
    states = history.unbind(0)
    emits = emitted.unbind(0)
    shift = torch.empty_like(states[0])
    x = torch.empty_like(states[0])
    quotient = torch.empty_like(states[0])
    for t in range(rows):
        torch.ge(states[t], limit[t], out=emits[t])
        torch.mul(emits[t], 16, out=shift)
        torch.bitwise_right_shift(states[t], shift, out=x)
        torch.div(x, f_rows[t], rounding_mode="trunc", out=quotient)
        torch.add(x, c[t], out=states[t + 1])
        states[t + 1].addcmul_(quotient, gap[t])
    return history[rows].view(batch, lanes), history[:rows].view(rows, batch, lanes), emitted.view(rows, batch, lanes)


def _decode_rows(state: Tensor, tables: Tensor, packed: Tensor, words: Tensor, top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pop rows of symbols.

    state (B, L); tables (B, R, L); packed: frequency << 16 | (slot - start) for every slot of
    every table (less 65536 if in 32 bits); words: one stack per sample in one array; top (B, 1): position of the word
    that was read last. Returns the states, the slots that were hit (B, R, L) and the new tops.
    """
    batch, rows, lanes = tables.shape
    count = batch * lanes
    x = state.reshape(count).clone()
    hits = torch.empty([rows, batch, lanes], dtype=torch.int64, device=x.device)
    hits.copy_(tables.transpose(0, 1))
    hits = hits.view(rows, count).bitwise_left_shift_(16)
    narrow = packed.dtype == torch.int32
    f = torch.empty_like(x)
    offset = torch.empty_like(x)
    for hit in hits.unbind(0):
        torch.bitwise_and(x, 65535, out=f)
        hit.add_(f)
        entry = packed.index_select(0, hit)
        if narrow:
            entry = entry.long().bitwise_and_(0xFFFFFFFF).add_(65536)
        torch.bitwise_and(entry, 65535, out=offset)
        torch.bitwise_right_shift(entry, 16, out=f)
        x.bitwise_right_shift_(16)
        torch.addcmul(offset, x, f, out=x)
        low = torch.lt(x, 16777216)
        position = torch.cumsum(low.view(batch, lanes), 1)
        torch.sub(top, position, out=position)
        top = position[:, -1:]
        word = words.index_select(0, position.view(count))
        word.add_(x, alpha=65536)
        x = torch.where(low, word, x)
    return x.view(batch, lanes), hits.view(rows, batch, lanes).transpose(0, 1).contiguous(), top.clone()


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The one place that compiles. TorchScript is deprecated but works; the eager function is the same code."""
    if os.environ.get("LC_BENCH_EAGER"):
        return function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(function)


def encode_rows(state: Tensor, entries: Tensor, frequency: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _compiled(_encode_rows)(state, entries, frequency, start)


def decode_rows(state: Tensor, tables: Tensor, packed: Tensor, words: Tensor, top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _compiled(_decode_rows)(state, tables, packed, words, top)


encode_rows.__doc__ = _encode_rows.__doc__
decode_rows.__doc__ = _decode_rows.__doc__
