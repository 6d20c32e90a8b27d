"""XYZ: rows of numbers as instruments, spreadsheets and Fortran write them. What can be read in two ways is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .cloud_parts import FORTRAN, BadFileError, Read, lines_of, table

COMMENT = re.compile(r"#|//|%|!")
NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9.()\[\]]*")
WHOLE = re.compile(r"[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
CUT_NUMBER = re.compile(r"0[0-9]+")  # as the second half of a number with a decimal comma starts


def read(data: bytes) -> Read:
    """The columns x, y, z by a line of names, without one the first three. BadFileError names the line that is no row of numbers."""
    rows: list[str] = []
    numbers: list[int] = []  # of their lines
    names: list[str] | None = None
    noted: list[list[str]] = []
    count = None
    for number, line in enumerate(lines_of(data), 1):
        text, *comment = COMMENT.split(line, maxsplit=1)
        text = text.strip()
        if not text:
            if comment and not rows:
                noted.append(_words(comment[0]))
            continue
        if not rows:
            words = _words(text)
            if count is None and names is None and len(words) == 1 and WHOLE.fullmatch(words[0]):
                count = int(words[0])
                continue
            if names is None and all(NAME.fullmatch(w) and not NUMBER.fullmatch(w) for w in words):
                names = words
                continue
        rows.append(text)
        numbers.append(number)
    if not rows:
        return np.zeros((0, 3)), None
    separator = _separator(rows, numbers)
    rows = [FORTRAN.sub("e", row) for row in rows] if any("d" in row.lower() for row in rows) else rows
    width = len(rows[0].split(separator))
    if width < 3:
        raise BadFileError(f"line {numbers[0]} has {width} numbers, three are needed")
    try:
        found = table(rows, separator=separator)
    except ValueError as error:
        raise _of_line(rows, numbers, separator, width, str(error)) from None
    if count is not None and count != len(rows):
        raise BadFileError(f"its first line promises {count} points, {len(rows)} are there")
    return found[:, _places(found, names, noted)], None


def _words(text: str) -> list[str]:
    return [w.strip("\"'") for w in re.split(r"[\s,;]+", text.strip().lstrip("#/%!")) if w.strip("\"'")]


def _separator(rows: Sequence[str], numbers: Sequence[int]) -> str | None:
    """None for blanks and tabs, or a comma or semicolon that stands between all numbers."""
    semicolons, commas = any(";" in row for row in rows), any("," in row for row in rows)
    if semicolons and commas:
        raise BadFileError(f"commas within numbers between semicolons ({_shown(rows, ',')}): write decimals with a point")
    if semicolons:
        return ";"
    if not commas:
        return None
    only_whole = True
    cut = 0
    for row, number in zip(rows, numbers, strict=True):
        fields = [word.strip() for word in row.split(",")]
        if any(len(word.split()) > 1 for word in fields) or "" in fields:
            told = f"line {number} has commas beside blanks ({row[:60]!r})"
            raise BadFileError(f"{told}: write decimals with a point, or one comma between numbers")
        only_whole = only_whole and not any("." in word or "e" in word.lower() for word in fields)
        cut += any(CUT_NUMBER.fullmatch(word) for word in fields)
    if only_whole and cut:
        raise BadFileError(f"commas between numbers and, it seems, within them ({rows[0][:60]!r}): write decimals with a point")
    return ","


def _shown(rows: Sequence[str], sign: str) -> str:
    return repr(next(row for row in rows if sign in row)[:60])


def _of_line(rows: Sequence[str], numbers: Sequence[int], separator: str | None, width: int, error: str) -> BadFileError:
    """What is wrong with the first bad row."""
    for row, number in zip(rows, numbers, strict=True):
        words = [word.strip() for word in row.split(separator)]
        wrong = next((word for word in words if not NUMBER.fullmatch(word)), None)
        if wrong is not None and re.fullmatch("[A-Z][a-z]?", wrong) and words[0] == wrong and len(words) >= 4:
            return BadFileError(f"line {number} starts with {wrong!r}: a molecule is no cloud of points")
        if wrong is not None:
            return BadFileError(f"line {number} has {wrong[:40]!r}, which is no number")
        if len(words) != width:
            return BadFileError(f"line {number} has {len(words)} numbers, those before have {width}: cut short or damaged")
    return BadFileError(error)


def _places(found: np.ndarray, names: list[str] | None, noted: Sequence[Sequence[str]]) -> list[int]:
    """Which columns are x, y, z."""
    width = found.shape[1]
    if names is not None:
        if len(names) != width:
            raise BadFileError(f"{len(names)} names of columns, {width} numbers in a row")
        places = _named(names)
        if places is None:
            raise BadFileError(f"its columns are called {' '.join(names)[:60]}; x, y and z are wanted")
        return places
    for words in noted:  # a comment counts as names where it has one for each column
        places = _named(words) if len(words) == width else None
        if places is not None:
            return places
    counted = found[:, 0] - found[0, 0]
    if width > 3 and len(found) > 2 and found[0, 0] in (0, 1) and np.array_equal(counted, np.arange(len(found))):
        raise BadFileError("its first column counts the rows; take it away, or give the columns names in the first line (n x y z)")
    return [0, 1, 2]


def _named(words: Sequence[str]) -> list[int] | None:
    lower = [w.lower() for w in words]
    return [lower.index(c) for c in "xyz"] if all(lower.count(c) == 1 for c in "xyz") else None
