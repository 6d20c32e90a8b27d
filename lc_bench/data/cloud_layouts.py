"""Published sets of clouds in the folders that they come in, below LC_BENCH_DATA: nothing is copied or cached.

ModelNet40 as HDF5 (Qi et al. 2017), ShapeNet part (Yi et al. 2016), S3DIS (Armeni et al. 2016), SemanticKITTI (Behley et al. 2019).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, unknown
from ..ops.paths import data_root
from .cloud_parts import table
from .cloud_sets import CloudSet, Frames
from .cloud_text import NUMBER

log = logging.getLogger(__name__)

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # but tabs
SEQUENCES = {"train": (0, 1, 2, 3, 4, 5, 6, 7, 9, 10), "val": (8,), "test": tuple(range(11, 22))}


def modelnet_h5(
    split: str,
    points: int | None,
    normalise: str = "none",
    classes: list[str] | None = None,
    folder: str = "modelnet40_ply_hdf5_2048",
    on_error: str = "fail",
) -> CloudSet:
    """ply_data_{split}*.h5 with data (B, 2048, 3) and label (B, 1), and shape_names.txt. Needs h5py."""
    root = _folder("modelnet40-h5", folder, split, ("train", "test"))
    try:
        import h5py  # type: ignore[import-not-found]
    except ImportError:
        raise UserError("data=modelnet40-h5: h5py is not installed (pip install lc_bench[points])") from None
    known = _text(root / "shape_names.txt").split()
    wanted = _chosen(classes, known)
    parts, names = [], []
    for file in _found(root, f"ply_data_{split}*.h5"):
        try:
            with h5py.File(file) as arrays:
                data, label = np.asarray(arrays["data"], np.float32), np.asarray(arrays["label"]).reshape(-1)
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{file}: {file.stat().st_size} bytes, not a readable set of clouds ({error}). Get it anew") from None
        if data.ndim != 3 or data.shape[2] != 3 or len(label) != len(data) or not 0 <= label.min() <= label.max() < len(known):
            raise UserError(
                f"{file}: data {data.shape} and {len(label)} labels, {len(known)} names; wanted are (B, N, 3) and B. Get it anew"
            )
        for place, kind in enumerate(label):
            if known[kind] in wanted:
                parts.append(data[place])
                names.append(f"{known[kind]}/{file.stem}/{place}")
    return CloudSet(f"modelnet40-h5-{split}", tuple(names), lambda i: torch.from_numpy(parts[i]), points, normalise, on_error)


def shapenet_part(
    split: str,
    points: int | None,
    normalise: str = "l2",
    classes: list[str] | None = None,
    folder: str = "shapenetcore_partanno_segmentation_benchmark_v0_normal",
    on_error: str = "fail",
) -> CloudSet:
    """SYNSET/ID.txt with rows x y z nx ny nz part, as train_test_split/shuffled_{split}_file_list.json lists them."""
    root = _folder("shapenet-part", folder, split, ("train", "val", "test"))
    synsets = dict(line.split()[:2] for line in _text(root / "synsetoffset2category.txt").splitlines() if line.strip())
    wanted = {synsets[name] for name in _chosen(classes, list(synsets))}
    listing = root / "train_test_split" / f"shuffled_{split}_file_list.json"
    try:
        listed = [tuple(str(entry).split("/")[-2:]) for entry in json.loads(_text(listing))]
    except ValueError as error:
        raise UserError(f"{listing}: not a readable list ({error}). Get it anew") from None
    files = [root / synset / f"{name}.txt" for synset, name in sorted(listed) if synset in wanted]
    names = tuple(f"{p.parent.name}/{p.stem}" for p in files)
    return CloudSet(f"shapenet-part-{split}", names, _rows(files, 7), points, normalise, on_error)


def s3dis(
    split: str,
    points: int | None,
    normalise: str = "l2",
    area: int = 5,
    folder: str = "Stanford3dDataset_v1.2_Aligned_Version",
    on_error: str = "fail",
) -> CloudSet:
    """Area_A/ROOM/ROOM.txt with rows x y z r g b. area: the one to test on; the others train. Rows of the published files that a
    control character has got into are read as `repaired` says.
    """
    root = _folder("s3dis", folder, split, ("train", "test"))
    areas = sorted(p for p in root.glob("Area_*") if p.is_dir())
    if f"Area_{area}" not in [p.name for p in areas]:
        raise unknown("data.area", area, (p.name.removeprefix("Area_") for p in areas))
    files = [
        p / f"{p.name}.txt" for a in areas if (a.name == f"Area_{area}") == (split == "test") for p in sorted(a.iterdir()) if p.is_dir()
    ]
    names = tuple(f"{p.parent.parent.name}/{p.stem}" for p in files)
    return CloudSet(f"s3dis-{split}", names, _rows(files, 6), points, normalise, on_error)


def semantickitti(
    split: str,
    points: int | None = None,
    normalise: str = "none",
    cube: float | None = None,
    smallest: int = 100,
    every: int = 1,
    folder: str = "semantickitti",
    on_error: str = "fail",
    columns: int | None = 4,
) -> CloudSet:
    """sequences/NN/velodyne/*.bin; every: takes each so many-th frame. Cubes as for kitti. columns: float32 of each point."""
    root = _folder("semantickitti", folder, split, tuple(SEQUENCES))
    if every < 1:
        raise UserError(f"data.every={every}: give 1 for all frames, 10 for each tenth, and so on")
    files = [p for s in SEQUENCES[split] for p in sorted((root / "sequences" / f"{s:02}" / "velodyne").glob("*.bin"))][::every]
    if not files:
        raise UserError(f"data=semantickitti: no frame of split {split} in {root}/sequences/NN/velodyne. Put the published folders there")
    names = [f"{p.parent.parent.name}/{p.stem}" for p in files]
    frames, name = Frames(files, names, columns, on_error), f"semantickitti-{split}"
    if split == "train" and cube is not None:
        return frames.cut(name, points, cube, smallest, normalise)
    return frames.whole(name, points, normalise, cube)


def _folder(name: str, folder: str, split: str, splits: tuple[str, ...]) -> Path:
    if split not in splits:
        raise UserError(f"data.split={split}: {name} has {', '.join(splits)}")
    root = data_root() / folder
    if not root.is_dir():
        raise UserError(f"data={name}: {root} is not there. Set LC_BENCH_DATA to the folder that holds {folder}")
    return root


def _found(root: Path, pattern: str) -> list[Path]:
    files = sorted(root.glob(pattern))
    if not files:
        raise UserError(f"{root}: no file {pattern} in it. Get the set anew")
    return files


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Get the set anew") from None


def _chosen(classes: list[str] | None, known: list[str]) -> set[str]:
    for wanted in classes or []:
        if wanted not in known:
            raise unknown("data.classes", wanted, known)
    return set(classes or known)


def _rows(files: list[Path], columns: int) -> Callable[[int], Tensor]:
    """Loads positions (N, 3), float64, from rows of so many numbers."""

    def load(place: int) -> Tensor:
        path = files[place]
        rows = [row for row in _lines(path) if row.strip()]
        told = []
        for number, row in enumerate(rows):
            if CONTROL.search(row):
                rows[number] = repaired(row, columns)
                told.append(number + 1)
        if told:
            log.info(f"{path}: control characters in rows {', '.join(map(str, told[:5]))}{' ...' if told[5:] else ''} were taken out")
        try:
            found = table(rows)
        except ValueError as error:
            raise UserError(f"{path}: cut short or not a cloud ({error}). Get it anew, or data.on_error=skip") from None
        if found.shape[1] != columns:
            raise UserError(f"{path}: {found.shape[1]} numbers in a row, {columns} are wanted. Get it anew, or data.on_error=skip")
        return torch.from_numpy(found[:, :3].copy())

    return load


def _lines(path: Path) -> list[str]:
    """Ended by LF or CRLF alone: a control character ends no row."""
    try:
        return path.read_bytes().decode("latin-1").replace("\r\n", "\n").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Get the set anew, or data.on_error=skip") from None


def repaired(row: str, columns: int) -> str:
    """A row without its control characters: they stand for blanks, or for nothing, whichever gives so many numbers; the row as it is
    where that is neither or both. Area_5/hallway_6 of S3DIS has such a row.
    """
    ways = {" ".join(CONTROL.sub(sign, row).split()) for sign in (" ", "")}
    fitting = [way for way in ways if len(way.split()) == columns and all(NUMBER.fullmatch(word) for word in way.split())]
    return fitting[0] if len(fitting) == 1 else row
