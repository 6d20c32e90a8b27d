"""Models of variable rate: one set of weights, any rate, and a stream that says which."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CLOUD_MODELS, small
from torch import Tensor

import lc_bench
from lc_bench.api import build_from
from lc_bench.codecs.checkerboard import checkerboard
from lc_bench.coding.container import Header, pack, unpack
from lc_bench.coding.frozen import STEPS_KEPT
from lc_bench.coding.tapes import QUANTISERS, RateTape
from lc_bench.config import compose, qualities_of, spread_over
from lc_bench.entropy import GaussianPrior
from lc_bench.errors import StreamError, UserError
from lc_bench.layers.block_transform import block_basis, dct_matrix
from lc_bench.losses import RateDistortion
from lc_bench.models import Ladder, TransformCode, weights
from lc_bench.task import Task, hold_then_decay


@pytest.fixture(scope="module")
def lite() -> TransformCode:
    return lc_bench.build("lite", **small("lite"))


def test_rate_rises_with_the_level(lite: TransformCode, image: Tensor) -> None:
    levels = [0, 0.5, 1, 2.25, 3, 4, 5.5, 7]
    with torch.no_grad():
        bits = [sum(b.sum() for b in lite(image, level).bits.values()).item() for level in levels]
    sizes = [sum(map(len, lc_bench.compress(lite, image, level))) for level in levels]
    assert bits == sorted(bits)
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.3 * sizes[0]


def test_each_sample_may_have_its_own_level(lite: TransformCode, image: Tensor) -> None:
    with torch.no_grad():
        together = lite(image, torch.tensor([1.0, 6.0]))
        for i, level in enumerate((1.0, 6.0)):
            alone = lite(image[i : i + 1], level)
            assert torch.allclose(together.x_hat[i], alone.x_hat[0], atol=1e-5)  # worst seen 5e-7
            assert torch.allclose(together.bits["y"][i], alone.bits["y"][0], rtol=1e-4)


def test_the_stream_says_its_level(lite: TransformCode, image: Tensor) -> None:
    (stream,) = lc_bench.compress(lite, image[:1], 5.3)
    header, segments = unpack(stream)
    assert header.level == 85  # sixteenths
    with torch.no_grad():
        expected = lite(image[:1], 85 / 16).x_hat.clamp(0, 1)
    assert torch.allclose(lc_bench.decompress(lite, [stream]), expected, atol=1e-5)
    other = lc_bench.compress(lite, image[:1], 2)
    with pytest.raises(StreamError, match="different levels"):
        lc_bench.decompress(lite, [stream, *other])
    for level in (None, 7 * 16 + 1):
        with pytest.raises(StreamError, match="level"):
            lc_bench.decompress(lite, [pack(Header(header.identity, header.sizes, level), segments)])


def test_wrong_levels_are_told(lite: TransformCode, image: Tensor) -> None:
    for level in (-0.1, 7.5, float("nan")):
        with pytest.raises(UserError, match="levels are 0 to 7"):
            lite(image, level)
        with pytest.raises(UserError, match="levels are 0 to 7"):
            lc_bench.compress(lite, image, level)
    with pytest.raises(UserError, match="one rate"):
        lc_bench.build("mbt2018-mean", **small("mbt2018-mean"))(image, 2)
    assert qualities_of(compose("model=lite", "quality=[1,2.5]")) == [1, 2.5]
    with pytest.raises(UserError, match="qualities 1..8"):
        qualities_of(compose("model=lite", "quality=8.5"))
    with pytest.raises(UserError, match="qualities 1..8"):
        qualities_of(compose("model=mbt2018", "quality=2.5"))


def test_a_stream_decodes_from_its_file_alone(lite: TransformCode, image: Tensor, tmp_path: Path) -> None:
    weights.save(lite, tmp_path / "lite.safetensors", model="lite", quality="all", metric="mse")
    (tmp_path / "image.lc").write_bytes(lc_bench.compress(lite, image[:1], 4.5)[0])
    code = (
        "import sys, torch, lc_bench; from pathlib import Path; folder = Path(sys.argv[1]);"
        f"model = lc_bench.load('lite', weights=folder / 'lite.safetensors', **{small('lite')!r});"
        "torch.save(lc_bench.decompress(model, [(folder / 'image.lc').read_bytes()]), folder / 'image.pt')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True)
    with torch.no_grad():
        expected = lite(image[:1], 4.5).x_hat.clamp(0, 1)
    assert torch.allclose(torch.load(tmp_path / "image.pt"), expected, atol=1e-5)


def test_ladder_interpolates_logarithms() -> None:
    ladder = Ladder(8, (4.0, 0.25))
    steps = ladder(torch.tensor([0.0, 3.5, 7.0], dtype=torch.float64)).steps["y"]
    assert torch.allclose(steps, torch.tensor([4.0, 1.0, 0.25]))
    assert ladder(torch.tensor([1.0])).sign is None
    assert torch.equal(Ladder(8, (4.0, 0.25), tell=True)(torch.tensor([0.0, 7.0])).sign, torch.tensor([-1.0, 1.0]))


def test_checkerboard_is_two_passes_over_the_whole_plane() -> None:
    """The obvious twin: both passes of every network over all cells, and a choice between them."""
    torch.manual_seed(0)
    codec = lc_bench.build("lite", M=12, psi=8, groups="[12]").codec.y.codecs[0]
    y, psi = 9 * torch.randn(2, 12, 5, 7), torch.randn(2, 8, 5, 7)
    tape = RateTape(training=False)
    with torch.no_grad():
        fast = codec(tape, y, psi)
        anchor = ((torch.arange(5)[:, None] + torch.arange(7)) % 2 == 0)[None, None]
        zeros = torch.zeros(2, 64, 5, 7)
        first = codec.prior(codec.parameters_net(torch.cat([zeros, psi], 1)))
        known = first.rounded(y) * anchor
        second = codec.prior(codec.parameters_net(torch.cat([codec.context(known), psi], 1)))
        y_hat = torch.where(anchor, known, second.rounded(y))
        bits = torch.where(anchor, first.bits(y_hat), second.bits(y_hat)).flatten(1).sum(1)
    assert torch.allclose(fast, y_hat, atol=1e-5)  # worst seen 2e-6
    assert torch.allclose(tape.bits["y"], bits, rtol=1e-5)


def test_dead_zone_weighs_bits_against_error() -> None:
    """The obvious twin: for each value, the cheaper of its nearest integer and 0."""
    prior = GaussianPrior(mean=False, dead_zone=0.1, closed_below=0.3).eval()
    scales = torch.from_numpy(prior.table_scales()).float()[:50]
    values = torch.linspace(-2.2, 2.2, 443)
    gaussian = prior(scales[:, None].expand(50, 443))
    rounded = gaussian.rounded(values.expand(50, 443))
    plain = GaussianPrior(mean=False)(scales[:, None])
    bits = torch.stack([plain.bits(torch.full((50, 1), float(k))) for k in range(4)], 2)  # (50, 1, 4)
    for table, scale in enumerate(scales.tolist()):
        if scale < 0.3:
            assert not rounded[table].any()
            assert not gaussian.bits(rounded)[table].any()
            continue
        nearest = values.round()
        zero, one = bits[table, 0, 0], bits[table, 0, 1]
        worth = 0.1 * (one - zero) > values**2 - (values.abs() - 1) ** 2  # what 0 saves against 1, over what it adds
        assert torch.equal(rounded[table], torch.where(worth, 0.0, nearest)), scale
    tables = prior.make_tables()
    assert (tables.count[:-1] > 1).tolist() == [scale >= 0.3 for scale in prior.table_scales()]


def test_checkerboard_covers_every_cell_once() -> None:
    for height, width in ((1, 1), (1, 6), (3, 3), (4, 5)):
        anchors, others = checkerboard(height, width)
        assert sorted([*anchors.tolist(), *others.tolist()]) == list(range(height * width))
        assert len(anchors) == height * width - height * width // 2


def test_block_transform_starts_orthonormal() -> None:
    assert torch.allclose(dct_matrix(16) @ dct_matrix(16).T, torch.eye(16, dtype=torch.float64), atol=1e-12)
    basis = block_basis(40, 8)
    assert torch.allclose(basis @ basis.T, torch.eye(40), atol=1e-5)
    model = lc_bench.build("lite")
    x = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)  # smooth: the kept frequencies hold all of it
    with torch.no_grad():
        y = model.g_a(x)
        assert torch.allclose(model.g_s(torch.cat([y, y[:, :1]], 1)), x, atol=1e-3)  # worst seen 1e-5


def test_loss_takes_the_lambda_of_each_level() -> None:
    x, x_hat = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.1)
    bits = {"y": torch.tensor([16.0, 32.0])}
    loss = RateDistortion("mse", [0.01, 0.04], balance=0)
    terms = loss(x, x_hat, bits, 16, torch.tensor([0.0, 0.5]))
    distortion = 255**2 * 0.01
    assert terms.loss.item() == pytest.approx(((1 + 0.01 * distortion) + (2 + 0.02 * distortion)) / 2, rel=1e-5)
    balanced = RateDistortion("mse", [0.01, 0.04], balance=0.5)(x, x_hat, bits, 16, torch.tensor([0.0, 1.0]))
    weighted = (2**0.5 * (1 + 0.01 * distortion) + 2**-0.5 * (2 + 0.04 * distortion)) / 2
    assert balanced.loss.item() == pytest.approx(weighted, rel=1e-5)
    with pytest.raises(UserError, match="level of each sample"):
        loss(x, x_hat, bits, 16)


def test_hold_then_decay() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = hold_then_decay(optimizer, steps=100, decay=40, warmup=9)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[10:61] == [1.0] * 51
    assert rates[80] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.03


def variable(name: str, *settings: str) -> TransformCode:
    """A small model with the trait."""
    keys = [f"model.{key}={value}" for key, value in small(name).items()]
    return build_from(compose(f"model={name}", "+model/trait@model=variable_rate", "quality=3", *keys, *settings))


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "mbt2018-mean-gmm", "cheng2020-anchor", "elic2022-official"])
def test_the_trait_makes_any_model_variable(name: str, image: Tensor) -> None:
    """It trains, every parameter has its share, and what it writes is what evaluation says."""
    model = variable(name).train()
    with torch.no_grad():
        [p for p in model.g_a.parameters() if p.ndim == 4][-1].mul_(60)
    for model.quantiser in QUANTISERS:
        out = model(image, torch.tensor([0.5, 6.0]))
        (sum(bits.sum() for bits in out.bits.values()) + out.x_hat.sum()).backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    model.eval()
    with torch.no_grad():
        expected = model(image[:1], 5.5)
    coded = model.encode(image[:1], level=5.5)
    assert torch.allclose(lc_bench.decompress(model, coded.streams), expected.x_hat.clamp(0, 1), atol=1e-3)
    if name == "bmshj2018-factorized":
        assert coded.bits["y"].item() == pytest.approx(expected.bits["y"].item(), rel=0.05)


def test_a_trained_mixture_at_variable_rate(image: Tensor) -> None:
    model = variable("mbt2018-mean-gmm").train()
    with torch.no_grad():
        [p for p in model.g_a.parameters() if p.ndim == 4][-1].mul_(60)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(12):
        torch.manual_seed(step)
        bits = torch.stack([b.mean() for b in model(image, torch.tensor([7.0, 7.0 * (step % 2)])).bits.values()]).sum()
        optimizer.zero_grad()
        bits.backward()
        optimizer.step()
    model.eval()
    for level in (0, 3.5, 7):
        with torch.no_grad():
            expected = model(image[:1], level)
        coded = model.encode(image[:1], level=level)
        assert torch.allclose(lc_bench.decompress(model, coded.streams), expected.x_hat.clamp(0, 1), atol=1e-3)


def test_what_has_no_levels_says_so() -> None:
    with pytest.raises(UserError, match="models of clouds have one rate"):
        variable(CLOUD_MODELS[0])
    with pytest.raises(UserError, match="no hyper-latent z"):
        variable("bmshj2018-factorized", "model.vr_entbttlnck=true")


def test_ladder_and_loss_have_as_many_levels() -> None:
    """Lambdas are spread over the levels that there are, from the first to the last; other numbers of them are refused."""
    for name, levels in (("lite", 4), ("mbt2018-mean-vbr", 12), ("cui2021-gained", 2)):
        cfg = compose(f"model={name}", f"model.levels={levels}", "quality=1")
        lmbdas = list(cfg.rate.lmbda)
        assert len(lmbdas) == levels == cfg.model.qualities
        assert (lmbdas[0], lmbdas[-1]) == pytest.approx((0.0018, 0.18))
        assert lmbdas == sorted(lmbdas)
        cfg.quality = "all"
        assert qualities_of(cfg) == list(range(1, levels + 1))
    assert list(compose("model=lite").rate.lmbda) == [0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800]
    assert spread_over([1.0, 2.0, 8.0], 5) == pytest.approx([1, 2**0.5, 2, 4, 8])
    for levels in (1, -3, 2.5, True):
        with pytest.raises(UserError, match="2 levels or more"):
            Ladder(levels, (1.0, 2.0))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="2 levels or more"):
        lc_bench.build("lite", levels=1)
    model = lc_bench.build("lite", **small("lite"), levels=4)
    optimizer = functools.partial(torch.optim.Adam, lr=1e-4)
    for lmbda in ([0.01, 0.02], [0.01] * 8, 0.01):
        with pytest.raises(UserError, match="the model 4 levels"):
            Task(model, RateDistortion("mse", lmbda), optimizer)
    Task(model, RateDistortion("mse", [0.01, 0.02, 0.04, 0.08]), optimizer)


def test_a_short_run_reaches_its_rate_and_leaves_it() -> None:
    """Warm-up and decay of a long run, shortened."""
    for steps in (1, 7, 100, 1000):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = hold_then_decay(optimizer, steps, decay=20000, warmup=200)
        rates = []
        for _ in range(steps):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        assert max(rates) > 0.98
        assert rates[-1] <= max(1.5 / steps, 0.02) or steps == 1
    with pytest.raises(UserError, match="scheduler.decay=-1"):
        hold_then_decay(optimizer, 10, decay=-1)
    assert hold_then_decay(optimizer, 10, decay=0).get_last_lr() == [1.0]


def test_tables_of_steps_are_few(image: Tensor) -> None:
    """Every level's z has tables of its own; a stream may name any, and they must not pile up."""
    model = lc_bench.build("mbt2018-mean-vbr", **small("mbt2018-mean-vbr"), vr_entbttlnck="true")
    streams = [lc_bench.compress(model, image[:1], level / 2)[0] for level in range(4)]
    decoded = [lc_bench.decompress(model, [stream]) for stream in streams]
    kept = {id(family) for family in model.frozen._of_steps}
    assert len(kept) == STEPS_KEPT
    assert torch.equal(decoded[3], lc_bench.decompress(model, [streams[3]]))
    again = next(reversed(model.frozen._of_steps.values()))
    lc_bench.decompress(model, [streams[3]])
    assert next(reversed(model.frozen._of_steps.values())) is again  # found, not made
