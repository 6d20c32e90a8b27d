"""A subset of Open Images: a list names the images, which come one by one, many at a time; what is there is not asked for again."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import UserError
from ..ops import fetch
from ..ops.paths import data_root
from ..ops.progress import progress
from .images import read_pixels
from .obtain import agree
from .sets import ImageSet

log = logging.getLogger(__name__)

AT_ONCE = 16
MISSING = "missing.txt"
MEAN = 295_000  # bytes: 513 GB in 1,743,042 images


def openimages(
    name: str,
    list: str,
    address: str,
    source: str,
    licence: str,
    download: bool | None = None,
    on_error: str = "fail",
    cache: bool = False,
) -> ImageSet:
    """Images of LC_BENCH_DATA/name that a text file lists, one a line: split/id, such as train/000002b66c9c498e, or an id of train.

    address: of the folder that holds train and so on. Images that the server does not have are left out and kept in missing.txt.
    """
    root = data_root() / name
    images = _listed(Path(list).expanduser())
    notes = root / MISSING
    gone = set(notes.read_text().split()) if notes.is_file() else set()
    absent = [image for image in images if image not in gone and not _path(root, image).is_file()]
    if absent:
        by_hand = f"or put the images into {root}/train and so on, and set LC_BENCH_DATA to the folder that holds {name}"
        agree(name, len(absent) * MEAN, address, f"licence: {licence}; {source}", download, by_hand)
        with fetch.alone(root):
            gone |= _bring(root, absent, address, by_hand)
    paths = [_path(root, image) for image in images if image not in gone]
    if not paths:
        raise UserError(f"data.list={list}: none of its {len(images)} images is at {address}. Lines are split/id, or an id of train")
    return ImageSet(f"{name}-{Path(list).stem}", root, tuple(paths), on_error, cache)


def _path(root: Path, image: str) -> Path:
    return root / f"{image}.jpg"


def _listed(file: Path) -> list[str]:
    if not file.is_file():
        raise UserError(f"data.list={file}: no such file. Give a text file with an image a line: split/id, or an id of train")
    lines = [line.strip().removesuffix(".jpg") for line in file.read_text().splitlines() if line.strip()]
    images = [line if "/" in line else f"train/{line}" for line in lines]
    wrong = next((image for image in images if not re.fullmatch(r"(train|validation|test|challenge2018)/[0-9a-f]{16}", image)), None)
    if wrong:
        raise UserError(
            f"data.list={file}: {wrong!r} is no image. Lines are split/id with split train, validation or test, id 16 hex digits"
        )
    return [*dict.fromkeys(images)]


def _bring(root: Path, images: list[str], address: str, advice: str) -> set[str]:
    """Download what is not there; what the server does not have."""
    from rich.progress import MofNCompleteColumn, Progress

    def one(image: str) -> str | None:
        path = _path(root, image)
        if path.is_file():  # another process was first
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fetch.download(f"{address}/{image}.jpg", path, "", advice, show=False)
        except fetch.AbsentError:
            return image
        try:
            read_pixels(path, image)
        except UserError:  # without a published hash, that it is an image is all that can be checked
            path.unlink()
            damaged.add(image)
        return None

    gone: set[str] = set()
    damaged: set[str] = set()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with progress(*columns, unit="images") as bars, ThreadPoolExecutor(AT_ONCE) as pool:
        task = bars.add_task("Open Images", total=len(images))
        try:
            for missing in pool.map(one, images):
                bars.advance(task)
                if missing:
                    gone.add(missing)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if 0 < len(gone) < len(images):  # all of them would be a wrong address
        with (root / MISSING).open("a") as notes:
            notes.write("".join(f"{image}\n" for image in sorted(gone)))
        log.warning(f"{len(gone)} of {len(images)} images are not at {address}; their names are in {root / MISSING}")
    if damaged:  # of those no note is made: the next run tries again
        log.warning(f"{len(damaged)} of {len(images)} images cannot be read as they came, such as {min(damaged)}; they are left out")
    return gone | damaged
