"""Classical codecs over their quality range, through imagecodecs, with their results kept by content and settings."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from ..errors import CannotCodeError, UserError
from ..metrics import ms_ssim, psnr
from ..ops.interleaved import interleaved
from .kept import recorded

WARM_UP = 64  # pixels of a side that are coded before the clock runs
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
        self.settings = json.dumps({"codec": codec, **self.options}, sort_keys=True)
        self._warm = False

    def run(self, image: str, pixels: Tensor, level: float) -> dict[str, Any]:
        """The record of one image (3, H, W) uint8 at one level, from the cache if it was measured before."""
        settings = [self.codec, self.version, level, sorted(self.options.items())]
        return {**recorded(self.cache, pixels, settings, lambda: self.measure(pixels, level)[0]), "image": image}

    def measure(self, pixels: Tensor, level: float) -> tuple[dict[str, Any], Tensor]:
        """Record and decoded pixels. CannotCodeError for an image that the codec does not take."""
        if not self._warm:  # loading libraries and starting threads is no image's cost
            with contextlib.suppress(CannotCodeError):  # what it cannot take is told of the image itself
                self._code(interleaved(pixels[:, :WARM_UP, :WARM_UP]), level)
            self._warm = True
        array = interleaved(pixels)
        data, decoded, encode_s, decode_s = self._code(array, level)
        if decoded.shape != array.shape:
            raise CannotCodeError(f"{self.name}: decoded {decoded.shape} of {array.shape}")
        height, width = pixels.shape[1:]
        back = torch.from_numpy(decoded).permute(2, 0, 1)
        record = {
            "width": width,
            "height": height,
            "bytes": len(data),
            "bpp": 8 * len(data) / (height * width),
            "psnr-rgb": psnr(back, pixels),
            "ms-ssim-rgb": ms_ssim(back, pixels),
            "encode_s": encode_s,
            "decode_s": decode_s,
        }
        return record, back

    def _code(self, array: np.ndarray, level: float) -> tuple[bytes, np.ndarray, float, float]:
        """Stream, what it decodes to, and the seconds of both, of (H, W, 3) uint8."""
        start = time.perf_counter()
        try:
            data = self.encode(array, level=level, **self.options)
            middle = time.perf_counter()
            decoded = np.array(self.decode(data))
        except (ValueError, RuntimeError, MemoryError) as error:  # of imagecodecs, whose own errors are RuntimeErrors
            size = f"{array.shape[1]}x{array.shape[0]} pixels"
            raise CannotCodeError(f"{self.name} cannot code {size} ({error})") from None
        except TypeError as error:
            raise UserError(
                f"anchor.{self.name}.options={self.options}: {error}; imagecodecs' {self.codec}_encode says which it has"
            ) from None
        return data, decoded, middle - start, time.perf_counter() - middle
