"""Density-preserving point-cloud compression: He et al. 2022 (CVPR), arXiv 2204.12684.

Downsampling keeps for every point how many it stands for and how far they lie; upsampling makes candidates and learns how many of them to
keep. Features are (B, C, N), positions (B, N, 3). Point transformer: Zhao et al. 2021, arXiv 2012.09164.

The decoder is a function of what was sent: candidates are kept by their predicted numbers, and brought to the number of points that the
header asks for by farthest point sampling where there are too many, by repeating kept ones in order where there are too few.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.points import farthest_point_sample, gather, knn


def pick(features: Tensor, index: Tensor) -> Tensor:
    """features (B, C, N), index (B, ...) -> (B, C, ...)."""
    return gather(features.transpose(1, 2), index).movedim(-1, 1)


def collapsed(centres: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which of the k points nearest to a centre (B, M, 3) have no nearer centre.

    -> sum of their distances (B, M), whether each belongs (B, M, k), and the k indices (B, M, k).
    """
    owner = knn(points, centres, 1)[1].squeeze(-1)  # (B, N): the centre of every point
    index = knn(centres, points, min(k, points.shape[1]))[1]
    belongs = owner.gather(1, index.flatten(1)).view_as(index) == torch.arange(centres.shape[1], device=index.device)[:, None]
    distance = (gather(points, index) - centres.unsqueeze(2)).norm(dim=3)
    return (distance * belongs).sum(2), belongs, index


def perceptron(before: int, hidden: int, after: int, dims: int, groups: int | None = 1) -> nn.Sequential:
    """Two 1x1 convolutions; groups: of the normalisation between them, None for none."""
    conv = nn.Conv1d if dims == 1 else nn.Conv2d
    norm = [] if groups is None else [nn.GroupNorm(groups, hidden)]
    return nn.Sequential(conv(before, hidden, 1), *norm, nn.ReLU(), conv(hidden, after, 1))


def attend(scores: Tensor, belongs: Tensor) -> Tensor:
    """Softmax of (B, C, M, k) over those that belong."""
    return scores.masked_fill(~belongs.unsqueeze(1), -torch.finfo(scores.dtype).max).softmax(-1)


class PointTransformer(nn.Module):
    """Vector attention of centres to the points that they stand for."""

    def __init__(self, channels: int, hidden: int, groups: int) -> None:
        super().__init__()
        self.w_qs, self.w_ks, self.w_vs = (nn.Conv1d(channels, hidden, 1) for _ in range(3))
        self.conv_delta = perceptron(3, hidden, hidden, 2, groups)
        self.conv_gamma = perceptron(hidden, hidden, hidden, 2, groups)
        self.post_conv = nn.Conv1d(hidden, channels, 1)

    def forward(self, centres: Tensor, points: Tensor, own: Tensor, features: Tensor, index: Tensor, belongs: Tensor) -> Tensor:
        """own (B, C, M) at centres, features (B, C, N) at points -> (B, C, M)."""
        key, value = pick(self.w_ks(features), index), pick(self.w_vs(features), index)
        place = self.conv_delta((centres.unsqueeze(2) - gather(points, index)).movedim(-1, 1))
        scores = self.conv_gamma(self.w_qs(own).unsqueeze(-1) - key + place) / math.sqrt(key.shape[1])
        return self.post_conv((attend(scores, belongs) * (value + place)).sum(-1)) + own


class PositionEmbedding(nn.Module):
    """Direction and distance of the points that a centre stands for, pooled by attention."""

    def __init__(self, channels: int, hidden: int, groups: int) -> None:
        super().__init__()
        self.embed_positions = perceptron(4, hidden, channels, 2, groups)
        self.attention = perceptron(channels, hidden, channels, 2, groups)

    def forward(self, centres: Tensor, points: Tensor, index: Tensor, belongs: Tensor) -> Tensor:
        offset = (gather(points, index) - centres.unsqueeze(2)).movedim(-1, 1)  # (B, 3, M, k)
        pattern = torch.cat([F.normalize(offset, dim=1), offset.norm(dim=1, keepdim=True)], 1)
        embedded = self.embed_positions(pattern)
        return (embedded * attend(self.attention(embedded), belongs)).sum(-1)


class DensityEmbedding(nn.Module):
    """How many points a centre stands for -> features."""

    def __init__(self, channels: int, hidden: int, groups: int) -> None:
        super().__init__()
        self.embed_densities = perceptron(1, hidden, channels, 1, groups)

    def forward(self, number: Tensor) -> Tensor:
        return self.embed_densities(number.unsqueeze(1))


