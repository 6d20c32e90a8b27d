"""An encoder and a decoder that are programs of the user's own, called by command lines that YAML gives."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CannotCodeError, UserError
from .programs import digest_of_files, files_of

LAST = 3  # lines of what a failing command said
PATIENCE = 30  # seconds for a program to say its version


class Commands:
    """encode, decode: command lines with {input}, {stream}, {output} for paths and whatever else `call` is given; timeout in seconds.

    files: further names in braces, and the paths of files that they stand for; version: a command line that says which build runs, if
    files do not tell (a container, libraries); missing: why the codec cannot run, or empty.
    """

    def __init__(
        self,
        anchor: str,
        encode: str,
        decode: str,
        timeout: float,
        advice: str,
        files: Mapping[str, str | None] | None = None,
        version: str | None = None,
    ) -> None:
        self.anchor = anchor
        self.lines = {"encode": shlex.split(encode), "decode": shlex.split(decode)}
        self.timeout = timeout
        self.files = {name: Path(path).expanduser() if path else None for name, path in (files or {}).items()}
        for command, wanted in (("encode", ("{input}", "{stream}")), ("decode", ("{stream}", "{output}"))):
            if not all(any(w in word for word in self.lines[command]) for w in wanted):
                raise UserError(f"anchor.{anchor}.{command}: the command line has to name {' and '.join(wanted)}")
        self.programs = {command: shutil.which(os.path.expanduser(line[0])) for command, line in self.lines.items()}
        lacking = [self.lines[command][0] for command, found in self.programs.items() if found is None]
        absent = [f"anchor.{anchor}.files.{name} ({path or 'null'})" for name, path in self.files.items() if not (path and path.is_file())]
        what = " and ".join(dict.fromkeys([*lacking, *absent]))
        self.missing = f"anchor {anchor}: {what} is not there ({advice})" if what else ""

        self.version = shlex.split(version or "")
        self._said: tuple[bytes, str] | None = None  # what the version command said when the files were those

    @property
    def settings(self) -> dict[str, str]:
        """Both command lines as they are given, without the folders that programs and files happen to lie in."""
        return {command: shlex.join(os.path.basename(word) or word for word in line) for command, line in self.lines.items()}

    def fingerprint(self) -> str:
        """A hash of all that runs: programs, files, what wrapper scripts call, and what programs say of their version."""
        words = [word for line in (*self.lines.values(), self.version) for word in line if "{" not in word]
        named = [str(path) for path in self.files.values()]
        files = digest_of_files(files_of([*words, *named]))
        if self.version and (self._said is None or self._said[0] != files):
            self._said = files, self._ask()
        said = self._said[1] if self._said else ""
        return hashlib.sha256(json.dumps([files.hex(), said]).encode()).hexdigest()[:12]

    def _ask(self) -> str:
        """All that the version command says; many programs end with another status than 0 when they are asked."""
        line = [os.path.expanduser(self.version[0]), *self.version[1:]]
        try:
            done = subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=PATIENCE, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"anchor.{self.anchor}.version: {error}. Give a command line that says which build runs, or null") from None
        return done.stdout + done.stderr

    def call(self, command: str, made: Path, **values: Any) -> float:
        """Seconds. CannotCodeError with the last lines that a command said if it fails or does not leave `made`."""
        try:
            line = [word.format(**values, **self.files) for word in self.lines[command]]
        except (KeyError, IndexError, ValueError) as error:
            known = ", ".join(f"{{{name}}}" for name in (*values, *self.files))
            raise UserError(f"anchor.{self.anchor}.{command}: {error} is not known; a command line may name {known}") from None
        line[0] = str(self.programs[command])
        start = time.perf_counter()
        try:
            done = subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=self.timeout, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotCodeError(f"anchor {self.anchor}: {error}") from None
        end = time.perf_counter()
        if done.returncode or not made.is_file() or not made.stat().st_size:
            said = (done.stderr or done.stdout).strip().splitlines()[-LAST:] or ["nothing"]
            told = f"{shlex.join(line)} ended with status {done.returncode} and said: {' | '.join(said)}"
            raise CannotCodeError(f"anchor {self.anchor}: {told}")
        return end - start
