"""Mutated files for every reader: each is read or refused in one line, in bounded memory; anything else is a fault.

Seeds are made here, one or more of each kind of file; a mutation flips bits, cuts, doubles, overwrites with numbers that stand for
sizes, or joins two seeds. A file that a program crashes over ends this one too, and stays in --keep under its number.

    python benchmarks/fuzz_files.py --count 2000 --reader png tiff

Point clouds: add a Reader to READERS, with `seeds` that gives whole files and `read` that reads one from a path.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import tifffile
from PIL import Image

from lc_bench.data.images import read_pixels
from lc_bench.data.pixels import open_pixels
from lc_bench.errors import UserError
from lc_bench.ops.notices import hide_known

SECONDS = 10.0  # of one file
MEBIBYTES = 1024  # more than before
SIZES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)


@dataclass(frozen=True)
class Reader:
    """seeds(): whole files of one kind, by the suffix of their names; read(path): as the product reads one."""

    seeds: Callable[[], dict[str, bytes]]
    read: Callable[[Path], object]
    seal: Callable[[bytes], bytes] | None = None  # makes checksums right again, so that damage gets past them


def picture(height: int = 40, width: int = 56, channels: int = 3) -> np.ndarray:
    """(H, W, C) uint8: ramps and noise."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(channels).integers(0, 30, (height, width, channels))
    return (rows[..., None] * 2 + columns[..., None] * 2 + noise).astype(np.uint8)


def _saved(form: str, mode: str = "RGB", **options: object) -> bytes:
    """By Pillow, with EXIF where the form has it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    image = Image.fromarray(picture()).convert(mode)
    image.save(out, form, **({"exif": exif} if form in ("PNG", "JPEG", "WEBP", "AVIF") else {}), **options)  # type: ignore[arg-type]
    return out.getvalue()


def _tiff(values: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, values, **options)  # type: ignore[arg-type]
    return out.getvalue()


def png_seeds() -> dict[str, bytes]:
    import imagecodecs

    deep = picture().astype(np.uint16) * 257
    plain = io.BytesIO()
    Image.fromarray(picture()).save(plain, "PNG")
    deep_grey = imagecodecs.png_encode(np.ascontiguousarray(deep[..., 0]))
    modes = {f"{mode}.png": _saved("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "1")}
    return {"plain.png": plain.getvalue(), "deep.png": imagecodecs.png_encode(deep), "deep_grey.png": deep_grey} | modes


def sealed_png(data: bytes) -> bytes:
    """With the checksum of every chunk that is found made anew."""
    out, place = bytearray(data), 8
    while place + 12 <= len(out):
        end = place + 8 + int.from_bytes(out[place : place + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(out)


def jpeg_seeds() -> dict[str, bytes]:
    return {
        "rgb.jpg": _saved("JPEG"), "grey.jpg": _saved("JPEG", "L"), "cmyk.jpg": _saved("JPEG", "CMYK"),
        "progressive.jpg": _saved("JPEG", progressive=True), "full.jpg": _saved("JPEG", subsampling=0),
    }  # fmt: skip


def tiff_seeds() -> dict[str, bytes]:
    deep = picture().astype(np.uint16) * 257
    kinds: dict[str, tuple[np.ndarray, dict[str, object]]] = {
        "rgb": (picture(), {"photometric": "rgb"}),
        "deep": (deep, {"photometric": "rgb", "compression": "deflate", "predictor": True}),
        "planes": (np.ascontiguousarray(deep.transpose(2, 0, 1)), {"photometric": "rgb", "planarconfig": "separate", "compression": "lzw"}),
        "tiles": (deep, {"photometric": "rgb", "tile": (16, 16), "compression": "zstd"}),
        "twelve": (np.ascontiguousarray(deep[..., 0]) >> 4, {"photometric": "minisblack", "bitspersample": 12}),
        "white": (np.ascontiguousarray(deep[..., 0]), {"photometric": "miniswhite", "rowsperstrip": 5}),
        "inks": (np.concatenate([deep, deep[..., :1]], 2), {"photometric": "separated"}),
        "big": (deep, {"photometric": "rgb", "bigtiff": True, "byteorder": ">"}),
    }
    pillow = {f"{mode}.tif": _saved("TIFF", mode) for mode in ("RGB", "L", "1", "P", "CMYK", "RGBA", "YCbCr", "LAB")}
    return {f"{name}.tif": _tiff(values, **options) for name, (values, options) in kinds.items()} | pillow


def npy_seeds() -> dict[str, bytes]:
    def saved(array: np.ndarray) -> bytes:
        out = io.BytesIO()
        np.save(out, array)
        return out.getvalue()

    return {
        "u1.npy": saved(picture()),
        "u2.npy": saved(picture()[..., 0].astype(np.uint16)),
        "f4.npy": saved(picture().astype(np.float32) / 255),
        "f2.npy": saved((picture(channels=1) / 255).astype(np.float16)),
    }


def read_array(path: Path) -> object:
    pixels = open_pixels(path)
    return pixels.read(0, 0, *pixels.size)


READERS: dict[str, Reader] = {
    "png": Reader(png_seeds, read_pixels, sealed_png),
    "jpeg": Reader(jpeg_seeds, read_pixels),
    "avif": Reader(lambda: {"rgb.avif": _saved("AVIF"), "rgba.avif": _saved("AVIF", "RGBA")}, read_pixels),
    "tiff": Reader(tiff_seeds, read_pixels),
    "npy": Reader(npy_seeds, read_array),
    "webp": Reader(lambda: {"a.webp": _saved("WEBP"), "b.webp": _saved("WEBP", "RGBA", lossless=True)}, read_pixels),
    "ppm": Reader(lambda: {"a.ppm": _saved("PPM"), "b.pgm": _saved("PPM", "L"), "c.ppm": _saved("PPM", "1")}, read_pixels),
    "bmp": Reader(lambda: {"a.bmp": _saved("BMP"), "b.bmp": _saved("BMP", "P")}, read_pixels),
    "jp2": Reader(lambda: {"a.jp2": _saved("JPEG2000"), "b.jp2": _saved("JPEG2000", "L")}, read_pixels),
}


def mutated(random: Random, seeds: list[bytes]) -> bytes:
    """One of the files with one to six faults in it."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        # Headers are short, and half of the faults go there.
        reach = min(len(data), 400) if random.random() < 0.5 else len(data)
        place = random.randrange(max(reach, 1))
        kind = random.randrange(8)
        if kind == 0:
            data[place : place + 1] = bytes([random.randrange(256)])
        elif kind == 1 and data:
            data[min(place, len(data) - 1)] ^= 1 << random.randrange(8)
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            del data[place : place + random.randint(1, 64)]
        elif kind == 4:
            data[place:place] = data[place : place + random.randint(1, 64)]
        elif kind == 5:
            width = random.choice((1, 2, 4, 8))
            number = random.choice(SIZES) & ((1 << 8 * width) - 1)
            data[place : place + width] = number.to_bytes(width, random.choice(("little", "big")))
        elif kind == 6:
            data[place : place + random.randint(1, 200)] = bytes(random.randint(1, 200))
        else:
            other = random.choice(seeds)
            data[place:] = other[random.randrange(len(other)) :]
    return bytes(data)