class Downsample(nn.Module):
    """To `count` points, each with features that describe those it stands for."""

    def __init__(self, channels: int, hidden: int, k: int, groups: int) -> None:
        super().__init__()
        self.k = k
        self.pre_conv = nn.Conv1d(channels, channels, 1)
        self.embed_features = PointTransformer(channels, hidden, groups)
        self.embed_positions = PositionEmbedding(channels, hidden, groups)
        self.embed_densities = DensityEmbedding(channels, hidden, groups)
        self.post_conv = nn.Conv1d(3 * channels, channels, 1)

    def forward(self, points: Tensor, features: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> centres (B, M, 3), features (B, C, M), how many points each stands for and their mean distance, (B, M)."""
        chosen = farthest_point_sample(points, count)
        centres = gather(points, chosen)
        total, belongs, index = collapsed(centres, points, self.k)
        # Among equal points only the first owns them all; the others stand for none, and count as one that lies on the spot.
        number = belongs.sum(2).clamp_min(1).to(points.dtype)
        belongs = belongs | (~belongs.any(2, keepdim=True) & (torch.arange(belongs.shape[2], device=index.device) == 0))
        inside = self.pre_conv(features)
        parts = [
            self.embed_features(centres, points, pick(inside, chosen), inside, index, belongs),
            self.embed_positions(centres, points, index, belongs),
            self.embed_densities(number),
        ]
        return centres, self.post_conv(torch.cat(parts, 1)) + pick(features, chosen), number, total / number


class SubPointConv(nn.Module):
    """Features cut into `groups` slices, one for each point that comes out, and the same perceptron for all."""

    def __init__(self, before: int, hidden: int, after: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.mlp = perceptron(before // groups, hidden, after, 2, None)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, N) -> (B, after, N, groups). Slices are interleaved: channel c * groups + g belongs to slice g."""
        return self.mlp(features.unflatten(1, (-1, self.groups)).transpose(2, 3))


def directions() -> Tensor:
    """(43, 3): nowhere, and the corners of an icosahedron whose edges are halved once, on the unit sphere, ordered by x, y, z."""
    g = 2 / (1 + math.sqrt(5))
    corners = [v for a in (-g, g) for b in (-1.0, 1.0) for v in ((0.0, a, b), (a, b, 0.0), (b, 0.0, a))]
    corner = F.normalize(torch.tensor(corners, dtype=torch.float64), dim=1)
    near = torch.cdist(corner, corner)
    edges = ((near > 0) & (near < near[near > 0.1].min() * 1.01)).triu().nonzero()  # 30
    body = torch.cat([corner, (corner[edges[:, 0]] + corner[edges[:, 1]]) / 2])
    key = (body * 1e6).round().tolist()  # middles are put in order where they lie on the edges
    order = sorted(range(len(body)), key=lambda i: key[i])
    return torch.cat([torch.zeros(1, 3, dtype=torch.float64), F.normalize(body[order], dim=1)]).float()


class UpsamplePositions(nn.Module):
    """`rate` candidates about each point: a direction, weighted from fixed ones, and a length."""

    hypotheses: Tensor

    def __init__(self, channels: int, hidden: int, rate: int) -> None:
        super().__init__()
        self.register_buffer("hypotheses", directions(), persistent=False)
        self.weight_nn = SubPointConv(channels, hidden, 43, rate)
        self.scale_nn = SubPointConv(channels, hidden, 1, rate)

    def forward(self, points: Tensor, features: Tensor) -> Tensor:
        """-> (B, N, rate, 3)."""
        weight = self.weight_nn(features).softmax(1)
        way = F.normalize(torch.einsum("bhnu,hc->bcnu", weight, self.hypotheses), dim=1)
        return points.unsqueeze(2) + (way * self.scale_nn(features)).movedim(1, -1)


class UpsampleFeatures(nn.Module):
    """Features of `rate` candidates of each point: (B, C, N) -> (B, C, N, rate). normals: 3 channels that stand for themselves."""

    def __init__(self, channels: int, hidden: int, rate: int, normals: bool = False) -> None:
        super().__init__()
        self.normals = normals
        self.feats_nn = SubPointConv(channels, hidden, 3 if normals else channels, rate)

    def forward(self, features: Tensor) -> Tensor:
        out = self.feats_nn(features)
        return out if self.normals else out + features.unsqueeze(-1)


class Upsample(nn.Module):
    def __init__(self, channels: int, hidden: int, rate: int) -> None:
        super().__init__()
        self.xyzs_upsample_nn = UpsamplePositions(channels, hidden, rate)
        self.feats_upsample_nn = UpsampleFeatures(channels, hidden, rate)

    def forward(self, points: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.xyzs_upsample_nn(points, features), self.feats_upsample_nn(features)


class Refine(nn.Module):
    """One candidate of each point takes its place."""

    def __init__(self, channels: int, hidden: int, normals: bool = False) -> None:
        super().__init__()
        self.xyzs_refine_nn = UpsamplePositions(channels, hidden, 1)
        self.feats_refine_nn = UpsampleFeatures(channels, hidden, 1, normals)

    def forward(self, points: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.xyzs_refine_nn(points, features).squeeze(2), self.feats_refine_nn(features).squeeze(3)


class UpsampleNumber(nn.Module):
    """How many candidates of each point are kept, 1 .. rate: (B, C, N) -> (B, N)."""

    def __init__(self, channels: int, hidden: int, rate: int) -> None:
        super().__init__()
        self.rate = rate
        self.upsample_num_nn = nn.Sequential(nn.Conv1d(channels, hidden, 1), nn.ReLU(), nn.Conv1d(hidden, 1, 1), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        return self.upsample_num_nn(features).squeeze(1) * (self.rate - 1) + 1


@torch.no_grad()
def kept(candidates: Tensor, number: Tensor, count: int) -> Tensor:
    """candidates (B, N, rate, 3), number (B, N) -> (B, count): places in (N * rate) of the first `number` candidates of each point."""
    rate = candidates.shape[2]
    wanted = ~(torch.arange(rate, device=number.device) >= number.round().unsqueeze(-1))  # a number that is NaN keeps all
    rows = []
    for cloud, mask in zip(candidates.flatten(1, 2), wanted.flatten(1), strict=True):
        place = mask.nonzero().squeeze(1)
        if len(place) > count:
            place = place[farthest_point_sample(cloud[place][None], count)[0]]
        rows.append(place[torch.arange(count, device=place.device) % len(place)])
    return torch.stack(rows)
