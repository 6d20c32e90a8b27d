"""An encoder and a decoder that are programs of the user's own, called by command lines that YAML gives."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError

LAST = 3  # lines of what a failing command said


class Commands:
    """encode, decode: command lines with {input}, {stream}, {output} for paths and whatever else `call` is given; timeout in seconds.

    files: further names in braces, and the paths of files that they stand for; missing: why the codec cannot run, or empty.
    """

    def __init__(self, anchor: str, encode: str, decode: str, timeout: float, advice: str, files: Mapping[str, str | None] | None = None):
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

    def fingerprint(self) -> str:
        """A hash of programs and files: another build may write other bytes."""
        sha = hashlib.sha256()
        for path in [*self.programs.values(), *self.files.values()]:
            with Path(str(path)).open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest() if hasattr(hashlib, "file_digest") else file.read())
        return sha.hexdigest()[:12]

    def call(self, command: str, made: Path, **values: Any) -> float:
        """Seconds. UserError with the last lines that a command said if it fails or does not leave `made`."""
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
            raise UserError(f"anchor {self.anchor}: {error}") from None
        end = time.perf_counter()
        if done.returncode or not made.is_file() or not made.stat().st_size:
            said = (done.stderr or done.stdout).strip().splitlines()[-LAST:] or ["nothing"]
            raise UserError(f"anchor {self.anchor}: {shlex.join(line)} ended with status {done.returncode} and said: {' | '.join(said)}")
        return end - start
