"""Blocks do what their papers say, each against an obvious twin."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lc_bench.codecs import Checkerboard
from lc_bench.coding.tapes import RateTape
from lc_bench.entropy import GaussianPrior
from lc_bench.errors import UserError
from lc_bench.layers import (
    GDN,
    GDN1,
    CheckerboardConv2d,
    Gain,
    Interleave,
    Reshape,
    SpectralConv2d,
    SpectralConvTranspose2d,
    chain,
    gdn,
    qrelu,
)
from lc_bench.layers.residual import Pick
from lc_bench.ops.bounds import from_root, to_root


def test_chain_reads_its_words() -> None:
    net = chain(3, ["conv5/2 8", "gdn", "residual", "down 12", "attention", "bottleneck", "up", "deconv5/2", "subpel3/2 3"])
    assert net(torch.rand(1, 3, 32, 48)).shape == (1, 3, 64, 96)
    for wrong in ("cov5/2 8", "conv", "attention 9", "gdn 5", "down5", ""):
        with pytest.raises(UserError, match=r"chain: .* There are: residual"):
            chain(3, ["conv3 4", wrong])


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_and_gdn1_are_their_formulas(inverse: bool) -> None:
    x = torch.randn(2, 4, 3, 5)
    for layer, power in ((GDN(4, inverse), 2), (GDN1(4, inverse), 1)):
        with torch.no_grad():
            layer.beta.copy_(to_root(torch.rand(4) + 0.5))
            layer.gamma.copy_(to_root(torch.rand(4, 4)))
            norm = from_root(layer.beta)[:, None, None] + torch.einsum("ij,bjhw->bihw", from_root(layer.gamma), x.abs() ** power)
            norm = norm ** (1 / power)
            assert torch.allclose(layer(x), x * norm if inverse else x / norm, rtol=1e-5, atol=1e-6)


def test_non_negative_parameters_come_back() -> None:
    value = torch.tensor([0.0, 1e-6, 0.5, 30.0])
    assert torch.allclose(from_root(to_root(value)), value, atol=1e-9)
    assert from_root(torch.tensor([0.0]), 0.25).item() == pytest.approx(0.25)


@pytest.mark.parametrize(("spectral", "plain"), [(SpectralConv2d, F.conv2d), (SpectralConvTranspose2d, F.conv_transpose2d)])
def test_spectral_convolutions_convolve(spectral: type, plain) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    layer = spectral(3, 3, 5, padding=2)
    x = torch.randn(1, 3, 8, 9)
    assert torch.allclose(layer(x), plain(x, layer.weight, layer.bias, padding=2), atol=1e-6)
    names = dict(layer.named_parameters())
    assert [p.shape for p in names.values() if p.ndim > 1] == [(3, 3, 5, 3, 2)], "the kernel is learned as a spectrum"
    layer(x).sum().backward()
    assert all(p.grad is not None for p in names.values())


def test_qrelu_clamps_and_lets_gradient_fade() -> None:
    x = torch.tensor([-300.0, -1.0, 0.0, 100.0, 255.0, 256.0, 900.0], requires_grad=True)
    y = qrelu(x, 8)
    assert y.tolist() == [0, 0, 0, 100, 255, 255, 255]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad[[2, 3, 4]].tolist() == [1, 1, 1]
    assert 0 < x.grad[1] < 1
    assert x.grad[[0, 6]].abs().max() < 1e-6


def test_shaping() -> None:
    x = torch.arange(12.0).view(1, 6, 2)
    assert Interleave(2)(x)[0, :, 0].tolist() == [0, 6, 2, 8, 4, 10]
    assert Reshape((3, 4))(x).shape == (1, 3, 4)
    assert torch.equal(Gain((6, 1), factor=3.0)(x), 3 * x)


def test_checkerboard_convolution_sees_the_other_colour_only() -> None:
    layer = CheckerboardConv2d(1, 1, 5)
    x = torch.zeros(1, 1, 9, 9, requires_grad=True)
    layer(x)[0, 0, 4, 4].backward()
    seen = x.grad[0, 0] != 0  # type: ignore[index]
    row, column = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    window = ((row - 4).abs() <= 2) & ((column - 4).abs() <= 2)
    assert torch.equal(seen, window & ((row + column) % 2 == 1))


def test_one_pass_training_sees_what_two_passes_see() -> None:
    """With the same noise, the single pass counts what two passes over noisy latents count."""
    torch.manual_seed(0)
    codec = Checkerboard(CheckerboardConv2d(4, 8, 5), chain(14, ["conv1 8"]), GaussianPrior(), one_pass=True)
    y, psi = 3 * torch.randn(2, 4, 6, 5), torch.randn(2, 6, 6, 5)
    torch.manual_seed(1)
    tape = RateTape(training=True)
    with torch.no_grad():
        y_hat = codec(tape, y, psi)
        anchor = ((torch.arange(6)[:, None] + torch.arange(5)) % 2 == 0).expand_as(y_hat)
        first = codec.prior(codec.parameters_net(torch.cat([torch.zeros(2, 8, 6, 5), psi], 1))).bits(y_hat)
        second = codec.prior(codec.parameters_net(torch.cat([codec.context(y_hat * anchor), psi], 1))).bits(y_hat)
    assert (y_hat - y).abs().max() <= 0.5
    assert torch.allclose(tape.bits["y"], torch.where(anchor, first, second).flatten(1).sum(1), rtol=1e-5)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("shape", [(2, 8, 9, 7), (1, 8, 1, 1), (1, 1, 40, 41), (3, 5, 1, 700)])
def test_written_gradients_of_gdn_are_those_of_the_formula(shape: tuple[int, ...], inverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64 to rounding; rows are taken 64 at a time, so that there are several blocks. Seen: 9e-16 of the largest."""
    monkeypatch.setattr(gdn, "ROWS", 64)
    layer = gdn.GDN(shape[1], inverse).double()
    with torch.no_grad():
        layer.gamma += 0.1 * torch.rand(layer.gamma.shape, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape, dtype=torch.float64)
    gamma, beta = (torch.rand(s, dtype=torch.float64).add_(0.1).requires_grad_() for s in ((shape[1], shape[1], 1, 1), (shape[1],)))
    found, expected = (f(x, gamma, beta, inverse) for f in (gdn._Normalise.apply, gdn.normalise))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), (x, gamma, beta)) for y in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    y = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(y.detach(), layer(x), rtol=1e-12, atol=1e-12)


def test_picked_pixels_are_a_strided_convolution() -> None:
    x = torch.rand(2, 3, 9, 8, dtype=torch.float64)
    layer = Pick(3, 4, 1, 2).double()
    torch.testing.assert_close(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias, 2), rtol=1e-14, atol=1e-14)
