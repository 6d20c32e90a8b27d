"""Point-cloud metrics, the way MPEG and the field's papers compute them. Clouds are (N, 3); nothing is approximated.

D1 and D2: Tian et al. 2017 (ICIP), with MPEG's factor 3: PSNR = 10 log10(3 peak^2 / mse), mse being the larger of the two ways. Two
conventions of the peak are in use: the longest side of the original's bounding box (`box`), and the largest distance from a point of the
original to its nearest neighbour (`spacing`, the intrinsic resolution that MPEG's pc_error takes when it is not told one).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import unknown
from ..ops.points import knn

PEAKS = ("box", "spacing")
NEIGHBOURS = 12  # of which a normal is estimated


def chamfer(a: Tensor, b: Tensor) -> float:
    """a (N, 3), b (M, 3) -> mean squared distance to the nearest point of the other cloud, both ways summed."""
    return sum(d1_mse(a, b))


def d1_mse(a: Tensor, b: Tensor) -> tuple[float, float]:
    """a (N, 3), b (M, 3) -> mean squared distance point to point: from a to b, and from b to a."""
    return _nearest(a, b)[0].mean().item(), _nearest(b, a)[0].mean().item()


def d2_mse(original: Tensor, decoded: Tensor, normals: Tensor | None = None) -> tuple[float, float]:
    """Point to plane, both ways. normals (N, 3) of the original's points; without, they are estimated.

    A decoded point has the normal of the original's point nearest to it.
    """
    normals = estimated_normals(original) if normals is None else normals.double()
    in_decoded, in_original = _nearest(original, decoded)[1], _nearest(decoded, original)[1]
    of_decoded = normals[in_original]
    there = ((original.double() - decoded.double()[in_decoded]) * of_decoded[in_decoded]).sum(1).square()
    back = ((decoded.double() - original.double()[in_original]) * of_decoded).sum(1).square()
    return there.mean().item(), back.mean().item()


def psnr(mse: tuple[float, float], peak: float) -> float:
    """dB; infinite for equal clouds."""
    worst = max(mse)
    return math.inf if worst == 0 else 10 * math.log10(3 * peak**2 / worst) if peak > 0 else -math.inf


def peak(original: Tensor, convention: str) -> float:
    """original (N, 3) -> longest side of its box, or, by `spacing`, the largest distance between neighbours. UserError for another."""
    if convention == "box":
        return (original.amax(0) - original.amin(0)).max().item()
    if convention == "spacing":
        return math.sqrt(knn(original[None], original[None], 2)[0][0, :, 1].max().item()) if len(original) > 1 else 0.0
    raise unknown("peak", convention, PEAKS)


def estimated_normals(points: Tensor) -> Tensor:
    """(N, 3) float64 unit vectors, up to their sign: the direction in which a point's neighbours vary least."""
    index = knn(points[None], points[None], min(NEIGHBOURS, len(points)))[1][0]
    near = points.double()[index]
    near = near - near.mean(1, keepdim=True)
    return torch.linalg.eigh(near.transpose(1, 2) @ near).eigenvectors[:, :, 0]


def _nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances (N,) and indices (N,) of the points of b nearest to those of a."""
    distance, index = knn(a[None], b[None], 1)
    return distance[0, :, 0], index[0, :, 0]
