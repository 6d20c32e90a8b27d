"""Means over samples that the processes of a run share, of which each may have another number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Whole:
    """Means by name, and whether they are over all samples."""

    values: dict[str, float]
    complete: bool


class Means:
    """Sums and counts of each process; they are added up before a mean is taken."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count: dict[str, int] = {}
        self.complete = True  # False: samples were left out

    def add(self, name: str, mean: Tensor, count: int) -> None:
        """mean: a scalar, over `count` samples."""
        value = mean.detach().double() * count
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count[name] = self.count.get(name, 0) + count

    def over_all(self) -> Whole:
        """The means of all processes, the same in each; all have to call it. A process without samples has no names."""
        own = {name: (total.item(), self.count[name]) for name, total in self.sums.items()}
        everyone: list[Any] = [(own, self.complete)]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everyone = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everyone, (own, self.complete))
        complete = all(whole for _, whole in everyone)
        names = dict.fromkeys(name for sums, _ in everyone for name in sums)
        values: dict[str, float] = {}
        for name in names:
            parts = [sums[name] for sums, _ in everyone if name in sums]
            mean = math.fsum(total for total, _ in parts) / sum(count for _, count in parts)
            values[name] = mean
        return Whole(values, complete)
