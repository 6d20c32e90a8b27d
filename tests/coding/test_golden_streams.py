"""Streams that version 1 of the format wrote have to be read for ever: tests/data/v1.json.

Weights and images come from whole-number formulas, so that nothing depends on a random generator. What networks of float32 do
afterwards is compared with a tolerance; everything that was coded, bit for bit.

    python tests/coding/test_golden_streams.py     (writes the file of a new version; never over one that is there)
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lc_bench
from lc_bench.coding.container import VERSION
from lc_bench.entropy import FactorizedPrior
from lc_bench.models import TransformCode

DATA = Path(__file__).parent.parent / "data"
SIZE = (60, 100)
# Model, side of tiles, level.
KINDS: dict[str, tuple[str, int, float | None]] = {
    "whole": ("bmshj2018-factorized", 0, None),
    "context": ("mbt2018", 0, None),
    "tiles": ("mbt2018-mean", 64, None),
    "level": ("mbt2018-mean-vbr", 0, 4.5),
}


def numbers(count: int, first: int) -> Tensor:
    """(count,) float32 in -1 .. 1, multiples of 2^-10."""
    place = torch.arange(first, first + count, dtype=torch.int64)
    return ((place * place * 31 + place * 7919) % 2039 - 1019).float() / 1024


@torch.no_grad()
def filled(name: str, seed: int = 0) -> TransformCode:
    model = lc_bench.build(name, seed=seed, N=8, M=12)
    for module in model.modules():
        if isinstance(module, FactorizedPrior):
            module.median.zero_()
            for place, bias in enumerate(module.biases):
                bias.copy_(numbers(bias.numel(), place).view(bias.shape) / 2)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            inputs = max(1, module.weight.numel() // len(module.bias))
            scale = 2.0 ** -((inputs.bit_length() - 1) // 2)  # about one over its root
            module.weight.copy_(numbers(module.weight.numel(), 1).view(module.weight.shape) * 2 * scale)
            module.bias.copy_(numbers(len(module.bias), 5))
    [module for module in model.g_a.modules() if isinstance(module, nn.Conv2d)][-1].weight.mul_(8)
    last = [module for module in model.g_s.modules() if isinstance(module, nn.ConvTranspose2d)][-1]
    last.weight.mul_(2.0**-31)  # its inputs reach 10^7: gains of GDN that nobody trained
    last.bias.fill_(0.5)
    return model


def seen_by_synthesis(model: TransformCode, stream: bytes) -> tuple[str, Tensor]:
    """SHA-256 of what was decoded, as g_s gets it; and x_hat."""
    lc_bench.decompress(model, [stream])  # measures how far g_s sees, once
    sha = hashlib.sha256()
    hook = model.g_s.register_forward_pre_hook(lambda _, inputs: sha.update(inputs[0].contiguous().numpy().astype("<f4").tobytes()))
    x_hat = lc_bench.decompress(model, [stream])
    hook.remove()
    return sha.hexdigest(), x_hat


def image() -> Tensor:
    """(1, 3, 60, 100): ramps with texture."""
    ramp = torch.arange(SIZE[0])[:, None] * 3 + torch.arange(SIZE[1])
    return ((ramp % 128)[None] / 160 + 0.1 + numbers(3 * SIZE[0] * SIZE[1], 0).view(3, *SIZE) / 16)[None]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_streams_of_version_1_are_read(kind: str, seed: int) -> None:
    """seed: of weights that are all overwritten; nothing may depend on it."""
    golden = json.loads((DATA / "v1.json").read_text())[kind]
    digest, x_hat = seen_by_synthesis(filled(KINDS[kind][0], seed), bytes.fromhex(golden["stream"]))
    assert digest == golden["sha256"]
    assert x_hat.shape[2:] == SIZE
    pixels = x_hat[0, :, ::20, ::25].flatten()
    assert torch.allclose(pixels, torch.tensor(golden["pixels"]), atol=1e-4)  # fp32 sums; the file has 5 decimals


def write(path: Path) -> None:
    golden = {}
    for kind, (name, tile, level) in KINDS.items():
        model = filled(name)
        (stream,) = lc_bench.compress(model, image(), level, tile)
        digest, x_hat = seen_by_synthesis(model, stream)
        pixels = [round(value, 5) for value in x_hat[0, :, ::20, ::25].flatten().tolist()]
        golden[kind] = {"model": name, "stream": stream.hex(), "sha256": digest, "pixels": pixels}
    with path.open("x") as file:
        json.dump(golden, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    write(DATA / f"v{VERSION}.json")
