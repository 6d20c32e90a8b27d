"""Sets of point clouds: a name and so many clouds, each brought to the wanted number of points and scale.

Which points of a cloud are taken is drawn from the cloud's place in its set, so that a benchmark is the same everywhere.
"""

from __future__ import annotations

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

SCALES = ("none", "l2", "linf")
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
        if self.on_error not in ("fail", "skip"):
            raise UserError(f"data.on_error={self.on_error}: there are: fail, skip")
        if not self.names:
            raise UserError(f"data={self.name}: no clouds in it")

    def __len__(self) -> int:
        return len(self.names)

    def cloud(self, place: int, seed: int = 0) -> Tensor:
        """(N, 3) float32. UserError for what cannot be used, with the sample's name."""
        points = check_cloud(self.load(place), self.names[place])
        points = sample(points, self.count, torch.Generator().manual_seed(seed * 1_000_003 + place), self.names[place])
        return normalise(points, self.scale)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """(name, points (N, 3)) of every usable cloud."""
        return self.at(range(len(self)))

    def at(self, places: Iterable[int]) -> Iterator[tuple[str, Tensor]]:
        """Those at some places, as iterating gives them."""
        for place in places:
            name = self.names[place]
            try:
                points = self.cloud(place)
            except UserError as error:
                if self.on_error == "fail":
                    raise UserError(f"{error} (data.on_error=skip goes on without it)") from None
                if str(error) not in self.skipped:
                    self.skipped.append(str(error))
                continue
            yield name, points


def check_cloud(points: Tensor, name: str) -> Tensor:
    """(N, 3) float32 and finite, or a UserError."""
    if points.ndim != 2 or points.shape[1] < 3 or len(points) == 0:
        raise UserError(f"{name}: an array of shape {tuple(points.shape)}; a cloud is (N, 3), N at least 1")
    points = points[:, :3].float()
    bad = int((~points.isfinite()).any(1).sum())
    if bad:
        raise UserError(f"{name}: {bad} of {len(points)} points have NaN or infinite coordinates; remove them")
    return points


def sample(points: Tensor, count: int | None, draw: torch.Generator, name: str = "cloud") -> Tensor:
    """`count` of the points, drawn at random, in their own order. None: all."""
    if count is None or count == len(points):
        return points
    if count > len(points):
        raise UserError(f"{name}: {len(points)} points, {count} are wanted; lower data.points, or data.on_error=skip")
    return points[torch.randperm(len(points), generator=draw)[:count].sort().values]


def normalise(points: Tensor, scale: str) -> Tensor:
    """l2: centred on the mean, into the unit sphere; linf: centred on the box, into [-1, 1]; none: as they are."""
    if scale == "none":
        return points
    if scale == "l2":
        points = points - points.mean(0)
        size = points.norm(dim=1).max()
    else:
        points = points - (points.amax(0) + points.amin(0)) / 2
        size = points.abs().max()
    return points / size if size > 0 else points


def modelnet(name: str, split: str, points: int | None, normalise: str = "l2", classes: list[str] | None = None) -> CloudSet:
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
    return CloudSet(
        f"{name}-{split}", tuple(names[i] for i in places), lambda i: torch.from_numpy(stored[places[i]]).float() * step, points, normalise
    )


def clouds(
    path: str, name: str | None = None, points: int | None = None, normalise: str = "l2", on_error: str = "fail", recursive: bool = True
) -> CloudSet:
    """All clouds and meshes below a folder, in the order of their names. With `points`, meshes are sampled on their surface."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"data.path={path}: no such folder. Give the folder that holds the clouds")
    found = sorted(p for p in root.glob("**/*" if recursive else "*") if p.suffix.lower() in READERS and p.is_file())
    if not found:
        raise UserError(f"data.path={path}: no cloud in it; looked for {', '.join(READERS)}")
    names = tuple(p.relative_to(root).as_posix() for p in found)

    def load(place: int) -> Tensor:
        cloud = read_cloud(found[place], names[place])
        if cloud.triangles is None or points is None:
            return cloud.points
        check_cloud(cloud.points, names[place])
        return on_surface(cloud.points, cloud.triangles, points, torch.Generator().manual_seed(place))

    return CloudSet(name or root.resolve().name, names, load, points, normalise, on_error)


def kitti(
    points: int | None = None, normalise: str = "none", cube: float | None = None, smallest: int = 100, split: str = "train"
) -> CloudSet:
    """LiDAR frames (x, y, z, reflectance as float32) below LC_BENCH_DATA/kitti or LC_BENCH_DATA/points/kitti_velodyne.

    cube: side of cubes that frames are cut into (D-PCC takes 12 m). To train, each is a cloud of its own in [-1, 1], and those of
    fewer points than `smallest` are left out; to test, a sample is a whole frame, coded in cubes.
    """
    roots = [data_root() / "kitti", data_root() / "points" / "kitti_velodyne"]
    files = sorted(p for root in roots for p in root.glob("**/*.bin"))
    if not files:
        raise UserError(f"data=kitti: no .bin file in {roots[0]}. Put velodyne frames there, or set LC_BENCH_DATA to the folder above")
    if split not in ("train", "test"):
        raise UserError(f"data.split={split}: kitti has train (cubes) and test (whole frames)")
    return frames("kitti", files, [p.name for p in files], points, normalise, cube, smallest, in_cubes=split == "train")


def frames(
    name: str, files: list[Path], names: list[str], points: int | None, normalise: str, cube: float | None, smallest: int, in_cubes: bool
) -> CloudSet:
    """LiDAR frames whole, to be coded in cubes if there are any, or each cube a cloud of its own."""
    if cube is None or not in_cubes:
        return CloudSet(name, tuple(names), lambda i: read_cloud(files[i], names[i]).points, points, normalise, cube=cube)
    pieces: list[tuple[str, Tensor]] = []
    for file, frame in zip(files, names, strict=True):
        for place, piece in cubes(check_cloud(read_cloud(file, frame).points, frame), cube, smallest):
            pieces.append((f"{frame}/{'_'.join(map(str, place))}", piece))
    return CloudSet(f"{name}-{cube:g}m", tuple(n for n, _ in pieces), lambda i: pieces[i][1], points, normalise)
