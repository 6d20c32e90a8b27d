"""Image codecs that are programs of the user's own: VTM, HM, BPG, ffmpeg, or anything that reads PNG or raw planes.

Planes are YCbCr 4:4:4 after ITU-R BT.709, full range, converted here and not by the codec, so that all of them start from and
are measured on the same RGB. The published curves of VTM and HM were made so too, but from planes of 8 bits,
which are off by up to 1 of 255; 10 bits lose nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from ..data.images import read_image
from ..errors import CannotCodeError, UserError, unknown
from ..metrics import ms_ssim, psnr
from ..ops.interleaved import interleaved
from .commands import Commands
from .kept import recorded

PICTURES = ("png", "ycbcr444")
# Of R, G, B in luma: ITU-R BT.709.
RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722


def to_ycbcr(pixels: Tensor, depth: int) -> np.ndarray:
    """(3, H, W) uint8 RGB -> (3, H, W) of whole numbers below 2 ** depth; a little-endian type of one or two bytes."""
    r, g, b = pixels.double().numpy() / 255
    y = RED * r + GREEN * g + BLUE * b
    planes = np.stack([y, 0.5 + (b - y) / (2 - 2 * BLUE), 0.5 + (r - y) / (2 - 2 * RED)])
    return np.round(planes.clip(0, 1) * (2**depth - 1)).astype("u1" if depth == 8 else "<u2")


def to_rgb(planes: np.ndarray, depth: int) -> Tensor:
    """The way back, rounded to (3, H, W) uint8."""
    y, cb, cr = planes.astype(np.float64) / (2**depth - 1)
    r = y + (2 - 2 * RED) * (cr - 0.5)
    b = y + (2 - 2 * BLUE) * (cb - 0.5)
    g = (y - RED * r - BLUE * b) / GREEN
    return torch.from_numpy(np.round(np.stack([r, g, b]).clip(0, 1) * 255).astype(np.uint8))


class External:
    """One codec of two command lines, as Commands takes them, with {level}, {width}, {height} and {depth} besides.

    version: a command line that says which build runs, for what files do not tell.
    picture: what the encoder reads and the decoder writes: png, or raw planes ycbcr444 of `depth` bits; files: such as {cfg: path}.
    """

    def __init__(
        self,
        name: str,
        levels: list[float],
        encode: str,
        decode: str,
        picture: str,
        depth: int,
        files: Mapping[str, str | None],
        advice: str,
        description: str,
        timeout: float = 3600,
        cache: Path | None = None,
        version: str | None = None,
    ) -> None:
        if picture not in PICTURES:
            raise unknown(f"anchor.{name}.picture", picture, PICTURES)
        if not 8 <= depth <= 16 or (picture == "png" and depth != 8):
            raise UserError(f"anchor.{name}.depth={depth}: 8 to 16 bits of ycbcr444, 8 of png")
        self.name = name
        self.levels = levels
        self.picture = picture
        self.depth = depth
        self.description = description
        self.cache = cache
        self.commands = Commands(name, encode, decode, timeout, f"{advice}; or set anchor.{name}.encode and decode", files, version)
        self.settings = json.dumps({**self.commands.settings, "picture": picture, "depth": depth})
        self.missing = self.commands.missing
        self.version = "" if self.missing else f"{description}, {self.commands.programs['encode']}, build {self.commands.fingerprint()}"

    def run(self, image: str, pixels: Tensor, level: float) -> dict[str, Any]:
        """The record of one image (3, H, W) uint8 at one level, from the cache if it was measured before."""
        self._check()
        settings = [self.picture, self.depth, self.commands.lines, self.commands.fingerprint(), level]
        return {**recorded(self.cache, pixels, settings, lambda: self.measure(pixels, level)[0]), "image": image}

    def measure(self, pixels: Tensor, level: float) -> tuple[dict[str, Any], Tensor]:
        """Record and decoded pixels. Seconds are those of the commands, start of the programs and reading of files included."""
        self._check()
        height, width = pixels.shape[1:]
        with tempfile.TemporaryDirectory() as folder:
            ending = "png" if self.picture == "png" else "yuv"
            paths = {
                name: Path(folder) / file for name, file in (("input", f"in.{ending}"), ("stream", "out.bin"), ("output", f"out.{ending}"))
            }
            self._write(paths["input"], pixels)
            values = {**paths, "level": f"{level:g}", "width": width, "height": height, "depth": self.depth}
            encode_s = self.commands.call("encode", paths["stream"], **values)
            paths["input"].unlink()  # what is decoded comes from the stream alone
            decode_s = self.commands.call("decode", paths["output"], **values)
            size = paths["stream"].stat().st_size
            decoded = self._read(paths["output"], pixels.shape)
        record = {
            "width": width,
            "height": height,
            "bytes": size,
            "bpp": 8 * size / (height * width),
            "psnr-rgb": psnr(decoded, pixels),
            "ms-ssim-rgb": ms_ssim(decoded, pixels),
            "encode_s": encode_s,
            "decode_s": decode_s,
        }
        return record, decoded

    def _check(self) -> None:
        if self.missing:
            raise UserError(self.missing)

    def _write(self, path: Path, pixels: Tensor) -> None:
        if self.picture == "png":
            path.write_bytes(imagecodecs.png_encode(interleaved(pixels)))
        else:
            path.write_bytes(to_ycbcr(pixels, self.depth).tobytes())

    def _read(self, path: Path, shape: torch.Size) -> Tensor:
        if self.picture == "png":
            try:
                decoded = read_image(path, f"what {self.name} decoded")
            except UserError as error:
                raise CannotCodeError(str(error)) from None
            if decoded.shape != shape:
                raise CannotCodeError(f"anchor {self.name}: decoded {tuple(decoded.shape)}, not {tuple(shape)}")
            return decoded
        planes = np.fromfile(path, "u1" if self.depth == 8 else "<u2")
        if planes.size != shape.numel():
            raise CannotCodeError(
                f"anchor {self.name}: decoded {path.stat().st_size} bytes, not {planes.itemsize * shape.numel()} of "
                f"ycbcr444 planes of {self.depth} bits, {shape[2]}x{shape[1]}"
            )
        return to_rgb(planes.reshape(shape), self.depth)
