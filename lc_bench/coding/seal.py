"""A seal ties a stream's header and symbols to the states in which its coder comes to rest: checked at no cost in bytes.

Coders whose bits are damaged may fall into step again after a few wrong symbols, and then end where they should; symbols written
in full and sizes in the header do not touch the coder at all. So the encoder starts from a sum of all of them.
"""

from __future__ import annotations

import functools
import zlib

import torch
from torch import Tensor

from .ans import LOG, SLOTS

BITS = 2 * LOG  # in two lanes, if there are two that start from a seal; else the lower half
MASK = (1 << BITS) - 1
GOLDEN = 2654435761  # 2^32 over the golden ratio


def of_header(head: bytes) -> int:
    """Where a stream's seal starts."""
    return zlib.crc32(head) & MASK


def of_symbols(symbols: Tensor, start: int) -> Tensor:
    """symbols (B, n) int32, of which the first is the start-th of its stream -> (B,) int64: what they add to the seals.

    Sums of symbols times odd weights of 16 bits, modulo 2^BITS: a single wrong symbol always alters its seal.
    """
    end = start + int(symbols.shape[1])  # a whole number under a trace too
    weight = _weights(max(1 << 16, 1 << end.bit_length()), symbols.device)[start:end]
    return (symbols * weight).sum(1) & MASK  # products that overflow are still right modulo 2^32


@functools.lru_cache(maxsize=4)
def _weights(count: int, device: torch.device) -> Tensor:
    """Odd, of 16 bits, int32."""
    place = torch.arange(count, device=device)
    return place.mul_(GOLDEN).bitwise_right_shift_(16).bitwise_and_(0xFFFF).bitwise_or_(1).to(torch.int32)


def in_lanes(seal: int, first: int, device: torch.device) -> Tensor:
    """(first,) int32: what the first lanes start from, above 2^14."""
    return torch.tensor([seal & SLOTS - 1, seal >> LOG & SLOTS - 1, *[0] * first][:first], dtype=torch.int32, device=device)
