"""How training quantises: what the networks see, and what is counted."""

from __future__ import annotations

import pytest
import torch
from conftest import small
from torch import Tensor

import lc_bench
from lc_bench.models import TransformCode

FIXED_RATE = ["bmshj2018-factorized", "mbt2018-mean", "mbt2018-mean-gmm", "mbt2018", "cheng2020-anchor", "cheng2020-anchor-checkerboard"]


def lively(name: str) -> TransformCode:
    """Whose latents are not all rounded to their means."""
    model = lc_bench.build(name, **small(name))
    with torch.no_grad():
        [p for p in model.g_a.parameters() if p.ndim == 4][-1].mul_(60)
    return model


@pytest.mark.parametrize("name", FIXED_RATE)
def test_mixed_counts_noise_and_shows_rounding(name: str, image: Tensor) -> None:
    """Two seeds differ in bits, not in the image; the image is that of evaluation, where latents are rounded about their means."""
    model = lively(name).eval()
    with torch.no_grad():
        evaluated = model(image)
    model.train()
    outputs = {}
    for quantiser, seed in (("mixed", 0), ("mixed", 1), ("round", 0), ("round", 1)):
        model.quantiser = quantiser
        torch.manual_seed(seed)
        outputs[quantiser, seed] = model(image)
    for latent in evaluated.bits:
        assert not torch.equal(outputs["mixed", 0].bits[latent], outputs["mixed", 1].bits[latent])
        assert torch.equal(outputs["round", 0].bits[latent], outputs["round", 1].bits[latent])
        assert torch.allclose(outputs["round", 0].bits[latent], evaluated.bits[latent], rtol=1e-4)
    for output in outputs.values():
        assert torch.allclose(output.x_hat, evaluated.x_hat, atol=1e-4)
    torch.stack([bits.sum() for bits in outputs["mixed", 0].bits.values()]).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.codec.parameters() if p.grad is not None)
    assert any(bool(p.grad.any()) for p in model.g_a.parameters() if p.grad is not None)
