"""Pixels on disk, read and written in parts: large images are never whole in floating point.

Arrays (.npy) are (H, W, 3), (H, W, 1) or (H, W): uint8, uint16, or floating point in [0, 1]. They are mapped, not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UserError
from ..ops.paths import printable
from ..ops.whole import make_room, written_whole
from .deep import check_size
from .images import SUFFIXES, read_image, to_unit
from .opening import DamagedError, reading

READABLE = (*SUFFIXES, ".npy")
WRITABLE = (".png", ".ppm", ".npy")
LARGEST = {"u1": 255, "u2": 65535, "f2": 1, "f4": 1, "f8": 1}  # value of white by type


@dataclass(frozen=True)
class Pixels:
    """An image of any kind. values: (3, H, W) uint8, or the array (H, W, C) of a file."""

    name: str
    values: Tensor | np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        height, width = self.values.shape[1:] if isinstance(self.values, Tensor) else self.values.shape[:2]
        return height, width

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """-> (3, height, width) float32 in [0, 1]. UserError for values that are no pixels."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        if isinstance(self.values, Tensor):
            return to_unit(self.values[:, rows, columns])
        with np.errstate(all="ignore"):  # what is out of bounds is told below
            part = self.values[rows, columns].astype(np.float32) / LARGEST[self.values.dtype.str[1:]]
        if not (part.min() >= 0 and part.max() <= 1):  # also catches NaN
            raise UserError(f"{self.name}: values from {part.min()} to {part.max()}; floating point has to lie in 0 to 1, without NaN")
        part = part if part.ndim == 3 else part[..., None]
        return torch.from_numpy(np.ascontiguousarray(np.broadcast_to(part, (height, width, 3)).transpose(2, 0, 1)))


def open_pixels(path: Path) -> Pixels:
    """UserError, with the file's name, for anything that cannot be read as an image."""
    name = printable(path.name)
    if path.suffix.lower() != ".npy":
        return Pixels(name, read_image(path))
    with reading(path, "array"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise DamagedError("an archive of several arrays, .npz; save one array with numpy.save")
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))
    if not shape_fits or 0 in array.shape or array.dtype.str[1:] not in LARGEST:
        allowed = "(H, W, 3), (H, W, 1) or (H, W), nothing empty, of uint8, uint16 or floating point in 0 to 1"
        raise UserError(f"{name}: an array of shape {array.shape}, {array.dtype}; an image is {allowed}")
    with reading(path, "array"):
        check_size(*array.shape[:2])
    return Pixels(name, array)


@contextmanager
def canvas(path: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8, to be filled in the block; then it is the file, of the kind that its suffix says."""
    shape = (*size, 3)
    with written_whole(path) as part:
        if path.suffix.lower() in (".npy", ".ppm"):
            with part.open("wb") as file:
                if path.suffix.lower() == ".npy":
                    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, form)
                else:
                    file.write(f"P6\n{size[1]} {size[0]}\n255\n".encode())
                start = file.tell()
            make_room(part, start + math.prod(shape))
            yield np.memmap(part, np.uint8, "r+", start, shape)
        else:
            out = np.empty(shape, np.uint8)
            yield out
            Image.fromarray(out).save(part, "PNG")
