"""Losses of point-cloud codecs: bits per input point + lambda * distance between two clouds.

Chamfer distance: Fan et al. 2017, arXiv 1612.00603; squared, the mean of each way, both ways summed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..ops.points import gather, nearest
from .images import Terms, psnr_of


def chamfer_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a (B, N, 3), b (B, M, 3) -> mean squared distance from a to b and from b to a, (B,) each, and the nearest of a for each of b.

    Differentiable in both; which point is nearest is held fixed.
    """
    in_b, in_a = nearest(a.detach(), b.detach()), nearest(b.detach(), a.detach())
    there = (a - gather(b, in_b)).square().sum(-1).mean(1)
    back = (b - gather(a, in_a)).square().sum(-1).mean(1)
    return there, back, in_a


class RateChamfer(nn.Module):
    """bpp + lmbda * Chamfer distance of clouds in the unit sphere."""

    def __init__(self, lmbda: float) -> None:
        super().__init__()
        self.lmbda = lmbda

    def forward(
        self,
        x: Tensor,
        x_hat: Tensor,
        bits: Mapping[str, Tensor],
        units: int,
        level: Tensor | None = None,
        extras: Mapping[str, Tensor] | None = None,
    ) -> Terms:
        """x, x_hat (B, N, 3); bits (B,) by latent; units: points of a sample."""
        there, back, _ = chamfer_terms(x, x_hat)
        chamfer = there + back
        bpp = torch.stack(list(bits.values())).sum(0) / units
        loss = (bpp + self.lmbda * chamfer).mean()
        # D1 with the peak of a unit sphere's box, 2: see lc_bench.metrics.points.
        return Terms(loss, bpp.mean(), chamfer.mean(), psnr_of(torch.maximum(there, back) / (3 * 2**2)).mean())
