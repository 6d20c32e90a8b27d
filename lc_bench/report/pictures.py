"""What codecs made of some samples, kept in a run's folder, so that reports made later show it too.

pictures/index.json says which file is which; images are WebP of high quality, clouds .npy of the points that a page draws.
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
from . import solids

MOST_PICTURES = 12  # samples; about 100 kB for each codec, and the page has to open on a phone
MOST_BYTES = 12_000_000  # of all pictures of a page
FOLDER = "pictures"

Key = tuple[str, float, str]  # codec, level, image; the original has no codec
Picture = Tensor | bytes  # (3, H, W) uint8 or points (N, 3); WebP of an earlier run as it lies on disk


def save(output: Path, decoded: Mapping[Key, Picture], originals: Mapping[str, Picture]) -> None:
    """Write those that a page shows, and which they are."""
    names = list(originals)[:MOST_PICTURES]
    every = {("", 0.0, name): originals[name] for name in names} | {k: v for k, v in decoded.items() if k[2] in names}
    if not every:
        return
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for (codec, level, image), picture in every.items():
        points = isinstance(picture, Tensor) and picture.ndim == 2
        # Names of codecs and images may hold anything: the file's is what can be read of them, and a hash.
        plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{image}-{codec or 'original'}")
        sha = hashlib.sha256(json.dumps([codec, level, image]).encode()).hexdigest()[:8]
        file = f"{plain[:80]}-{sha}.{'npy' if points else 'webp'}"
        (folder / file).write_bytes(_npy(picture) if points else webp(picture))  # type: ignore[arg-type]
        index.append({"codec": codec, "level": level, "image": image, "file": file})
    (folder / "index.json").write_text(json.dumps(index, indent=1))


def load(run: Path) -> tuple[dict[Key, Picture], dict[str, Picture]]:
    """Decoded and originals of a run's folder; nothing where it left none."""
    folder = run / FOLDER
    if not (folder / "index.json").is_file():
        return {}, {}
    decoded: dict[Key, Picture] = {}
    originals: dict[str, Picture] = {}
    try:
        for entry in json.loads((folder / "index.json").read_text()):
            data = (folder / Path(entry["file"]).name).read_bytes()
            picture = torch.from_numpy(np.load(io.BytesIO(data), allow_pickle=False)) if entry["file"].endswith(".npy") else data
            if entry["codec"]:
                decoded[str(entry["codec"]), float(entry["level"]), str(entry["image"])] = picture
            else:
                originals[str(entry["image"])] = picture
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: pictures cannot be read ({type(error).__name__}: {error}). Delete the folder to do without") from None
    return decoded, originals


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


def webp(picture: Picture) -> bytes:
    """(3, H, W) uint8 -> WebP of high quality."""
    if isinstance(picture, bytes):
        return picture
    return bytes(imagecodecs.webp_encode(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()), level=93, lossless=False))


def _npy(points: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, solids.some(points).astype(np.float32))
    return file.getvalue()


def _uri(picture: Picture) -> str:
    return "data:image/webp;base64," + base64.b64encode(webp(picture)).decode()
