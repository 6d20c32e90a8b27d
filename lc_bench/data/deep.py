"""Images of more than 8 bits a channel, and TIFF in its less usual forms: what Pillow would cut, misread or not bound.

Each reader looks at the header, checks what would be decoded, decodes the stored values and rounds them to 8-bit RGB.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from .opening import DamagedError

ORIENTATION, PHOTOMETRIC = 0x0112, 0x0106  # tags of EXIF and TIFF
BAND = 256  # rows that are in floating point at a time
LARGEST = 1 << 28  # pixels of an image, as many as a stream may have
LARGEST_DECODED = 3 * LARGEST  # bytes of decoded values
DENSEST_DEFLATE = 1032  # bytes out of one
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by type of colour
TIFF_WHITE_IS_ZERO, TIFF_BLACK_IS_ZERO, TIFF_RGB, TIFF_PALETTE, TIFF_CMYK = 0, 1, 2, 3, 5
# Whose decoded size the directory of the file tells. Others hold whole images, which may say that they have any size.
TIFF_COMPRESSIONS = {
    1: "none",
    2: "CCITT",
    3: "fax 3",
    4: "fax 4",
    5: "LZW",
    6: "old JPEG",
    7: "JPEG",
    8: "deflate",
    32771: "none, in words",
    32773: "PackBits",
    32809: "ThunderScan",
    32946: "old deflate",
    34676: "SGI log",
    34677: "SGI log 24",
    34925: "LZMA",
    50000: "Zstandard",
}
ASSOCIATED, UNASSOCIATED = 1, 2  # kinds of alpha: colour multiplied with it, or not


def check_size(height: int, width: int, each: int = 1) -> None:
    """DamagedError for an image whose header promises more than is decoded; each: bytes of a pixel as it is stored."""
    if min(height, width) < 1:
        raise DamagedError(f"it says {width} x {height} pixels")
    if height * width > LARGEST:
        raise DamagedError(f"it says {width} x {height} pixels; {LARGEST} at most are read")
    if height * width * each > LARGEST_DECODED:
        raise DamagedError(f"it says {width} x {height} pixels of {each} bytes; {LARGEST_DECODED} bytes at most are decoded")


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) as it is to be seen. orientation: 1 to 8 as EXIF and TIFF count; anything else turns nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    flips_rows, flips_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if flips_rows else 1, :: -1 if flips_columns else 1])


def to_rgb(values: np.ndarray, white: int, alpha: int = 0, inverted: bool = False) -> np.ndarray:
    """(H, W, C) whole numbers from 0 to white -> (H, W, 3) uint8, rounded once, over white.

    C is 1 or 3, and one more with alpha: 0 for none, or ASSOCIATED or UNASSOCIATED. inverted: 0 is white.
    """
    out = np.empty((*values.shape[:2], 3), np.uint8)
    for top in range(0, len(values), BAND):
        part = values[top : top + BAND].astype(np.float64) / white
        colour, cover = (part[..., :-1], part[..., -1:]) if alpha else (part, np.ones(1))
        if inverted:
            colour = (cover if alpha == ASSOCIATED else 1) - colour
        seen = colour if alpha == ASSOCIATED else colour * cover
        out[top : top + BAND] = np.round(255 * (seen + 1 - cover).clip(0, 1))
    return out


def check_png(path: Path) -> tuple[int, int]:
    """Bits of a channel and type of colour. DamagedError for a header that promises more than is decoded, or than the file can hold."""
    with path.open("rb") as file:
        head = file.read(26)
    if len(head) < 26 or head[12:16] != b"IHDR":
        raise DamagedError("it has no header of PNG")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    if colour not in PNG_CHANNELS:
        raise DamagedError(f"type of colour {colour}, which PNG does not have")
    channels = PNG_CHANNELS[colour]
    check_size(height, width, channels * max(bits // 8, 1))
    if height * (width * channels * bits // 8) > DENSEST_DEFLATE * path.stat().st_size:
        raise DamagedError(f"it says {width} x {height} pixels, more than its bytes can hold")
    return bits, colour


def is_deep_png(path: Path) -> bool:
    return check_png(path)[0] == 16


def read_png(path: Path) -> np.ndarray:
    """Of 16 bits a channel -> (H, W, 3) uint8, not turned."""
    values = imagecodecs.png_decode(path.read_bytes())
    values = values if values.ndim == 3 else values[..., None]
    return to_rgb(values, 65535, UNASSOCIATED if values.shape[2] in (2, 4) else 0)


def is_deep_tiff(path: Path) -> bool:
    """Whether Pillow would not read it right: other than 1, 2, 4 or 8 bits without sign, or in planes."""
    with _tiff(path) as file:
        page = file.pages.first
        check_size(page.imagelength, page.imagewidth)
        if page.is_tiled:
            check_size(page.tilelength, page.tilewidth)
        if int(page.compression) not in TIFF_COMPRESSIONS:
            name = getattr(page.compression, "name", "a kind that is not known")
            raise DamagedError(f"compressed as {int(page.compression)}, {name}; read are {', '.join(TIFF_COMPRESSIONS.values())}")
        return page.bitspersample not in (1, 2, 4, 8) or page.planarconfig != 1 or not _is_unsigned(page)


def read_tiff(path: Path) -> np.ndarray:
    """-> (H, W, 3) uint8, turned. DamagedError for signed, floating-point and 32-bit values: nothing says what would be white."""
    with _tiff(path) as file:
        page = file.pages.first
        kind, bits, samples = int(page.tags.valueof(PHOTOMETRIC, -1)), page.bitspersample, page.samplesperpixel
        if not _is_unsigned(page) or not isinstance(bits, int) or bits > 16:
            raise DamagedError(f"samples of {_said(page)}; whole numbers from 0 on of up to 16 bits a channel can be read")
        colours = {TIFF_WHITE_IS_ZERO: 1, TIFF_BLACK_IS_ZERO: 1, TIFF_RGB: 3, TIFF_PALETTE: 1, TIFF_CMYK: 4}.get(kind)
        if colours is None or samples < colours or page.imagedepth != 1:
            raise DamagedError(f"{samples} samples of {bits} bits as colours of kind {kind}; grey, RGB, palettes and CMYK can be read")
        check_size(page.imagelength, page.imagewidth, samples * (2 if bits > 8 else 1))
        if page.is_tiled:
            check_size(page.tilelength, page.tilewidth, samples * (2 if bits > 8 else 1))
        _check_segments(page, path.stat().st_size)
        values = page.asarray(maxworkers=1).reshape(_stored_shape(page))
        values = values.transpose(1, 2, 0) if page.planarconfig == 2 else values
        orientation = page.tags.valueof(ORIENTATION, 1)
        return turned(_coloured(page, kind, values, colours), orientation)


def _coloured(page: Any, kind: int, values: np.ndarray, colours: int) -> np.ndarray:
    """(H, W, samples) as stored -> (H, W, 3) uint8."""
    white = (1 << page.bitspersample) - 1
    if kind == TIFF_PALETTE:
        table = np.asarray(page.colormap).T.astype(np.int64)  # (entries, 3)
        shallow = table.max() < 256  # written by programs that took the table for 8 bits
        return np.round(table / (1 if shallow else 257)).astype(np.uint8)[values[..., 0]]
    if kind == TIFF_CMYK:
        return _from_cmyk(values[..., :4], white)
    extra = [int(e) for e in page.extrasamples]
    alpha = extra[0] if extra and extra[0] in (ASSOCIATED, UNASSOCIATED) else 0
    return to_rgb(values[..., : colours + bool(alpha)], white, alpha, inverted=kind == TIFF_WHITE_IS_ZERO)


def _from_cmyk(values: np.ndarray, white: int) -> np.ndarray:
    """(H, W, 4) inks -> (H, W, 3) uint8, without a profile, as Pillow does it for 8 bits."""
    out = np.empty((*values.shape[:2], 3), np.uint8)
    for top in range(0, len(values), BAND):
        light = 1 - values[top : top + BAND].astype(np.float64) / white
        out[top : top + BAND] = np.round(255 * light[..., :3] * light[..., 3:])
    return out


def _tiff(path: Path) -> Any:
    from tifffile import TiffFile

    return TiffFile(path)


def _is_unsigned(page: Any) -> bool:
    return page.sampleformat in (None, 1, 4)  # unsigned, or not said


def _said(page: Any) -> str:
    names = {2: "signed", 3: "floating-point", 5: "complex signed", 6: "complex"}
    return f"{page.bitspersample} bits, {names.get(page.sampleformat, 'unsigned')}"


def _stored_shape(page: Any) -> tuple[int, int, int]:
    if page.planarconfig == 2:
        return page.samplesperpixel, page.imagelength, page.imagewidth
    return page.imagelength, page.imagewidth, page.samplesperpixel


def _check_segments(page: Any, size: int) -> None:
    """DamagedError unless every strip or tile lies in the file: the library fills what is missing with zeros."""
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    whole = all(count > 0 and start + count <= size for start, count in segments)
    needed = int(np.prod(page.chunked))
    if not whole or len(segments) < needed:
        raise DamagedError(f"cut short: {needed} strips or tiles are promised, and not all of them are there")


def is_deep_jpeg2000(path: Path) -> bool:
    """More than 8 bits: Pillow would cut or shift them. YCbCr and palettes stay with Pillow, which knows the boxes that say so."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    bits, channels = _jpeg2000_header(head)
    place = head.find(b"colr")
    in_ycc = place >= 0 and head[place + 4 : place + 5] == b"\x01" and head[place + 7 : place + 11] == b"\0\0\0\x12"
    return 8 < bits <= 16 and channels in (1, 2, 3, 4) and not in_ycc and b"pclr" not in head


def _jpeg2000_header(head: bytes) -> tuple[int, int]:
    """Bits of the first channel, and how many there are; checks the size. 0 bits where nothing is said, or values have a sign."""
    start = head.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(head) < start + 43:
        return 0, 0
    right, below, left, above = struct.unpack(">4I", head[start + 8 : start + 24])
    (channels,) = struct.unpack(">H", head[start + 40 : start + 42])
    depth = head[start + 42]
    check_size(below - above, right - left, min(channels, 4) * (2 if depth & 0x7F > 7 else 1))
    return (0, channels) if depth & 0x80 else (depth + 1, channels)


def read_jpeg2000(path: Path) -> np.ndarray:
    """Of 9 to 16 bits in grey or RGB, with or without alpha -> (H, W, 3) uint8."""
    data = path.read_bytes()
    bits, channels = _jpeg2000_header(data)
    values = imagecodecs.jpeg2k_decode(data, planar=False)
    values = values if values.ndim == 3 else values[..., None]
    return to_rgb(values, (1 << bits) - 1, UNASSOCIATED if channels in (2, 4) else 0)