def outcome(reader: Reader, path: Path) -> str:
    """read | refused | what was raised instead, or is wrong with what a refusal says."""
    try:
        reader.read(path)
    except UserError as error:
        told = str(error)
        return "refused" if "\n" not in told and path.name in told else f"not one line with the name: {told!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(name: str, count: int, seed: int, folder: Path, first: int = 0) -> tuple[Counter[str], list[str], float, float]:
    """Outcomes, faults, seconds of the slowest, MiB more than before. The file under test stays in the folder if the process ends."""
    reader = READERS[name]
    made = reader.seeds()
    for file, data in made.items():
        (folder / file).write_bytes(data)
        found = outcome(reader, folder / file)
        assert found == "read", f"{name}: the seed {file} is {found}"
    suffixes = sorted({Path(file).suffix for file in made})
    outcomes: Counter[str] = Counter()
    bad, slowest, before = [], 0.0, peak()
    for number in range(first, first + count):
        random = Random(f"{seed} {name} {number}")
        suffix = random.choice(suffixes)
        path = folder / f"{name}-{number}{suffix}"
        data = mutated(random, [data for file, data in made.items() if file.endswith(suffix)])
        path.write_bytes(reader.seal(data) if reader.seal and random.random() < 0.7 else data)
        start, memory = time.process_time(), peak()
        found = outcome(reader, path)
        seconds, grown = time.process_time() - start, peak() - memory
        outcomes[found if found in ("read", "refused") else "other"] += 1
        slowest = max(slowest, seconds)
        if found not in ("read", "refused") or seconds > SECONDS or grown > MEBIBYTES:
            bad.append(f"{path.name}: {found}, {seconds:.1f} s, {grown:.0f} MiB")
        else:
            path.unlink()
    return outcomes, bad, slowest, peak() - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="files for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file, to go on or to see one again")
    parser.add_argument("--reader", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--keep", type=Path, help="folder for files that ended in neither pixels nor one line")
    arguments = parser.parse_args()
    hide_known()
    failed = False
    print("| reader | read | refused | other | slowest | memory |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.reader:
            outcomes, bad, slowest, grown = run(name, arguments.count, arguments.seed, folder, arguments.first)
            row = [name, *(str(outcomes[c]) for c in ("read", "refused", "other")), f"{1000 * slowest:.0f} ms", f"{grown:.0f} MiB"]
            print(f"| {' | '.join(row)} |", flush=True)
            for line in bad:
                print(line, flush=True)
            failed |= bool(bad) or grown > MEBIBYTES
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
