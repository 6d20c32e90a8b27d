"""Downloads that are whole or not there, and that go on where they were cut.

What has come lies beside the target in NAME.<8 hex digits>.part, named by address and hash, so that the next try or the next process
finds it and asks for the rest alone (Range and If-Range, RFC 9110). The whole file is checked against its hash and moved in place.
One process at a time downloads into a folder; others wait for it, and find the file.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

from ..errors import UserError
from .progress import progress

log = logging.getLogger(__name__)

TIMEOUT = 20  # seconds without an answer
PIECE = 1 << 20
PAUSES = (1, 2, 4, 8, 16)  # seconds before each new try; counted anew whenever something came
LATER = (408, 425, 429, 500, 502, 503, 504)  # statuses that may pass


class AbsentError(UserError):
    """The server answers, and says that there is no such file."""


def digest_of(path: Path, kind: str = "sha256") -> str:
    digest = hashlib.new(kind)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def fits(path: Path, expected: str) -> bool:
    """expected: the first digits of a SHA-256, or `md5:` and an MD5; empty if none is known."""
    kind, _, digits = expected.rpartition(":")
    return not digits or digest_of(path, kind or "sha256").startswith(digits)


def fetch(url: str, path: Path, expected: str, advice: str) -> Path:
    """`path`, downloaded from `url` unless it is there already; checked against its hash, see `fits`.

    UserError ending in `advice` when the address does not answer, the download is cut short or its hash is another.
    """
    if not path.is_file():
        with alone(path.parent):
            if not path.is_file():
                return download(url, path, expected, advice)
    if not fits(path, expected):
        raise UserError(
            f"{path}: {path.stat().st_size} bytes with another hash than {expected}. Delete it and run again to download it anew"
        )
    return path


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time; the operating system frees the lock of one that dies."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info(f"{folder}: another process downloads here; waiting for it")
            lock.acquire()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error}). Set LC_BENCH_DATA and LC_BENCH_CACHE to folders of yours") from None
    try:
        yield
    finally:
        lock.release()


def download(url: str, path: Path, expected: str, advice: str, show: bool = True) -> Path:
    """`path`, which is not there. The caller sees to it that nobody else downloads it meanwhile; show: a bar of progress."""
    name = hashlib.sha256(f"{url} {expected}".encode()).hexdigest()[:8]
    part = path.with_name(f"{path.name}.{name}.part")
    continued = part.is_file()
    _bring(url, part, bool(expected), advice, show)
    if not fits(part, expected):
        found = digest_of(part)
        _forget(part)
        if continued:  # perhaps of another version of the file: once from the start
            return download(url, path, expected, advice, show)
        raise UserError(f"{url}: SHA-256 {found[:16]}..., expected {expected}: not the file that was published; {advice}")
    part.replace(path)
    _forget(part)
    return path


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_of(part).unlink(missing_ok=True)


def _tag_of(part: Path) -> Path:
    """Where the server's name for this version of the file is kept."""
    return part.with_suffix(".tag")


def _bring(url: str, part: Path, hashed: bool, advice: str, show: bool) -> None:
    """Into `part`, all of it, in as many tries as bring something on."""
    furthest, tries = 0, 0
    while True:
        reason: object = "cut short"
        try:
            if _continue(url, part, hashed, show):
                return
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
            reason = getattr(error, "reason", None) or error
            if isinstance(error, urllib.error.HTTPError) and error.code in (403, 404, 410):
                raise AbsentError(f"{url}: not there ({error.code} {error.reason}); {advice}") from None
            final = error.code not in LATER if isinstance(error, urllib.error.HTTPError) else not part.is_file()
            if final:
                raise UserError(f"{url}: cannot be downloaded ({reason}); {advice}") from None
        have = part.stat().st_size if part.is_file() else 0
        furthest, tries = (have, 0) if have > furthest else (furthest, tries + 1)
        if tries >= len(PAUSES):
            raise UserError(f"{url}: {reason}, {have:,} bytes came. Run again to go on from there; {advice}")
        time.sleep(PAUSES[tries])


def _continue(url: str, part: Path, hashed: bool, show: bool) -> bool:
    """One request for what is missing; whether `part` is whole now."""
    have = part.stat().st_size if part.is_file() else 0
    tag = _tag_of(part).read_text() if _tag_of(part).is_file() else ""
    request = urllib.request.Request(url, headers={"User-Agent": "lc_bench", "Accept-Encoding": "identity"})
    if have and (tag or hashed):  # else nothing would tell that the rest is of another file
        request.add_header("Range", f"bytes={have}-")
        if tag:
            request.add_header("If-Range", tag)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if have and _span(error.headers)[1] == have:  # nothing follows: it was whole
            return True
        _forget(part)
        return False
    with answer:
        start, total = _span(answer.headers) if answer.status == 206 else (0, int(answer.headers.get("Content-Length") or -1))
        if start not in (0, have):
            raise ValueError(f"asked for bytes from {have} on, got them from {start} on")
        free = shutil.disk_usage(part.parent).free
        if total - start > free:
            raise UserError(f"{part.parent}: {total - start:,} bytes are to come, {free:,} are free there. Make room, or set LC_BENCH_DATA")
        with part.open("r+b" if start else "wb") as out, _bar(part.name.rsplit(".", 2)[0], start, total, show) as advance:
            if not start:
                version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
                _tag_of(part).write_text("" if version.startswith("W/") else version)  # weak ones do not fit If-Range
            out.seek(start)
            while piece := answer.read(PIECE):
                out.write(piece)
                advance(len(piece))
    return total in (-1, part.stat().st_size)


def _span(headers: Message) -> tuple[int, int]:
    """First byte and length of the whole in Content-Range: `bytes 5-9/10`, `bytes */10`; -1 for what is not told."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range") or "")
    return (int(found[1] or -1), int(found[2].replace("*", "-1"))) if found else (-1, -1)


@contextmanager
def _bar(name: str, start: int, total: int, show: bool) -> Iterator[Callable[[int], None]]:
    """What counts bytes that came."""
    if not show:
        yield lambda _: None
        return
    from rich.markup import escape
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with progress(*columns, unit="bytes") as bars:
        task = bars.add_task(escape(name), total=total if total > 0 else None, completed=start)
        yield lambda count: bars.advance(task, count)
