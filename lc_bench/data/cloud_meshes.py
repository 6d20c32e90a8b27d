"""OFF and OBJ, the text formats of meshes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .cloud_parts import BadFileError, Lists, Read, as_lists, fans, lines_of, number_of, table

OFF = re.compile(r"(ST)?(C?)(N?)(4?)(n?)OFF")
COLOURS = (0, 1, 3, 4)  # numbers that may follow the corners of a face
SURFACES = ("curv", "curv2", "surf")


def off(data: bytes) -> Read:
    """OFF, and with normals, colours or texture coordinates at its vertices (NOFF, COFF, STOFF ...). The counts may follow on the
    line of OFF, with or without a space between, and go without the number of edges.
    """
    if re.match(rb"\w*OFF\s+BINARY", data):
        raise BadFileError("a binary OFF; save it as text, or as ply")
    lines = [line.split("#")[0].strip() for line in lines_of(data)]
    lines = [line for line in lines if line]
    form = OFF.match(lines[0]) if lines else None
    if form is None:
        raise BadFileError("it does not start with OFF")
    kind, rest = form.group(), lines[0][form.end() :].strip()
    if form.group(4) or form.group(5):
        raise BadFileError(f"{kind}: points of other than three coordinates; save it as OFF")
    lines = [rest, *lines[1:]] if rest else lines[1:]
    vertices, faces, lines = _counts(lines)
    points, lines = _vertices(lines, vertices, kind)
    return points, fans(_faces(lines, faces))


def _counts(lines: list[str]) -> tuple[int, int, list[str]]:
    """Of vertices and faces -> them, and the lines that follow."""
    words: list[str] = []
    used = 0
    while len(words) < 2 and used < len(lines):
        words += lines[used].split()
        used += 1
    if len(words) == 2 and used > 1 and used < len(lines) and len(lines[used].split()) == 1:  # each on a line of its own
        words += lines[used].split()
        used += 1
    if len(words) < 2:
        raise BadFileError("it ends before its counts")
    if len(words) > 3:
        raise BadFileError(f"counts {' '.join(words)[:60]!r}; two or three are wanted")
    for word in words[2:]:
        number_of(word, "a number of edges")
    return number_of(words[0], "a number of points"), number_of(words[1], "a number of faces"), lines[used:]


def _vertices(lines: list[str], count: int, kind: str) -> tuple[np.ndarray, list[str]]:
    """-> positions, and the lines that follow. A vertex has a line; those of a plain OFF may share lines."""
    if not count:
        return np.zeros((0, 3)), lines
    rows = lines[:count]
    widths = {len(row.split()) for row in rows}
    if len(rows) == count and len(widths) == 1 and next(iter(widths)) in _widths(kind):
        return table(rows, range(3)), lines[count:]
    words, used = [], 0
    while len(words) < 3 * count and used < len(lines):
        words += lines[used].split()
        used += 1
    if len(words) < 3 * count:
        raise BadFileError(f"cut short: {count} points are promised, {len(words) // 3} are there")
    if kind != "OFF" or len(words) > 3 * count:
        told = f"{sorted(widths)[0]} to {sorted(widths)[-1]}" if len(widths) > 1 else f"{next(iter(widths))}"
        raise BadFileError(f"{kind} with {told} numbers in a line of a point; {', '.join(map(str, _widths(kind)))} are known")
    return np.array(words, dtype=np.float64).reshape(-1, 3), lines[used:]


def _widths(kind: str) -> tuple[int, ...]:
    """Numbers of a vertex. Colours have three or four, and are found below plain OFF as well."""
    plain = 3 + (3 if "N" in kind else 0) + (2 if kind.startswith("ST") else 0)
    if "C" in kind:
        return plain + 3, plain + 4
    return (3, 6, 7) if kind == "OFF" else (plain,)


def _faces(lines: list[str], count: int) -> Lists:
    if len(lines) == count:
        rows = [line.split() for line in lines]
        corners = [number_of(row[0], "corners of a face") for row in rows]
        if all(len(row) - 1 - n in COLOURS for row, n in zip(rows, corners, strict=True)):
            return _checked([[int(w) for w in row[1 : n + 1]] for row, n in zip(rows, corners, strict=True)])
    words, at, faces = " ".join(lines).split(), 0, []
    while len(faces) < count:
        end = at + 1 + (number_of(words[at], "corners of a face") if at < len(words) else 0)
        if end > len(words) or at >= len(words):
            raise BadFileError(f"cut short: {count} faces are promised, {len(faces)} are there")
        faces.append([int(w) for w in words[at + 1 : end]])
        at = end
    if at < len(words):
        raise BadFileError(f"it does not end after the {count} faces that it promises, or they are cut short")
    return _checked(faces)


def _checked(faces: list[list[int]]) -> Lists:
    if any(not face for face in faces):
        raise BadFileError("a face without corners")
    return as_lists(faces)


def obj(data: bytes) -> Read:
    """Vertices and faces of Wavefront OBJ. Colours of vertices, normals and texture coordinates are passed over."""
    widths: set[int] = set()
    rows: list[str] = []
    faces: list[list[int]] = []
    for number, words in _statements(lines_of(data)):
        if words[0] == "v":
            if len(words) not in (4, 5, 7, 8):
                raise BadFileError(f"line {number}: a vertex of {len(words) - 1} numbers; three are needed")
            widths.add(len(words) - 1)
            rows.append(" ".join(words[1:5]))
        elif words[0] == "f":
            faces.append([_corner(word, len(rows), number) for word in words[1:]])
        elif words[0] in SURFACES:
            raise BadFileError(f"line {number}: curves and surfaces ({words[0]}) are not read; save it as a mesh of polygons")
    if len(widths) > 1:
        raise BadFileError(f"vertices of {' and of '.join(map(str, sorted(widths)))} numbers: cut short or damaged")
    if widths & {4, 7}:
        points = table(rows, range(4))
        # The fourth of four is a weight, the fourth of seven a weight or a colour.
        if not bool((points[:, 3] == 1).all()):
            raise BadFileError("vertices of four coordinates whose weights are not 1; save it with x, y, z alone")
        return points[:, :3], fans(as_lists(faces))
    return table(rows, range(3)), fans(as_lists(faces))


def _statements(lines: Sequence[str]):
    """(number of the first line, words) of each; a line that ends in a backslash goes on in the next."""
    begun, first = "", 0
    for number, line in enumerate(lines, 1):
        text, *comment = line.split("#", 1)
        first = first if begun else number
        if not comment and text.rstrip().endswith("\\"):
            begun += text.rstrip()[:-1] + " "
            continue
        words = (begun + text).split()
        begun = ""
        if words:
            yield first, words
    if begun.split():
        yield first, begun.split()


def _corner(word: str, points: int, number: int) -> int:
    """The place of a corner's point, from 0. OBJ counts from 1, or back from the last point by negative numbers."""
    try:
        place = int(word.split("/")[0])
    except ValueError:
        raise BadFileError(f"line {number}: a corner {word[:40]!r}") from None
    if place == 0 or -place > points:
        raise BadFileError(f"line {number}: a face names point {place}; OBJ counts from 1, or from -1 backwards")
    return place - 1 if place > 0 else points + place
