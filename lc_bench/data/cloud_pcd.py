"""PCD of the Point Cloud Library, versions 0.5 to 0.7: ascii, binary and binary_compressed (LZF)."""

from __future__ import annotations

import numpy as np

from .cloud_parts import BadFileError, Read, check_rest, number_of, table

KINDS = {("F", 4): "f4", ("F", 8): "f8", **{(t, s): f"{t.lower()}{s}" for t in "IU" for s in (1, 2, 4, 8)}}
KEYS = ("VERSION", "FIELDS", "COLUMNS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")
MOST_EXPANSION = 88  # three bytes of LZF stand for 264 at most


def read(data: bytes) -> Read:
    """Points; PCD has no faces. BadFileError where it is cut short, goes on after its end, or its header does not fit."""
    header, start = _header(data)
    names = header.get("FIELDS") or header.get("COLUMNS") or []
    if any(names.count(c) != 1 for c in "xyz"):
        raise BadFileError("its points have no x, y, z")
    counts = [number_of(c, "a COUNT") for c in header.get("COUNT", ["1"] * len(names))]
    if len(counts) != len(names) or any(counts[names.index(c)] != 1 for c in "xyz"):
        raise BadFileError(f"{len(names)} fields and COUNT {' '.join(header['COUNT'])[:60]} do not fit")
    count, form = _points(header), header["DATA"]
    places = [names.index(c) for c in "xyz"]
    if form == ["ascii"]:
        return _ascii(data[start:], count, counts, places), None
    if form not in (["binary"], ["binary_compressed"]):
        raise BadFileError(f"DATA {' '.join(form)[:40]!r}: ascii, binary and binary_compressed can be read")
    kinds = _kinds(header, names)
    sizes = [int(kind[1]) * c for kind, c in zip(kinds, counts, strict=True)]
    if form == ["binary"]:
        size = sum(sizes)
        if len(data) < start + count * size:
            raise BadFileError(f"cut short: {count} points of {size} bytes are promised, {len(data) - start} bytes are there")
        check_rest(data[start + count * size :])
        formats = [f"<{kinds[p]}" for p in places]
        offsets = [sum(sizes[:p]) for p in places]
        row = np.dtype({"names": ["x", "y", "z"], "formats": formats, "offsets": offsets, "itemsize": size})
        rows = np.frombuffer(data, row, count, start)
        return np.stack([rows[c].astype(np.float64) for c in "xyz"], 1), None
    body = _unpacked(data[start:], count * sum(sizes))
    # All values of a field stand together here, field by field.
    columns = [np.frombuffer(body, f"<{kinds[p]}", count, count * sum(sizes[:p])) for p in places]
    return np.stack([c.astype(np.float64) for c in columns], 1), None


def _header(data: bytes) -> tuple[dict[str, list[str]], int]:
    """-> words by key, where the numbers start."""
    header: dict[str, list[str]] = {}
    feed, back = data.find(b"\n"), data.find(b"\r")
    mark = b"\r" if back >= 0 and (feed < 0 or back < feed - 1) else b"\n"
    start = 0
    while "DATA" not in header:
        end = data.find(mark, start)
        if end < 0:
            raise BadFileError("it has no pcd header that ends")
        words = data[start:end].decode("latin-1").split()
        start = end + 1
        if not words or words[0].startswith("#"):
            continue
        if words[0] not in KEYS or words[0] in header:
            raise BadFileError(f"{' '.join(words)[:60]!r} in its header is not known")
        header[words[0]] = words[1:]
    return header, start


def _points(header: dict[str, list[str]]) -> int:
    """POINTS, or WIDTH times HEIGHT; both where both are told."""
    numbers = {}
    for key in ("POINTS", "WIDTH", "HEIGHT"):
        if key in header:
            numbers[key] = number_of(" ".join(header[key]), key)
    area = numbers["WIDTH"] * numbers.get("HEIGHT", 1) if "WIDTH" in numbers else None
    count = numbers.get("POINTS", area)
    if count is None:
        raise BadFileError("its header has no POINTS")
    if area is not None and count != area:
        raise BadFileError(f"POINTS {count}, but WIDTH times HEIGHT {area}: its header is damaged")
    return count


def _kinds(header: dict[str, list[str]], names: list[str]) -> list[str]:
    """The type of each field's numbers, as numpy calls it."""
    types, sizes = header.get("TYPE", []), header.get("SIZE", [])
    if len(types) != len(names) or len(sizes) != len(names):
        raise BadFileError(f"{len(names)} fields, {len(types)} of TYPE and {len(sizes)} of SIZE do not fit")
    kinds = []
    for kind, size in zip(types, sizes, strict=True):
        found = KINDS.get((kind, number_of(size, "a SIZE")))
        if found is None:
            raise BadFileError(f"numbers of TYPE {kind[:20]} and SIZE {size}: there are F 4, 8 and I, U 1, 2, 4, 8")
        kinds.append(found)
    return kinds


def _ascii(body: bytes, count: int, counts: list[int], places: list[int]) -> np.ndarray:
    rows = [row for row in body.decode("latin-1").replace("\r", "\n").split("\n") if row.strip()]
    if len(rows) != count:
        raise BadFileError(f"cut short or damaged: {count} points are promised, {len(rows)} lines are there")
    found = table(rows)
    if rows and found.shape[1] != sum(counts):
        raise BadFileError(f"{found.shape[1]} numbers in a line, {sum(counts)} are promised")
    return found[:, [sum(counts[:p]) for p in places]] if rows else np.zeros((0, 3))


def _unpacked(body: bytes, size: int) -> bytes:
    """The bytes of LZF, which have two lengths before them: packed, and as they were."""
    import imagecodecs

    if len(body) < 8:
        raise BadFileError("cut short: it ends before its compressed points")
    packed, whole = (int(v) for v in np.frombuffer(body, "<u4", 2))
    if whole != size:
        raise BadFileError(f"its points are {size} bytes by its header, {whole} by their own: one of the two is damaged")
    if len(body) < 8 + packed or whole > MOST_EXPANSION * packed:
        raise BadFileError(f"cut short: {packed} bytes of compressed points are promised, {len(body) - 8} are there")
    check_rest(body[8 + packed :])
    if not size:
        return b""
    try:
        found = imagecodecs.lzf_decode(body[8 : 8 + packed], header=False, out=whole)
    except RuntimeError:
        raise BadFileError("its compressed points are damaged") from None
    if len(found) != whole:
        raise BadFileError(f"its compressed points are damaged: {len(found)} bytes of {whole}")
    return bytes(found)
