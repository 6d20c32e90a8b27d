"""Image sets: a name and a list of files. Which files, and from where, is said in conf/data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from pathlib import Path

from torch import Tensor

from ..errors import UserError
from ..ops.fetch import fetch
from ..ops.paths import data_root
from .images import SUFFIXES, read_image

# Photographs in scikit-image's wheel (credits: docs/data.md); the other files there are drawings, masks or grey.
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")


@dataclass(frozen=True)
class ImageSet:
    """on_error: `fail` stops at an unreadable file, `skip` leaves it out and says so in `skipped`."""

    name: str
    root: Path  # samples are named by their paths below it
    paths: tuple[Path, ...]
    on_error: str = "fail"
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.on_error not in ("fail", "skip"):
            raise UserError(f"data.on_error={self.on_error}: there are: fail, skip")
        if not self.paths:
            raise UserError(f"data={self.name}: no images in it")

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """(name, pixels (3, H, W) uint8) of every readable image."""
        return self.at(range(len(self)))

    def at(self, places: Iterable[int]) -> Iterator[tuple[str, Tensor]]:
        """Those at some places, as iterating gives them."""
        for path in (self.paths[place] for place in places):
            try:
                pixels = read_image(path, self.label(path))
            except UserError as error:
                if self.on_error == "fail":
                    raise UserError(f"{error} (data.on_error=skip goes on without it)") from None
                if str(error) not in self.skipped:
                    self.skipped.append(str(error))
                continue
            yield self.label(path), pixels

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(self.label, self.paths))

    def label(self, path: Path) -> str:
        """The name of a sample: unique in the set, the same on every machine."""
        return path.relative_to(self.root).as_posix()


def samples() -> ImageSet:
    """The photographs inside scikit-image's wheel."""
    folder_ = Path(str(package_files("skimage"))) / "data"
    return ImageSet("samples", folder_, tuple(folder_ / n for n in SAMPLES))


def folder(path: str, name: str | None = None, on_error: str = "fail", recursive: bool = True) -> ImageSet:
    """All images below a folder, in the order of their names."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"data.path={path}: no such folder. Give the folder that holds the images")
    found = sorted(p for p in root.glob("**/*" if recursive else "*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise UserError(f"data.path={path}: no image in it; looked for {', '.join(SUFFIXES)}")
    return ImageSet(name or root.resolve().name, root, tuple(found), on_error)


def kodak(url: str, sha256: Mapping[str, str], on_error: str = "fail") -> ImageSet:
    """The 24 Kodak images, from LC_BENCH_DATA/kodak or downloaded there; each is checked against its SHA-256."""
    root = data_root() / "kodak"
    advice = f"or put the 24 PNG files into a folder kodak and set LC_BENCH_DATA to the folder above it (looked in {root})"
    paths = [fetch(f"{url}/{name}", root / name, digest, advice) for name, digest in sha256.items()]
    return ImageSet("kodak", root, tuple(paths), on_error)


def local(name: str, splits: Mapping[str, str], split: str, obtain: str, on_error: str = "fail") -> ImageSet:
    """A set that has to be obtained by hand: LC_BENCH_DATA/name, whose splits are folders or lists of files.

    splits: by name a glob such as `train/*.jpg`, or `@list.txt` with one file or folder per line; split: one of them,
    several joined by +.
    """
    root = data_root() / name
    paths: list[Path] = []
    for part in split.split("+"):
        if part not in splits:
            raise UserError(f"data.split={split}: {name} has {', '.join(splits)}")
        paths += _split_paths(root, splits[part])
    if not paths:
        raise UserError(f"data={name}: nothing in {root}. {obtain} Then set LC_BENCH_DATA to the folder that holds {name}")
    return ImageSet(f"{name}-{split}", root, tuple(paths), on_error)


def _split_paths(root: Path, pattern: str) -> list[Path]:
    if not pattern.startswith("@"):
        return sorted(p for p in root.glob(pattern) if p.suffix.lower() in SUFFIXES)
    listing, _, base = pattern[1:].partition(":")
    if not (root / listing).is_file():
        return []
    entries = [line.strip() for line in (root / listing).read_text().splitlines() if line.strip()]
    return [p for e in entries for p in sorted((root / base / e).glob("*.png"))]
