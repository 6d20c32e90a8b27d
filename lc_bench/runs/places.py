"""Which of a user's files are read, and where what becomes of each is written."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ..data.listing import files_below
from ..errors import UserError
from ..ops.paths import expanded, printable
from ..ops.whole import LONGEST


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path


class _Any:
    """Contains every suffix."""

    def __contains__(self, _: object) -> bool:
        return True


def jobs_of(
    given: str, output: str | None, wanted: tuple[str, ...], suffix: Callable[[Path], str], allowed: tuple[str, ...], writes: bool
) -> tuple[list[Job], bool]:
    """What to read and where to write it, and whether a folder or a pattern was given.

    wanted: suffixes of inputs in a folder; suffix: of an input's output without a name; allowed: suffixes of outputs.
    """
    path, target = expanded(given), None if output is None else expanded(output)
    if path.is_file():
        return [Job(path, _single(path, target, suffix, allowed, writes))], False
    root, found = _found(path, wanted)
    if not found:
        raise UserError(f"input={printable(given)}: no file in it; looked for {', '.join(wanted)}")
    if target is not None and not target.is_dir() and (target.suffix.lower() in allowed or target.exists()):
        raise UserError(f"output={printable(target)}: several files are written; give a folder")
    names = _targets([p.relative_to(root) for p in found], root, [suffix(p) for p in found], wanted)
    return [Job(source, (target or root) / name) for source, name in zip(found, names, strict=True)], True


def _single(path: Path, target: Path | None, suffix: Callable[[Path], str], allowed: tuple[str, ...], writes: bool) -> Path:
    usual = _shortened(path.stem, suffix(path))
    if target is None:
        target = path.with_name(usual)
    elif target.is_dir():
        target /= usual
    if writes and target.suffix.lower() not in allowed:
        raise UserError(f"output={printable(target)}: give a file that ends in {', '.join(allowed)}, or a folder that is there")
    return target


def _found(path: Path, wanted: tuple[str, ...]) -> tuple[Path, list[Path]]:
    """The folder that a user named, or that a pattern is below; and the files, in order."""
    if path.is_dir():
        return path, files_below(path, wanted)
    fixed = Path(path.anchor)
    *above, last = path.parts[1:] if path.anchor else path.parts
    while above and (not glob.has_magic(above[0]) or (fixed / above[0]).is_dir()):
        fixed /= above.pop(0)
    pattern = [*above, last]
    if not any(map(glob.has_magic, pattern)):
        raise UserError(
            f"input={printable(path)}: no such file or folder. Several files are given as a folder, or a pattern such as photos/*.png"
        )
    if not fixed.is_dir():
        raise UserError(f"input={printable(path)}: no such folder as {printable(fixed)}")
    if "**" in pattern:
        found = [p for p in files_below(fixed, _Any()) if _fits(p.relative_to(fixed).parts, pattern)]
    else:
        found = [fixed / p for p in glob.glob(os.path.join(*pattern), root_dir=fixed)]
    return fixed, sorted(p for p in found if not p.is_dir())


def _fits(parts: tuple[str, ...], pattern: list[str]) -> bool:
    """Whether a path fits; ** stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or (bool(parts) and _fits(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _targets(places: list[Path], root: Path, suffixes: list[str], wanted: tuple[str, ...]) -> list[Path]:
    """Where each goes, below the folder of outputs: a.png to a.lcb.

    Where a.jpg lies beside a.png, whether or not it was asked for, both keep their whole names (a.jpg.lcb, a.png.lcb), so that what
    is there already is never another file's. Names that differ in upper and lower case alone count as one: some disks hold one of them.
    """
    beside = _stems_beside({place.parent for place in places}, root, wanted)
    whole = [beside[_key(place.with_suffix(""))] > 1 for place in places]
    while True:
        targets = [
            place.with_name(_shortened(place.name if keeps else place.stem, suffix))
            for place, suffix, keeps in zip(places, suffixes, whole, strict=True)
        ]
        count = Counter(map(_key, targets))
        changed = [keeps or count[_key(target)] > 1 for keeps, target in zip(whole, targets, strict=True)]
        if changed == whole:
            return targets
        whole = changed


def _stems_beside(folders: set[Path], root: Path, wanted: tuple[str, ...]) -> Counter[str]:
    """How many readable files of each name without suffix there are in the folders."""
    return Counter(
        _key(path.relative_to(root).with_suffix("")) for folder in folders for path in files_below(root / folder, wanted, recursive=False)
    )


def _key(path: Path) -> str:
    return str(path).casefold()


def _shortened(name: str, suffix: str) -> str:
    """name + suffix; a name that is too long for that is cut, and ends in a hash of the whole."""
    if len(os.fsencode(name + suffix)) <= LONGEST:
        return name + suffix
    ending = f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{suffix}"
    return os.fsdecode(os.fsencode(name)[: LONGEST - len(ending)]) + ending
