"""Metrics and losses against formulas written out, and BD-rate on curves with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lc_bench.errors import UserError
from lc_bench.losses import RateDistortion
from lc_bench.metrics import bd_quality, bd_rate, ms_ssim, psnr, upper_hull
from lc_bench.metrics.image import ms_ssim_db


def test_psnr() -> None:
    a = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    assert psnr(a, a) == math.inf
    assert psnr(a, a + 5) == pytest.approx(20 * math.log10(255 / 5))


def test_ms_ssim_of_small_images_is_undefined_not_wrong() -> None:
    noise = torch.randint(0, 256, (3, 200, 180), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert ms_ssim(noise, noise) == pytest.approx(1)
    assert ms_ssim(noise, noise.flip(2)) < 0.3
    assert math.isnan(ms_ssim(noise[:, :175], noise[:, :175]))
    assert ms_ssim_db(0.99) == pytest.approx(20)


def test_bd_rate_of_a_scaled_curve() -> None:
    quality = [28.0, 30, 32, 34, 36]
    rate = [0.1, 0.2, 0.4, 0.8, 1.6]
    assert bd_rate(rate, quality, [0.7 * r for r in rate], quality)[0] == pytest.approx(-30, abs=0.01)
    assert bd_rate(rate, quality, rate, quality)[0] == pytest.approx(0, abs=1e-9)


def test_bd_rate_says_why_there_is_none() -> None:
    quality, rate = [28.0, 30, 32, 34], [0.1, 0.2, 0.4, 0.8]
    assert math.isnan(bd_rate(rate, quality, rate[:3], quality[:3])[0])
    value, why = bd_rate(rate, quality, rate, [q + 20 for q in quality])
    assert math.isnan(value)
    assert "overlap" in why
    tangled = bd_rate(rate, quality, [*rate, 0.5], [*quality, 31.0])  # a point that gains nothing is left out
    assert tangled[0] == pytest.approx(0, abs=1e-6)


def test_bd_over_a_declared_interval() -> None:
    quality = [28.0, 30, 32, 34, 36]
    rate = [0.1, 0.2, 0.4, 0.8, 1.6]
    # Better by 30 % below 32 dB, by 50 % above: an interval sees its own part alone.
    own = [0.7 * r if q < 32 else 0.5 * r for r, q in zip(rate, quality, strict=True)]
    assert bd_rate(rate, quality, own, quality, (34, 36)) == (pytest.approx(-50, abs=1e-6), "34.00 .. 36.00")
    whole = bd_rate(rate, quality, own, quality)
    assert bd_rate(rate, quality, own, quality, (28, 36)) == whole
    for interval, who in (((28, 37), "it"), ((27, 30), "it")):
        value, why = bd_rate(rate, quality, own, quality, interval)
        assert math.isnan(value)
        assert why.startswith(who)
    assert "the anchor covers 28.00 .. 34.00" in bd_rate(rate[:4], quality[:4], own, quality, (28, 36))[1]
    better = bd_quality(rate, quality, rate, [q + 1.5 for q in quality], (0.2, 0.8))
    assert better == (pytest.approx(1.5), "0.200 .. 0.800")


def test_upper_hull_is_that_of_an_obvious_twin() -> None:
    """A point is on it if no line between two others, nor another point at a lower rate, passes above or through it."""
    draw = np.random.default_rng(0)
    for _ in range(200):
        rate, quality = draw.integers(0, 12, 9) / 4, draw.integers(0, 12, 9) / 4  # ties and points on lines
        hull = upper_hull(rate.tolist(), quality.tolist())
        points = set(zip(rate.tolist(), quality.tolist(), strict=True))

        def covered(x: float, y: float, points: set = points) -> bool:
            if any(q >= y and r <= x and (r, q) != (x, y) for r, q in points):
                return True
            left, right = [p for p in points if p[0] < x], [p for p in points if p[0] > x]
            return any(a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0]) >= y - 1e-12 for a in left for b in right)

        assert [(rate[i], quality[i]) for i in hull] == sorted(p for p in points if not covered(*p))
    assert upper_hull([1, 2, 3], [1.0, math.nan, 2.0]) == [0, 2]


def test_loss_is_the_published_formula() -> None:
    x, x_hat = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.1)
    bits = {"y": torch.tensor([16.0, 32.0]), "z": torch.tensor([8.0, 8.0])}
    terms = RateDistortion("mse", 0.01)(x, x_hat, bits, 16)
    assert terms.bpp.item() == pytest.approx((24 + 8) / 16)
    assert terms.loss.item() == pytest.approx(2 + 0.01 * 255**2 * 0.01, rel=1e-5)
    assert terms.psnr.item() == pytest.approx(20, abs=1e-3)
    with pytest.raises(UserError, match="mse, ms-ssim"):
        RateDistortion("psnr", 1.0)


def test_ms_ssim_loss_has_a_gradient() -> None:
    x = torch.rand(1, 3, 176, 176, generator=torch.Generator().manual_seed(0))
    x_hat = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    terms = RateDistortion("ms-ssim", 10.0)(x, x_hat, {"y": torch.zeros(1)}, 176 * 176)
    terms.loss.backward()
    assert np.isfinite(terms.loss.item())
    assert x_hat.grad.abs().max() > 0
