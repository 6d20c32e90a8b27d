"""What codecs made of some samples, kept in a run's folder, so that reports made later show it too.

pictures/index.json says which file is which; images are WebP of high quality (PNG where WebP cannot be), clouds .npy of the points that a
page draws. A folder may be somebody else's: what is read from one is a picture that lies in it, or nothing.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import UserError
from ..ops.interleaved import interleaved
from ..ops.whole import written_whole
from . import solids
from .names import file_name, own_folder

MOST_PICTURES = 12  # samples; about 100 kB for each codec, and the page has to open on a phone
MOST_BYTES = 12_000_000  # of all pictures of a page
FOLDER = "pictures"

Key = tuple[str, float, str]  # codec, level, image; the original has no codec
Picture = Tensor | bytes  # (3, H, W) uint8 or points (N, 3); WebP or PNG of an earlier run as it lies on disk
WEBP_LONGEST = 16383  # pixels of a side


def prepared(decoded: Mapping[Key, Picture], originals: Mapping[str, Picture]) -> tuple[dict[Key, Picture], dict[str, Picture], list[str]]:
    """Those that a page shows, images compressed; and what is to be said of those that cannot be."""
    notes: list[str] = []

    def ready(what: str, picture: Picture) -> Picture | None:
        if isinstance(picture, Tensor) and picture.ndim == 2:
            return picture
        try:
            return compressed(picture)
        except ValueError as error:
            notes.append(f"no picture of {what}: {error}")
            return None

    first = {name: ready(name, originals[name]) for name in list(originals)[:MOST_PICTURES]}
    own = {name: picture for name, picture in first.items() if picture is not None}
    made = {key: ready(f"{key[2]}, {key[0]}", picture) for key, picture in decoded.items() if key[2] in own}
    return {key: picture for key, picture in made.items() if picture is not None}, own, notes


def save(output: Path, decoded: Mapping[Key, Picture], originals: Mapping[str, Picture]) -> None:
    """Write those that a page shows, and which they are. ValueError for an image that cannot be compressed, see `prepared`."""
    names = list(originals)[:MOST_PICTURES]
    every = {("", 0.0, name): originals[name] for name in names} | {k: v for k, v in decoded.items() if k[2] in names}
    if not every:
        return
    folder = own_folder(output / FOLDER)
    index = []
    for (codec, level, image), picture in every.items():
        data = _npy(picture) if isinstance(picture, Tensor) and picture.ndim == 2 else compressed(picture)
        # Names of codecs and images may hold anything: the file's is what can be read of them, and a hash.
        sha = hashlib.sha256(json.dumps([codec, level, image]).encode()).hexdigest()[:8]
        file = file_name(f"{image}-{codec or 'original'}", f"-{sha}.{kind_of(data)}")
        with written_whole(folder / file) as part:
            part.write_bytes(data)
        index.append({"codec": codec, "level": level, "image": image, "file": file})
    with written_whole(folder / "index.json") as part:
        part.write_text(json.dumps(index, indent=1))


def load(run: Path) -> tuple[dict[Key, Picture], dict[str, Picture]]:
    """Decoded and originals of a run's folder; nothing where it left none. UserError for what is no picture, or is a link."""
    folder = run / FOLDER
    if not (folder / "index.json").is_file():
        return {}, {}
    decoded: dict[Key, Picture] = {}
    originals: dict[str, Picture] = {}
    try:
        for entry in json.loads(_bytes_of(folder / "index.json", run)):
            picture = _picture(_bytes_of(folder / Path(entry["file"]).name, run))
            if entry["codec"]:
                decoded[str(entry["codec"]), float(entry["level"]), str(entry["image"])] = picture
            else:
                originals[str(entry["image"])] = picture
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        raise UserError(f"{folder}: pictures cannot be read ({type(error).__name__}: {error}). Delete the folder to do without") from None
    return decoded, originals


def _bytes_of(file: Path, run: Path) -> bytes:
    """ValueError for what is no plain file of the run's own folder: a link might lead to any file of this machine."""
    if not file.resolve().is_relative_to(run.resolve()):
        raise ValueError(f"{file.name} is a link that leads out of the folder")
    if not file.is_file():
        raise ValueError(f"{file.name} is not a file")
    return file.read_bytes()


def _picture(data: bytes) -> Picture:
    """WebP or PNG as it is, or points (N, 3) float32; ValueError for anything else."""
    if kind_of(data) != "npy":
        return data
    if not data.startswith(b"\x93NUMPY\x01\x00"):
        raise ValueError("a file that is neither WebP nor PNG nor points")
    # Not by np.load: it would reserve whatever the array's own header asks for.
    file = io.BytesIO(data)
    np.lib.format.read_magic(file)
    shape, by_columns, kind = np.lib.format.read_array_header_1_0(file)
    if kind != np.dtype("<f4") or by_columns or len(shape) != 2 or shape[1] != 3 or not 1 <= shape[0] <= solids.MOST_POINTS:
        raise ValueError(f"an array {kind} {shape}, no points to draw")
    points = np.frombuffer(data, kind, shape[0] * 3, file.tell()).reshape(shape)
    if not np.isfinite(points).all():
        raise ValueError("points that are not finite")
    return torch.from_numpy(points.copy())


def kind_of(data: bytes) -> str:
    """The ending of a picture's file, by how it begins."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "png" if data.startswith(b"\x89PNG\r\n\x1a\n") else "npy"


def for_page(decoded: Mapping[Key, Picture], originals: Mapping[str, Picture], records: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """By image, the original first: codec, caption and data URI. The figures beside them are of the true pixels."""
    shown: dict[str, list[dict[str, Any]]] = {}
    total = 0
    for name in list(originals)[:MOST_PICTURES]:
        items = [{"codec": "", "caption": "original", "uri": _uri(originals[name])}]
        for (codec, level, image), picture in decoded.items():
            rows = records[(records.codec == codec) & (records.level == level) & (records.image == name)]
            if image == name and len(rows):
                row = rows.iloc[0]
                caption = f"{codec}, {row.bpp:.3f} bpp, {row['psnr-rgb']:.2f} dB"
                items.append({"codec": codec, "caption": caption, "uri": _uri(picture)})
        total += sum(len(item["uri"]) for item in items)
        if total > MOST_BYTES and shown:
            break
        shown[name] = items
    return shown


def tensors(pictures: Mapping[Any, Picture]) -> dict[Any, Tensor]:
    """Clouds, which are never kept as bytes."""
    return {key: picture for key, picture in pictures.items() if isinstance(picture, Tensor)}


def compressed(picture: Picture) -> bytes:
    """(3, H, W) uint8 -> WebP of high quality, or PNG where a side is too long for WebP or its encoder refuses.

    ValueError, with the encoder's words, if neither can be made.
    """
    if isinstance(picture, bytes):
        return picture
    pixels = interleaved(picture)
    refused = f"{pixels.shape[1]}x{pixels.shape[0]} pixels"
    encoders = [lambda: imagecodecs.png_encode(pixels)]
    if max(pixels.shape[:2]) <= WEBP_LONGEST:
        encoders.insert(0, lambda: imagecodecs.webp_encode(pixels, level=93, lossless=False))
    for encode in encoders:
        try:
            return bytes(encode())
        except (ValueError, RuntimeError) as error:
            refused = str(error)
    raise ValueError(refused)


def _npy(points: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, solids.some(points).astype(np.float32))
    return file.getvalue()


def _uri(picture: Picture) -> str:
    data = compressed(picture)
    return f"data:image/{kind_of(data)};base64,{base64.b64encode(data).decode()}"
