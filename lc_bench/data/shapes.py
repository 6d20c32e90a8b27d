"""data=shapes: a small set of generated clouds, points drawn evenly from the surfaces of simple bodies. Nothing is downloaded."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import UserError
from .cloud_sets import CloudSet

DENSE = 8192  # points drawn of each shape, of which a set takes as many as it is asked for


def boxes(parts: list[tuple[float, ...]], count: int, draw: torch.Generator) -> Tensor:
    """Axis-parallel boxes (x, y, z of the centre, and the three sides) -> (count, 3) on their surfaces."""
    faces = []
    for cx, cy, cz, *sides in parts:
        for axis in range(3):
            for sign in (-0.5, 0.5):
                faces.append((torch.tensor([cx, cy, cz]), torch.tensor(sides), axis, sign))
    area = torch.tensor([s.prod().item() / s[a].item() for _, s, a, _ in faces])
    chosen = torch.multinomial(area, count, replacement=True, generator=draw)
    offset = torch.rand(count, 3, generator=draw) - 0.5
    out = torch.empty(count, 3)
    for i, (centre, sides, axis, sign) in enumerate(faces):
        on = chosen == i
        place = offset[on]
        place[:, axis] = sign
        out[on] = centre + place * sides
    return out


def turned(count: int, draw: torch.Generator, radius: float, tube: float) -> Tensor:
    """A torus about z; with radius 0, a sphere of radius `tube`."""
    if radius == 0:
        return torch.nn.functional.normalize(torch.randn(count, 3, generator=draw), dim=1) * tube
    around, angle = (2 * math.pi * torch.rand(4 * count, generator=draw) for _ in range(2))
    kept = torch.rand(4 * count, generator=draw) * (radius + tube) < radius + tube * angle.cos()  # evenly by area
    around, angle = around[kept][:count], angle[kept][:count]
    out = radius + tube * angle.cos()
    return torch.stack([out * around.cos(), out * around.sin(), tube * angle.sin()], 1)


def lathe(count: int, draw: torch.Generator, bottom: float, top: float, height: float) -> Tensor:
    """A cylinder or a cone about z, closed by discs."""
    slant = math.hypot(height, bottom - top)
    area = torch.tensor([(bottom + top) * slant, bottom**2, top**2])
    part = torch.multinomial(area, count, replacement=True, generator=draw)
    around, u = 2 * math.pi * torch.rand(count, generator=draw), torch.rand(count, generator=draw)
    # Radius along the side with a density that grows with it.
    side = (bottom**2 + u * (top**2 - bottom**2)).sqrt() if bottom != top else torch.full((count,), bottom)
    rise = (side - bottom) / (top - bottom) if bottom != top else u
    radius = torch.where(part == 0, side, torch.where(part == 1, bottom, top) * u.sqrt())
    z = torch.where(part == 0, rise, torch.where(part == 1, 0.0, 1.0)) * height
    return torch.stack([radius * around.cos(), radius * around.sin(), z], 1)


LEGS = [(x, y, -0.4, 0.1, 0.1, 0.8) for x in (-0.45, 0.45) for y in (-0.45, 0.45)]
SHAPES = {
    "ball": lambda n, g: turned(n, g, 0, 1),
    "ring": lambda n, g: turned(n, g, 0.7, 0.25),
    "drum": lambda n, g: lathe(n, g, 0.6, 0.6, 1.0),
    "cone": lambda n, g: lathe(n, g, 0.7, 0.0, 1.3),
    "lamp": lambda n, g: torch.cat([lathe(n - n // 4, g, 0.6, 0.3, 0.5) + torch.tensor([0, 0, 0.6]), lathe(n // 4, g, 0.05, 0.05, 1.0)]),
    "dresser": lambda n, g: boxes([(0, 0, 0, 1.2, 0.5, 0.9)], n, g),
    "monitor": lambda n, g: boxes([(0, 0, 0.3, 1.2, 0.1, 0.8), (0, 0, -0.2, 0.1, 0.1, 0.3), (0, 0, -0.35, 0.5, 0.4, 0.05)], n, g),
    "table": lambda n, g: boxes([(0, 0, 0.05, 1.2, 1.2, 0.1), *LEGS], n, g),
    "chair": lambda n, g: boxes([(0, 0, 0.05, 1.0, 1.0, 0.1), (0, 0.45, 0.6, 1.0, 0.1, 1.0), *LEGS], n, g),
    "shelf": lambda n, g: boxes([(x, 0, 0, 0.05, 0.4, 1.6) for x in (-0.5, 0.5)] + [(0, 0, z, 1, 0.4, 0.05) for z in (-0.7, 0, 0.7)], n, g),
    "bed": lambda n, g: boxes([(0, 0, 0, 1.0, 1.8, 0.3), (0, 0.9, 0.3, 1.0, 0.1, 0.9)], n, g),
    "stairs": lambda n, g: boxes([(i * 0.3, 0, i * 0.1, 0.3, 0.8, 0.2 + i * 0.2) for i in range(5)], n, g),
}


def shapes(points: int = 1024, normalise: str = "l2", seed: int = 0, on_error: str = "fail") -> CloudSet:
    """Twelve shapes; the seed says where their points lie."""
    if not 1 <= points <= DENSE:
        raise UserError(f"data.points={points}: a shape has up to {DENSE} points")
    names = tuple(SHAPES)

    def load(place: int) -> Tensor:
        return SHAPES[names[place]](DENSE, torch.Generator().manual_seed(seed * 1000 + place))

    return CloudSet("shapes", names, load, points, normalise, on_error)
