"""G-PCC (ISO/IEC 23090-9) through a `tmc3` binary of the user's own, called by command lines that YAML gives."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.cloud_files import read_cloud
from ..data.cloud_writers import write_cloud
from ..errors import UserError
from .clouds import measures

PLACED = 16  # bytes: low corner and step as float32, which a decoder needs besides the stream


class Gpcc:
    """levels: bits of each coordinate, to which clouds are rounded; the rounded cloud is coded without loss.

    encode, decode: command lines with {input}, {stream}, {output} for paths (ply, stream, ply) and {level}.
    """

    def __init__(
        self, name: str, levels: list[float], encode: str, decode: str, description: str, timeout: float = 600, cache: Path | None = None
    ) -> None:
        self.name = name
        self.levels = levels
        self.commands = {"encode": shlex.split(encode), "decode": shlex.split(decode)}
        self.description = description
        self.timeout = timeout
        for command, wanted in (("encode", ("{input}", "{stream}")), ("decode", ("{stream}", "{output}"))):
            if not all(any(w in word for word in self.commands[command]) for w in wanted):
                raise UserError(f"anchor.{name}.{command}: the command line has to name {' and '.join(wanted)}")
        binary = self.commands["encode"][0]
        found = shutil.which(binary)
        self.missing = "" if found else f"anchor {name}: {binary} is not there (build mpeg-pcc-tmc13, set anchor.{name}.encode and decode)"
        self.version = found or ""

    def run(self, sample: str, points: Tensor, level: float) -> dict[str, Any]:
        """The record of one cloud (N, 3) at one level."""
        return {"image": sample, **self.measure(points, level)[0]}

    def measure(self, points: Tensor, level: float) -> tuple[dict[str, Any], Tensor]:
        """Record and decoded points."""
        if self.missing:
            raise UserError(self.missing)
        low = points.amin(0)
        step = (points.amax(0) - low).max().clamp_min(1e-30) / (2 ** int(level) - 1)
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder) / file for name, file in (("input", "in.ply"), ("stream", "out.bin"), ("output", "out.ply"))}
            write_cloud(paths["input"], ((points - low) / step).round())
            seconds = {command: self._call(command, level, paths) for command in self.commands}
            size = paths["stream"].stat().st_size + PLACED
            decoded = read_cloud(paths["output"], f"what {self.name} decoded").points * step + low
        record = {
            "points": len(points),
            "points_decoded": len(decoded),
            "bytes": size,
            "bpp": 8 * size / len(points),
            **measures(points, decoded),
            "encode_s": seconds["encode"],
            "decode_s": seconds["decode"],
        }
        return record, decoded

    def _call(self, command: str, level: float, paths: dict[str, Path]) -> float:
        """Seconds. UserError with the last line that a command said if it fails or leaves nothing."""
        line = [word.format(level=int(level), **paths) for word in self.commands[command]]
        made = paths["stream" if command == "encode" else "output"]
        start = time.perf_counter()
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=self.timeout, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"anchor {self.name}: {error}") from None
        end = time.perf_counter()
        if done.returncode or not made.is_file():
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
            raise UserError(f"anchor {self.name}: {shlex.join(line)} ended with status {done.returncode} and said: {said[0]}")
        return end - start
