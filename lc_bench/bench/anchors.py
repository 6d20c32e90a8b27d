"""Classical codecs over their quality range, through imagecodecs, with their results kept by content and settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..metrics import ms_ssim, psnr
from .kept import recorded

CODECS = ("jpeg", "jpeg2k", "webp", "avif", "jpegxl")


def library_version(codec: str) -> str:
    """Name and version of the library that does the work, as imagecodecs reports it."""
    return f"{getattr(imagecodecs, f'{codec}_version')()} (imagecodecs {imagecodecs.__version__})"


class Anchor:
    """One classical codec. codec: its name in imagecodecs; levels: values of its quality; options: further arguments.

    lossless lines of the table are not anchors: `levels` should stay below them.
    """

    def __init__(
        self, name: str, codec: str, levels: list[float], options: Mapping[str, Any], description: str, cache: Path | None
    ) -> None:
        if codec not in CODECS:
            raise UserError(f"anchor.{name}.codec={codec}: there are: {', '.join(CODECS)}")
        self.name = name
        self.codec = codec
        self.levels = levels
        self.options = dict(options)
        self.description = description
        self.cache = cache
        self.encode: Callable[..., bytes] = getattr(imagecodecs, f"{codec}_encode")
        self.decode: Callable[[bytes], np.ndarray] = getattr(imagecodecs, f"{codec}_decode")
        self.version = library_version(codec)

    def run(self, image: str, pixels: Tensor, level: float) -> dict[str, Any]:
        """The record of one image (3, H, W) uint8 at one level, from the cache if it was measured before."""
        settings = [self.codec, self.version, level, sorted(self.options.items())]
        return {**recorded(self.cache, pixels, settings, lambda: self.measure(pixels, level)[0]), "image": image}

    def measure(self, pixels: Tensor, level: float) -> tuple[dict[str, Any], Tensor]:
        """Record and decoded pixels."""
        array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        start = time.perf_counter()
        data = self.encode(array, level=level, **self.options)
        middle = time.perf_counter()
        decoded = torch.from_numpy(np.array(self.decode(data))).permute(2, 0, 1)
        end = time.perf_counter()
        height, width = pixels.shape[1:]
        record = {
            "width": width,
            "height": height,
            "bytes": len(data),
            "bpp": 8 * len(data) / (height * width),
            "psnr-rgb": psnr(decoded, pixels),
            "ms-ssim-rgb": ms_ssim(decoded, pixels),
            "encode_s": middle - start,
            "decode_s": end - middle,
        }
        return record, decoded
