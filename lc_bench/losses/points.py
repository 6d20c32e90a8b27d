"""Losses of point-cloud codecs: bits per input point + lambda * distance between two clouds.

Chamfer distance: Fan et al. 2017, arXiv 1612.00603; squared, the mean of each way, both ways summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
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


def d1_psnr(there: Tensor, back: Tensor) -> Tensor:
    """Mean squared distances both ways (B,) -> D1 in dB with the peak of a unit sphere's box, 2: see lc_bench.metrics.points."""
    return psnr_of(torch.maximum(there, back) / (3 * 2**2))


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
        return Terms(loss, bpp.mean(), chamfer.mean(), d1_psnr(there, back).mean())


class RateDensity(nn.Module):
    """bpp + lmbda * Chamfer of the cloud and of the stages before it, and what keeps densities.  He et al. 2022, arXiv 2204.12684.

    Weights as published with lmbda = 1e4: stages, by which each Chamfer distance counts, the whole cloud first; number: of points that a
    point stands for; spread: their mean distance; total: number of all points; latents: positions at the coarsest stage; normals.
    """

    def __init__(
        self,
        lmbda: float,
        stages: Sequence[float] = (1.0, 0.1, 0.1),
        number: float = 1.0,
        spread: float = 50.0,
        total: float = 5e-3,
        latents: float = 100.0,
        normals: float = 100.0,
    ) -> None:
        super().__init__()
        self.lmbda = lmbda
        self.stages = list(stages)
        self.number, self.spread, self.total, self.latents, self.normals = number, spread, total, latents, normals

    def forward(
        self,
        x: Tensor,
        x_hat: Tensor,
        bits: Mapping[str, Tensor],
        units: int,
        level: Tensor | None = None,
        extras: Mapping[str, Tensor] | None = None,
    ) -> Terms:
        """extras: of a codec of DensityAnalysis and DensitySynthesis."""
        if not extras or "points0_hat" not in extras:
            raise UserError("rate=density: this model has no stages of density; use rate=chamfer")
        bpp = (torch.stack(list(bits.values())).sum(0) / units).mean()
        terms = self.terms(extras)
        weights = {
            "chamfer": self.lmbda, "number": self.number, "spread": self.spread,
            "total": self.total, "latents": self.latents, "normals": self.normals,
        }  # fmt: skip
        loss = bpp + sum(weights[name] * value for name, value in terms.items())
        there, back, _ = chamfer_terms(extras["points0"], extras["points0_hat"].detach())
        return Terms(loss, bpp, (there + back).mean(), d1_psnr(there, back).mean())

    def terms(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Unweighted, but for those of the stages."""
        last = len(self.stages)
        zero = given["points0"].new_zeros(())
        out: dict[str, Tensor] = {name: zero for name in ("chamfer", "number", "spread", "total")}  # noqa: C420 (wider key type)
        for i, weight in enumerate(self.stages):
            there, back, nearest_of_hat = chamfer_terms(given[f"points{i}"], given[f"points{i}_hat"])
            out["chamfer"] = out["chamfer"] + weight * (there.mean() + back.mean())
            out["total"] = out["total"] + (given[f"number{i}_hat"].sum() - given[f"points{i}"].shape[:2].numel()).abs()
            if i == 0 and "normals_hat" in given:
                out["normals"] = F.mse_loss(given["normals_hat"], gather(given["normals"], nearest_of_hat))
            # Numbers and distances of stage i - 1 are told at the points of stage i; at the coarsest, points keep their order.
            self._densities(out, given, i - 1, nearest_of_hat)
        self._densities(out, given, last - 1, None)
        out["latents"] = F.mse_loss(given[f"points{last}_hat"], given[f"points{last}"])
        return out

    def _densities(self, out: dict[str, Tensor], given: Mapping[str, Tensor], stage: int, place: Tensor | None) -> None:
        if stage < 0:
            return
        for name, key in (("number", "number"), ("spread", "distance")):
            if f"{key}{stage}_hat" in given:  # distances are measured in training only
                wanted = given[f"{key}{stage}"]
                wanted = wanted if place is None else wanted.gather(1, place)
                out[name] = out[name] + F.l1_loss(given[f"{key}{stage}_hat"], wanted)
