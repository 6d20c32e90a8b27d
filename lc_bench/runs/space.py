"""What a search varies: `optimizer.lr: log 1e-5 1e-3` is a key of the configuration and the values that it may take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UserError

FORMS = "`log LOW HIGH`, `float LOW HIGH`, `int LOW HIGH`, `int LOW HIGH STEP`, `choice A B ...` or a list"


@dataclass(frozen=True)
class Choice:
    values: tuple[str, ...]

    def suggest(self, trial: Any, key: str) -> str:
        return trial.suggest_categorical(key, list(self.values))

    @property
    def samples(self) -> tuple[str, ...]:
        """Values by which it can be seen whether the key takes them."""
        return self.values


@dataclass(frozen=True)
class Whole:
    low: int
    high: int
    step: int = 1

    def suggest(self, trial: Any, key: str) -> int:
        return trial.suggest_int(key, self.low, self.high, step=self.step)

    @property
    def samples(self) -> tuple[str, ...]:
        return (str(self.low),)


@dataclass(frozen=True)
class Real:
    low: float
    high: float
    log: bool

    def suggest(self, trial: Any, key: str) -> float:
        # Six digits are what a command line to repeat it is read by.
        return float(f"{trial.suggest_float(key, self.low, self.high, log=self.log):.6g}")

    @property
    def samples(self) -> tuple[str, ...]:
        return (repr(self.low),)


Range = Choice | Whole | Real


def parse_space(given: Mapping[str, Any]) -> dict[str, Range]:
    """Ranges by key; UserError says which entry is not one."""
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"run.space={given}: give keys and ranges, such as 'run.space={{optimizer.lr: log 1e-5 1e-3}}'")
    return {str(key): _parse(str(key), value) for key, value in given.items()}


def _parse(key: str, value: Any) -> Range:
    wrong = UserError(f"run.space: {key}: {value}: give one of {FORMS}")
    if isinstance(value, list):
        if not value:
            raise wrong
        return Choice(tuple(dict.fromkeys(map(_word, value))))
    form, *rest = str(value).split() or [""]
    if form == "choice" and rest:
        return Choice(tuple(dict.fromkeys(rest)))
    try:
        if form == "int" and len(rest) in (2, 3):
            whole = Whole(*map(int, rest))
            if whole.low <= whole.high and whole.step > 0:
                return whole
        if form in ("log", "float") and len(rest) == 2:
            real = Real(*map(float, rest), log=form == "log")
            if real.low <= real.high and math.isfinite(real.low) and math.isfinite(real.high) and (form != "log" or real.low > 0):
                return real
    except ValueError:
        raise wrong from None
    raise wrong


def _word(value: Any) -> str:
    """A value of a YAML list as Hydra's grammar has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "") if isinstance(value, list) else str(value)
