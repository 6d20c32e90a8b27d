"""Downloads that are whole or not there: checked against a hash, written beside the target, then moved in place."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path

from ..errors import UserError

TIMEOUT = 20  # seconds without an answer
PIECE = 1 << 20


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file) -> str:  # type: ignore[no-untyped-def]  # Python 3.10 has no file_digest
    sha = hashlib.sha256()
    while piece := file.read(PIECE):
        sha.update(piece)
    return sha.hexdigest()


def fetch(url: str, path: Path, sha256: str, advice: str) -> Path:
    """`path`, downloaded from `url` unless it is there already; its SHA-256 must begin with `sha256`.

    UserError ending in `advice` when the address does not answer, the download is cut short or its hash is another.
    """
    if path.is_file():
        if sha256_of(path).startswith(sha256):
            return path
        raise UserError(
            f"{path}: {path.stat().st_size} bytes with another SHA-256 than {sha256}. Delete it and run again to download it anew"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, part.open("wb") as out:
            expected = int(answer.headers.get("Content-Length") or -1)
            _copy(answer, out, expected, path.name)
        size = part.stat().st_size
        if expected not in (-1, size):
            raise UserError(f"{url}: cut short, {size} of {expected} bytes came. Run again; {advice}")
        found = sha256_of(part)
        if not found.startswith(sha256):
            raise UserError(f"{url}: SHA-256 {found[:16]}..., expected {sha256}...: not the file that was published; {advice}")
        part.replace(path)
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot be downloaded ({reason}), and {path} is not there; {advice}") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def _copy(source, out, expected: int, name: str) -> None:  # type: ignore[no-untyped-def]
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    with Progress(
        *Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task(name, total=expected if expected > 0 else None)
        while piece := source.read(PIECE):
            out.write(piece)
            progress.update(task, advance=len(piece))
