"""A model's identity is of its values: no version of Python, kind of processor, floating type, thread or global setting is in it.

python tests/coding/test_identity.py     (records the identities anew, for a model file that was changed on purpose)
"""

from __future__ import annotations

import copy
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MODELS, small
from torch import Tensor, nn

import lc_bench
from lc_bench.codecs.float16 import Float16
from lc_bench.coding import rows
from lc_bench.coding.exact import NoExactForm, exact_form, round_weight
from lc_bench.coding.frozen import lookup_of, table_maker
from lc_bench.coding.tapes import RateTape
from lc_bench.entropy import FactorizedPrior, GaussianPrior, gaussian
from lc_bench.errors import UserError
from lc_bench.models import Ladder, TransformCode
from lc_bench.ops.first_weights import drawn_from

RECORD = Path(__file__).parent.parent / "data" / "identities.json"
SHIPPED = ("lite", "sfu2024-pcc-rec-pointnet2-ssg")
PACKAGE = Path(lc_bench.__file__).parent


def identity(model: TransformCode) -> str:
    return (model.frozen.identity.architecture + model.frozen.identity.weights).hex()


def identities() -> dict[str, str]:
    known = {name: identity(lc_bench.build(name, **small(name))) for name in MODELS}
    return {**known, **{f"{name} as it ships": identity(lc_bench.load(name)) for name in SHIPPED}}


def tiny() -> TransformCode:
    return lc_bench.build("mbt2018-mean", **small("mbt2018-mean"))


@pytest.fixture(scope="module")
def unchanged() -> TransformCode:
    """For tests that leave it as it is."""
    return tiny()


def in_threads(function: Callable[[], object], count: int = 4) -> list[object]:
    """What each gives; an exception of one is raised."""
    results: list[object] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def test_identities_are_those_on_record() -> None:
    """Written under Python 3.11 and torch 2.13; another version that finds others writes streams that this one refuses."""
    assert identities() == json.loads(RECORD.read_text())


def test_what_a_module_offers_does_not_depend_on_python() -> None:
    """Runtime protocols overlook buffers from Python 3.12 on."""
    for path in PACKAGE.rglob("*.py"):
        assert "runtime_checkable" not in path.read_text(), path
    assert lookup_of(GaussianPrior()) is not None
    assert table_maker(GaussianPrior()) is not None
    assert lookup_of(nn.Linear(1, 1)) is None
    assert table_maker(nn.Linear(1, 1)) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_streams_cross_floating_types(dtype: torch.dtype, image: Tensor) -> None:
    """What a model writes is read by it, and by one that holds the same values in float32."""
    model = tiny()
    before = identity(model)
    model.to(dtype)
    same = copy.deepcopy(model).float()
    assert identity(model) == identity(same)
    assert (identity(model) == before) == (dtype == torch.float64)
    coded = model.encode(image[:1])
    for reader in (model, same):
        _, latents = reader.decode(coded.streams)
        for name, parts in coded.latents.items():
            assert all(torch.equal(a, b) for a, b in zip(parts, latents[name], strict=True))


def test_every_edit_of_weights_is_seen() -> None:
    model = tiny()
    weight = model.codec.h_s[0].weight
    seen = {identity(model)}
    weight.data[[0, 1]] = weight.data[[1, 0]]
    seen.add(identity(model))
    weight.data[0, 0, 0, 0] = torch.nextafter(weight.data[0, 0, 0, 0], torch.tensor(9.0))
    seen.add(identity(model))
    assert len(seen) == 3
    frozen = model.frozen
    assert model.frozen is frozen
    model.codec.h_s.insert(1, nn.Softplus())  # no weights, another network
    assert model.frozen is not frozen


