"""How many crops a second the training loader gives, next to what training takes.

    python benchmarks/loader.py [--sets bsds500 kodak] [--workers 0 1 2] [--seconds 4] [--train mbt2018-mean]

256 x 256 crops in batches of 16, as run=train draws them; decoded each time, and decoded once (data.cache=true). Below, of one process:
the share of each stage of a crop. --train: images a second that training steps of this model take on this machine, loading apart.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

import lc_bench
from lc_bench.config import compose, make
from lc_bench.data import ImageSet
from lc_bench.data.crops import Crops, training_loader
from lc_bench.data.images import read_pixels, to_tensor
from lc_bench.losses import RateDistortion

CROP, BATCH = 256, 16


def rate_of(images: ImageSet, workers: int, seconds: float) -> float:
    """Crops a second, on their device as floats."""
    source = iter(training_loader(images, CROP, BATCH, seed=0, step=0, workers=workers))
    device = torch.device("cpu")
    for _ in range(2 + 2 * workers):  # workers start, queues fill
        next(source).to(device)
    rates = []
    for _ in range(round(seconds)):  # the best of several seconds: others use this machine as well
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < 1:
            count += len(next(source).to(device).x)
        rates.append(count / (time.perf_counter() - start))
    return max(rates)


def milliseconds(work: Callable[[int], object], count: int) -> float:
    start = time.perf_counter()
    for i in range(count):
        work(i)
    return 1000 * (time.perf_counter() - start) / count


def stages(images: ImageSet, count: int = 60) -> dict[str, float]:
    """Milliseconds a crop: decoding the file, and the whole crop from a decoded set."""
    paths = images.paths
    pixels = np.zeros((CROP, CROP, 3), np.uint8)
    return {
        "decode": milliseconds(lambda i: read_pixels(paths[i % len(paths)]), count),
        "to tensor": milliseconds(lambda _: to_tensor(pixels[:, ::-1]), count),
        "whole crop": milliseconds(lambda i: Crops(images, CROP, seed=0)[i], count),
    }


def training_rate(name: str, steps: int = 3) -> float:
    """Images a second of forward, backward and Adam in fp32."""
    model = lc_bench.build(name, quality=3).train()
    loss, optimizer = RateDistortion("mse", 0.0067), torch.optim.Adam(model.parameters(), 1e-4)
    x = torch.rand(BATCH, 3, CROP, CROP)

    def step(_: int) -> None:
        optimizer.zero_grad()
        out = model(x)
        loss(x, out.x_hat, out.bits, CROP * CROP).loss.backward()
        optimizer.step()

    step(0)
    return 1000 * BATCH / milliseconds(step, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", default=["bsds500", "kodak"])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--train")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'crops a second':>24} " + " ".join(f"{n:>5} workers" for n in arguments.workers))
    for name in arguments.sets:
        images = make(compose(f"data={name}").data)
        for cache in (False, True):
            rates = [rate_of(replace(images, cache=cache), n, arguments.seconds) for n in arguments.workers]
            print(f"{name + (', decoded once' if cache else ''):>24} " + " ".join(f"{rate:>13.0f}" for rate in rates))
        print(f"{'ms':>24} " + ", ".join(f"{stage} {value:.2f}" for stage, value in stages(images).items()))
    if arguments.train:
        torch.set_num_threads(os.cpu_count() or 1)
        print(f"training {arguments.train}: {training_rate(arguments.train):.1f} images a second")


if __name__ == "__main__":
    main()
