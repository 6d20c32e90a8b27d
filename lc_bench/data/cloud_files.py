"""One file -> points, and triangles where it is a mesh: ply, pcd, off, obj, xyz, bin (KITTI), npy. Small readers that say what is wrong.

Only positions are read. Every number that a header promises is checked against what the file holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError


@dataclass(frozen=True)
class Cloud:
    """points (N, 3) float32; triangles (F, 3) int64, indices of points, or None."""

    points: Tensor
    triangles: Tensor | None = None


class _BadFileError(ValueError):
    """What a reader has to say; `read_cloud` adds the file's name."""


def read_cloud(path: Path, name: str | None = None) -> Cloud:
    """UserError, with `name`, for a file that is no cloud or is cut short."""
    name = name or path.name
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{name}: not a kind of file that holds a cloud; there are: {', '.join(READERS)}")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    try:
        points, triangles = reader(data)
        points = np.array(points, dtype=np.float32, order="C")
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            raise _BadFileError("no points in it")
        if triangles is not None and (triangles.min() < 0 or triangles.max() >= len(points)):
            raise _BadFileError(f"a face names a point that is not among its {len(points)}")
    except (ValueError, IndexError, KeyError, EOFError, OverflowError) as error:
        raise UserError(f"{name}: {len(data)} bytes, not a readable {path.suffix.lower()} file ({error}). Delete or replace it") from None
    return Cloud(torch.from_numpy(points), None if triangles is None else torch.from_numpy(triangles))


Read = tuple[np.ndarray, np.ndarray | None]


def _fans(faces: list[list[int]]) -> np.ndarray | None:
    """Polygons to triangles about their first corner."""
    triangles = [(f[0], f[i], f[i + 1]) for f in faces for i in range(1, len(f) - 1)]
    return np.array(triangles, dtype=np.int64) if triangles else None


def _off(data: bytes) -> Read:
    """`OFF` and the counts, on one line with or without a space between, or on two."""
    text = data.decode("ascii", "strict").lstrip()
    if not text.startswith("OFF"):
        raise _BadFileError("it does not start with OFF")
    lines = [line.split("#")[0] for line in text[3:].splitlines()]
    words = " ".join(lines).split()
    if len(words) < 3:
        raise _BadFileError("it ends before its counts")
    vertices, count = int(words[0]), int(words[1])
    if vertices < 0 or len(words) < 3 + 3 * vertices:
        raise _BadFileError(f"cut short: {vertices} points are promised, {max(0, len(words) - 3) // 3} are there")
    points = np.array(words[3 : 3 + 3 * vertices], dtype=np.float64).reshape(-1, 3)
    # Faces may end in colours: they are read line by line.
    rest = [line.split() for line in lines if line.split()]
    rest = rest[len(rest) - count :] if count else []
    faces = []
    place = 3 + 3 * vertices
    for line in rest:
        corners = int(line[0])
        if corners < 1 or len(line) < corners + 1:
            raise _BadFileError("cut short: a face has fewer corners than it says")
        faces.append([int(v) for v in line[1 : corners + 1]])
        place += len(line)
    if place != len(words):
        raise _BadFileError(f"cut short: {count} faces are promised, fewer are there")
    return points, _fans(faces)


def _obj(data: bytes) -> Read:
    points, faces = [], []
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            points.append([float(v) for v in words[1:4]])
        elif words[:1] == ["f"]:
            corners = [int(w.split("/")[0]) for w in words[1:]]
            faces.append([c - 1 if c > 0 else len(points) + c for c in corners])
    return np.array(points, dtype=np.float64), _fans(faces)