class Doubled(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class DoubledLadder(Ladder):
    def forward(self, level: Tensor):  # type: ignore[no-untyped-def]
        return super().forward(2 * level)


class DoubledRelu(nn.LeakyReLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OtherConv(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(2 * input, weight, bias)


def changed(net: nn.Module, how: str) -> nn.Module:
    if how == "hook":
        net.register_forward_hook(lambda module, inputs, out: 2 * out)
    elif how == "pre-hook":
        net.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    elif how == "instance":
        net.forward = lambda x: 2 * x  # type: ignore[method-assign]
    return net


@pytest.mark.parametrize("how", ["hook", "pre-hook", "instance"])
@pytest.mark.parametrize("kind", ["sequential", "conv", "relu"])
def test_what_is_hung_on_a_layer_has_no_exact_form(kind: str, how: str) -> None:
    net = {"sequential": nn.Sequential(nn.ReLU()), "conv": nn.Conv2d(2, 2, 1), "relu": nn.ReLU()}[kind]
    for outer in (changed(net, how), nn.Sequential(net)):
        with pytest.raises(NoExactForm, match="no exact form"):
            exact_form(outer)


@pytest.mark.parametrize(
    "net", [Doubled(nn.Conv2d(2, 2, 1)), DoubledLadder(4, (4.0, 1.0)), DoubledRelu(), OtherConv(2, 2, 1)], ids=lambda n: type(n).__name__
)
def test_subclasses_that_compute_something_else_have_no_exact_form(net: nn.Module) -> None:
    with pytest.raises(NoExactForm, match=type(net).__name__):
        exact_form(net)


@pytest.mark.parametrize("padding", [1, "same", (0, 2)])
def test_a_pointwise_convolution_keeps_its_padding(padding: int | str | tuple[int, int]) -> None:
    layer = nn.Conv2d(3, 2, 1, padding=padding)
    x = torch.arange(12.0).view(1, 3, 2, 2) / 8
    with torch.no_grad():
        expected = copy.deepcopy(layer).double()(x.double())
        assert torch.allclose(exact_form(layer)(x), expected, atol=1e-3)


def test_a_channel_leaves_a_bit_to_the_half_that_rounds() -> None:
    with pytest.raises(NoExactForm, match="2\\^24"):
        round_weight(np.full((1, 4), 1.5 * 2.0**22))
    assert round_weight(np.full((1, 4), 2.0**21)).sum() == 2.0**23


def test_first_weights_are_rounded_once() -> None:
    """torch's kernels round a product and a sum once or twice, as the processor has it."""
    with drawn_from(5):
        found = torch.empty(4000).uniform_(-0.3, 0.71)
    draws = torch.empty(4000, dtype=torch.int64).random_(0, 1 << 24, generator=torch.Generator().manual_seed(5)).double()
    span = float(np.float32(0.71) - np.float32(-0.3))
    assert torch.equal(found, (draws / (1 << 24) * span + float(np.float32(-0.3))).float())


def test_medians_do_not_depend_on_the_last_digits_of_a_logit(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = FactorizedPrior(64)
    crossing = FactorizedPrior(1, filters=())  # whose median lies in the middle between two that could be taken
    with torch.no_grad():
        crossing.biases[0].fill_(-float(torch.nn.functional.softplus(crossing.matrices[0].double())) * 2.0**-15)
    plain = FactorizedPrior.cumulative

    def off_by(error: float) -> Callable[[FactorizedPrior], Callable[[Tensor], Tensor]]:
        return lambda prior: lambda x: plain(prior)(x) + error

    medians = []
    for error in (0.0, 1e-12, -1e-12):
        monkeypatch.setattr(FactorizedPrior, "cumulative", off_by(error))
        prior.update_median()
        crossing.update_median()
        medians.append((prior.median.tolist(), crossing.median.tolist()))
    assert medians[0] == medians[1] == medians[2]
    assert (prior.median * 2**14 % 1 == 0).all()
    half = prior._in_double().quantile(0.5).detach()
    assert torch.allclose(prior.median.double(), half, atol=2.0**-15 + 1e-9)


def test_a_cloud_model_in_training_writes_what_others_read(cloud: Tensor) -> None:
    name = "sfu2024-pcc-rec-pointnet2-ssg"
    model = lc_bench.load(name)
    reader = lc_bench.load(name)
    model.train()
    model.g_a.down["1"].mlp_bns.eval()  # type: ignore[index]
    modes = [module.training for module in model.modules()]
    for module in model.modules():
        if isinstance(module, FactorizedPrior):
            module._median_is_stale = True
    streams = lc_bench.compress(model, cloud[:, : model.points].repeat(1, 2, 1)[:, : model.points])
    assert [module.training for module in model.modules()] == modes
    assert identity(model)[:2] == identity(reader)[:2]
    assert lc_bench.decompress(copy.deepcopy(model).eval(), streams).isfinite().all()
    lc_bench.decompress(model, streams)
    assert [module.training for module in model.modules()] == modes


def test_modes_are_put_back_by_the_last_of_several_threads(image: Tensor) -> None:
    model = tiny().train()
    streams = in_threads(lambda: lc_bench.compress(model, image[:1])[0])
    assert len(set(streams)) == 1
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("low_high", [(0.0, 255.0), (-1.0, 1.0), (-2.1, 2.6), (0.0, 65535.0)])
def test_pixels_of_other_ranges_are_refused(unchanged: TransformCode, low_high: tuple[float, float], image: Tensor) -> None:
    model, (low, high) = unchanged, low_high
    x = low + image * (high - low)
    in_training = copy.deepcopy(model).train()
    for call in (lc_bench.compress, lambda m, x: m(x), lambda m, x: in_training(x)):
        with pytest.raises(UserError, match=r"pixels in \[0, 1\]"):
            call(model, x)
    with pytest.raises(UserError, match="divide 8-bit pixels by 255"):
        lc_bench.compress(model, (image * 255).to(torch.uint8))
    with pytest.raises(UserError, match="torch.Tensor"):
        lc_bench.compress(model, image.numpy())  # type: ignore[arg-type]


def test_what_resampling_adds_is_taken(unchanged: TransformCode, image: Tensor) -> None:
    x = image[:1] * 1.5 - 0.25
    assert unchanged(x).x_hat.shape == x.shape
    assert lc_bench.compress(unchanged, x)


def test_models_are_built_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """All alike, without touching torch's generators, on a CPU or elsewhere."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU's generator was seeded"))
    before = torch.get_rng_state()
    models = in_threads(tiny)
    assert len({identity(model) for model in models if isinstance(model, TransformCode)}) == 1
    assert torch.equal(torch.get_rng_state(), before)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def new_precision() -> Iterator[None]:
    conv = getattr(torch.backends.cudnn, "conv", None)
    if not hasattr(conv, "fp32_precision"):
        pytest.skip("this torch has no such setting")
    before = conv.fp32_precision
    conv.fp32_precision = "tf32" if before != "tf32" else "ieee"
    try:
        yield
    finally:
        conv.fp32_precision = before


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: default_device("meta"),
    "inference": torch.inference_mode,
    "gradients": torch.enable_grad,
    "autocast off": lambda: torch.autocast("cpu", enabled=False),
    "deterministic": deterministic,
    "precision": new_precision,
}


usual_streams: dict[str, list[bytes]] = {}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["mbt2018-mean-vbr", "hrtzxf2022-pcc-rec"])
def test_global_settings_change_no_stream(name: str, setting: str, image: Tensor, cloud: Tensor) -> None:
    x = image[:1] if "vbr" in name else cloud[:1, :300]
    if name not in usual_streams:
        usual_streams[name] = lc_bench.compress(lc_bench.build(name, **small(name)), x)
    expected = usual_streams[name]
    gaussian._tables.cache_clear()  # they have to be made under the setting too
    with SETTINGS[setting]():
        model = lc_bench.build(name, **small(name))
        streams = lc_bench.compress(model, x)
        x_hat = lc_bench.decompress(model, streams)
    assert streams == expected
    assert x_hat.dtype == torch.float32
    assert x_hat.device.type == "cpu"
    assert not any(tensor.is_inference() for tensor in model.parameters())


def test_mixed_precision_writes_what_full_precision_reads(image: Tensor) -> None:
    model = tiny()  # whose exact networks are to be made in mixed precision
    with torch.autocast("cpu", torch.bfloat16):
        coded = model.encode(image[:1])
    _, latents = copy.deepcopy(model).decode(coded.streams)
    assert all(torch.equal(a, b) for name in latents for a, b in zip(coded.latents[name], latents[name], strict=True))


def test_inference_mode_reaches_the_coder_s_threads(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "WORTH_THREADS", 0)
    model, threads = tiny(), torch.get_num_threads()
    expected = lc_bench.decompress(model, lc_bench.compress(model, image))
    try:
        torch.set_num_threads(2)
        with torch.inference_mode():
            assert torch.allclose(lc_bench.decompress(model, lc_bench.compress(model, image)), expected, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


def test_threads_leave_cudnn_as_it_was(image: Tensor) -> None:
    names = ("enabled", "benchmark", "deterministic")
    model, before = tiny(), [getattr(torch.backends.cudnn, name) for name in names]
    seen = in_threads(lambda: (lc_bench.compress(model, image[:1]), [getattr(torch.backends.cudnn, name) for name in names])[1])
    assert all(flags == before for flags in seen)
    assert [getattr(torch.backends.cudnn, name) for name in names] == before


def test_copies_and_files_hold_the_model_alone(image: Tensor) -> None:
    model = tiny()
    plain, coded = io.BytesIO(), io.BytesIO()
    torch.save(model, plain)
    streams = lc_bench.compress(model, image[:1])
    torch.save(model, coded)
    assert coded.tell() < 1.05 * plain.tell()
    coded.seek(0)
    for other in (torch.load(coded, weights_only=False), copy.deepcopy(model)):
        assert other._frozen is None
        assert lc_bench.decompress(other, streams).shape == image[:1].shape


def test_bytes_of_float16_are_where_the_latent_is() -> None:
    """On a device without values: whatever was made on another one raises."""
    seen: list[torch.device] = []

    class Tape(RateTape):
        pass

    latent = torch.empty(1, 3, 5, device="meta")
    assert Float16().code(Tape(False), "xyz", latent).device.type == "meta"
    from lc_bench.codecs.float16 import Bytes

    seen.append(Bytes(Float16(), latent.device).index(torch.Size((1, 6, 5))).device)
    assert seen == [latent.device]


if __name__ == "__main__":
    RECORD.write_text(json.dumps(identities(), indent=1) + "\n")
