"""Sets of point clouds: a name and so many clouds, each brought to the wanted number of points and scale.

Which points of a cloud are taken is drawn from the cloud's place in its set, so that a benchmark is the same everywhere.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, unknown
from ..ops.cubes import cubes
from ..ops.paths import data_root
from .cloud_files import READERS, on_surface, read_cloud
from .listing import files_below
from .usable import check_on_error, usable

SCALES = ("none", "l2", "linf")
FINEST = 2.0**-20  # of the size of a cloud; what its points are rounded to has to be finer
PUBLISHED = {"modelnet10": "points/modelnet10_1024", "modelnet40": "points/modelnet40_10k"}


@dataclass(frozen=True)
class CloudSet:
    """load(i) gives points (N, 3) of sample i; names of all samples; count: points of each after sampling, None for all;
    cube: side of the cubes in which a benchmark codes each, None for whole clouds.
    """

    name: str
    names: tuple[str, ...]
    load: Callable[[int], Tensor]
    count: int | None = None
    scale: str = "none"
    on_error: str = "fail"
    skipped: list[str] = field(default_factory=list)
    cube: float | None = None

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise unknown("data.normalise", self.scale, SCALES)
        check_on_error(self.on_error)
        if not self.names:
            raise UserError(f"data={self.name}: no clouds in it")

    def __len__(self) -> int:
        return len(self.names)

    def cloud(self, place: int, seed: int = 0) -> Tensor:
        """(N, 3) float32. UserError for what cannot be used, with the sample's name."""
        name = self.names[place]
        points = check_cloud(self.load(place), name)
        points = sample(points, self.count, torch.Generator().manual_seed(seed * 1_000_003 + place), name)
        return normalise(points, self.scale, name)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """(name, points (N, 3)) of every usable cloud."""
        return self.at(range(len(self)))

    def at(self, places: Iterable[int]) -> Iterator[tuple[str, Tensor]]:
        """Those at some places, as iterating gives them."""
        return usable(places, self.names, self.cloud, self.on_error, self.skipped)


def check_cloud(points: Tensor, name: str) -> Tensor:
    """(N, 3) and finite, of the type that they have, or a UserError."""
    if points.ndim != 2 or points.shape[1] < 3 or len(points) == 0:
        raise UserError(f"{name}: an array of shape {tuple(points.shape)}; a cloud is (N, 3), N at least 1")
    points = points[:, :3] if points.dtype == torch.float64 else points[:, :3].float()
    bad = int((~points.isfinite()).any(1).sum())
    if bad:
        raise UserError(f"{name}: {bad} of {len(points)} points have NaN or infinite coordinates, as sensors write no echo; remove them")
    return points


def sample(points: Tensor, count: int | None, draw: torch.Generator, name: str = "cloud") -> Tensor:
    """`count` of the points, drawn at random, in their own order. None: all."""
    if count is None or count == len(points):
        return points
    if count > len(points):
        raise UserError(f"{name}: {len(points)} points, {count} are wanted; lower data.points, or data.on_error=skip")
    return points[torch.randperm(len(points), generator=draw)[:count].sort().values]


def normalise(points: Tensor, scale: str, name: str = "cloud") -> Tensor:
    """l2: centred on the mean, into the unit sphere; linf: centred on the box, into [-1, 1]; none: as they are. -> (N, 3) float32.

    What is given as float64 is rounded after it is centred. UserError for points that are all in one place, which no scale brings to
    1, and for those that float32 does not hold as they are.
    """
    if scale == "none":
        return _rounded(points, name)
    found, size = _scaled(points, scale)
    if not 0 < size < math.inf:  # of float32, squares of coordinates beyond 1e-19 and 1e19
        low = points.double().amin(0)
        points = points.double() - low  # without rounding for those that lie together
        extent = float(points.max())
        if not 0 < extent < math.inf:
            raise UserError(
                f"{name}: all {len(points)} points are in one place, or farther apart than numbers go: no size that could be brought to 1"
            )
        found, size = _scaled(points / extent, scale)
    return found.float()


def _scaled(points: Tensor, scale: str) -> tuple[Tensor, float]:
    """-> points about their centre, divided by their size, and that."""
    if points.dtype == torch.float64:
        points = points - points.amin(0)
    if scale == "l2":
        points = points - points.mean(0)
        size = points.norm(dim=1).max()
    else:
        points = points - (points.amax(0) + points.amin(0)) / 2
        size = points.abs().max()
    return points / size, float(size)


def _rounded(points: Tensor, name: str) -> Tensor:
    """float32. UserError where that moves points by more than it does when they are centred."""
    found = points.float()
    if points.dtype == torch.float64:
        extent, moved = float((points.amax(0) - points.amin(0)).max()), float((found.double() - points).abs().max())
        if not moved <= extent * FINEST:
            raise UserError(
                f"{name}: coordinates up to {float(points.abs().max()):g} of a cloud of size {extent:g}: single precision moves its points "
                f"by {moved:.2g}; data.normalise=l2 or linf centres them first"
            )
    return found


