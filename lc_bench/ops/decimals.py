"""Exponentials of single numbers, the same on every machine: decimal arithmetic says how each digit is rounded."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal

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
