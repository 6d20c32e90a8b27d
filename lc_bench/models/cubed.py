"""Clouds of any extent in their own coordinates: whole, with centre and scale in the header, or cube by cube.

Cubes are those of a grid through the origin, as He et al. 2022 (arXiv 2204.12684) cut LiDAR frames; each is brought to [-1, 1] and
coded for itself, so a frame of any size takes the memory of its fullest cube.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from ..coding.container import Header, is_cubed, pack, seal_of, unpack
from ..coding.cubes import FARTHEST, Cube, pack_cubes, unpack_cubes
from ..errors import UserError
from ..ops.cubes import cubes
from .point_code import PointCode
from .transform_code import Clock, Coded, common

LARGEST = 1e30  # coordinates in float32


@torch.no_grad()
def encode(model: PointCode, points: Tensor, name: str = "") -> bytes:
    """points (N, 3), or with normals (N, 6), anywhere -> the stream of a whole cloud that decodes to its own place."""
    _check_extent(points)
    centre = [_float32(c) for c in points[:, :3].double().mean(0).tolist()]  # as data.normalise=l2 has it, which models are trained on
    middle = torch.tensor(centre, dtype=torch.float64, device=points.device)
    moved = points[:, :3].double() - middle
    size = _float32(moved.norm(dim=1).max().item()) or 1.0
    x = torch.cat([(moved / size).to(points.dtype), points[:, 3:]], 1)
    header, segments = unpack(model.encode(x[None]).streams[0])
    return pack(replace(header, model=name, scale=(centre[0], centre[1], centre[2], size)), segments, len(points))


@torch.no_grad()
def encode_cubes(
    model: PointCode,
    points: Tensor,
    side: float,
    clock: Clock | None = None,
    name: str = "",
    tell: Callable[[int, int], None] = lambda done, count: None,
) -> Coded:
    """points (N, 3) -> one stream; latents in the order of the cubes. tell: called after each, with points done and of how many."""
    if not 0 < side < math.inf:
        raise UserError(f"cube={side}: give the side of the cubes, above 0, in the units of the cloud")
    _check_extent(points)
    side = _float32(side)
    if points[:, :3].abs().max() > FARTHEST * side:
        raise UserError(f"cube={side:g}: points lie more than {FARTHEST} cubes from the origin; take larger cubes")
    model.eval()
    coded = Coded([], {}, {}, [{}])
    parts: list[Cube] = []
    done = 0
    header = Header(model.frozen.identity, (len(points),), cube=side)
    for number, (place, x) in enumerate(cubes(points, side)):
        tape, (segments,) = model.write(x[None], clock or (lambda _: nullcontext()), header, [number])
        parts.append(Cube(place, len(x), segments))
        for latent, segment in zip(tape.names, segments, strict=True):
            coded.latents.setdefault(latent, []).extend(tape.latents[latent])
            coded.bits[latent] = coded.bits.get(latent, 0) + tape.bits[latent]
            coded.segment_bytes[0][latent] = coded.segment_bytes[0].get(latent, 0) + len(segment)
        done += len(x)
        tell(done, len(points))
    coded.streams.append(pack_cubes(replace(header, model=name, place=model.frozen.bound), parts))
    return coded


@torch.no_grad()
def decode(
    model: PointCode, stream: bytes, clock: Clock | None = None, tell: Callable[[int, int], None] = lambda done, count: None
) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """A stream of one cloud, whole or in cubes -> points (N, 3) where they were, and the latents that were read."""
    if not is_cubed(stream):
        x_hat, latents = model.decode([stream], clock)
        return x_hat[0], latents
    header, parts = unpack_cubes(stream)
    assert header.cube is not None
    model.eval()
    common((header,), model.frozen, 1)
    out, latents, done = [], {}, 0
    for number, part in enumerate(parts):
        seals = [seal_of(header, len(part.segments), number)]
        (x_hat,), read = model.read([part.segments], seals, part.count, clock or (lambda _: nullcontext()))
        for latent, values in read.items():
            latents.setdefault(latent, []).extend(values)
        middle = (torch.tensor(part.place, dtype=torch.float64, device=x_hat.device) + 0.5) * header.cube
        place = x_hat[:, :3].double() * (header.cube / 2) + middle
        out.append(torch.cat([place.to(x_hat.dtype), x_hat[:, 3:]], 1))
        done += part.count
        tell(done, header.sizes[0])
    return torch.cat(out), latents


def _check_extent(points: Tensor) -> None:
    if points.ndim != 2 or len(points) == 0 or not bool((points.abs() <= LARGEST).all()):  # also catches NaN
        raise UserError(f"a cloud is (N, 3), N at least 1, with finite coordinates up to {LARGEST:g}; nothing was written")


def _float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]
