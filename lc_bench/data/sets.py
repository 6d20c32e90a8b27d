"""Image sets: a name and a list of files. Which files, and from where, is said in conf/data."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UserError
from ..ops.paths import data_root, expanded, printable
from .images import SUFFIXES, read_image
from .listing import files_below, found
from .obtain import Archive, agree, obtain, obtain_one
from .usable import check_on_error, usable

log = logging.getLogger(__name__)

# Photographs in scikit-image's wheel (credits: docs/data.md); the other files there are drawings, masks or grey.
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")


@dataclass(frozen=True)
class ImageSet:
    """on_error: `fail` stops at an unreadable file, `skip` leaves it out and says so in `skipped`; cache: training decodes each
    image once, see decoded.py.
    """

    name: str
    root: Path  # samples are named by their paths below it
    paths: tuple[Path, ...]
    on_error: str = "fail"
    cache: bool = False
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_on_error(self.on_error)
        if not self.paths:
            raise UserError(f"data={self.name}: no images in it")

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """(name, pixels (3, H, W) uint8) of every readable image."""
        return self.at(range(len(self)))

    def at(self, places: Iterable[int]) -> Iterator[tuple[str, Tensor]]:
        """Those at some places, as iterating gives them."""
        names = self.names
        return usable(places, names, lambda place: read_image(self.paths[place], names[place]), self.on_error, self.skipped)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(self.label, self.paths))

    def label(self, path: Path) -> str:
        """The name of a sample: unique in the set, the same on every machine."""
        return printable(path.relative_to(self.root).as_posix())


def samples(split: str = "test") -> ImageSet:
    """The photographs inside scikit-image's wheel. split: test is all that there is."""
    _parts("samples", split, ("test",))
    folder_ = Path(str(package_files("skimage"))) / "data"
    return ImageSet("samples", folder_, tuple(folder_ / n for n in SAMPLES))


def folder(path: str, name: str | None = None, on_error: str = "fail", recursive: bool = True, cache: bool = False) -> ImageSet:
    """All images below a folder, in the order of their names."""
    root = expanded(str(path))
    if not root.is_dir():
        raise UserError(f"data.path={printable(str(path))}: no such folder. Give the folder that holds the images")
    paths = files_below(root, SUFFIXES, recursive)
    if not paths:
        raise UserError(f"data.path={printable(str(path))}: no image in it; looked for {', '.join(SUFFIXES)}")
    return ImageSet(name or printable(root.resolve().name), root, tuple(paths), on_error, cache)


def listed(
    name: str,
    address: str,
    source: str,
    licence: str,
    count: int,
    size: int,
    sha256: Mapping[str, str] | None = None,
    md5: Mapping[str, str] | None = None,
    ending: str = "",
    download: bool | None = None,
    on_error: str = "fail",
    split: str = "test",
) -> ImageSet:
    """A set whose images are published one by one: LC_BENCH_DATA/name, each checked against its hash, downloaded if it is not there.

    address: of the folder; ending: what an image's name has there besides, .zip for archives that hold it alone; split: test is all
    that such a set has.
    """
    _parts(name, split, ("test",))
    root = data_root() / name
    expected = {**(sha256 or {}), **{file: f"md5:{digits}" for file, digits in (md5 or {}).items()}}
    by_hand = f"or put the {count} files into a folder {name} and set LC_BENCH_DATA to the folder above it (looked in {root})"
    missing = sum(not (root / file).is_file() for file in expected)
    if missing:
        agree(name, size * missing / count, address, f"licence: {licence}; {source}", download, by_hand)
    paths = [obtain_one(name, f"{address}/{file}{ending}", root / file, digits, by_hand) for file, digits in expected.items()]
    return ImageSet(name, root, tuple(paths), on_error)


def archived(
    name: str,
    splits: Mapping[str, Mapping[str, Any]],
    split: str,
    source: str,
    licence: str,
    download: bool | None = None,
    on_error: str = "fail",
    cache: bool = False,
) -> ImageSet:
    """A set of one published archive for each split: LC_BENCH_DATA/name/split, of exactly `count` images; downloaded if not there.

    splits: by name the fields of an `Archive`; split: one of them, several joined by +.
    """
    root = data_root() / name
    wanted = {part: Archive(**splits[part]) for part in _parts(name, split, splits)}
    absent = {part: archive for part, archive in wanted.items() if not (root / part).exists()}
    if absent:
        address = " and ".join(a.address for a in absent.values())
        by_hand = f"or put the images into {root}/{'+'.join(absent)}, or set LC_BENCH_DATA to the folder that holds {name}"
        agree(name, sum(a.size for a in absent.values()), address, f"licence: {licence}; {source}", download, by_hand)
        for part, archive in absent.items():
            obtain(name, root / part, archive, by_hand)
    paths: list[Path] = []
    for part, archive in wanted.items():
        images = found(root, f"{part}/*")
        if archive.count not in (None, len(images)):
            raise UserError(
                f"{root / part}: {len(images)} images, {name} has {archive.count}. Remove the folder to download it anew, "
                f"or take what is there as data=folder data.path={root / part}"
            )
        paths += images
    return ImageSet(f"{name}-{split}", root, tuple(paths), on_error, cache)


def local(
    name: str,
    splits: Mapping[str, str],
    split: str,
    by_hand: str,
    source: str,
    licence: str,
    count: Mapping[str, int] | None = None,
    archive: Mapping[str, Any] | None = None,
    download: bool | None = None,
    on_error: str = "fail",
    cache: bool = False,
) -> ImageSet:
    """A set in a folder of its own shape, LC_BENCH_DATA/name, whose splits are folders or lists of files; parts of it will do.

    splits: by name a glob such as `train/*.jpg`, or `@list.txt` with one file or folder per line; split: one of them, several joined
    by +; count: images of each; archive: the fields of an `Archive` that unpacks to the whole folder, if there is one.
    """
    root = data_root() / name
    parts = _parts(name, split, splits)
    how = f"{by_hand} Then set LC_BENCH_DATA to the folder that holds {name}"
    if archive is not None and not root.exists():
        whole = Archive(**archive)
        agree(name, whole.size, whole.address, f"licence: {licence}; {source}", download, how)
        obtain(name, root, whole, how)
    paths = [path for part in parts for path in _split_paths(root, splits[part])]
    if not paths:
        raise UserError(f"data={name}: nothing in {root}. {how} (licence: {licence}; {source})")
    expected = sum((count or {}).get(part, 0) for part in parts)
    if expected not in (0, len(paths)):
        log.warning(f"data={name}: {len(paths)} images in {root}, the whole of {split} has {expected}")
    return ImageSet(f"{name}-{split}", root, tuple(paths), on_error, cache)


def _parts(name: str, split: str, splits: Collection[str]) -> list[str]:
    """The splits that are joined by + in `split`; UserError for one that the set has not."""
    parts = str(split).split("+")
    if not all(part in splits for part in parts):
        raise UserError(f"data.split={split}: {name} has {', '.join(splits)}")
    return parts


def _split_paths(root: Path, pattern: str) -> list[Path]:
    if not pattern.startswith("@"):
        return found(root, pattern)
    listing, _, base = pattern[1:].partition(":")
    if not (root / listing).is_file():
        return []
    entries = [line.strip() for line in (root / listing).read_text().splitlines() if line.strip()]
    return [p for e in entries for p in sorted((root / base / e).glob("*.png"))]
