"""One image file -> 8-bit RGB, the same way for every set and every kind of file.

Grey becomes RGB with equal channels; alpha is laid over white; up to 16 bits are rounded to 8; palettes, CMYK, YCbCr and LAB are
converted; EXIF rotation is applied. Animated files and those of several pages give their first. Anything else is a UserError with
the name. What a file is, its content says and not its name; its size is looked at before anything is decoded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
import torch
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from torch import Tensor

from ..errors import UserError
from . import deep
from .deep import ORIENTATION, check_size, turned
from .opening import DamagedError, reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".jp2", ".avif")
# By name, so that no other decoder of Pillow's is ever called: some of them start programs.
DECODERS: dict[str, Callable[[BinaryIO], Image.Image]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.jpeg_factory,
    "WebP": WebPImagePlugin.WebPImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
FAST = {"JPEG": imagecodecs.jpeg8_decode, "PNG": imagecodecs.png_decode}
TURNED_OR_MOVING = (b"eXIf", b"Raw profile type", b"com.adobe.xmp", b"acTL")  # where a PNG may say so; Pillow decodes it to find out
DENSEST_JPEG = 2048  # pixels a byte; a block of 64 takes a bit at least
AVIF_BRANDS = (b"avif", b"avis", b"mif1", b"msf1")
_limit_lock = threading.Lock()
_limits_before: list[int | None] = []  # Pillow's limit, once for each thread that reads


def read_image(path: Path, name: str | None = None) -> Tensor:
    """-> (3, H, W) uint8. UserError, with `name`, for a file that is no image, is cut short or is too large to be trusted."""
    return to_tensor(read_pixels(path, name))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) -> (3, H, W), its own memory."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def read_pixels(path: Path, name: str | None = None) -> np.ndarray:
    """-> (H, W, 3) uint8; errors as of `read_image`."""
    with reading(path, "image", name):
        with path.open("rb") as file:
            kind = kind_of(file.read(32))
        if kind == "PNG" and deep.is_deep_png(path):
            return _read_deep_png(path)
        if kind == "TIFF" and deep.is_deep_tiff(path):
            return deep.read_tiff(path)
        if kind == "JPEG 2000" and deep.is_deep_jpeg2000(path):
            return deep.read_jpeg2000(path)
        with _own_limit():
            return _read(path, kind)


@contextmanager
def _own_limit() -> Iterator[None]:
    """Pillow's limit of pixels, which is lower for some kinds, gives way to that of `check_size` while a file is read."""
    with _limit_lock:
        _limits_before.append(_limits_before[0] if _limits_before else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = deep.LARGEST
    try:
        yield
    finally:
        with _limit_lock:
            Image.MAX_IMAGE_PIXELS = _limits_before.pop()
            if _limits_before:  # others still read
                Image.MAX_IMAGE_PIXELS = deep.LARGEST


def kind_of(head: bytes) -> str:
    """The key of DECODERS for a file that begins so. DamagedError for any other content."""
    starts = {
        "PNG": (b"\x89PNG\r\n\x1a\n",),
        "JPEG": (b"\xff\xd8\xff",),
        "PPM": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"),
        "BMP": (b"BM",),
        "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        "JPEG 2000": (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
    }
    for kind, marks in starts.items():
        if head.startswith(marks):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp" and head[8:12] in AVIF_BRANDS:
        return "AVIF"
    raise DamagedError(f"its content is none of {', '.join(DECODERS)}")


def _opened(path: Path, kind: str, file: BinaryIO) -> Image.Image:
    """Header only, of a size that may be decoded."""
    image = DECODERS[kind](file)
    width, height = image.size
    check_size(height, width)
    if kind == "PNG":
        deep.check_png(path)
    if kind == "JPEG" and width * height > DENSEST_JPEG * path.stat().st_size:
        raise DamagedError(f"it says {width} x {height} pixels, more than its bytes can hold")
    return image


def _read_deep_png(path: Path) -> np.ndarray:
    pixels = deep.read_png(path)
    if not any(mark in path.read_bytes() for mark in TURNED_OR_MOVING):
        return pixels
    with path.open("rb") as file, _opened(path, "PNG", file) as opened:
        opened.load()  # what says so may stand behind the pixels
        return turned(pixels, _orientation(opened))


def _read(path: Path, kind: str) -> np.ndarray:
    """-> (H, W, 3) uint8. Pillow reads the header and says what is to be done; plain pixels are decoded by imagecodecs, which is twice
    as fast and gives the same ones (a test compares both).
    """
    with path.open("rb") as file, _opened(path, kind, file) as opened:
        if opened.format in FAST:
            data = path.read_bytes()
            if _is_plain(opened, data):
                pixels = FAST[opened.format](data)
                return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
        return _converted(opened)


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """8 bits, three channels (JPEG: or grey), not transparent, not moving, not turned, with its end."""
    if image.format == "JPEG":
        # libjpeg fills what is missing with grey; Pillow tells it.
        return image.mode in ("RGB", "L") and data.endswith(b"\xff\xd9") and _orientation(image) == 1
    return image.mode == "RGB" and not image.has_transparency_data and not any(mark in data for mark in TURNED_OR_MOVING)


def _orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts. Damaged EXIF is as good as none: the pixels beside it are whole."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # as many kinds as there are fields
        return 1


def _converted(image: Image.Image) -> np.ndarray:
    """-> (H, W, 3) uint8, by Pillow."""
    image.load()
    orientation = _orientation(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise UserError(f"pixels of mode {image.mode} from {values.min()} to {values.max()}; 8 or 16 bits per channel can be read")
        return turned(deep.to_rgb(values[..., None], 65535), orientation)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return turned(np.asarray(image.convert("RGB")), orientation)


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1], the same on every device: by a number that is not on it, CUDA multiplies with the inverse."""
    return pixels.float().div_(torch.full((), 255.0, device=pixels.device))


def to_bytes(x: Tensor) -> Tensor:
    """[0, 1] -> uint8, rounded: what a decoded image is compared as."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)
