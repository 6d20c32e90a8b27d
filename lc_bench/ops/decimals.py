"""Exponentials of single numbers, the same on every machine: decimal arithmetic says how each digit is rounded."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal

import numpy as np

ARITHMETIC = Context(prec=50)
LARGEST_EXPONENT = Decimal(80)  # e^80: no step, gain or scale is meant beyond


def exp(x: Decimal) -> float:
    return float(ARITHMETIC.exp(max(-LARGEST_EXPONENT, min(LARGEST_EXPONENT, x))))


def softplus(x: Decimal) -> float:
    """log(1 + e^x)."""
    return float(x) if x > LARGEST_EXPONENT else float(ARITHMETIC.ln(ARITHMETIC.add(1, ARITHMETIC.exp(max(-LARGEST_EXPONENT, x)))))


def between(values: Sequence[float], level: float) -> Decimal:
    """Values of levels 0, 1, ..., interpolated linearly."""
    below = max(0, min(int(level), len(values) - 2))
    low, high = Decimal(values[below]), Decimal(values[min(below + 1, len(values) - 1)])
    return ARITHMETIC.add(low, ARITHMETIC.multiply(ARITHMETIC.subtract(high, low), Decimal(level) - below))


def logs_between(first: float, last: float, count: int) -> list[float]:
    """`count` logarithms, float32, from that of the first number to that of the last, evenly spaced.

    Counted from the nearer end in a step of float32 and rounded once, which is torch's linspace where a processor adds a product
    in one operation; elsewhere that rounds twice.
    """
    low, high = (np.float32(float(ARITHMETIC.ln(Decimal(value)))) for value in (first, last))
    step = float(np.float32((high - low) / np.float32(max(1, count - 1))))
    below = [float(low) + step * place for place in range(count // 2)]
    above = [float(high) - step * place for place in reversed(range(count - count // 2))]
    return [float(np.float32(value)) for value in (*below, *above)]


def tanh(x: Decimal) -> Decimal:
    """Above 60 it is 1 in as many digits as there are."""
    if abs(x) > 60:
        return Decimal(1).copy_sign(x)
    square = ARITHMETIC.exp(2 * x)
    return ARITHMETIC.divide(square - 1, square + 1)
