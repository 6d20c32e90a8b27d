"""Training clouds as a pure function of (seed, position), like the crops of images.

Position k of the endless sequence is cloud perm[k mod N] of epoch k div N; which of its points, in which order and how it is turned
is drawn from (seed, k).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError, unknown
from .cloud_sets import CloudSet, check_cloud, normalise
from .crops import Batch, endless, generator_of, order_of, share_of

TURNS = ("none", "quarter", "z", "full")


def turn(kind: str, draw: torch.Generator) -> Tensor:
    """A random (3, 3) rotation. quarter: about z by a multiple of 90 degrees, mirrored every other time: what is upright
    and straight stays so; z: about z; full: any.
    """
    if kind == "none":
        return torch.eye(3)
    if kind == "full":
        q, r = torch.linalg.qr(torch.randn(3, 3, generator=draw))
        q = q * r.diagonal().sign()
        return q * torch.linalg.det(q).sign()
    if kind == "quarter":
        k = int(torch.randint(4, (), generator=draw))
        c, s = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[k]
        flip = 1.0 - 2.0 * int(torch.randint(2, (), generator=draw))
    else:
        angle = 2 * math.pi * torch.rand((), generator=draw).item()
        c, s, flip = math.cos(angle), math.sin(angle), 1.0
    return torch.tensor([[flip * c, -s, 0.0], [flip * s, c, 0.0], [0.0, 0.0, 1.0]])


class Clouds(Dataset[tuple[str, Tensor]]):
    """Clouds of `count` points each, in random order, turned."""

    def __init__(self, clouds: CloudSet, seed: int, turns: str) -> None:
        if turns not in TURNS:
            raise unknown("run.turn", turns, TURNS)
        self.clouds = clouds
        self.seed = seed
        self.turns = turns

    def __getitem__(self, position: int) -> tuple[str, Tensor]:
        total = len(self.clouds)
        epoch, place = divmod(position, total)
        order = order_of(self.seed, epoch, total)
        draw = generator_of(self.seed, position, 1)
        for offset in range(total):  # with data.on_error=skip, the next cloud stands in for one that cannot be used
            chosen = order[(place + offset) % total]
            name = self.clouds.names[chosen]
            try:
                points = check_cloud(self.clouds.load(chosen), name)
                count = self.clouds.count or len(points)
                if len(points) < count:
                    raise UserError(f"{name}: {len(points)} points, {count} are wanted; lower data.points, or data.on_error=skip")
                points = normalise(points[torch.randperm(len(points), generator=draw)[:count]], self.clouds.scale, name)
                return name, points @ turn(self.turns, draw).T
            except UserError:
                if self.clouds.on_error == "fail":
                    raise
        raise UserError(f"data={self.clouds.name}: none of its {total} clouds can be used")


def collate(items: list[tuple[str, Tensor]]) -> Batch:
    names, clouds = zip(*items, strict=True)
    x = torch.stack(clouds)
    return Batch(x, x.shape[1], list(names))


def cloud_loader(
    clouds: CloudSet,
    turns: str,
    batch: int,
    seed: int,
    step: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    period: int | None = None,
) -> DataLoader:
    """Batches from optimiser step `step` on; batch is per process; period: only so many clouds, again and again."""
    return endless(Clouds(clouds, seed, turns), collate, batch, seed, step, workers, rank, world, period)


class Whole(Dataset[tuple[str, Tensor]]):
    """Clouds as a benchmark sees them, for validation."""

    def __init__(self, clouds: CloudSet) -> None:
        self.clouds = clouds

    def __len__(self) -> int:
        return len(self.clouds)

    def __getitem__(self, place: int) -> tuple[str, Tensor]:
        return self.clouds.names[place], self.clouds.cloud(place)


def cloud_validation(clouds: CloudSet, batch: int, rank: int = 0, world: int = 1) -> DataLoader:
    """Several at a time where all have as many points."""
    sampler = share_of(len(clouds), rank, world)
    return DataLoader(Whole(clouds), batch_size=1 if clouds.count is None else batch, sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]
