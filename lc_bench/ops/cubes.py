"""Clouds cut by the cubes of a grid through the origin, as He et al. 2022 (arXiv 2204.12684) do with LiDAR frames."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError


def cubes(points: Tensor, side: float, smallest: int = 1) -> list[tuple[tuple[int, ...], Tensor]]:
    """Points (N, 3), or with normals (N, 6), by the cube that they lie in -> (its place, its points in [-1, 1]), by place."""
    if not side > 0:
        raise UserError(f"data.cube={side}: give the side of a cube, above 0")
    places, of_point = (points[:, :3].double() / side).floor().long().unique(dim=0, return_inverse=True)
    order = of_point.sort(stable=True).indices
    parts = order.split(of_point.bincount(minlength=len(places)).tolist())
    local = (points[:, :3].double() - (places[of_point] + 0.5) * side) * (2 / side)
    local = torch.cat([local.to(points.dtype), points[:, 3:]], 1)
    return [(tuple(place), local[part]) for place, part in zip(places.tolist(), parts, strict=True) if len(part) >= smallest]
