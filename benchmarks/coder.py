"""Speed and size of the entropy coder on Gaussian latents of a chosen rate, one thread.

    python benchmarks/coder.py [--rates 0.5] [--batches 1 24] [--peer-python PYTHON --peer-dir DIR]

With a Python that has the reference implementation, and the folder of a script `entropy_coder.py` that measures it
(`--case JSON` -> JSON with t_encode_lib, t_decode_lib, t_build_indexes, bytes), both are measured in turn on the same
latents and the ratios are printed. Times include finding the table of every symbol, on both sides.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtr

from lc_bench.coding import segment
from lc_bench.entropy import GaussianPrior
from lc_bench.entropy.gaussian import Gaussian

CHANNELS, HEIGHT, WIDTH = 192, 32, 48  # y of one 768x512 image
SCALE_MIN = 0.11


def entropy(scale: float) -> float:
    """Bits of a rounded N(0, scale)."""
    k = np.arange(-math.ceil(12 * scale) - 2, math.ceil(12 * scale) + 3)
    p = ndtr((0.5 - abs(k)) / scale) - ndtr((-0.5 - abs(k)) / scale)
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


def largest_scale(rate: float) -> float:
    """Scales log-uniform on [0.11, this] have that mean rate, in bits per symbol."""
    low, high = SCALE_MIN * 1.0001, 256.0
    for _ in range(50):
        middle = math.sqrt(low * high)
        mean = np.mean([entropy(s) for s in np.exp(np.linspace(math.log(SCALE_MIN), math.log(middle), 120))])
        low, high = (middle, high) if mean < rate else (low, middle)
    return math.sqrt(low * high)


def latents(batch: int, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Symbols and scales, (batch, C, H, W)."""
    generator = np.random.default_rng(0)
    shape = (batch, CHANNELS, HEIGHT, WIDTH)
    scale = np.exp(generator.uniform(math.log(SCALE_MIN), math.log(largest_scale(rate)), shape)).astype(np.float32)
    symbols = np.rint(scale * generator.standard_normal(shape)).astype(np.int32)
    return torch.from_numpy(symbols), torch.from_numpy(scale)


def once(symbols: torch.Tensor, scale: torch.Tensor, prior: GaussianPrior, tables) -> tuple[float, float, int, float]:  # type: ignore[no-untyped-def]
    """Seconds to encode and to decode, bytes, ideal bytes of the exact scales' table."""
    flat = symbols.flatten(1)
    start = time.perf_counter()
    index = Gaussian(prior, scale).index(scale.shape).flatten(1)
    data, bits = segment.encode([flat], [index], tables)
    middle = time.perf_counter()
    index = Gaussian(prior, scale).index(scale.shape).flatten(1)
    decoder = segment.Decoder(data, tables)
    read = decoder.next(index)
    decoder.finish()
    end = time.perf_counter()
    assert torch.equal(read, flat)
    return middle - start, end - middle, sum(map(len, data)), float(bits.sum()) / 8


def peer(python: str, folder: Path, batch: int, rate: float) -> dict[str, float]:
    case = {"kind": "gc", "shape": [CHANNELS, HEIGHT, WIDTH], "batch": batch, "rate": rate}
    command = [python, "-W", "ignore", str(folder / "entropy_coder.py"), "--case", json.dumps(case)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1])
    indexing = told["t_build_indexes"]["median"]
    return {
        "encode": told["t_encode_lib"]["median"],
        "decode": told["t_decode_lib"]["median"],
        "index": indexing,
        "bytes": told["bytes"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.5, 1.5])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 24])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peer-python")
    parser.add_argument("--peer-dir", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior = GaussianPrior()
    tables = prior.make_tables()
    once(*latents(1, 0.5), prior, tables)  # compiles, and makes the decoding tables
    print(f"{'batch':>5} {'bit/symbol':>10} {'encode':>12} {'decode':>12} {'bytes':>10} {'over ideal':>10}   ratios to the reference")
    for batch in arguments.batches:
        for rate in arguments.rates:
            symbols, scale = latents(batch, rate)
            runs = [once(symbols, scale, prior, tables) for _ in range(arguments.repeats)]
            theirs = peer(arguments.peer_python, arguments.peer_dir, batch, rate) if arguments.peer_python else None
            if theirs:  # once more after it: the machine's speed drifts
                runs += [once(symbols, scale, prior, tables) for _ in range(arguments.repeats)]
            encode, decode = (statistics.median(r[i] for r in runs) for i in (0, 1))
            size, ideal = runs[0][2:]
            per = 1e9 / symbols.numel()
            line = f"{batch:>5} {rate:>10} {encode * per:>9.1f} ns {decode * per:>9.1f} ns {size:>10} {100 * (size / ideal - 1):>9.2f}%"
            if theirs:
                with_index = [(theirs[k] + theirs["index"]) / t for k, t in (("encode", encode), ("decode", decode))]
                line += f"   encode {with_index[0]:.2f}x decode {with_index[1]:.2f}x"
                line += f"   (their indexing not counted: {theirs['encode'] / encode:.2f}x {theirs['decode'] / decode:.2f}x)"
                line += f"   bytes {size / theirs['bytes']:.4f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
