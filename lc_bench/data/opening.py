"""Where a file that somebody made is opened: whatever a library raises over it is a fault of the file, told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError
from ..ops.paths import printable


class DamagedError(Exception):
    """What a reader of ours has to say of a file; `reading` adds its name."""


@contextmanager
def reading(path: Path, what: str, name: str | None = None) -> Iterator[None]:
    """Read a file in this block. UserError, with its name, for any exception: what a library raises over damage cannot be listed.

    what: it ought to be, such as `image`; name: of the file in messages. A UserError of the block is taken to be about the file.
    """
    shown = printable(name or path.name)
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{printable(path)}: no such file") from None
    except PermissionError:
        raise UserError(f"{printable(path)}: may not be read by this user") from None
    except UserError as error:
        raise UserError(f"{shown}: {error}") from None
    except MemoryError:
        raise UserError(f"{shown}: not enough memory to read this {what}") from None
    except Exception as error:
        told = " ".join(str(error).split())[:300]
        said = told if isinstance(error, DamagedError) else f"{type(error).__name__}: {told}"
        size = path.stat().st_size if path.exists() else 0
        raise UserError(f"{shown}: {size} bytes, not a readable {what} ({printable(said)}). Delete or replace it") from None
