"""Exact arithmetic: the same bits in any order of adding, within what float64 holds, close to the float networks."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IMAGE_MODELS, MODELS, small
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn

import lc_bench
from lc_bench.codecs import LevelGain
from lc_bench.coding import frozen
from lc_bench.coding.container import pack, unpack
from lc_bench.coding.exact import LARGEST, UNIT, WEIGHT_UNITS, ExactWindow, NoExactForm, exact_form, on_grid, round_weight
from lc_bench.data.images import read_image, to_unit
from lc_bench.entropy import GaussianPrior, lookup
from lc_bench.errors import StreamError, UserError
from lc_bench.layers import CheckerboardConv2d, MaskedConv2d, SpectralConv2d, SpectralConvTranspose2d, sub_pixel
from lc_bench.models import Ladder, PointCode, TransformCode, weights


def small_nets() -> dict[str, nn.Module]:
    """One of every kind of layer, 12 channels in."""
    torch.manual_seed(0)
    return {
        "conv": nn.Conv2d(12, 10, 5, 2, padding=2),
        "conv without bias": nn.Conv2d(12, 10, 3, padding=1, bias=False),
        "reflecting conv": nn.Conv2d(12, 10, 3, padding=1, padding_mode="reflect"),
        "groups": nn.Conv2d(12, 24, 3, padding=1, groups=4),
        "depthwise": nn.Conv2d(12, 12, 3, padding=1, groups=12),
        "transposed": nn.ConvTranspose2d(12, 10, 5, 2, padding=2, output_padding=1),
        "transposed groups": nn.ConvTranspose2d(12, 30, 5, 2, padding=2, output_padding=1, groups=3),
        "spectral": SpectralConv2d(12, 10, 5, padding=2),
        "spectral transposed": SpectralConvTranspose2d(12, 10, 5, 2, padding=2, output_padding=1),
        "masked": MaskedConv2d(12, 24),
        "checkerboard": CheckerboardConv2d(12, 24),
        "chain": nn.Sequential(sub_pixel(12, 16), nn.LeakyReLU(inplace=True), nn.Conv2d(16, 8, 1), nn.ReLU(inplace=True), nn.Identity()),
    }


NETS = small_nets()


@pytest.mark.parametrize("name", NETS)
def test_close_to_float64(name: str) -> None:
    """Half a step of the grid per layer, and what weights lose."""
    x = 5 * torch.randn(2, 12, 9, 11, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = copy.deepcopy(NETS[name]).double()(on_grid(x))
        found = exact_form(NETS[name])(x)
    assert found.dtype == torch.float64
    assert torch.equal(found, on_grid(found))
    assert torch.allclose(found, expected, rtol=0, atol=3 * UNIT)  # worst seen 1.45 UNIT


@pytest.mark.parametrize("name", NETS)
def test_no_order_of_adding_matters(name: str) -> None:
    """Permuted inputs, batches, threads, memory formats, oneDNN: not one bit differs."""
    net, x = exact_form(NETS[name]), 300 * torch.randn(24, 12, 9, 11, generator=torch.Generator().manual_seed(2))
    expected = net(x)
    assert torch.equal(torch.cat([net(part) for part in x.split(1)]), expected)
    assert torch.equal(net(x.contiguous(memory_format=torch.channels_last)), expected)
    assert torch.equal(net(x.transpose(2, 3).contiguous().transpose(2, 3)), expected)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(net(x), expected)
    finally:
        torch.set_num_threads(threads)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(net(x), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_channels_may_be_permuted(scale: float) -> None:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    layer, x = nn.Conv2d(64, 32, 3), scale * torch.randn(1, 64, 12, 12)
    shuffled = copy.deepcopy(layer)
    shuffled.weight.data = layer.weight[:, order]
    assert torch.equal(exact_form(layer)(x), exact_form(shuffled)(x[:, order]))
    # float64 itself, for comparison: the orders do differ there
    assert not torch.equal(layer.double()(x.double()), shuffled.double()(x[:, order].double()))


def test_windows_are_what_the_plane_gives() -> None:
    x = 200 * torch.randn(1, 12, 5, 5, generator=torch.Generator().manual_seed(3))
    for name in ("masked", "checkerboard"):
        form = exact_form(NETS[name])
        assert isinstance(form, ExactWindow)
        row, column = form.taps.unbind(1)
        window = form.enter(x)[0, :, row, column].T.reshape(1, -1)
        assert torch.equal(form.gathered()(window), form(x)[:, :, 2, 2])


ADVERSE = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1 / 3, 1e-45, -1e-40, 1e-7, 6e-5, 17.0, -4095.7, 2.0**20, 65504.0])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(ADVERSE | st.floats(-1e5, 1e5, width=32), min_size=1, max_size=64),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_sums_stay_below_2_to_the_53(values: list[float], dtype: torch.dtype) -> None:
    """In whole numbers, for the worst input: every input as large as can be, with the sign of its weight."""
    weight = torch.tensor([values]).to(dtype).clamp(-60000, 60000)
    rounded = round_weight(weight.double().numpy())[0]
    steps = [w for w in range(25) if all(float(v * 2.0**w).is_integer() for v in rounded)]
    units = sum(abs(int(v * 2 ** steps[0])) for v in rounded)
    assert units + 2 ** steps[0] < WEIGHT_UNITS
    for w in steps:  # as fine as claimed: some grid holds it and keeps the bound
        whole = sum(abs(int(v * 2**w)) for v in rounded)
        if whole + 2**w < WEIGHT_UNITS:
            assert whole * int(LARGEST / UNIT) + 2**w * (int(LARGEST / UNIT) + 1) <= 2**53
    layer = nn.Linear(len(values), 1).to(dtype)
    layer.weight.data, layer.bias.data = weight, torch.tensor([60000.0]).to(dtype)
    worst = torch.where(weight < 0, -LARGEST, LARGEST).double()
    found = exact_form(layer)(worst).item()
    whole = sum(int(v * 2**24) * int(x) for v, x in zip(rounded, worst[0].tolist(), strict=True))  # Python's integers
    expected = math.floor((whole / 2**24 + LARGEST) / UNIT + 0.5) * UNIT if abs(whole) < 2**60 else math.copysign(LARGEST, whole)
    assert found == max(-LARGEST, min(LARGEST, expected))


def test_weights_are_as_fine_as_sums_allow() -> None:
    for total, bits in ((0.5, 24), (3.0, 23), (100.0, 18), (1e5, 8), (2.0**23, 1)):
        weight = np.full((1, 7), total / 7)
        error = np.abs(round_weight(weight) - weight).max()
        assert error <= 2.0 ** -(bits + 1)
        assert (round_weight(weight) * 2.0**bits % 1 == 0).all()
    with pytest.raises(NoExactForm, match="add up to"):
        round_weight(np.full((1, 7), 2.0**24 / 7))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_weights_are_refused(bad: float) -> None:
    for name in ("conv", "spectral"):
        net = copy.deepcopy(NETS[name])
        next(net.parameters()).data.view(-1)[3] = bad
        with pytest.raises(UserError, match="NaN or infinite"):
            exact_form(net)


def test_layers_without_an_exact_form_are_named() -> None:
    class Squared(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * x)

    class Negated(nn.Module):
        def exact_form(self) -> nn.Module:
            return self

        def forward(self, x: Tensor) -> Tensor:
            return -x

    for net in (nn.Sigmoid(), Squared(12, 3, 1), nn.LeakyReLU(1.5), nn.utils.parametrizations.weight_norm(nn.Conv2d(12, 3, 1))):
        with pytest.raises(NoExactForm, match=type(net).__name__):
            exact_form(nn.Sequential(nn.Conv2d(12, 12, 1), net))
    assert torch.equal(exact_form(Negated())(torch.tensor([0.3])), -on_grid(torch.tensor([0.3])))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_exact_throughout(name: str, image: Tensor, cloud: Tensor) -> None:
    """Nothing falls back, and streams and decoded latents depend on neither batch, threads nor oneDNN."""
    model = lc_bench.build(name, **small(name))
    coded = model.encode(cloud[:, :64] if isinstance(model, PointCode) else image)
    assert model.frozen.inexact == []
    assert all(not unpack(stream)[0].place for stream in coded.streams)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with torch.backends.mkldnn.flags(enabled=False):
            for i, stream in enumerate(coded.streams):
                _, latents = model.decode([stream])
                for latent, chunks in latents.items():
                    for chunk, sent in zip(chunks, coded.latents[latent], strict=True):
                        assert torch.equal(chunk[0], sent[i])
    finally:
        torch.set_num_threads(threads)


def test_an_odd_layer_binds_streams_to_their_place(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lc_bench.build("mbt2018-mean", **small("mbt2018-mean"))
    model.codec.h_s.insert(1, nn.Softplus())
    (stream,) = lc_bench.compress(model, image[:1])
    header, segments = unpack(stream)
    assert header.place == model.frozen.place
    assert "Softplus" in model.frozen.inexact[0]
    assert lc_bench.decompress(model, [stream]).isfinite().all()
    elsewhere = pack(replace(header, place=bytes(b ^ 1 for b in header.place)), segments)
    with pytest.raises(StreamError, match="device"):
        lc_bench.decompress(model, [elsewhere])


def golden(shared: Path, name: str) -> TransformCode:
    """With weights at hand: shipped, golden, or of the seed alone."""
    file = shared / "golden" / f"{name}.safetensors"
    if not file.exists():
        return lc_bench.load(name) if (weights.SHIPPED / f"{name}-mse.safetensors").exists() else lc_bench.build(name, **small(name))
    with safe_open(file, "pt") as vectors:
        model = lc_bench.build(name, **json.loads(vectors.metadata()["arguments"]))
        state = {key.removeprefix("state/"): vectors.get_tensor(key) for key in vectors.keys() if key.startswith("state/")}  # noqa: SIM118
    lc_bench.load_reference_state(model, state)
    return model


def float_copy(net: nn.Module) -> nn.Module:
    raise NoExactForm("for comparison")


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_rates_hardly_move(shared: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ideal bits on a crop of Kodak 19 against float64 networks."""
    model = golden(shared, name)
    x = to_unit(read_image(sorted((shared / "data" / "kodak").rglob("*.png"))[18]))[None, ..., :256, :256]
    bits = []
    for form in (float_copy, exact_form):
        monkeypatch.setattr(frozen, "exact_form", form)
        model._frozen = None
        bits.append(sum(float(b.sum()) for b in model.encode(x).bits.values()))
    # Worst seen 3e-4 (lite at levels 0 .. 7: 1.3e-4); 9e-4 of random weights, where one latent of ten thousand costs 16 bits more.
    assert bits[1] == pytest.approx(bits[0], rel=1e-3)


