"""Names of files and folders of a report, made from names of codecs and samples, which may hold anything."""

from __future__ import annotations

from pathlib import Path

LONGEST = 200  # bytes of a name in UTF-8; file systems take 255, and a part beside the file has a longer one


def file_name(text: str, ending: str) -> str:
    """Letters, digits and `-_.` of the text, the rest as dashes, cut to what file systems take; then the ending."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    room = LONGEST - len(ending.encode())
    return plain.encode("utf-8", "ignore")[:room].decode("utf-8", "ignore") + ending


def own_folder(path: Path) -> Path:
    """The folder, made if it is not there. A link in its place is removed: what it leads to is not the report's to write into."""
    if path.is_symlink():
        path.unlink()
    path.mkdir(parents=True, exist_ok=True)
    return path
