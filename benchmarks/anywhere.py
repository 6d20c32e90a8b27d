"""Does a stream decode under other settings than it was written with? Every model of conf/model, published size, bit for bit.

    python benchmarks/anywhere.py IMAGE... [--models NAME...] [--quality 3]

Weights are random and widened, so that symbols and scales of all sizes come up. What is written one image at a time, on one
thread in float32, is read in one batch on two threads without oneDNN; what is written in one batch with bfloat16 transforms
is read one by one in float32; with a GPU, what the CPU writes is read there, and the other way. Latents are compared bit for bit.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

import lc_bench
from lc_bench.config import choices
from lc_bench.data.images import read_image, to_unit
from lc_bench.models import Coded, TransformCode


def widen(model: TransformCode) -> None:
    """Untrained networks give latents near 0 and scales that are all alike: enlarge what comes out of the last layers."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and name.startswith(("codec", "g_a")) and module.bias is not None:
                module.bias.add_(torch.randn(module.bias.shape, generator=generator) * 0.5)


@contextmanager
def settings(threads: int, onednn: bool, bf16: bool) -> Iterator[None]:
    torch.set_num_threads(threads)
    with torch.backends.mkldnn.flags(enabled=onednn), torch.autocast("cpu", torch.bfloat16, enabled=bf16), torch.no_grad():
        yield


def same(written: list[Coded], read: list[dict[str, list[Tensor]]]) -> int:
    """Samples with a latent that differs."""
    bad = 0
    for coded, latents in zip(written, read, strict=True):
        bad += any(not torch.equal(a.cpu(), b.cpu()) for k, parts in coded.latents.items() for a, b in zip(parts, latents[k], strict=True))
    return bad


def singles(coded: Coded) -> list[Coded]:
    """A batch as its samples."""
    parts = range(len(coded.streams))
    return [Coded([coded.streams[i]], {k: [p[i : i + 1] for p in v] for k, v in coded.latents.items()}, {}, []) for i in parts]


def read_batch(model: TransformCode, streams: list[bytes]) -> list[dict[str, list[Tensor]]]:
    _, latents = model.decode(streams)
    return [{k: [p[i : i + 1] for p in parts] for k, parts in latents.items()} for i in range(len(streams))]


def check(name: str, quality: int, xs: Tensor) -> tuple[int, int, int]:
    """Streams, mismatches, bytes."""
    sender = lc_bench.build(name, quality=quality, seed=1)
    if name == "lite":
        sender = lc_bench.load(name)
    else:
        widen(sender)
    receiver = copy.deepcopy(sender)
    # Synthesis does not touch latents, and takes most of the time.
    receiver.synthesise = lambda y_hat, size, rung: y_hat.new_zeros(len(y_hat), 3, *size)  # type: ignore[method-assign]
    with settings(1, True, False):
        alone = [sender.encode(x[None]) for x in xs]
    with settings(2, False, False):
        bad = same(alone, read_batch(receiver, [c.streams[0] for c in alone]))
    with settings(2, True, True):
        together = singles(sender.encode(xs))
    with settings(1, True, False):
        bad += same(together, [read_batch(receiver, c.streams)[0] for c in together])
    count = 2 * len(xs)
    if torch.cuda.is_available():
        with settings(1, True, False):
            bad += same(alone, read_batch(receiver.cuda(), [c.streams[0] for c in alone]))
            written = singles(sender.cuda().encode(xs.cuda()))
            bad += same(written, [read_batch(receiver.cpu(), c.streams)[0] for c in written])
        count += 2 * len(xs)
    return count, bad, sum(len(c.streams[0]) for c in alone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--models", nargs="+", default=choices("model"))
    parser.add_argument("--quality", type=int, default=3)
    parser.add_argument("--batch", type=int, default=6)
    arguments = parser.parse_args()
    xs = [to_unit(read_image(path)) for path in arguments.images]
    xs = [x if x.shape[1] < x.shape[2] else x.transpose(1, 2) for x in xs]
    for name in arguments.models:
        start = time.perf_counter()
        rows = [check(name, arguments.quality, torch.stack(xs[i : i + arguments.batch])) for i in range(0, len(xs), arguments.batch)]
        count, bad, size = map(sum, zip(*rows, strict=True))
        took = time.perf_counter() - start
        print(f"{name:32} {count:4} streams, {bad} read differently   ({size / len(xs):9.0f} bytes each, {took:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
