"""What the readers of clouds share: how they say what is wrong, text of any encoding, tables of numbers, faces to triangles."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

import numpy as np

Read = tuple[np.ndarray, np.ndarray | None]  # points (N, 3) as numbers, triangles (F, 3) int64
Lists = tuple[np.ndarray, np.ndarray]  # of F lists: lengths (F,), and what they hold, one after the other; both int64

MARKS = (  # UTF-32 before UTF-16: its mark starts with that
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
FORTRAN = re.compile(r"(?<=[\d.])[dD](?=[+-]?\d)")


class BadFileError(ValueError):
    """What a reader has to say; `read_cloud` adds the file's name."""


def lines_of(data: bytes) -> list[str]:
    """The lines of a text, ended by LF, CRLF or CR. By its mark UTF-8, UTF-16 or UTF-32; without one UTF-8, and other bytes are
    replaced: names and comments may be in any encoding, numbers are ASCII in all of them.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(encoding, "replace")
            break
    else:
        if b"\0" in data[:64]:
            raise BadFileError("it is no text, or UTF-16 without a byte order mark; save it as UTF-8")
        text = data.decode("utf-8", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def number_of(word: str, what: str) -> int:
    """A count of a header: digits alone."""
    if not re.fullmatch(r"[0-9]{1,18}", word):
        raise BadFileError(f"{what} of {word!r}: a number is wanted")
    return int(word)


def table(rows: Sequence[str], columns: Sequence[int] | None = None, separator: str | None = None) -> np.ndarray:
    """Rows of numbers -> (rows, columns) float64; columns: which are wanted, None for all. ValueError where a row has fewer or
    other numbers; without `columns`, where rows are of different lengths.
    """
    if not rows:
        return np.zeros((0, len(columns) if columns is not None else 0))
    return np.loadtxt(rows, np.float64, comments=None, delimiter=separator, usecols=columns, ndmin=2)


def check_rest(rest: bytes) -> None:
    """What may follow the last number of a binary file: padding by zeros and white space."""
    if rest.strip(b"\0 \t\r\n"):
        raise BadFileError(f"{len(rest)} bytes follow after all that its header promises: one of the two is damaged")


def fans(faces: Lists | None) -> np.ndarray | None:
    """Polygons to triangles about their first corner, in their order. Those of fewer than three corners have no area and are left."""
    if faces is None:
        return None
    counts, corners = faces
    each = np.maximum(counts - 2, 0)
    if not each.sum():
        return None
    first = np.repeat(counts.cumsum() - counts, each)
    turn = np.arange(len(first)) - np.repeat(each.cumsum() - each, each)
    return np.stack([corners[first], corners[first + turn + 1], corners[first + turn + 2]], 1)


def strips(lists: Lists) -> np.ndarray | None:
    """Strips of triangles, each ended by -1 or by its list, to triangles that all turn the same way."""
    triangles = []
    counts, corners = lists
    for row in np.split(corners, counts.cumsum()[:-1]):
        for strip in np.split(row, np.flatnonzero(row < 0)):
            strip = strip[strip >= 0]
            if len(strip) < 3:
                continue
            found = np.stack([strip[:-2], strip[1:-1], strip[2:]], 1)
            found[1::2, :2] = found[1::2, 1::-1]
            triangles.append(found)
    if not triangles:
        return None
    found = np.concatenate(triangles)
    # A strip is turned or continued by corners that are named twice: triangles without area.
    return found[(found[:, 0] != found[:, 1]) & (found[:, 1] != found[:, 2]) & (found[:, 0] != found[:, 2])]


def as_lists(rows: list[list[int]]) -> Lists:
    counts = np.array([len(row) for row in rows], dtype=np.int64)
    return counts, np.array([value for row in rows for value in row], dtype=np.int64)
