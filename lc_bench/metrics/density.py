"""Metrics of local density and of normals, as He et al. 2022 (CVPR, arXiv 2204.12684) measure them. Clouds are (N, 3), in [-1, 1]."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree  # type: ignore[attr-defined]
from torch import Tensor

from ..ops.points import knn

RADIUS = 0.15  # of the ball whose points are counted
MOST = 100  # neighbours that are looked at
DISTANCE_WEIGHT = 1e-5
NEAR, ALIKE = 0.5, 0.5  # how far a point and its normal may lie from those it stands for


def density_difference(a: Tensor, b: Tensor, radius: float = RADIUS) -> float:
    """How far the number of points in a ball, and their mean distance, are off relative to those of the nearest point; both ways summed.

    0 for equal clouds; a point counts itself.
    """
    here, there = _local(a, radius), _local(b, radius)
    return _off(a, here, b, there) + _off(b, there, a, here)


def _local(points: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Number of points within the radius and their mean distance: (N,) each."""
    place = points.double().numpy()  # which neighbour is which does not matter here, so ties need no rule
    distance = torch.from_numpy(cKDTree(place).query(place, min(MOST, len(points)))[0]).view(len(points), -1)
    inside = distance <= radius
    number = inside.sum(1).double().clamp_min(1)
    return number, (distance * inside).sum(1) / number


def _off(a: Tensor, of_a: tuple[Tensor, Tensor], b: Tensor, of_b: tuple[Tensor, Tensor]) -> float:
    nearest = knn(a[None], b[None], 1)[1][0, :, 0]
    off = [((theirs[nearest] - ours).abs() / (theirs[nearest] + 1e-8)).mean().item() for ours, theirs in zip(of_a, of_b, strict=True)]
    return off[0] + DISTANCE_WEIGHT * off[1]


def normals_f1(original: Tensor, decoded: Tensor, near: float = NEAR, alike: float = ALIKE) -> float:
    """original, decoded (N, 6): F1 score of points that lie near an original one and whose normals are alike; 1 is best.

    An original point is found if one of those for which it is the nearest is such a point.
    """
    distance, index = knn(decoded[None, :, :3].contiguous(), original[None, :, :3].contiguous(), 1)
    nearest = index[0, :, 0]
    apart = (original[nearest, 3:].double() - decoded[:, 3:].double()).norm(dim=1)
    right = (distance[0, :, 0].double().sqrt() <= near) & (apart <= alike)
    true = int(right.sum())
    missed = len(original) - len(torch.unique(nearest[right]))
    return 2 * true / (2 * true + len(decoded) - true + missed)