@pytest.mark.parametrize("levels", [2, 64, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scales_find_the_nearest_table(levels: int, dtype: torch.dtype) -> None:
    """As logarithms say, but within 0.4 % of the middle between two scales: 7 bits of a float's mantissa decide."""
    prior = GaussianPrior(mean=False, levels=levels)
    ends = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 0.11, 256.0, 1e30, math.inf])
    assert prior(ends.to(dtype)[None]).index(torch.Size((1, 8))).tolist() == [[0] * 5 + [levels - 1] * 3]
    scale = torch.linspace(math.log(0.1), math.log(300), 20001, dtype=torch.float64).exp().to(dtype)[None]
    place = (scale.double().clamp(0.11, 256).log() - math.log(0.11)) / prior.step
    off = (prior(scale).index(scale.shape) - place).abs() - 0.5
    assert float(off.max()) * prior.step < 0.004
    with pytest.raises(UserError, match="NaN"):
        prior(torch.tensor([[1.0, math.nan]], dtype=dtype)).index(torch.Size((1, 2)))


def test_tables_of_functions() -> None:
    places = torch.arange(-24576, 24577, dtype=torch.float64) / 4096
    whole = lookup.normal(places)
    assert torch.equal(whole, whole.round())
    assert (whole - torch.special.ndtr(places) * 2.0**32).abs().max() < 0.501  # rounding; worst seen 0.49998
    logs = torch.arange(-20480, 20481, dtype=torch.float64) / 1024
    assert torch.allclose(lookup.exponential(logs), logs.exp(), rtol=1e-15)  # worst seen 2.2e-16
    assert torch.equal(lookup.exponential(torch.tensor([-99.0, 99.0]).double()), lookup.exponential(torch.tensor([-20.0, 20.0]).double()))
    with pytest.raises(UserError, match="NaN"):
        lookup.exponential(torch.tensor([math.nan]).double())


def test_steps_and_gains_as_float_networks_say() -> None:
    torch.manual_seed(0)
    level = torch.tensor([0.0, 2.5625, 7.0], dtype=torch.float64)
    ladder, gain = Ladder(8, (10.0, 0.3), tell=True, offsets=True, z_step=True), LevelGain(8, 5, (0.1, 3.0))
    with torch.no_grad():
        expected, found = ladder.double()(level), exact_form(ladder)(level)
        assert torch.allclose(found.sign, expected.sign, rtol=1e-15)
        for latent, step in expected.steps.items():
            assert torch.allclose(found.steps[latent], step, rtol=1e-12 if latent == "y" else 1e-3), latent
        symbols, scale, step = torch.tensor([-2.0, 0.0, 1.0]).double(), torch.tensor([0.2, 1.0, 30.0]).double(), level[1:2]
        assert torch.allclose(found.offsets["y"](symbols, scale, step), expected.offsets["y"](symbols, scale, step), atol=3 * UNIT)
        assert torch.allclose(exact_form(gain)(level), gain.double()(level), rtol=1e-12)
