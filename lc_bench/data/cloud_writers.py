"""Clouds as files: ply (binary), xyz (text), npy."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import UserError
from ..ops.whole import written_whole


def write_cloud(path: Path, points: Tensor) -> None:
    """points (N, 3), or with normals (N, 6), as float32, of the kind that the file's suffix says."""
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise UserError(f"{path}: clouds are written as {', '.join(WRITERS)}")
    with written_whole(path) as part:
        part.write_bytes(writer(np.ascontiguousarray(points.numpy(), dtype="<f4")))


def _ply(points: np.ndarray) -> bytes:
    names = ("x", "y", "z", "nx", "ny", "nz")[: points.shape[1]]
    properties = "".join(f"property float {n}\n" for n in names)
    return f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n".encode() + points.tobytes()


def _xyz(points: np.ndarray) -> bytes:
    """Nine digits: float32 comes back bit for bit."""
    return "".join(" ".join(f"{v:.9g}" for v in row) + "\n" for row in points.tolist()).encode()


def _npy(points: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, points)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[np.ndarray], bytes]] = {".ply": _ply, ".xyz": _xyz, ".npy": _npy}
