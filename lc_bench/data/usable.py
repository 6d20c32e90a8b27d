"""What a set does about samples that cannot be used: `fail` stops at the first, `skip` leaves them out and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor

from ..errors import UserError


def check_on_error(on_error: str) -> None:
    if on_error not in ("fail", "skip"):
        raise UserError(f"data.on_error={on_error}: there are: fail, skip")


def usable(
    places: Iterable[int], names: Sequence[str], load: Callable[[int], Tensor], on_error: str, skipped: list[str]
) -> Iterator[tuple[str, Tensor]]:
    """(name, load(place)) of the samples at these places that can be used; what others say is added to `skipped`, once."""
    for place in places:
        try:
            sample = load(place)
        except UserError as error:
            if on_error == "fail":
                raise UserError(f"{error} (data.on_error=skip goes on without it)") from None
            if str(error) not in skipped:
                skipped.append(str(error))
            continue
        yield names[place], sample
