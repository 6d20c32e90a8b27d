"""G-PCC (ISO/IEC 23090-9) through a `tmc3` binary of the user's own, called by command lines that YAML gives."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.cloud_files import read_cloud
from ..data.cloud_writers import write_cloud
from ..errors import CannotCodeError, UserError
from .clouds import measures
from .commands import Commands

PLACED = 16  # bytes: low corner and step as float32, which a decoder needs besides the stream


class Gpcc:
    """levels: bits of each coordinate, to which clouds are rounded; the rounded cloud is coded without loss.

    encode, decode: command lines with {input}, {stream}, {output} for paths (ply, stream, ply) and {level}.
    """

    def __init__(
        self,
        name: str,
        levels: list[float],
        encode: str,
        decode: str,
        description: str,
        timeout: float = 600,
        cache: Path | None = None,
        version: str | None = None,
    ) -> None:
        self.name = name
        self.levels = levels
        self.description = description
        self.commands = Commands(name, encode, decode, timeout, f"build mpeg-pcc-tmc13, set anchor.{name}.encode and decode", None, version)
        self.settings = json.dumps(self.commands.settings)
        self.missing = self.commands.missing
        self.version = "" if self.missing else f"{self.commands.programs['encode']}, build {self.commands.fingerprint()}"

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
            encode_s = self.commands.call("encode", paths["stream"], level=int(level), **paths)
            decode_s = self.commands.call("decode", paths["output"], level=int(level), **paths)
            size = paths["stream"].stat().st_size + PLACED
            try:
                back = read_cloud(paths["output"], f"what {self.name} decoded").points.to(points.dtype)
            except UserError as error:
                raise CannotCodeError(str(error)) from None
            decoded = back * step + low
        record = {
            "points": len(points),
            "points_decoded": len(decoded),
            "bytes": size,
            "bpp": 8 * size / len(points),
            **measures(points, decoded),
            "encode_s": encode_s,
            "decode_s": decode_s,
        }
        return record, decoded
