"""Whole numbers in as few bytes as they need: LEB128, and its zigzag form for signed ones."""

from __future__ import annotations

import numpy as np

from ..errors import StreamError


def write(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read(data: bytes, position: int, most: int = (1 << 35) - 1) -> tuple[int, int]:
    """-> (value, position after it). StreamError at the end of the data or above `most`."""
    value = shift = 0
    while True:
        if position >= len(data):
            raise StreamError("stream cut short: it ends inside a number")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if value > most or shift > 42:
            raise StreamError(f"damaged stream: a number above {most}")
        if byte < 128:
            return value, position


def write_signed(value: int) -> bytes:
    return write(2 * value if value >= 0 else -2 * value - 1)


def read_table(data: bytes, position: int, count: int) -> tuple[np.ndarray, int]:
    """`count` numbers of 35 bits at most -> (count,) int64, and the position after them; takes some ten times their bytes."""
    most = 5 * count
    part = np.frombuffer(data[position : position + most], np.uint8)
    ends = np.flatnonzero(part < 128)[:count]
    if len(ends) < count:
        raise StreamError("stream cut short, or damaged: it ends inside its table, or a number there has more than 35 bits")
    if not count:
        return np.zeros(0, np.int64), position
    starts = np.append(0, ends[:-1] + 1)
    if int((ends - starts).max()) >= 5:
        raise StreamError("damaged stream: a number above 35 bits")
    values = np.zeros(count, np.int64)
    for place in range(5):
        there = starts + place <= ends
        values[there] |= (part[starts[there] + place] & 127).astype(np.int64) << 7 * place
    return values, position + int(ends[-1]) + 1


def signed(value: int) -> int:
    """What `write_signed` wrote as this number."""
    return value >> 1 if value % 2 == 0 else -(value >> 1) - 1