def _xyz(data: bytes) -> Read:
    rows = [line.replace(b",", b" ").split() for line in data.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    short = next((i for i, row in enumerate(rows) if len(row) < 3), None)
    if short is not None:
        raise _BadFileError(f"cut short: row {short + 1} has {len(rows[short])} numbers, three are needed")
    return np.array([row[:3] for row in rows], dtype=np.float64), None


def _bin(data: bytes) -> Read:
    """KITTI: x, y, z, reflectance as float32."""
    if not data or len(data) % 16:
        raise _BadFileError("cut short: a LiDAR frame has 16 bytes for each point")
    return np.frombuffer(data, "<f4").reshape(-1, 4)[:, :3], None


def _npy(data: bytes) -> Read:
    import io

    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise _BadFileError(f"an array of shape {array.shape} and type {array.dtype}; a cloud is (N, 3) numbers")
    return array[:, :3], None


PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


def _ply(data: bytes) -> Read:
    """Vertices, and faces where they come next; elements that follow are left."""
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise _BadFileError("it has no ply header")
    start = data.index(b"\n", end) + 1
    form, elements = "", []
    for line in data[:end].decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append(words[1:])
    if not elements or elements[0][0] != "vertex":
        raise _BadFileError("its first element is not vertex")
    if form not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise _BadFileError(f"format {form!r} is not known")
    order = ">" if form == "binary_big_endian" else "<"
    _, count, properties = elements[0]
    names = [p[-1] for p in properties]
    if any(p[0] == "list" for p in properties) or not {"x", "y", "z"} <= set(names):
        raise _BadFileError("its vertices have no x, y, z")
    if form == "ascii":
        lines = data[start:].splitlines()
        rows = [line.split() for line in lines[:count]]
        if len(rows) < count or (rows and len(rows[-1]) < len(names)):
            raise _BadFileError(f"cut short: {count} points are promised, {len(rows)} lines are there")
        points = np.array([[row[names.index(c)] for c in "xyz"] for row in rows], dtype=np.float64)
        faces = []
        if len(elements) > 1 and elements[1][0] == "face":
            for line in lines[count : count + elements[1][1]]:
                words = line.split()
                faces.append([int(w) for w in words[1 : int(words[0]) + 1]])
        return points, _fans(faces)
    row = np.dtype([(n, order + PLY_TYPES[p[0]]) for n, p in zip(names, properties, strict=True)])
    if len(data) < start + count * row.itemsize:
        raise _BadFileError(f"cut short: {count} points of {row.itemsize} bytes are promised, {len(data) - start} bytes are there")
    table = np.frombuffer(data, row, count, start)
    points = np.stack([table[c] for c in "xyz"], 1).astype(np.float64)
    if len(elements) > 1 and elements[1][0] == "face" and elements[1][1] and len(elements[1][2]) == 1:
        return points, _binary_faces(data, start + count * row.itemsize, elements[1], order)
    return points, None


def _binary_faces(data: bytes, start: int, element: tuple[str, int, list[list[str]]], order: str) -> np.ndarray | None:
    """Faces as one list of corners each."""
    _, size, kind, _ = element[2][0]
    number, corner = np.dtype(order + PLY_TYPES[size]), np.dtype(order + PLY_TYPES[kind])
    faces = []
    for _ in range(element[1]):
        if start + number.itemsize > len(data):
            raise _BadFileError(f"cut short: {element[1]} faces are promised, {len(faces)} are there")
        count = int(np.frombuffer(data, number, 1, start)[0])
        start += number.itemsize
        faces.append(np.frombuffer(data, corner, count, start).tolist())
        start += count * corner.itemsize
    return _fans(faces)


def _pcd(data: bytes) -> Read:
    header: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in header:
        end = data.find(b"\n", start)
        if end < 0 or len(header) > 32:
            raise _BadFileError("it has no pcd header")
        words = data[start:end].decode("ascii", "replace").split()
        start = end + 1
        if words and not words[0].startswith("#"):
            header[words[0]] = words[1:]
    names, count = header["FIELDS"], int(header["POINTS"][0])
    if not {"x", "y", "z"} <= set(names):
        raise _BadFileError("its points have no x, y, z")
    counts = [int(c) for c in header.get("COUNT", ["1"] * len(names))]
    if header["DATA"] == ["ascii"]:
        at = np.cumsum([0, *counts])
        rows = [line.split() for line in data[start:].splitlines()[:count]]
        if len(rows) < count:
            raise _BadFileError(f"cut short: {count} points are promised, {len(rows)} lines are there")
        return np.array([[r[at[names.index(c)]] for c in "xyz"] for r in rows], dtype=np.float64), None
    if header["DATA"] != ["binary"]:
        raise _BadFileError(f"DATA {' '.join(header['DATA'])}: ascii and binary can be read")
    kinds = {"F": "f", "I": "i", "U": "u"}
    fields = zip(names, header["TYPE"], header["SIZE"], counts, strict=True)
    row = np.dtype([(f"{n}{i}" if n == "_" else n, f"<{kinds[t]}{s}", (c,)) for i, (n, t, s, c) in enumerate(fields)])
    if len(data) < start + count * row.itemsize:
        raise _BadFileError(f"cut short: {count} points of {row.itemsize} bytes are promised, {len(data) - start} bytes are there")
    table = np.frombuffer(data, row, count, start)
    return np.stack([table[c][:, 0] for c in "xyz"], 1).astype(np.float64), None


READERS: dict[str, Callable[[bytes], Read]] = {
    ".ply": _ply, ".pcd": _pcd, ".off": _off, ".obj": _obj, ".xyz": _xyz, ".bin": _bin, ".npy": _npy,
}  # fmt: skip


def on_surface(points: Tensor, triangles: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """`count` points, evenly by area: (count, 3)."""
    a, b, c = points[triangles].double().unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=1)
    if not float(area.sum()) > 0:
        raise UserError("a mesh without area: no points can be drawn from it")
    edges = area.cumsum(0)  # multinomial takes up to 2^24 triangles; a search takes any number
    place = torch.rand(count, generator=draw, dtype=torch.float64) * edges[-1]
    chosen = torch.searchsorted(edges, place).clamp_max(len(area) - 1)
    u, v = torch.rand(2, count, 1, generator=draw, dtype=torch.float64)
    root = u.sqrt()
    return ((1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]).float()