def modelnet(
    name: str, split: str, points: int | None, normalise: str = "l2", classes: list[str] | None = None, on_error: str = "fail"
) -> CloudSet:
    """ModelNet10 or 40 from arrays below LC_BENCH_DATA: {split}.npz with pos_int16 (B, N, 3) times pos_step, name, label, classes."""
    if split not in ("train", "test"):
        raise UserError(f"data.split={split}: {name} has train, test")
    path = data_root() / PUBLISHED[name] / f"{split}.npz"
    if not path.is_file():
        raise UserError(f"data={name}: {path} is not there. Set LC_BENCH_DATA to the folder that holds {PUBLISHED[name]}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            stored, step = arrays["pos_int16"], float(arrays["pos_step"])
            names, labels, known = arrays["name"].astype(str), arrays["label"], arrays["classes"].astype(str)
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: {path.stat().st_size} bytes, not a readable set of clouds ({error}). Get it anew") from None
    for wanted in classes or []:
        if wanted not in known:
            raise unknown("data.classes", wanted, known)
    places = [i for i, label in enumerate(labels) if not classes or known[label] in classes]
    load = lambda i: torch.from_numpy(stored[places[i]]).float() * step  # noqa: E731
    return CloudSet(f"{name}-{split}", tuple(names[i] for i in places), load, points, normalise, on_error)


def clouds(
    path: str,
    name: str | None = None,
    points: int | None = None,
    normalise: str = "l2",
    on_error: str = "fail",
    recursive: bool = True,
    columns: int | None = None,
) -> CloudSet:
    """All clouds and meshes below a folder, in the order of their names. With `points`, meshes are sampled on their surface.

    columns: float32 of each point in .bin files, None to tell by their numbers.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"data.path={path}: no such folder. Give the folder that holds the clouds")
    found = files_below(root, READERS, recursive)
    if not found:
        raise UserError(f"data.path={path}: no cloud in it; looked for {', '.join(READERS)}")
    names = tuple(p.relative_to(root).as_posix() for p in found)

    def load(place: int) -> Tensor:
        cloud = read_cloud(found[place], names[place], columns)
        if cloud.triangles is None or points is None:
            return cloud.points
        check_cloud(cloud.points, names[place])
        return on_surface(cloud.points, cloud.triangles, points, torch.Generator().manual_seed(place), names[place])

    return CloudSet(name or root.resolve().name, names, load, points, normalise, on_error)


def kitti(
    points: int | None = None,
    normalise: str = "none",
    cube: float | None = None,
    smallest: int = 100,
    split: str = "train",
    on_error: str = "fail",
    columns: int | None = None,
) -> CloudSet:
    """LiDAR frames (x, y, z, reflectance as float32) below LC_BENCH_DATA/kitti or LC_BENCH_DATA/points/kitti_velodyne.

    cube: side of cubes that frames are cut into (D-PCC takes 12 m). To train, each is a cloud of its own in [-1, 1], and those of
    fewer points than `smallest` are left out; to test, a sample is a whole frame, coded in cubes. columns: float32 of each point.
    """
    roots = [data_root() / "kitti", data_root() / "points" / "kitti_velodyne"]
    files = sorted(p for root in roots if root.is_dir() for p in files_below(root, (".bin",)))
    if not files:
        raise UserError(f"data=kitti: no .bin file in {roots[0]}. Put velodyne frames there, or set LC_BENCH_DATA to the folder above")
    if split not in ("train", "test"):
        raise UserError(f"data.split={split}: kitti has train (cubes) and test (whole frames)")
    # Frames of several drives have numbers in common: those are told apart by their folders.
    names = [p.name for p in files]
    if len(set(names)) < len(names):
        names = [p.relative_to(data_root()).as_posix() for p in files]
    frames = Frames(files, names, columns, on_error)
    if split == "train" and cube is not None:
        return frames.cut("kitti", points, cube, smallest, normalise)
    return frames.whole("kitti", points, normalise, cube)


@dataclass(frozen=True)
class Frames:
    """LiDAR frames: files, and what they are called. columns: float32 of each point, None to tell by their numbers."""

    files: list[Path]
    names: list[str]
    columns: int | None
    on_error: str

    def load(self, place: int) -> Tensor:
        return read_cloud(self.files[place], self.names[place], self.columns).points

    def whole(self, name: str, points: int | None, normalise: str, cube: float | None) -> CloudSet:
        """To be coded in cubes if there are any."""
        return CloudSet(name, tuple(self.names), self.load, points, normalise, self.on_error, cube=cube)

    def cut(self, name: str, points: int | None, cube: float, smallest: int, normalise: str) -> CloudSet:
        """Each cube a cloud of its own, in [-1, 1]."""
        check_on_error(self.on_error)
        skipped: list[str] = []
        pieces: list[tuple[str, Tensor]] = []
        frame = lambda place: check_cloud(self.load(place), self.names[place])  # noqa: E731
        for called, whole in usable(range(len(self.files)), self.names, frame, self.on_error, skipped):
            for place, piece in cubes(whole, cube, smallest):
                pieces.append((f"{called}/{'_'.join(map(str, place))}", piece.float()))
        names = tuple(name for name, _ in pieces)
        return CloudSet(f"{name}-{cube:g}m", names, lambda i: pieces[i][1], points, normalise, self.on_error, skipped)
