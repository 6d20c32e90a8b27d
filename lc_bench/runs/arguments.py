"""Values of a command line as people write them, brought into Hydra's grammar before it reads them.

That grammar takes letters outside ASCII, parentheses, quotes, `#` and more for mistakes, and 2024, null or [a] for no text. A path
keeps its characters: where Hydra would make something else of it, it is quoted. `~` is a home folder, as a shell has it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from ..errors import UserError
from ..ops.paths import printable

PATHS = ("input", "output", "weights", "ckpt_path", "data.list", "run.resume", "run.to")  # besides keys that end in path, dir, files.x
LISTS = ("inputs",)
NEVER_NULL = ("input", "output", "data.list", "run.to")  # null is a name there; elsewhere it may be none
CALLS = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag|extend_list|int|float|str|bool|json_str)\(.*\)", re.DOTALL)
# Options of Hydra's that take the next argument as their value.
WITH_VALUE = (
    *("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"),
    *("--package", "-p", "--cfg", "-c", "--experimental-rerun"),
)
MAYBE_WITH_VALUE = ("--info", "-i")
QUOTES = "'\""
NESTED = {"[": "]", "{": "}", "(": ")"}


def options_and_settings(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Options of Hydra's with their values, wherever they stand, and settings such as key=value."""
    options: list[str] = []
    settings: list[str] = []
    before = ""
    for argument in arguments:
        is_word = not argument.startswith("-") and "=" not in argument
        is_value = before in WITH_VALUE or (before in MAYBE_WITH_VALUE and is_word)
        if is_value or argument.startswith("-"):
            options.append(argument)
        else:
            settings.append(argument)
        before = "" if is_value else argument
    return options, settings


def in_grammar(arguments: list[str]) -> list[str]:
    """The arguments with options in front, since Hydra takes none amid settings, and every path as text of Hydra's.

    UserError, with how to quote, for any other value that Hydra cannot read.
    """
    options, settings = options_and_settings(arguments)
    sweeps = "-m" in options or "--multirun" in options
    sweeps = sweeps or any(setting.lower() == "hydra.mode=multirun" for setting in settings)
    return [*options, *(_setting(setting, sweeps) for setting in settings)]


def _setting(argument: str, sweeps: bool) -> str:
    """One setting in Hydra's grammar."""
    key, equals, value = argument.partition("=")
    name = key.lstrip("+")
    if equals and name in LISTS:
        argument = f"{key}={_listed(value)}"
    elif equals and _is_path(name):
        argument = f"{key}={_swept(name, value) if sweeps else _text(name, value)}"
    _check(argument)
    return argument


def text_of(value: str) -> str:
    """What a configuration has where an argument in Hydra's grammar says this; the argument itself where that is no text."""
    read = _parsed(value)
    if not isinstance(read, str) or "${" in read.replace("\\${", ""):  # no text, or one that refers to others
        return value
    return str(read).replace("\\${", "${")


def _is_path(key: str) -> bool:
    *above, last = key.split(".")
    return key in PATHS or last.endswith(("path", "dir")) or above[-1:] == ["files"]


def _parsed(value: str) -> object:
    """What Hydra makes of a value; None also for what it cannot read."""
    try:
        return OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return None


def _text(key: str, value: str) -> str:
    """A value that comes out as this text, home folders replaced."""
    there = os.path.lexists(os.path.expanduser(value)) and value != ""
    if not there and (_is_quoted(value) or CALLS.fullmatch(value)):
        return value
    if value.lower() == "null" and not there and key not in NEVER_NULL and not key.endswith("path"):
        return value
    text = os.path.expanduser(value)
    if there:
        text = text.replace("${", "\\${")  # a name, not a reference
    read = _parsed(text)
    return text if isinstance(read, str) and str(read) == text else QuotedString(text, Quote.single).with_quotes()


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] in QUOTES and value[-1] == value[0] and isinstance(_parsed(value), str)


def _swept(key: str, value: str) -> str:
    """With -m, commas divide values, unless there is a file of that name."""
    if os.path.lexists(os.path.expanduser(value)) or CALLS.fullmatch(value):
        return _text(key, value)
    return ",".join(_text(key, part) for part in _divided(value))


def _listed(value: str) -> str:
    """[a,b] or {name:a,other:b}, each a path; or one path."""
    inside = value[1:-1]
    if value[:1] == "[" and value[-1:] == "]" and not os.path.lexists(value):
        return f"[{','.join(_text('inputs', part.strip()) for part in _divided(inside))}]"
    if value[:1] == "{" and value[-1:] == "}" and not os.path.lexists(value):
        pairs = [part.partition(":") for part in _divided(inside)]
        named = [f"{name}:{_text('inputs', path.strip())}" for name, _, path in pairs]
        return "{" + ",".join(named) + "}"
    return _text("inputs", value)


def _divided(value: str) -> Iterable[str]:
    """At commas outside of quotes and brackets."""
    parts, closing, quote = [""], [], ""
    for character in value:
        if quote:
            quote = "" if character == quote else quote
        elif character in QUOTES and parts[-1] == "":
            quote = character
        elif character in NESTED:
            closing.append(NESTED[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif character == "," and not closing:
            parts.append("")
            continue
        parts[-1] += character
    return parts


def _check(argument: str) -> None:
    if argument.startswith("="):
        raise UserError(f"{printable(argument)}: a value without a key; settings are given as key=value")
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException as error:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{printable(argument)}: not known; settings are given as key=value") from None
        quoted = shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{printable(argument)}: cannot be read ({printable(reason)}). To mean just this text, quote it: {printable(quoted)}"
        ) from None
