"""What a command line runs, as far as files tell: a wrapper stays the same when the program behind it is built anew."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

DEEPEST = 4  # scripts that call scripts
LARGEST_SCRIPT = 1 << 20  # bytes; what is larger is no wrapper that somebody wrote
PIECE = 1 << 20
MOST = 200  # files of one command line
# What separates words in shell, Python and their like; ends of a path as well.
BETWEEN = re.compile(r"[\s\"'`;|&()<>{}\[\],=:]+")
# "$HERE/enc", "$(dirname "$0")/enc", "${0%/*}/enc": a folder that is only known when the script runs.
FOLLOWS = re.compile(r"[})\w\"']/([\w.+-][\w./+-]*)")

_digests: dict[tuple[str, int, int, int], bytes] = {}


def files_of(words: Sequence[str]) -> list[Path]:
    """The program of a command line, files that its other words name, and what scripts among them name in turn, sorted."""
    found: dict[Path, None] = {}
    folder = Path.cwd()
    near = [path for word in words for path in _resolve(os.path.expanduser(word), folder)]
    for _ in range(DEEPEST + 1):  # by depth, so that what a wrapper itself calls is never crowded out
        new = [path for path in dict.fromkeys(near) if path not in found][: MOST - len(found)]
        found.update(dict.fromkeys(new))
        near = [path for script in new for path in _named_in(script)]
    return sorted(found)


def _named_in(path: Path) -> list[Path]:
    """Files that a script names: by path, by a name that PATH finds, or relative to the folder that it lies in."""
    text = _script(path)
    if text is None:
        return []
    folder = path.parent
    words = [*BETWEEN.split(os.path.expandvars(text)), *FOLLOWS.findall(text)]
    named = [file for word in dict.fromkeys(words) if word for file in _resolve(word, folder)]
    modules = [folder / f"{name}.py" for name in re.findall(r"^\s*(?:import|from)\s+(\w+)", text, re.MULTILINE)]
    return [*named, *(module for module in modules if module.is_file())]


def _script(path: Path) -> str | None:
    """Its text; None for what no interpreter reads."""
    try:
        if path.stat().st_size > LARGEST_SCRIPT:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    if not (data.startswith(b"#!") or path.suffix in (".sh", ".py", ".pl")) or b"\0" in data:
        return None
    return data.decode("utf-8", "replace")


def _resolve(word: str, folder: Path) -> list[Path]:
    """Files that a word may stand for. Names of commands of the system are among them: they change with it, and then so do results."""
    if len(word) > 4096 or "\0" in word:
        return []
    places = [Path(word)] if os.path.isabs(word) else [folder / word]
    if "/" in word:
        places.append(folder.parent / word.lstrip("/"))
        places.append(folder / word.lstrip("/"))
    else:
        known = shutil.which(word)
        places += [Path(known)] if known else []
    try:
        return [place.resolve() for place in places if place.is_file()]
    except (OSError, ValueError):  # a name that no file can have
        return []


def digest_of_files(paths: Iterable[Path]) -> bytes:
    """SHA-256 over the contents; a file that has not changed since it was last asked for is not read again."""
    sha = hashlib.sha256()
    for path in paths:
        state = path.stat()
        key = str(path), state.st_size, state.st_mtime_ns, state.st_ino
        if key not in _digests:
            own = hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    own.update(piece)
            _digests[key] = own.digest()
        sha.update(_digests[key])
    return sha.digest()
