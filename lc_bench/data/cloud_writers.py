"""Clouds as files: ply (binary), xyz (text), npy."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..ops.whole import written_whole


def write_cloud(path: Path, points: Tensor) -> None:
    """points (N, 3), or with normals (N, 6), as the float32 or float64 that they are, of the kind that the file's suffix says."""
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise UserError(f"{path}: clouds are written as {', '.join(WRITERS)}")
    kind = "<f8" if points.dtype == torch.float64 else "<f4"
    with written_whole(path) as part:
        part.write_bytes(writer(np.ascontiguousarray(points.numpy(), dtype=kind)))


def _ply(points: np.ndarray) -> bytes:
    names = ("x", "y", "z", "nx", "ny", "nz")[: points.shape[1]]
    kind = "double" if points.dtype.itemsize == 8 else "float"
    properties = "".join(f"property {kind} {n}\n" for n in names)
    return f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n".encode() + points.tobytes()


def _xyz(points: np.ndarray) -> bytes:
    """Nine or seventeen digits: float32 and float64 come back bit for bit."""
    digits = 17 if points.dtype.itemsize == 8 else 9
    return "".join(" ".join(f"{v:.{digits}g}" for v in row) + "\n" for row in points.tolist()).encode()


def _npy(points: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, points)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[np.ndarray], bytes]] = {".ply": _ply, ".xyz": _xyz, ".npy": _npy}
