"""Analysis and synthesis of the density-preserving codec: three downsamplings, and three upsamplings back.  arXiv 2204.12684.

Numbers of points at every stage follow from that of the input, so the decoder knows them from the header.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .density import Downsample, Refine, Upsample, UpsampleNumber, collapsed, kept, perceptron
from .pointnet import Latents


def stage_counts(count: int, rates: Sequence[float]) -> list[int]:
    """Points of the input and after each downsampling; rates: 1/3 keeps a third."""
    counts = [count]
    for rate in rates:
        counts.append(max(1, round(counts[-1] * rate)))
    return counts


class DensityAnalysis(nn.Module):
    """Cloud (B, N, 3), or with normals (B, N, 6) -> latent_feat (B, features, M) and latent_xyz.

    float16: these are the positions themselves, to be sent as such, and not features learned of them.
    """

    def __init__(
        self, rates: Sequence[float], features: int, hidden: int, k: int, groups: int, float16: bool = False, normals: bool = False
    ) -> None:
        super().__init__()
        self.rates = list(rates)
        self.features = features
        self.normals = normals
        self.pre_conv = perceptron(6 if normals else 3, hidden, features, 1, groups)
        self.down = nn.ModuleList(Downsample(features, hidden, k, groups) for _ in rates)
        self.positions = perceptron(3, hidden, features, 1, groups) if not float16 else None

    def shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        last = stage_counts(count, self.rates)[-1]
        return {"latent_feat": (self.features, last), "latent_xyz": (self.features if self.positions is not None else 3, last)}

    def forward(self, x: Tensor) -> tuple[Latents, Latents]:
        features, points, wanted = self.pre_conv(x.transpose(1, 2)), x[..., :3].contiguous(), {}
        for i, (stage, count) in enumerate(zip(self.down, stage_counts(x.shape[1], self.rates)[1:], strict=True)):
            wanted[f"points{i}"] = points
            points, features, wanted[f"number{i}"], wanted[f"distance{i}"] = stage(points, features, count)
        wanted[f"points{len(self.down)}"] = points
        if self.normals:
            wanted["normals"] = x[..., 3:]
        flat = points.transpose(1, 2)
        return {"latent_feat": features, "latent_xyz": flat if self.positions is None else self.positions(flat)}, wanted


class DensitySynthesis(nn.Module):
    """Latents back to a cloud of the number of points that it is asked for. candidates: how many are made of each point, by stage."""

    def __init__(
        self,
        rates: Sequence[float],
        candidates: Sequence[int],
        features: int,
        hidden: int,
        k: int,
        groups: int,
        float16: bool = False,
        normals: bool = False,
    ) -> None:
        super().__init__()
        self.rates = list(rates)
        self.k = k
        self.normals = normals
        self.positions = perceptron(features, hidden, 3, 1, groups) if not float16 else None
        self.up = nn.ModuleList(Upsample(features, hidden, rate) for rate in candidates)
        self.number = nn.ModuleList(UpsampleNumber(features, hidden, rate) for rate in candidates)
        self.refine = nn.ModuleList(Refine(features, hidden, normals and i == len(rates) - 1) for i in range(len(rates)))

    def forward(self, y: Latents, count: int) -> tuple[Tensor, Latents]:
        """Stage i of what is given belongs to stage i of what the analysis wants: 0 is the whole cloud."""
        features = y["latent_feat"]
        points = (y["latent_xyz"] if self.positions is None else self.positions(y["latent_xyz"])).transpose(1, 2)
        last = len(self.rates)
        given = {f"points{last}_hat": points}
        counts = stage_counts(count, self.rates)
        for i in reversed(range(last)):
            stage = last - 1 - i
            before = points
            candidates, made = self.up[stage](points, features)  # (B, M, rate, 3), (B, C, M, rate)
            number = self.number[stage](features)
            place = kept(candidates, number, counts[i])
            points = candidates.flatten(1, 2).gather(1, place.unsqueeze(-1).expand(-1, -1, 3))
            features = made.flatten(2).gather(2, place.unsqueeze(1).expand(-1, made.shape[1], -1))
            points, features = self.refine[stage](points, features)
            given[f"points{i}_hat"], given[f"number{i}_hat"] = points, number
            if self.training:
                given[f"distance{i}_hat"] = collapsed(before, points, self.k)[0] / number
        given["features_hat"] = features
        if not self.normals:
            return points.contiguous(), given
        given["normals_hat"] = features.tanh().transpose(1, 2)
        return torch.cat([points, given["normals_hat"]], 2), given
