"""One kind of error for what a user can put right; everything else is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKE = 0.7  # how much alike two words are, 0 to 1, that are taken for the same one misspelt


class UserError(Exception):
    """Says what was given, what is allowed and what to do. The command line prints it as one line and exits with 2."""


class StreamError(UserError):
    """A compressed stream that cannot be decoded: damaged, cut short, or written by another model."""


class CannotCodeError(UserError):
    """A codec cannot take one sample: too small, too large, or refused by its program. Others go on."""


def unknown(what: str, given: object, allowed: Iterable[object], advice: str = "", wrong: str | None = None) -> UserError:
    """The one sentence for a wrong choice: what was given, everything that exists, and which of it is meant.

    wrong: the word that is not known; None where it is what was given.
    """
    known = [str(a) for a in allowed]
    meant = closest(str(given) if wrong is None else wrong, known)
    words = [
        f"{what}={given}: not known.",
        f"Did you mean {meant}?" if meant else "",
        f"There are: {', '.join(known)}.",
        advice,
    ]
    return UserError(" ".join(word for word in words if word))


def closest(given: str, allowed: Iterable[str]) -> str | None:
    """The name among `allowed` that `given` most likely stands for, None if none is like it.

    Case does not count, nor whether words are joined by - or _: mbt2018_mean is mbt2018-mean.
    """
    plain = {_plain(name): name for name in allowed}
    word = _plain(given)
    if not word:
        return None
    alike = difflib.get_close_matches(word, plain, n=1, cutoff=LIKE)
    begun = sorted((name for name in plain if name.startswith(word)), key=len)
    found = [*alike, *begun]
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")
