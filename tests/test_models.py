"""Every YAML in conf/model keeps every promise that a model makes."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MODELS, SMALL, small, two_clouds, two_images
from PIL import Image
from torch import Tensor, nn

import lc_bench
from lc_bench.bench.complexity import complexity
from lc_bench.coding.container import Header, pack, unpack
from lc_bench.coding.tapes import DecodeTape, RateTape
from lc_bench.config import compose
from lc_bench.errors import StreamError, UserError
from lc_bench.models import PointCode, TransformCode
from lc_bench.models.transform_code import Coded
from lc_bench.report.records import read_records


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> TransformCode:
    """Which no test changes: what is made of it, below, serves them all."""
    built = lc_bench.build(request.param, **small(request.param))
    widen(built)
    return built


@pytest.fixture(scope="module")
def sample(model: TransformCode) -> Tensor:
    """Two images, or two clouds of a number of points that the model takes."""
    if not isinstance(model, PointCode):
        return two_images()
    return two_clouds() if model.name.startswith("hrtzxf") else two_clouds()[:, : model.points]


@pytest.fixture(scope="module")
def coded(model: TransformCode, sample: Tensor) -> Coded:
    return model.encode(sample)


@pytest.fixture(scope="module")
def decoded(model: TransformCode, coded: Coded) -> Tensor:
    return lc_bench.decompress(model, coded.streams)


@functools.cache
def tiny(name: str) -> TransformCode:
    """Another model, for what does not change it."""
    return lc_bench.build(name, **SMALL)


def widen(model: TransformCode) -> None:
    """Latents of a fresh model hardly leave zero; spread them so that there is something to code."""
    if isinstance(model, PointCode):
        return  # these begin wide
    last = [m for m in model.g_a.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)][-1]
    with torch.no_grad():
        last.weight.mul_(60)


def test_every_quality_composes() -> None:
    for name in MODELS:
        composed = compose(f"model={name}")
        for quality in range(1, composed.model.qualities + 1):
            composed.quality = quality
            model, lmbda = composed.model, composed.rate.lmbda
            lmbdas = lmbda if model.get("levels") else [lmbda]
            assert model.get("num_points", model.get("M", model.get("N"))) > 0
            assert all(lmbda > 0 for lmbda in lmbdas)


def test_training_step_moves_every_parameter(model: TransformCode, sample: Tensor) -> None:
    model = copy.deepcopy(model).train()
    out = model(sample)
    extras = sum(e.square().sum() for e in out.extras.values())
    (sum(b.sum() for b in out.bits.values()) + (out.x_hat - sample).square().sum() + extras).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_mixed_precision_is_of_networks_alone(model: TransformCode, sample: Tensor) -> None:
    """Latents, likelihoods and gradients stay float32; bits move as bfloat16 moves latents (seen: 0.3 %)."""
    if isinstance(model, PointCode):
        pytest.skip("clouds train in float32")
    model = copy.deepcopy(model)
    seen: list[torch.dtype] = []
    for module in model.modules():
        if hasattr(module, "make_tables"):
            module.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.no_grad():
        full = model(sample)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(sample)
    assert {b.dtype for b in mixed.bits.values()} | {mixed.x_hat.dtype, *seen} == {torch.float32}
    total, other = (sum(b.sum() for b in out.bits.values()) for out in (full, mixed))
    assert abs(other / total - 1) < 0.02
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(sample)
    (sum(b.sum() for b in out.bits.values()) + out.x_hat.sum()).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


def test_round_trip_in_bytes(model: TransformCode, sample: Tensor, coded: Coded) -> None:
    """Another instance reads the streams once it has the weights, and refuses them before."""
    receiver = lc_bench.build(model.name, **small(model.name), seed=5)
    with pytest.raises(StreamError, match="other weights"):
        receiver.decode(coded.streams)
    receiver.load_state_dict(model.state_dict())
    x_hat, latents = receiver.decode(coded.streams)
    assert x_hat.shape == sample.shape
    for latent, parts in coded.latents.items():
        assert all(torch.equal(a, b) for a, b in zip(parts, latents[latent], strict=True))
    assert sum(map(len, coded.streams)) > 200, "nothing was coded"


def test_evaluation_predicts_what_the_decoder_gives(model: TransformCode, sample: Tensor, coded: Coded, decoded: Tensor) -> None:
    with torch.no_grad():
        out = model(sample)
    # Means are multiples of 2^-14 when coding. That moves pixels by 2.4e-5 at most, unless a latent lies so near to the middle
    # between two integers that it is rounded to the other; with a context model others follow. Worst mean seen so 1.1e-4 of the
    # largest value, else 2.5e-6.
    expected = out.x_hat if isinstance(model, PointCode) else out.x_hat.clamp(0, 1)
    off = (expected - decoded).abs()
    assert off.mean() <= 5e-4 * max(1.0, out.x_hat.abs().max().item())
    for latent, bits in out.bits.items():
        # Never much more than estimated; less where latents lie so far out that the estimate counts its 30 bits at most.
        assert (coded.bits[latent] <= 1.03 * bits.double() + 30).all(), latent


def test_streams_do_not_depend_on_the_batch(model: TransformCode, sample: Tensor, coded: Coded) -> None:
    assert coded.streams == [lc_bench.compress(model, x[None])[0] for x in sample]


def test_what_was_not_sent_poisons_the_output(model: TransformCode, sample: Tensor, decoded: Tensor) -> None:
    """The decoding side holds NaN for y; a finite image proves that none of it was used."""
    assert decoded.isfinite().all()

    class Peeking(nn.Module):
        def __init__(self, codec: nn.Module) -> None:
            super().__init__()
            self.codec = codec

        def forward(self, tape: object, y: Any) -> Any:
            y_hat = self.codec(tape, y)
            return {k: y_hat[k] + 1e-3 * y[k] for k in y} if isinstance(y, dict) else y_hat + 1e-3 * y

    peeking = copy.deepcopy(model)
    peeking.codec = Peeking(peeking.codec)
    x_hat = peeking.decode(peeking.encode(sample[:1]).streams)[0]
    assert not x_hat.isfinite().all()


def test_any_size(model: TransformCode) -> None:
    if isinstance(model, PointCode):
        for count in (1, 2, 7, 64, 100):
            x = torch.rand(1, count, 3)
            if count == model.points or model.name.startswith("hrtzxf"):
                assert lc_bench.decompress(model, lc_bench.compress(model, x)).shape == x.shape
            else:
                with pytest.raises(UserError, match=f"takes {model.points}"):
                    lc_bench.compress(model, x)
        return
    for height, width in ((1, 1), (1, 200), (64, 64), (65, 63)):
        x = torch.rand(1, 3, height, width)
        assert lc_bench.decompress(model, lc_bench.compress(model, x)).shape == x.shape


def test_streams_of_others_are_refused(model: TransformCode, coded: Coded) -> None:
    """Those of the same architecture too: see the round trip."""
    another = tiny("mbt2018-mean" if model.name != "mbt2018-mean" else "mbt2018")
    with pytest.raises(StreamError, match="another architecture|other weights"):
        lc_bench.decompress(another, coded.streams[:1])


def test_weights_changed_after_freezing_make_new_tables(image: Tensor) -> None:
    model = lc_bench.build("bmshj2018-factorized", **SMALL)
    before = model.frozen
    assert model.frozen is before
    with torch.no_grad():
        model.codec.prior.biases[0].add_(0.5)
    assert model.frozen is not before
    assert model.frozen.identity.weights != before.identity.weights
    before = model.frozen
    model.codec.prior.biases[0].data.add_(0.5)  # autograd does not count this one
    assert model.frozen is not before


def test_nan_and_infinite_values_are_refused(image: Tensor) -> None:
    model = lc_bench.build("mbt2018-mean", **SMALL)
    for bad in (torch.nan, torch.inf):
        broken = image.clone()
        broken[0, 0, 3, 3] = bad
        with pytest.raises(UserError, match="NaN or infinite"):
            lc_bench.compress(model, broken)
    with torch.no_grad():
        model.g_a[-1].bias[0] = torch.nan
    with pytest.raises(UserError, match="latent"):
        lc_bench.compress(model, image)
    with pytest.raises(UserError, match="takes"):
        model(image[:, :1])


def test_raster_wavefront_is_raster_order() -> None:
    """The same latents, cell by cell in raster order with the whole masked convolution at each: the obvious twin."""
    torch.manual_seed(0)
    model = lc_bench.build("mbt2018", **SMALL)
    context = model.codec.y
    y, psi = 4 * torch.randn(1, 12, 5, 9), torch.randn(1, 24, 5, 9)
    with torch.no_grad():
        tape = RateTape(training=False)
        fast = context(tape, y, psi)
        y_hat, bits = torch.zeros_like(y), 0.0
        for row in range(5):
            for column in range(9):
                theta = context.parameters_net(torch.cat([psi, context.context(y_hat)], 1))[:, :, row, column]
                prior = context.prior(theta)
                y_hat[:, :, row, column] = (y[:, :, row, column] - prior.mean).round() + prior.mean
                bits = bits + prior.bits(y_hat[:, :, row, column]).sum()
    assert torch.allclose(fast, y_hat, atol=1e-5)  # worst seen 1e-6
    assert torch.allclose(tape.bits["y"].sum(), bits, rtol=1e-5)


def test_complexity_of_a_known_model() -> None:
    """mbt2018-mean at quality 3, N=128, M=192: published by others as some 118 kMACs per pixel for g_a and h_a."""
    counted = complexity(lc_bench.build("mbt2018-mean", quality=3))
    convolutions = 128 * 3 * 25 / 4 + 128 * 128 * 25 / 16 + 128 * 128 * 25 / 64 + 192 * 128 * 25 / 256
    normalisation = 128 * 128 * (1 / 4 + 1 / 16 + 1 / 64)
    hyper = 192 * 128 * 9 / 256 + 128 * 128 * 25 / 1024 + 128 * 128 * 25 / 4096
    back = 128 * 192 * 25 / 4096 * 4 / 4 + 192 * 288 * 25 / 1024 + 288 * 384 * 9 / 256
    assert counted["encoder_kmacs_px"] == pytest.approx((convolutions + normalisation + hyper + back) / 1e3, rel=0.02)


def test_wrong_calls_are_told(image: Tensor) -> None:
    model = lc_bench.build("mbt2018-mean", **SMALL)
    stream = lc_bench.compress(model, image[:1])[0]
    for wrong in ([], stream):
        with pytest.raises(UserError, match="list of streams"):
            lc_bench.decompress(model, wrong)
    header, segments = unpack(stream)
    with pytest.raises(StreamError, match="different numbers of segments"):
        lc_bench.decompress(model, [stream, pack(header, segments[:1])])
    with pytest.raises(StreamError, match="not decoded"):
        lc_bench.decompress(model, [pack(Header(header.identity, (1, 1 << 24)), segments)])
    smaller = lc_bench.compress(model, image[:1, :, :40])
    with pytest.raises(StreamError, match="different sizes"):
        lc_bench.decompress(model, [stream, *smaller])
    with torch.no_grad():
        model.codec.h_s[-1].bias[0] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        lc_bench.compress(model, image)


def test_benchmark_gives_records(model: TransformCode, tmp_path: Path) -> None:
    if isinstance(model, PointCode):
        pytest.skip("clouds have a benchmark of their own")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    records = lc_bench.benchmark(model, data="folder", path=str(tmp_path))
    assert records.codec.tolist() == [f"{model.name} (untrained)"]
    assert (records.peak_memory_mib > 1).all()
    assert (records.encoder_kmacs_px > 0).all()
    assert (records.bpp * records.width * records.height / 8 - records.bytes).abs().max() < 1e-6
    parts = records.encode_transform_s + records.encode_coding_s
    assert (parts - records.encode_s).abs().max() < 1e-6
    records.to_csv(tmp_path / "records.csv")
    assert len(read_records(tmp_path)) == 1


def test_decode_tape_reads_in_order(image: Tensor) -> None:
    model = lc_bench.build("bmshj2018-factorized", **SMALL)
    tape = DecodeTape(model.frozen, [[b""]], [0])
    with pytest.raises(StreamError):
        tape.finish()
