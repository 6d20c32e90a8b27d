"""Draco, the widely used point-cloud codec (a k-d tree over quantised coordinates), through DracoPy: pip install lc_bench[points]."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CannotCodeError, UserError
from .clouds import measures

WARM_UP = 100  # points that are coded before the clock runs


def installed() -> bool:
    return importlib.util.find_spec("DracoPy") is not None


class Draco:
    """levels: bits of quantisation of each coordinate; compression: 0 (fast) to 10. Points come back in another order."""

    def __init__(self, name: str, levels: list[float], compression: int, description: str, cache: Path | None = None) -> None:
        self.name = name
        self.levels = levels
        self.compression = compression
        self.description = description
        self.missing = "" if installed() else f"anchor {name}: DracoPy is not installed (pip install lc_bench[points])"
        self.settings = json.dumps({"compression": compression})
        self._warm = False
        self.version = "" if self.missing else f"DracoPy {importlib.metadata.version('DracoPy')}"

    def run(self, sample: str, points: Tensor, level: float) -> dict[str, Any]:
        """The record of one cloud (N, 3) at one level."""
        return {"image": sample, **self.measure(points, level)[0]}

    def measure(self, points: Tensor, level: float) -> tuple[dict[str, Any], Tensor]:
        """Record and decoded points."""
        if self.missing:
            raise UserError(self.missing)
        if not self._warm:  # loading the library is no cloud's cost
            with contextlib.suppress(CannotCodeError):  # what it cannot take is told of the cloud itself
                self._code(points[:WARM_UP], level)
            self._warm = True
        data, decoded, encode_s, decode_s = self._code(points, level)
        record = {
            "points": len(points),
            "points_decoded": len(decoded),
            "bytes": len(data),
            "bpp": 8 * len(data) / len(points),
            **measures(points, decoded),
            "encode_s": encode_s,
            "decode_s": decode_s,
        }
        return record, decoded

    def _code(self, points: Tensor, level: float) -> tuple[bytes, Tensor, float, float]:
        """Stream, the points that it decodes to, and the seconds of both."""
        import DracoPy  # type: ignore[import-not-found]

        array = np.ascontiguousarray(points.numpy())
        start = time.perf_counter()
        try:
            data = DracoPy.encode(array, quantization_bits=int(level), compression_level=self.compression)
            middle = time.perf_counter()
            decoded = torch.from_numpy(np.array(DracoPy.decode(data).points, dtype=np.float32).reshape(-1, 3))
        except (ValueError, RuntimeError, MemoryError) as error:
            raise CannotCodeError(f"{self.name} cannot code {len(points)} points ({error})") from None
        return data, decoded, middle - start, time.perf_counter() - middle
