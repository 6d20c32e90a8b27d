"""Networks on sets of points: PointNet and PointNet++, and their use as transforms of a codec.

PointNet: Qi et al. 2017, arXiv 1612.00593; as an auto-encoder: Yan et al. 2019, arXiv 1905.03691, with the gains of Ulhaq and Bajić 2023,
arXiv 2308.05959. PointNet++: Qi et al. 2017, arXiv 1706.02413. Inside, features are (B, C, N); clouds come and go as (B, N, 3).

An analysis gives (latents by name, what a loss may want) of a cloud, and says the shapes of its latents for a number of points; a synthesis
gives (cloud, what a loss may want) of latents and that number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..ops.points import ball_query, farthest_point_sample, gather, interpolate
from .shaping import Gain, Interleave, Reshape

GAIN = 10.0  # between a network's outputs and what is rounded: steps of 1 are then small enough to begin with
Latents = dict[str, Tensor]


def fixed_count(given: int, wanted: int) -> None:
    if given != wanted:
        raise UserError(f"a cloud of {given} points: this model takes {wanted}. Sample that many (data.points={wanted}), or build another")


class PointNetAnalysis(nn.Module):
    """Every point through the same layers, then the largest value of each channel: y (B, C, 1)."""

    def __init__(self, channels: Sequence[int], num_points: int) -> None:
        super().__init__()
        self.num_points = num_points
        self.width = channels[-1]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            layers += [nn.Conv1d(before, after, 1), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(*layers, nn.AdaptiveMaxPool1d(1), Gain((channels[-1], 1), GAIN))

    def shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        fixed_count(count, self.num_points)
        return {"y": (self.width, 1)}

    def forward(self, x: Tensor) -> tuple[Latents, Latents]:
        fixed_count(x.shape[1], self.num_points)
        return {"y": self.net(x.transpose(1, 2))}, {}


class PointNetSynthesis(nn.Module):
    """y (B, C, 1) through fully connected layers to all coordinates at once."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [Gain((channels[0], 1), 1 / GAIN)]
        for before, after in itertools.pairwise(channels):
            layers += [nn.Conv1d(before, after, 1), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(*layers[:-1], Reshape((channels[-1] // 3, 3)))

    def forward(self, y: Latents, count: int) -> tuple[Tensor, Latents]:
        return self.net(y["y"]), {}


class SetAbstraction(nn.Module):
    """Points and their features (B, C, N) -> fewer points, a feature each: the largest values over a ball's shared perceptron.

    points: how many come out; without, one for the whole set, and positions stay absolute.
    """

    def __init__(self, channels: int, widths: Sequence[int], points: int | None = None, radius: float = 0.0, samples: int = 0) -> None:
        super().__init__()
        self.points, self.radius, self.samples = points, radius, samples
        chain = [channels, *widths]
        self.mlp_convs = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(chain))
        self.mlp_bns = nn.ModuleList(nn.BatchNorm2d(b) for b in widths)

    def forward(self, x: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, N, 3) -> centres (B, M, 3), features (B, C', M), and what was pooled: (B, 3 + C, M, samples)."""
        centres, grouped = self.group(x, features)
        return centres, self.pool(grouped), grouped

    def group(self, x: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        values = x if features is None else torch.cat([x, features.transpose(1, 2)], 2)
        if self.points is None:
            return x.new_zeros(len(x), 1, 3), values.transpose(1, 2).unsqueeze(2)
        centres = gather(x, farthest_point_sample(x, self.points))
        grouped = gather(values, ball_query(centres, x, self.radius, self.samples))  # (B, M, samples, 3 + C)
        near = torch.cat([grouped[..., :3] - centres.unsqueeze(2), grouped[..., 3:]], 3)
        return centres, near.permute(0, 3, 1, 2)

    def pool(self, grouped: Tensor) -> Tensor:
        for conv, norm in zip(self.mlp_convs, self.mlp_bns, strict=True):
            grouped = F.relu(norm(conv(grouped)), inplace=True)
        return grouped.amax(3)


class MultiScaleAbstraction(nn.Module):
    """Abstractions with balls of several radii about the same centres, their features joined. widths: of each scale."""

    def __init__(self, channels: int, widths: Sequence[Sequence[int]], points: int, radii: Sequence[float], samples: Sequence[int]) -> None:
        super().__init__()
        self.points = points
        self.scales = nn.ModuleList(SetAbstraction(channels, w, points, r, s) for w, r, s in zip(widths, radii, samples, strict=True))

    def forward(self, x: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, N, 3), features (B, C, N) -> centres (B, M, 3), features (B, sum of last widths, M)."""
        found = [scale(x, features) for scale in self.scales]
        return found[0][0], torch.cat([f for _, f, _ in found], 1)


class FeaturePropagation(nn.Module):
    """Features of a few points brought to many: interpolated from the three nearest, joined with what is there, and a perceptron."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        chain = [channels, *widths]
        self.mlp_convs = nn.ModuleList(nn.Conv1d(a, b, 1) for a, b in itertools.pairwise(chain))
        self.mlp_bns = nn.ModuleList(nn.BatchNorm1d(b) for b in widths)

    def forward(self, many: Tensor, few: Tensor, own: Tensor | None, features: Tensor) -> Tensor:
        """many (B, N, 3), few (B, M, 3), own (B, C1, N), features (B, C2, M) -> (B, C', N)."""
        brought = interpolate(many, few, features.transpose(1, 2)).transpose(1, 2)
        x = brought if own is None else torch.cat([own, brought], 1)
        for conv, norm in zip(self.mlp_convs, self.mlp_bns, strict=True):
            x = F.relu(norm(conv(x)))
        return x


class PointNet2Analysis(nn.Module):
    """Three abstractions; latents y_i from what enters level i (positions and features), for every i with M[i] > 0.

    D: features of each level, P: points, S: samples of a ball, R: radii, M: channels of the latents.
    """

    def __init__(self, D: Sequence[int], P: Sequence[int], S: Sequence[int], R: Sequence[float], M: Sequence[int]) -> None:
        super().__init__()
        check_levels(P, S)
        self.top = len(D) - 1
        self.points = list(P)
        self.channels = {f"y_{i}": M[i] for i in range(len(M)) if M[i] > 0}
        widths = [
            (D[i] // 2, D[i] // 2, D[i]) if i == 1 else (D[i - 1], D[i - 1] if i < self.top else D[i], D[i]) for i in range(1, len(D))
        ]
        self.down = nn.ModuleDict()
        for i in range(1, len(D)):
            points, radius, samples = (None, 0.0, 0) if i == self.top else (P[i], R[i], S[i])
            self.down[str(i)] = SetAbstraction(D[i - 1] + 3, widths[i - 1], points, radius, samples)
        self.h_a = nn.ModuleDict()
        for i in range(self.top):
            if M[i] > 0:
                self.h_a[str(i)] = nn.Sequential(Reshape((D[i] + 3, P[i])), nn.Conv1d(D[i] + 3, M[i], 1), Gain((M[i], 1), GAIN))
        groups = last_groups(D, M)
        last = nn.Conv1d(D[-1], M[-1], 1, groups=groups)
        self.h_a[str(self.top)] = nn.Sequential(Reshape((D[-1], 1)), last, Interleave(groups), Gain((M[-1], 1), GAIN))

    def shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        fixed_count(count, self.points[0])
        return {name: (channels, self.points[int(name[2:])]) for name, channels in self.channels.items()}

    def forward(self, x: Tensor) -> tuple[Latents, Latents]:
        fixed_count(x.shape[1], self.points[0])
        features, entering = None, {}
        for i in range(1, self.top + 1):
            x, features, entering[i - 1] = self.down[str(i)](x, features)
        entering[self.top] = features
        return {name: self.h_a[name[2:]](entering[int(name[2:])]) for name in self.channels}, {}


class PointNet2Synthesis(nn.Module):
    """From the top latent down: every point becomes S[i] points with E[i] features; the last two layers give coordinates."""

    def __init__(self, D: Sequence[int], P: Sequence[int], S: Sequence[int], E: Sequence[int], M: Sequence[int]) -> None:
        super().__init__()
        check_levels(P, S)
        self.top = len(D) - 1
        self.h_s = nn.ModuleDict()
        for i in range(self.top):
            if M[i] > 0:
                self.h_s[str(i)] = nn.Sequential(Gain((M[i], 1), 1 / GAIN), nn.Conv1d(M[i], D[i] + 3, 1))
        groups = last_groups(D, M)
        first = nn.Conv1d(M[-1], D[-1], 1, groups=groups)
        self.h_s[str(self.top)] = nn.Sequential(Gain((M[-1], 1), 1 / GAIN), first, Interleave(groups))
        self.up = nn.ModuleDict()
        for i in range(1, self.top + 1):
            entering = E[i + 1] + (D[i] + (3 if i < self.top else 0) if M[i] > 0 else 0)
            self.up[str(i)] = nn.Sequential(
                nn.Conv1d(entering, D[i], 1), Interleave(1), nn.BatchNorm1d(D[i]), nn.ReLU(inplace=True),
                nn.Conv1d(D[i], E[i] * S[i], 1, groups=4), Interleave(4), nn.BatchNorm1d(E[i] * S[i]), nn.ReLU(inplace=True),
                Spread(E[i], S[i]),
            )  # fmt: skip
        entering = E[1] + (D[0] + 3 if M[0] > 0 else 0)
        self.up["0"] = nn.Sequential(nn.Conv1d(entering, E[1], 1), nn.ReLU(inplace=True), nn.Conv1d(E[1], E[0], 1))

    def forward(self, y: Latents, count: int) -> tuple[Tensor, Latents]:
        v: Tensor | None = None
        for i in reversed(range(self.top + 1)):
            own = self.h_s[str(i)](y[f"y_{i}"]) if f"y_{i}" in y else None
            entering = torch.cat([part for part in (v, own) if part is not None], 1)
            v = self.up[str(i)](entering)
        assert v is not None
        return v.transpose(1, 2).contiguous(), {}


class Spread(nn.Module):
    """(B, E * S, N) -> (B, E, N * S): the S children of a point lie side by side."""

    def __init__(self, features: int, children: int) -> None:
        super().__init__()
        self.shape = (features, children)

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.shape).transpose(2, 3).flatten(2)


def check_levels(P: Sequence[int], S: Sequence[int]) -> None:
    for i in range(1, len(P)):
        if P[i - 1] != P[i] * S[i]:
            raise UserError(f"P={list(P)}, S={list(S)}: every level needs P[i - 1] = P[i] * S[i]; level {i} has not")


def last_groups(D: Sequence[int], M: Sequence[int]) -> int:
    """Of the convolutions about the top latent: large ones are cut in four."""
    return 1 if D[-1] * M[-1] <= 2**16 else 4
