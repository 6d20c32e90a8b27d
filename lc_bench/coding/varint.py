"""Whole numbers in as few bytes as they need: LEB128, and its zigzag form for signed ones."""

from __future__ import annotations

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


def read_all_signed(data: bytes) -> list[int]:
    values: list[int] = []
    position = 0
    while position < len(data):
        value, position = read(data, position)
        values.append(signed(value))
    return values


def signed(value: int) -> int:
    """What `write_signed` wrote as this number."""
    return value >> 1 if value % 2 == 0 else -(value >> 1) - 1
