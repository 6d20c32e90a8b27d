"""One image file -> 8-bit RGB, the same way for every set.

Grey becomes RGB with equal channels; alpha is laid over white; 16 bits are rounded to 8; palettes and CMYK are
converted; EXIF rotation is applied. Animated files give their first frame. Anything else is a UserError with the name.
"""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".jp2", ".avif")
BAND = 256  # rows that are in floating point at a time
FAST = {"JPEG": imagecodecs.jpeg8_decode, "PNG": imagecodecs.png_decode}
TURNED_OR_MOVING = (b"eXIf", b"Raw profile type", b"com.adobe.xmp", b"acTL")  # where a PNG may say so; Pillow decodes it to find out
UNREADABLE = (
    *(UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError),
    *(imagecodecs.PngError, imagecodecs.Jpeg8Error),
)


def read_image(path: Path, name: str | None = None) -> Tensor:
    """-> (3, H, W) uint8. UserError, with `name`, for a file that is no image, is cut short or is too large to be trusted."""
    return to_tensor(read_pixels(path, name))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) -> (3, H, W), its own memory."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def read_pixels(path: Path, name: str | None = None) -> np.ndarray:
    """-> (H, W, 3) uint8; errors as of `read_image`."""
    name = name or path.name
    try:
        return _read_deep_png(path) if _is_deep_png(path) else _read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except UNREADABLE as error:
        size = path.stat().st_size
        raise UserError(f"{name}: {size} bytes, not a readable image ({type(error).__name__}: {error}). Delete or replace it") from None


def _is_deep_png(path: Path) -> bool:
    """A PNG of 16 bits per channel in colour, which Pillow would cut off to 8."""
    with path.open("rb") as file:
        head = file.read(26)
    return len(head) == 26 and head[:8] == b"\x89PNG\r\n\x1a\n" and head[24] == 16 and head[25] in (2, 4, 6)


def _read_deep_png(path: Path) -> np.ndarray:
    whole = imagecodecs.png_decode(path.read_bytes())
    out = np.empty((*whole.shape[:2], 3), np.uint8)
    for top in range(0, len(whole), BAND):
        deep = whole[top : top + BAND].astype(np.float64) / 65535
        colour, alpha = (deep[..., :-1], deep[..., -1:]) if deep.shape[-1] in (2, 4) else (deep, 1.0)
        out[top : top + BAND] = np.round(255 * (colour * alpha + (1 - alpha)))
    return out


def _read(path: Path) -> np.ndarray:
    """-> (H, W, 3) uint8. Pillow reads the header and says what is to be done; plain pixels are decoded by imagecodecs, which is twice
    as fast and gives the same ones (a test compares both).
    """
    with Image.open(path) as opened:
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
        return image.mode in ("RGB", "L") and data.endswith(b"\xff\xd9") and image.getexif().get(0x0112, 1) == 1
    return image.mode == "RGB" and not image.has_transparency_data and not any(mark in data for mark in TURNED_OR_MOVING)


def _converted(opened: Image.Image) -> np.ndarray:
    """-> (H, W, 3) uint8, by Pillow."""
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        deep = np.asarray(image)
        if image.mode == "F" or deep.min() < 0 or deep.max() > 65535:
            raise UserError(f"pixels of mode {image.mode} from {deep.min()} to {deep.max()}; 8 or 16 bits per channel can be read")
        grey = np.round(deep.astype(np.float64) / 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.asarray(image.convert("RGB"))


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1], the same on every device: by a number that is not on it, CUDA multiplies with the inverse."""
    return pixels.float().div_(torch.full((), 255.0, device=pixels.device))


def to_bytes(x: Tensor) -> Tensor:
    """[0, 1] -> uint8, rounded: what a decoded image is compared as."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)
