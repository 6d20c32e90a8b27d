"""Clouds of any extent in their own coordinates: whole, with centre and scale in the header, or cube by cube.

Cubes are those of a grid through the origin, as He et al. 2022 (arXiv 2204.12684) cut LiDAR frames; each is brought to [-1, 1] and
coded for itself, so a frame of any size takes the memory of its fullest cube.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from ..coding.container import Header, is_cubed, least_of_points, pack, seal_of, single, unpack
from ..coding.cubes import FARTHEST, Cube, in_seal, pack_cubes, unpack_cubes
from ..errors import UserError
from ..ops.cubes import cubes
from .point_code import SMALLEST, PointCode, as_single
from .transform_code import Clock, Coded, common

LARGEST = 1e30  # coordinates
NEAR = 2.0**-12  # of its size, by which the centre of a cloud may be rounded to float32


@torch.no_grad()
def encode(model: PointCode, points: Tensor, name: str = "") -> bytes:
    """points (N, 3), or with normals (N, 6), anywhere -> the stream of a whole cloud that decodes to its own place.

    Positions may be float64: they are centred before they are rounded. Points that are all the same come back as such.
    """
    _check_extent(points)
    centre, size = _placed(points[:, :3].double())
    moved = points[:, :3].double() - torch.tensor(centre, dtype=torch.float64, device=points.device)
    x = _for(model, moved / size, points)
    header, segments = unpack(model.encode(x[None], scale=(centre[0], centre[1], centre[2], size)).streams[0])
    return pack(replace(header, model=name), segments)


def _placed(points: Tensor) -> tuple[list[float], float]:
    """The centre and size of points (N, 3), float64. The centre is the mean, as data.normalise=l2 has it, which models are trained on;
    rounded to float32 unless the cloud lies so far from the origin that this would move it within its own size.
    """
    if bool((points == points[0]).all()):
        return points[0].tolist(), SMALLEST
    exact = points.mean(0)
    near = exact.float().double()
    size = (points - exact).norm(dim=1).max()
    centre = near if bool((near - exact).norm() <= NEAR * size) else exact
    size = single((points - centre).norm(dim=1).max().item())
    if size <= SMALLEST:
        raise UserError(f"a cloud of size {size:g}, less than a stream holds ({SMALLEST:.2g}); scale it up")
    return centre.tolist(), size


def _for(model: PointCode, positions: Tensor, points: Tensor) -> Tensor:
    """Positions (N, 3) as a model takes them, with what else the points have."""
    x = torch.cat([positions, points[:, 3:].to(positions.dtype)], 1)
    kept = torch.float32 if points.dtype == torch.float64 else points.dtype
    return x.to(next(model.parameters()).device, kept)


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
    if not SMALLEST <= side <= LARGEST:
        allowed = f"{SMALLEST:.2g} to {LARGEST:g}"
        raise UserError(f"cube={side}: give the side of the cubes, {allowed}, in the units of the cloud")
    _check_extent(points)
    side = single(side)
    if points[:, :3].abs().max() > FARTHEST * side:
        raise UserError(f"cube={side:g}: points lie more than {FARTHEST} cubes from the origin; take larger cubes")
    coded = Coded([], {}, {}, [{}])
    parts: list[Cube] = []
    done = written = 0
    with model.coding() as frozen:
        header = Header(frozen.identity, (len(points),), cube=side)
        for number, (place, x) in enumerate(cubes(points, side)):
            inside = _for(model, x[:, :3], x)[None]
            spare = written - least_of_points(done + len(x))
            part = (number, in_seal(place, len(x)))
            tape, (segments,) = model.write(inside, clock or (lambda _: nullcontext()), header, frozen, part, spare)
            parts.append(Cube(place, len(x), segments))
            for latent, segment in zip(tape.names, segments, strict=True):
                coded.latents.setdefault(latent, []).extend(tape.latents[latent])
                coded.bits[latent] = coded.bits.get(latent, 0) + tape.bits[latent]
                coded.segment_bytes[0][latent] = coded.segment_bytes[0].get(latent, 0) + len(segment)
            done += len(x)
            written += sum(map(len, segments))
            tell(done, len(points))
        coded.streams.append(pack_cubes(replace(header, model=name, place=frozen.bound), parts))
    return coded


@torch.no_grad()
def decode(
    model: PointCode, stream: bytes, clock: Clock | None = None, tell: Callable[[int, int], None] = lambda done, count: None
) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """A stream of one cloud, whole or in cubes -> points (N, 3) where they were, and the latents that were read.
    The points are float32, or float64 where that loses what their size has of digits."""
    if not is_cubed(stream):
        x_hat, latents = model.decode([stream], clock)
        return x_hat[0], latents
    header, parts = unpack_cubes(stream)
    assert header.cube is not None
    out, latents, done = [], {}, 0
    with model.coding() as frozen:
        common((header,), frozen, 1)
        for number, part in enumerate(parts):
            seals = [seal_of(header, len(part.segments), number, in_seal(part.place, part.count))]
            (x_hat,), read = model.read([part.segments], seals, part.count, clock or (lambda _: nullcontext()), frozen)
            for latent, values in read.items():
                latents.setdefault(latent, []).extend(values)
            middle = (torch.tensor(part.place, dtype=torch.float64, device=x_hat.device) + 0.5) * header.cube
            place = x_hat[:, :3].double() * (header.cube / 2) + middle
            out.append(torch.cat([place, x_hat[:, 3:].double()], 1))
            done += part.count
            tell(done, header.sizes[0])
    cubes_across = max(max(line) - min(line) + 1 for line in zip(*(part.place for part in parts), strict=True))
    return as_single(torch.cat(out), cubes_across * header.cube), latents


def _check_extent(points: Tensor) -> None:
    if points.ndim != 2 or len(points) == 0 or not bool((points.abs() <= LARGEST).all()):  # also catches NaN
        raise UserError(f"a cloud is (N, 3), N at least 1, with finite coordinates up to {LARGEST:g}; nothing was written")
