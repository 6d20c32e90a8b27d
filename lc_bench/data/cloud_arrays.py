"""Clouds as bare numbers: LiDAR frames of float32 (.bin) and arrays of NumPy (.npy)."""

from __future__ import annotations

import io
import warnings

import numpy as np

from .cloud_parts import BadFileError, Read

KNOWN = {4: "x, y, z, reflectance as in KITTI", 5: "x, y, z, intensity, ring as in nuScenes"}
FEWEST = 100  # points that a layout is told by; a smaller file of four columns is taken as such where it can be that alone
FARTHEST = 10_000.0  # metres that a LiDAR sees
BRIGHTEST = 65_535.0
SMALLEST = 1e-30  # no measured number but zero is nearer to it
TOLD = 0.01  # share of the spread of magnitudes that columns account for, if they are columns


def frame(data: bytes, columns: int | None = None) -> Read:
    """Rows of so many little-endian float32, the first three of which are x, y, z. None: four or five, as the numbers say;
    BadFileError where they say neither or both.
    """
    if columns is not None:
        if not data or len(data) % (4 * columns):
            raise BadFileError(f"cut short: a frame of {columns} columns has {4 * columns} bytes for each point")
        return np.frombuffer(data, "<f4").reshape(-1, columns)[:, :3], None
    if not data or (len(data) % 16 and len(data) % 20):
        raise BadFileError("cut short: a LiDAR frame has 16 bytes for each point, or 20; columns=N says another number of float32")
    numbers = np.frombuffer(data, "<f4")
    fitting = [c for c in KNOWN if len(numbers) % c == 0 and _may_be(numbers.reshape(-1, c))]
    if len(fitting) != 1:
        either = "both " + " and ".join(KNOWN.values()) if fitting else "neither " + " nor ".join(KNOWN.values())
        raise BadFileError(f"its numbers can be {either}; columns=4, 5 or another number of float32 for each point says what they are")
    return numbers.reshape(-1, fitting[0])[:, :3], None


def _may_be(rows: np.ndarray) -> bool:
    """Whether numbers are those of a frame with so many columns."""
    columns = rows.shape[1]
    size = np.abs(rows)
    if not np.isfinite(rows).all() or ((size > 0) & (size < SMALLEST)).any() or size[:, :3].max() > FARTHEST:
        return False
    if rows[:, 3].min() < 0 or rows[:, 3].max() > BRIGHTEST:
        return False
    if columns == 5 and (len(rows) < FEWEST or (rows[:, 4] != rows[:, 4].round()).any() or rows[:, 4].min() < 0 or rows[:, 4].max() > 255):
        return False
    return len(rows) < FEWEST or _told(rows.reshape(-1), columns) > TOLD + max(_told(rows.reshape(-1), c) for c in (3, 6, 7))


def _told(numbers: np.ndarray, columns: int) -> float:
    """Which share of the variance of magnitudes lies between columns: near 0 where numbers are taken apart at wrong places."""
    magnitude = np.log(np.abs(numbers[: len(numbers) // columns * columns]).astype(np.float64) + 1e-3).reshape(-1, columns)
    whole = magnitude.var()
    return float(magnitude.mean(0).var() / whole) if whole > 0 else 0.0


def array(data: bytes) -> Read:
    """(N, 3) numbers or more columns, or a structured array with fields x, y, z."""
    if data[:2] == b"PK":
        raise BadFileError("several arrays in one (npz); save the points alone with numpy.save")
    shape, by_column, kind, start = _header(data)
    if kind.hasobject or (kind.names is None and kind.kind not in "fiu"):
        raise BadFileError(f"an array of type {str(kind)[:60]}; a cloud is (N, 3) numbers")
    count = 1
    for side in shape:
        count *= side
    if start + count * kind.itemsize != len(data):
        raise BadFileError(f"cut short or damaged: {count * kind.itemsize} bytes are promised, {len(data) - start} are there")
    values = np.frombuffer(data, kind, count, start).reshape(shape, order="F" if by_column else "C")
    if kind.names is not None:
        return _fields(values), None
    if values.ndim != 2 or shape[1] < 3:
        raise BadFileError(f"an array of shape {shape}; a cloud is (N, 3). Save each cloud for itself")
    rows, columns = shape
    if columns > 3 and rows < columns and (rows >= 3 or columns > 16):
        raise BadFileError(f"an array of shape {shape}, more columns than points; a cloud is (N, 3). Save its transpose (array.T)")
    return _exact(values[:, :3]), None


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """-> shape, whether columns stand together, type of the numbers, where they start. Nothing is made of the size that it claims."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote, which are read
        shape, by_column, kind = reader(stream)
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise BadFileError(f"a shape {shape}")
    return shape, by_column, kind, stream.tell()


def _fields(values: np.ndarray) -> np.ndarray:
    names = values.dtype.names or ()
    if values.ndim != 1 or not {"x", "y", "z"} <= set(names):
        raise BadFileError(f"a structured array of shape {values.shape} with fields {', '.join(names)[:60]}; x, y, z are wanted")
    columns = [values[c] for c in "xyz"]
    if any(c.ndim != 1 or c.dtype.kind not in "fiu" for c in columns):
        raise BadFileError("its fields x, y, z are not one number each")
    return np.stack([_exact(c) for c in columns], 1)


def _exact(values: np.ndarray) -> np.ndarray:
    """float64. BadFileError for whole numbers that it does not hold."""
    found = values.astype(np.float64)
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8 and not np.array_equal(found.astype(values.dtype), values):
        raise BadFileError("whole numbers beyond 2^53, which coordinates do not hold to the last digit; scale or move the points")
    return found
