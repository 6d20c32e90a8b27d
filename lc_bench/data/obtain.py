"""From a published archive to a folder of images: agreed to if large, checked, unpacked beside its place, then moved there.

Archives come into LC_BENCH_DATA/downloads/NAME; one that was put there by hand is used as well. Where no hash is published, that of the
first download is written to SHA256SUMS there (as `sha256sum -c` reads it), and every later one has to be the same.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import UserError
from ..ops.fetch import alone, digest_of, download, fetch, fits
from ..ops.paths import data_root
from ..ops.unpack import DamagedError, unpack

log = logging.getLogger(__name__)

LARGE = 2_000_000_000  # bytes that are not downloaded without asking
SLACK = 0.05  # sizes of archives without a published hash are known in rounded megabytes
NOTES = "SHA256SUMS"


@dataclass(frozen=True)
class Archive:
    """address; size in bytes; sha256, or None where none is published; take, strip: which members and which of their folders,
    see `unpack`; count: of files in it that are taken, None if not known.
    """

    address: str
    size: int
    sha256: str | None = None
    take: str = "*"
    strip: int = -1
    count: int | None = None

    @property
    def file(self) -> str:
        return unquote(urlsplit(self.address).path).rsplit("/", 1)[-1]


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def agree(name: str, size: float, address: str, terms: str, allowed: bool | None, otherwise: str) -> None:
    """Say what is downloaded on which terms; UserError unless it may be. allowed is data.download, None for `unless it is large`."""
    if allowed not in (None, True, False):
        raise UserError(f"data.download={allowed}: give true, false, or null (true for less than {gigabytes(LARGE)})")
    if allowed or (allowed is None and size < LARGE):
        log.info(f"data={name}: {gigabytes(size)} from {address} ({terms})")
        return
    raise UserError(f"data={name}: not on this machine. data.download=true gets {gigabytes(size)} from {address} ({terms}); {otherwise}")


def obtain(name: str, folder: Path, archive: Archive, advice: str) -> None:
    """`folder`, which is not there, from the archive."""
    store = data_root() / "downloads" / name
    with alone(store):
        if folder.exists():
            return  # another process was first
        file = store / archive.file
        own = not file.is_file()
        first = noted(store, archive.file)
        expected = archive.sha256 or first
        if own:
            known = f"(if it was published anew since it first came, delete {store / NOTES}) " if first and not archive.sha256 else ""
            download(archive.address, file, expected, f"{known}or put the file into {store} by hand; {advice}")
        elif not fits(file, expected):
            raise UserError(f"{file}: another SHA-256 than {expected}. Delete it and run again to download it anew")
        try:
            if not expected:
                check_size(file, archive)
            place(file, folder, archive)
        except DamagedError as error:
            if not own or expected:
                raise
            file.unlink()  # on its way, perhaps: the next run begins anew
            raise UserError(f"{archive.address}: came damaged ({error}). It was deleted; run again, {advice}") from None
        if not expected:  # only now: the hash of a damaged file would refuse every good one
            note(file)
        if own:
            file.unlink()
        else:  # put there by hand, or by a run that was ended before it unpacked
            log.info(f"{file}: unpacked to {folder}, not needed any more")


def noted(store: Path, file: str) -> str:
    """The hash that the file had when it came first; empty if it never did."""
    notes = store / NOTES
    lines = notes.read_text().splitlines() if notes.is_file() else []
    return next((line.split()[0] for line in lines if line.split()[1:] == [file]), "")


def check_size(file: Path, archive: Archive) -> None:
    """DamagedError for a file of another size than the one that is known of an archive without a published hash."""
    size = file.stat().st_size
    if abs(size - archive.size) > SLACK * archive.size:
        raise DamagedError(f"{file}: {size:,} bytes, about {archive.size:,} were expected: not the file that was published. Delete it")


def note(file: Path) -> None:
    """Trust on first use: the hash of an archive that was whole is kept."""
    with (file.parent / NOTES).open("a") as notes:
        notes.write(f"{digest_of(file)}  {file.name}\n")


def place(file: Path, folder: Path, archive: Archive) -> None:
    """Unpack beside `folder`, then move: it is there whole or not at all."""
    stage = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(stage, ignore_errors=True)  # of a process that was killed
    try:
        stage.mkdir(parents=True)
        # Pictures hardly shrink in an archive: four times its size is a broken or a hostile one.
        count = unpack(file, stage, archive.take, archive.strip, 4 * file.stat().st_size)
        if archive.count not in (None, count) or not count:
            raise DamagedError(
                f"{file}: {count} files of {archive.take} in it, {archive.count or 'some'} were expected. Delete it and run again"
            )
        stage.rename(folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def obtain_one(name: str, address: str, path: Path, expected: str, advice: str) -> Path:
    """One image, as it is or alone in a zip archive, checked against its hash; downloaded unless it is there."""
    if path.is_file() or not address.endswith(".zip"):
        return fetch(address, path, expected, advice)
    store = data_root() / "downloads" / name
    with alone(store):
        if path.is_file():
            return path
        file = download(address, store / f"{path.name}.zip", "", advice)
        folder = store / f"{path.name}.unpacked"
        place(file, folder, Archive(address, file.stat().st_size, take=f"*{path.name}", count=1))
        image = folder / path.name
        right = fits(image, expected)
        if right:
            path.parent.mkdir(parents=True, exist_ok=True)
            image.replace(path)
        shutil.rmtree(folder)
        file.unlink()
    if not right:
        raise UserError(f"{address}: the image in it has another hash than {expected}: not the file that was published; {advice}")
    return path
