"""Do streams cross from one Python, torch or kind of processor to another? Every model of conf/model, bit for bit.

    python benchmarks/exchange.py write FOLDER      (here)
    python benchmarks/exchange.py read FOLDER       (there, and the other way)

Writes a small model of every architecture from a seed, and the models that ship at full size; an image of 3 sizes, whole and in
tiles, at several levels where there are any; a cloud. Each stream lies beside a digest of the latents that were sent. Reading
counts what is refused, and what is read but differs. ATEN_CPU_CAPABILITY=default, avx2 or avx512 chooses among torch's kernels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import lc_bench
from lc_bench.config import choices, compose
from lc_bench.errors import UserError
from lc_bench.models import PointCode, TransformCode

SMALL_IMAGE = {"N": 8, "M": 12, "psi": 8, "groups": [2, 4, 6]}
SMALL_CLOUD = {"num_points": 64, "hidden": 8, "widths": [8, 8, 8, 8, 192]}
SHIPPED = ("lite", "sfu2024-pcc-rec-pointnet2-ssg")
SIZES = ((64, 64), (72, 100), (200, 130))
TILE = 64


def models() -> Iterator[tuple[str, TransformCode]]:
    for name in choices("model"):
        keys = compose(f"model={name}").model
        small = SMALL_CLOUD if "-pcc-" in name else SMALL_IMAGE
        yield name, lc_bench.build(name, **{key: value for key, value in small.items() if key in keys})
    for name in SHIPPED:
        yield f"{name}-shipped", lc_bench.load(name)


def image(height: int, width: int) -> Tensor:
    """(1, 3, height, width) of whole numbers over 256, so that no rounding is anybody's choice."""
    row, column = torch.arange(height)[:, None], torch.arange(width)
    texture = (row * row * 31 + column * column * 17 + row * column * 7) % 64
    planes = [(row * 2 + column) % 128, (row + column * 3) % 160, (row * column) % 96]
    return torch.stack([(plane + texture).float() / 256 for plane in planes])[None]


def cloud(points: int) -> Tensor:
    """(1, points, 3) within the unit cube, multiples of 1/512."""
    place = torch.arange(3 * points)
    return ((place * place * 31 + place * 7919) % 1021 - 510).float().view(1, points, 3) / 1024


def jobs(model: TransformCode) -> Iterator[tuple[str, Tensor, float | None, int]]:
    """What is coded with a model: a name, the input, the level and the side of the tiles."""
    if isinstance(model, PointCode):
        yield "cloud", cloud(model.points if model.fixed else 300), None, 0
        return
    for height, width in SIZES:
        for level in (0.0, 3.5, 7.0) if model.variable else (None,):
            yield f"{height}x{width}-{level}", image(height, width), level, 0
    yield "tiles", image(*SIZES[-1]), None, TILE


def told(latents: dict[str, list[Tensor]]) -> str:
    """SHA-256 of latents, as both sides have them."""
    sha = hashlib.sha256()
    for name in sorted(latents):
        for part in latents[name]:
            sha.update(part.cpu().double().contiguous().numpy().astype("<f8").tobytes())
    return sha.hexdigest()


def of_tiles(model: TransformCode, stream: bytes) -> str:
    """SHA-256 of the latents of an image in tiles, as g_s gets them."""
    lc_bench.decompress(model, [stream])  # measures how far g_s sees, once
    sha = hashlib.sha256()
    hook = model.g_s.register_forward_pre_hook(lambda _, inputs: sha.update(inputs[0].contiguous().numpy().astype("<f4").tobytes()))
    lc_bench.decompress(model, [stream])
    hook.remove()
    return sha.hexdigest()


def write(folder: Path) -> None:
    index = []
    for label, model in models():
        for job, x, level, tile in jobs(model):
            name = f"{label}-{job}"
            if tile:
                (stream,) = lc_bench.compress(model, x, level, tile)
                digest = of_tiles(model, stream)
            else:
                coded = model.encode(x, level=level)
                (stream,), digest = coded.streams, told(coded.latents)
            (folder / f"{name}.lc").write_bytes(stream)
            index.append({"name": name, "model": label, "latents": digest, "tiles": bool(tile)})
    (folder / "index.json").write_text(json.dumps({"where": where(), "streams": index}, indent=1))
    print(f"{where()}: wrote {len(index)} streams")


def read(folder: Path) -> None:
    content = json.loads((folder / "index.json").read_text())
    known = dict(models())
    refused, other = [], []
    for entry in content["streams"]:
        model, stream = known[entry["model"]], (folder / f"{entry['name']}.lc").read_bytes()
        try:
            digest = of_tiles(model, stream) if entry["tiles"] else told(model.decode([stream])[1])
        except UserError as error:
            refused.append(f"{entry['name']}: {error}")
            continue
        if digest != entry["latents"]:
            other.append(f"{entry['name']}: other latents")
    for line in (*refused, *other):
        print(line)
    count = len(content["streams"])
    print(f"{content['where']} -> {where()}: of {count} streams {len(refused)} refused, {len(other)} decoded otherwise")
    raise SystemExit(bool(refused or other))


def where() -> str:
    return f"Python {platform.python_version()}, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=("write", "read"))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    (write if given.action == "write" else read)(given.folder)
