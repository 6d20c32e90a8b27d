"""Seconds of the shipped model on one 768x512 image, to bytes and back, one thread.

    python benchmarks/lite.py IMAGE [--weights PATH] [--peer-python PYTHON --peer-dir DIR]

With a Python that has the reference implementation, and the folder of a script `models_speed.py` that measures it on Kodak
images, its mbt2018-mean is measured in the same run, and the ratio is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import torch
from torch import Tensor

import lc_bench
from lc_bench.data.images import read_image, to_unit
from lc_bench.models import TransformCode

REPEATS = 5


def seconds(model: TransformCode, x: Tensor, level: float) -> tuple[float, float, int]:
    """Medians of encoding and decoding, and bytes."""
    encode, decode, size = [], [], 0
    for _ in range(REPEATS + 1):  # the first compiles and makes tables
        start = time.perf_counter()
        streams = lc_bench.compress(model, x, level)
        middle = time.perf_counter()
        lc_bench.decompress(model, streams)
        encode.append(middle - start)
        decode.append(time.perf_counter() - middle)
        size = len(streams[0])
    return statistics.median(encode[1:]), statistics.median(decode[1:]), size


def peer(python: str, folder: Path, image: Path) -> float:
    """Encode plus decode of the reference's mbt2018-mean at quality 3, the median of its repeats. image: kodimNN.png."""
    number = int(image.stem[-2:])
    command = [python, "-W", "ignore", str(folder / "models_speed.py"), "--model", "mbt2018-mean", "--quality", "3"]
    command += ["--images", str(number), "--kodak", str(image.parent)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = json.loads(told[told.index("{") :])["rows"]
    return statistics.median(row["compress"]["wall"] + row["decompress"]["wall"] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--levels", type=float, nargs="+", default=[0, 2, 3.5, 5, 7])
    parser.add_argument("--peer-python")
    parser.add_argument("--peer-dir", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = lc_bench.load("lite", weights=arguments.weights)
    x = to_unit(read_image(arguments.image))[None]
    print(f"{x.shape[-1]}x{x.shape[-2]}\n{'level':>5} {'encode':>8} {'decode':>8} {'both':>8} {'bytes':>8}")
    theirs = peer(arguments.peer_python, arguments.peer_dir, arguments.image) if arguments.peer_python else None
    for level in arguments.levels:
        encode, decode, size = seconds(model, x, level)
        ratio = f"   {(encode + decode) / theirs:.2f} of the reference's mbt2018-mean ({theirs:.2f} s)" if theirs else ""
        print(f"{level:>5} {encode:>7.3f}s {decode:>7.3f}s {encode + decode:>7.3f}s {size:>8}{ratio}", flush=True)


if __name__ == "__main__":
    main()
