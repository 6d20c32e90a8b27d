"""PLY, as its users write it: any elements in any order, lists anywhere, LF, CRLF or CR in the header.

Points are the element `vertex`; triangles come from the lists of `face`, or of `tristrips` (Stanford). Other elements are passed over,
but all of the file has to be there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from .cloud_parts import BadFileError, Lists, Read, as_lists, check_rest, fans, number_of, strips, table

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "f4": "f", "f8": "d"}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
CORNERS = ("vertex_indices", "vertex_index")


@dataclass(frozen=True)
class Property:
    """kind: of its numbers; length: of the number that says how long a list is, empty for a single number."""

    name: str
    kind: str
    length: str = ""


@dataclass(frozen=True)
class Element:
    name: str
    count: int
    properties: list[Property] = field(default_factory=list)

    @property
    def listed(self) -> bool:
        return any(p.length for p in self.properties)

    def place(self, name: str) -> int:
        return [p.name for p in self.properties].index(name)


def read(data: bytes) -> Read:
    """Points, and triangles where the file has any. BadFileError where it is cut short, goes on after its end, or is not PLY."""
    form, elements, start = _header(data)
    found = [e for e in elements if e.name == "vertex"]
    if len(found) != 1:
        raise BadFileError(f"it has {len(found)} elements called vertex, one is wanted")
    single = [p.name for p in found[0].properties if not p.length]
    if any(single.count(c) != 1 for c in "xyz"):
        raise BadFileError("its vertices have no x, y, z")
    lists = {"vertex": "", **{e.name: _corners(e) for e in elements if e.name in ("face", "tristrips")}}
    body = _Text(data[start:]) if form == "ascii" else _Binary(data, start, ORDERS[form])
    points, triangles = np.zeros((0, 3)), []
    for element in elements:
        wanted = lists.get(element.name)
        if wanted is None:
            body.skip(element)
        elif element.name == "vertex":
            points = body.points(element)
        elif element.count:
            read_lists = body.lists(element, wanted)
            triangles.append(fans(read_lists) if element.name == "face" else strips(read_lists))
    body.end()
    some = [t for t in triangles if t is not None]
    return points, np.concatenate(some) if some else None


def _header(data: bytes) -> tuple[str, list[Element], int]:
    """-> format, elements, where the numbers start."""
    if data[:3] != b"ply" or data[3:4] not in (b"\n", b"\r", b" ", b"\t"):
        raise BadFileError("it has no ply header")
    feed, back = data.find(b"\n"), data.find(b"\r")
    # The first line tells: of CR and LF, what follows a lone CR may be a number that looks like LF.
    mark = b"\r" if back >= 0 and (feed < 0 or back < feed - 1) else b"\n"
    form, elements, start = "", [], 0
    while True:
        end = data.find(mark, start)
        last = end < 0
        words = (data[start:] if last else data[start:end]).decode("latin-1").split()
        start = len(data) if last else end + 1
        if words == ["end_header"]:
            break
        if last:
            raise BadFileError("it has no ply header that ends")
        form = _line(words, form, elements)
    if form not in ORDERS:
        raise BadFileError(f"format {form!r} is not known")
    return form, elements, start


def _line(words: list[str], form: str, elements: list[Element]) -> str:
    """One line of the header, into `elements` -> the format."""
    if not words or words[0] in ("ply", "comment", "obj_info"):
        return form
    if words[0] == "format" and len(words) == 3:
        return words[1]
    if words[0] == "element" and len(words) == 3:
        elements.append(Element(words[1], number_of(words[2], f"a count of {words[1]}")))
        return form
    kinds = words[2:4] if words[1:2] == ["list"] else words[1:2]
    if words[0] != "property" or not elements or len(words) != (5 if len(kinds) == 2 else 3):
        raise BadFileError(f"{' '.join(words)[:60]!r} in its header is not known")
    for kind in kinds:
        if kind not in TYPES:
            raise BadFileError(f"numbers of type {kind[:20]!r} are not known")
    if len(kinds) == 2:
        if TYPES[kinds[0]][0] == "f":
            raise BadFileError(f"a list whose length is of type {kinds[0]}")
        elements[-1].properties.append(Property(words[4], TYPES[kinds[1]], TYPES[kinds[0]]))
    else:
        elements[-1].properties.append(Property(words[2], TYPES[kinds[0]]))
    return form


def _corners(element: Element) -> str:
    """The name of the list that holds the corners of a face."""
    lists = [p for p in element.properties if p.length]
    named = [p for p in lists if p.name in CORNERS]
    if not element.count:
        return ""
    if len(named) != 1:
        raise BadFileError(f"its element {element.name} has no list {CORNERS[0]}, but {[p.name for p in lists]}")
    if named[0].kind[0] == "f":
        raise BadFileError(f"its element {element.name} has corners that are no whole numbers")
    return named[0].name


class _Text:
    """Rows of numbers, one to a line; blank lines are passed over."""

    def __init__(self, body: bytes) -> None:
        self.rows = [row for row in body.decode("latin-1").replace("\r", "\n").split("\n") if row.strip()]
        self.at = 0

    def skip(self, element: Element) -> list[str]:
        if not element.properties:
            return []
        rows = self.rows[self.at : self.at + element.count]
        if len(rows) < element.count:
            raise BadFileError(f"cut short: {element.count} of {element.name} are promised, {len(rows)} lines are there")
        self.at += element.count
        return rows

    def points(self, element: Element) -> np.ndarray:
        rows, places = self.skip(element), [element.place(c) for c in "xyz"]
        if not element.listed:
            found = table(rows)
            if rows and found.shape[1] != len(element.properties):
                raise BadFileError(f"{found.shape[1]} numbers in a row of {element.name}, {len(element.properties)} are promised")
            return found[:, places] if rows else np.zeros((0, 3))
        fields = [self._fields(row, element) for row in rows]
        return np.array([[float(row[place][0]) for place in places] for row in fields]).reshape(-1, 3)

    def lists(self, element: Element, name: str) -> Lists:
        place = element.place(name)
        return as_lists([[int(w) for w in self._fields(row, element)[place]] for row in self.skip(element)])

    def _fields(self, row: str, element: Element) -> list[list[str]]:
        """The words of each property."""
        words, at, fields = row.split(), 0, []
        for kind in element.properties:
            count = 1
            if kind.length:
                count = number_of(words[at], "a list") if at < len(words) else 1
                at += 1
            fields.append(words[at : at + count])
            at += count
        if at != len(words):
            raise BadFileError(f"a line of {element.name} has {len(words)} numbers, {at} are promised: cut short or damaged")
        return fields

    def end(self) -> None:
        if self.at < len(self.rows):
            raise BadFileError(f"{len(self.rows) - self.at} lines follow after all that its header promises")


class _Binary:
    def __init__(self, data: bytes, start: int, order: str) -> None:
        self.data, self.at, self.order = data, start, order

    def points(self, element: Element) -> np.ndarray:
        rows = self._same(element)
        if rows is not None:
            return np.stack([rows[str(element.place(c))] for c in "xyz"], 1).astype(np.float64)
        places = {element.place(c): i for i, c in enumerate("xyz")}
        points = np.zeros((element.count, 3))
        for row, values in enumerate(self._each(element, set(places))):
            for place, axis in places.items():
                points[row, axis] = values[place][0]
        return points

    def lists(self, element: Element, name: str) -> Lists:
        place = element.place(name)
        rows = self._same(element)
        if rows is not None:
            corners = rows[str(place)].astype(np.int64)
            return np.full(len(rows), corners.shape[1]), corners.reshape(-1)
        return as_lists([list(values[place]) for values in self._each(element, {place})])

    def skip(self, element: Element) -> None:
        if self._same(element) is None:
            for _ in self._each(element, set()):
                pass

    def end(self) -> None:
        check_rest(self.data[self.at :])

    def _same(self, element: Element) -> np.ndarray | None:
        """All rows at once, fields called by their place, where each list is as long in all rows as in the first; else None."""
        if not element.count or not element.properties:
            return np.zeros(0, [(str(i), p.kind) for i, p in enumerate(element.properties)])
        if element.count > len(self.data) - self.at:  # a row has a byte at least
            raise self._cut(element)
        lengths, at = {}, self.at
        for place, kind in enumerate(element.properties):
            if kind.length:
                lengths[place], at = self._length(kind, at, element)
                at += lengths[place] * int(kind.kind[1])
            else:
                at += int(kind.kind[1])
        size = at - self.at
        if element.count * size > len(self.data) - self.at:
            if not element.listed:
                raise self._cut(element)
            return None
        fields = []
        for place, kind in enumerate(element.properties):
            if place in lengths:
                fields += [(f"length {place}", self.order + kind.length), (str(place), self.order + kind.kind, (lengths[place],))]
            else:
                fields.append((str(place), self.order + kind.kind))
        rows = np.frombuffer(self.data, np.dtype(fields), element.count, self.at)
        if any((rows[f"length {place}"] != length).any() for place, length in lengths.items()):
            return None
        self.at += element.count * size
        return rows

    def _each(self, element: Element, wanted: set[int]):
        """Row by row: numbers of the wanted properties, by place."""
        for _ in range(element.count):
            values, at = {}, self.at
            for place, kind in enumerate(element.properties):
                count = 1
                if kind.length:
                    count, at = self._length(kind, at, element)
                end = at + count * int(kind.kind[1])
                if end > len(self.data):
                    raise self._cut(element)
                if place in wanted:
                    values[place] = struct.unpack_from(f"{self.order}{count}{CODES[kind.kind]}", self.data, at)
                at = end
            self.at = at
            yield values

    def _length(self, kind: Property, at: int, element: Element) -> tuple[int, int]:
        """Of a list, and where its numbers start."""
        end = at + int(kind.length[1])
        if end > len(self.data):
            raise self._cut(element)
        (count,) = struct.unpack_from(self.order + CODES[kind.length], self.data, at)
        if count < 0:
            raise BadFileError(f"a list of {count} in {element.name}")
        return count, end

    def _cut(self, element: Element) -> BadFileError:
        return BadFileError(f"cut short: {element.count} of {element.name} are promised, {len(self.data)} bytes are there")
