"""Training crops as a pure function of (seed, position): nothing to save, nothing to lose when a run is resumed.

Position k of the endless sequence is image perm[k mod N] of epoch k div N, cropped and flipped by a generator seeded
with (seed, k). Loader workers, restarts and the number of processes therefore cannot change what a step sees.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import UserError
from ..ops.stopping import leave_to_parent
from .decoded import Decoded
from .images import read_image, read_pixels, to_tensor, to_unit
from .sets import ImageSet


@dataclass
class Batch:
    """x: images (B, 3, H, W) in [0, 1], or as bytes until they are on their device; units: pixels of each sample, by which its bits are
    divided; names: of the files.
    """

    x: Tensor
    units: int
    names: list[str]

    def to(self, device: torch.device) -> Batch:
        """On the device, in [0, 1]: workers hand on bytes, a quarter of what floats would be."""
        x = self.x.to(device, non_blocking=True)  # waits unless it is pinned and goes to a GPU
        return Batch(to_unit(x) if x.dtype == torch.uint8 else x, self.units, self.names)

    def pin_memory(self) -> Batch:
        return Batch(self.x.pin_memory(), self.units, self.names)


class Crops(Dataset[tuple[str, Tensor]]):
    """Random crops of `size`, flipped every other time; images smaller than that are an error that names them."""

    def __init__(self, images: ImageSet, size: int, seed: int) -> None:
        self.images = images
        self.size = size
        self.seed = seed
        self.decoded = Decoded(images) if images.cache else None

    def __getitem__(self, position: int) -> tuple[str, Tensor]:
        """Name and crop (3, size, size) uint8."""
        count = len(self.images)
        epoch, place = divmod(position, count)
        order = order_of(self.seed, epoch, count)
        for offset in range(count):  # with data.on_error=skip, the next image stands in for one that cannot be used
            chosen = order[(place + offset) % count]
            path = self.images.paths[chosen]
            name = self.images.label(path)
            try:
                pixels = read_pixels(path, name) if self.decoded is None else self.decoded[chosen]
                return name, to_tensor(self._crop(pixels, name, position))
            except UserError:
                if self.images.on_error == "fail":
                    raise
        raise UserError(f"data={self.images.name}: none of its {count} images can be read and holds a crop of {self.size}")

    def _crop(self, pixels: np.ndarray, name: str, position: int) -> np.ndarray:
        """Of (H, W, 3), a view."""
        height, width = pixels.shape[:2]
        if height < self.size or width < self.size:
            raise UserError(f"{name}: {width}x{height}, under crops of {self.size}. Lower run.crop, or data.on_error=skip")
        draw = generator_of(self.seed, position, 1)
        top = int(torch.randint(height - self.size + 1, (), generator=draw))
        left = int(torch.randint(width - self.size + 1, (), generator=draw))
        crop = pixels[top : top + self.size, left : left + self.size]
        return crop[:, ::-1] if int(torch.randint(2, (), generator=draw)) else crop


@functools.lru_cache(maxsize=2)
def order_of(seed: int, epoch: int, count: int) -> list[int]:
    """The permutation of an epoch."""
    return torch.randperm(count, generator=generator_of(seed, epoch, 0)).tolist()


def generator_of(seed: int, number: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + number) * 2 + stream)


class Positions(Sampler[int]):
    """Positions from `start` on, without end; of several processes, each takes every n-th. period: only so many, again and again."""

    def __init__(self, start: int, rank: int = 0, world: int = 1, period: int | None = None) -> None:
        self.start, self.rank, self.world, self.period = start, rank, world, period

    def __iter__(self) -> Iterator[int]:
        position = self.start + self.rank
        while True:
            yield position if self.period is None else position % self.period
            position += self.world


def collate(items: list[tuple[str, Tensor]]) -> Batch:
    names, crops = zip(*items, strict=True)
    x = torch.stack(crops)
    return Batch(x, x.shape[-2] * x.shape[-1], list(names))


class Whole(Dataset[tuple[str, Tensor]]):
    """Whole images, for validation."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[str, Tensor]:
        path = self.images.paths[place]
        return self.images.label(path), read_image(path, self.images.label(path))


def validation_loader(images: ImageSet, rank: int = 0, world: int = 1) -> DataLoader:
    """One image at a time: their sizes differ."""
    return DataLoader(Whole(images), batch_size=1, sampler=share_of(len(images), rank, world), collate_fn=collate)  # type: ignore[arg-type]


def share_of(count: int, rank: int, world: int) -> range:
    """Which of so many samples a process validates: none twice, or all of them where there are too few to share."""
    return range(rank, count, world) if count >= world else range(count)


def training_loader(
    images: ImageSet,
    crop: int,
    batch: int,
    seed: int,
    step: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    period: int | None = None,
) -> DataLoader:
    """Batches from optimiser step `step` on; batch is per process; period: only so many crops, again and again."""
    return endless(Crops(images, crop, seed), collate, batch, seed, step, workers, rank, world, period)


def endless(
    samples: Dataset[tuple[str, Tensor]],
    collate_fn: Callable[[list[tuple[str, Tensor]]], Batch],
    batch: int,
    seed: int,
    step: int,
    workers: int,
    rank: int,
    world: int,
    period: int | None = None,
) -> DataLoader:
    """Batches of samples that are functions of their position, from that of step `step` on."""
    return DataLoader(
        samples,
        batch_size=batch,
        sampler=Positions(step * batch * world, rank, world, period),
        num_workers=workers,
        collate_fn=collate_fn,
        persistent_workers=workers > 0,
        worker_init_fn=leave_to_parent,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),  # else the loader draws its seed from the global generator
    )
