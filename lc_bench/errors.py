"""One kind of error for what a user can put right; everything else is a bug and keeps its traceback."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """Says what was given, what is allowed and what to do. The command line prints it as one line and exits with 2."""


class StreamError(UserError):
    """A compressed stream that cannot be decoded: damaged, cut short, or written by another model."""


def unknown(what: str, given: object, allowed: Iterable[object], advice: str = "") -> UserError:
    """The one sentence for a wrong choice: what was given, and everything that exists."""
    listing = ", ".join(str(a) for a in allowed)
    return UserError(f"{what}={given}: not known. There are: {listing}." + (f" {advice}" if advice else ""))
