"""One file -> points, and triangles where it is a mesh: ply, pcd, off, obj, xyz, bin (LiDAR), npy.

Only positions are read. Every number that a header promises is checked against what the file holds, and what can be read in two ways is
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..ops.paths import printable
from . import cloud_arrays, cloud_meshes, cloud_pcd, cloud_ply, cloud_text
from .cloud_parts import BadFileError, Read
from .opening import reading


@dataclass(frozen=True)
class Cloud:
    """points (N, 3) float64: what a file far from its origin says is lost in float32; triangles (F, 3) int64, indices of points,
    or None.
    """

    points: Tensor
    triangles: Tensor | None = None


READERS: dict[str, Callable[[bytes], Read]] = {
    ".ply": cloud_ply.read, ".pcd": cloud_pcd.read, ".off": cloud_meshes.off, ".obj": cloud_meshes.obj,
    ".xyz": cloud_text.read, ".bin": cloud_arrays.frame, ".npy": cloud_arrays.array,
}  # fmt: skip


def read_cloud(path: Path, name: str | None = None, columns: int | None = None) -> Cloud:
    """UserError, with `name`, for a file that is no cloud or is cut short. columns: float32 of each point in .bin files, None to tell
    by their numbers.
    """
    name = name or path.name
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UserError(f"{name}: not a kind of file that holds a cloud; there are: {', '.join(READERS)}")
    if columns is not None and (isinstance(columns, bool) or not isinstance(columns, int) or not 3 <= columns <= 64):
        raise UserError(f"columns={columns}: give how many float32 a point of .bin files has, 3 to 64, or null to tell by the numbers")
    with reading(path, f"{suffix} file", name), np.errstate(all="ignore"):
        data = path.read_bytes()
        try:
            points, triangles = cloud_arrays.frame(data, columns) if suffix == ".bin" else READERS[suffix](data)
            points = np.array(points, dtype=np.float64, order="C")
            if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
                raise BadFileError("no points in it")
            if triangles is not None and (triangles.min() < 0 or triangles.max() >= len(points)):
                raise BadFileError(f"a face names a point that is not among its {len(points)}")
        except BadFileError as error:
            raise UserError(f"not a readable {suffix} file of {len(data)} bytes: {printable(str(error))}") from None
    return Cloud(torch.from_numpy(points), None if triangles is None else torch.from_numpy(np.ascontiguousarray(triangles)))


def on_surface(points: Tensor, triangles: Tensor, count: int, draw: torch.Generator, name: str = "") -> Tensor:
    """`count` points, evenly by area: (count, 3) float64. UserError, with `name`, where there is no area."""
    a, b, c = points[triangles].double().unbind(1)
    size = torch.stack([(b - a).abs().max(), (c - a).abs().max()]).max()
    # By their size, since products of very small or large sides leave what a number holds.
    area = torch.linalg.cross((b - a) / size, (c - a) / size).norm(dim=1)
    if not 0 < float(area.sum()) < float("inf"):  # NaN where there is no size
        raise UserError(f"{name or 'cloud'}: a mesh without area, no points can be drawn from it")
    edges = area.cumsum(0)  # multinomial takes up to 2^24 triangles; a search takes any number
    place = torch.rand(count, generator=draw, dtype=torch.float64) * edges[-1]
    chosen = torch.searchsorted(edges, place).clamp_max(len(area) - 1)
    u, v = torch.rand(2, count, 1, generator=draw, dtype=torch.float64)
    root = u.sqrt()
    return (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
