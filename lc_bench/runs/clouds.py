"""Clouds of a user's own, to a stream and back: what run=compress and run=decompress do with one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig

from ..data.cloud_files import READERS, on_surface, read_cloud
from ..data.cloud_sets import check_cloud, sample
from ..data.cloud_writers import WRITERS, write_cloud
from ..errors import UserError
from ..models import PointCode, cubed

READABLE = tuple(READERS)
WRITABLE = tuple(WRITERS)
Tell = Callable[[int, int], None]


def takes_clouds(cfg: DictConfig) -> bool:
    return str(cfg.model.net._target_).endswith("PointCode")


def check_keys(cfg: DictConfig, of_clouds: bool) -> None:
    """UserError for keys of the other kind of model."""
    for key in ("tile",) if of_clouds else ("cube", "points", "columns"):
        if cfg[key] is not None:
            kind = "clouds" if of_clouds else "images"
            raise UserError(f"{key}={cfg[key]}: {cfg.model.name} codes {kind}, which have no {key}")


def write(
    model: PointCode, source: Path, count: int | None, side: float | None, columns: int | None, name: str, tell: Tell
) -> tuple[bytes, int]:
    """-> the stream, and how many points it holds. columns: float32 of each point of a .bin file."""
    cloud = read_cloud(source, columns=columns)
    draw = torch.Generator().manual_seed(0)
    if cloud.triangles is not None:
        check_cloud(cloud.points, source.name)
        points = on_surface(cloud.points, cloud.triangles, count or model.points, draw, source.name)
    else:
        points = check_cloud(cloud.points, source.name)
        if count is not None and count > len(points):
            raise UserError(f"{source.name}: {len(points)} points, {count} are wanted; lower points")
        points = sample(points, count, draw)
    if model.fixed and (side is not None or len(points) != model.points):
        what = "no cubes" if side is not None else f"not {len(points):,}"
        raise UserError(f"{source.name}: {model.name} takes {model.points} points, {what}. points={model.points} takes as many at random")
    # float64: brought to the model's device and type when they are centred.
    if side is None:
        return cubed.encode(model, points, name), len(points)
    return cubed.encode_cubes(model, points, side, name=name, tell=tell).streams[0], len(points)


def read(model: PointCode, stream: bytes, target: Path, tell: Tell) -> int:
    """Write the cloud of a stream as a file -> how many points it has."""
    points, _ = cubed.decode(model, stream, tell=tell)
    write_cloud(target, points.cpu())
    return len(points)
