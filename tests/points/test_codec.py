"""Point-cloud codecs: golden vectors of the reference implementation, streams, bad clouds, training and the benchmark by command."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import CLOUD_MODELS, call, small
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import lc_bench
from lc_bench.bench.clouds import code_cloud
from lc_bench.bench.complexity import cost_of
from lc_bench.coding.container import Header, pack, unpack
from lc_bench.coding.tapes import EncodeTape
from lc_bench.data import shapes
from lc_bench.errors import StreamError, UserError
from lc_bench.layers import FeaturePropagation, MultiScaleAbstraction, SetAbstraction
from lc_bench.layers.density import collapsed, directions, kept
from lc_bench.losses import RateDensity
from lc_bench.models import PointCode, cubed
from lc_bench.models.export import reference_state

QUICK = ["threads=1", "run.workers=0", "run.log_every=1", "trainer.accelerator=cpu", "data=shapes"]


def load(shared: Path, name: str) -> tuple[PointCode, dict[str, Tensor]]:
    with safe_open(shared / "golden" / f"{name}.safetensors", "pt") as file:
        vectors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        model = lc_bench.build(file.metadata()["architecture"], **json.loads(file.metadata()["arguments"]))
    lc_bench.load_reference_state(model, {k.removeprefix("state/"): v for k, v in vectors.items() if k.startswith("state/")})
    assert isinstance(model, PointCode)
    return model, vectors


def bits_match(vectors: dict[str, Tensor], bits: dict[str, Tensor]) -> None:
    likelihoods = {k.removeprefix("out/likelihoods/"): v for k, v in vectors.items() if k.startswith("out/likelihoods/")}
    assert bits.keys() == likelihoods.keys()
    for latent, likelihood in likelihoods.items():
        expected = -likelihood.double().log2().flatten(1).sum(1)
        assert torch.allclose(bits[latent].double(), expected, rtol=1e-5)  # worst seen 3e-7, fp32 sums


@pytest.mark.parametrize("name", ["sfu2023-pcc-rec-pointnet", "sfu2024-pcc-rec-pointnet2-ssg"])
def test_golden_auto_encoders(shared: Path, name: str) -> None:
    model, vectors = load(shared, name)
    with torch.no_grad():
        out = model(vectors["in/pos"])
    bits_match(vectors, out.bits)
    assert torch.allclose(out.x_hat, vectors["out/x_hat"], atol=1e-6)  # worst seen 0
    assert torch.equal(lc_bench.decompress(model, lc_bench.compress(model, vectors["in/pos"])), out.x_hat)


def test_golden_density_preserving(shared: Path) -> None:
    model, vectors = load(shared, "hrtzxf2022-pcc-rec")
    x = vectors["in/pos"]

    def close(key: str, ours: Tensor) -> None:
        theirs = vectors[f"out/{key}"]
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), key  # worst seen 3e-7

    with torch.no_grad():
        out, (y, _) = model(x), model.g_a(x)
        close("pre_conv", model.g_a.pre_conv(x.transpose(1, 2)))
        for i in range(3):
            close(f"downsample_num{i}", out.extras[f"number{i}"])
            close(f"mean_distance{i}", out.extras[f"distance{i}"])
        close("latent_xyz", out.extras["points3"].transpose(1, 2))
        close("latent_xyz_hat", out.extras["points3_hat"].transpose(1, 2))
        close("latent_feat", y["latent_feat"])
        features, points = vectors["out/latent_feat_hat"], vectors["out/latent_xyz_hat"].transpose(1, 2)
        candidates, made = model.g_s.up[0](points, features)
        close("upsample0/xyz", candidates.permute(0, 3, 1, 2))
        close("upsample0/feat", made)
        close("upsample_num0", model.g_s.number[0](features))
        refined, features = model.g_s.refine[0](candidates.flatten(1, 2)[:, :200], made.flatten(2)[:, :, :200])
        close("refine0/xyz", refined.transpose(1, 2))
        close("refine0/feat", features)
    bits_match(vectors, out.bits)
    assert torch.equal(lc_bench.decompress(model, lc_bench.compress(model, x)), out.x_hat)


@pytest.mark.parametrize("name", CLOUD_MODELS)
def test_export_gives_back_what_was_imported(shared: Path, name: str) -> None:
    model, vectors = load(shared, name)
    state = {k.removeprefix("state/"): v for k, v in vectors.items() if k.startswith("state/")}
    exported = reference_state(model)
    assert exported.keys() == state.keys()
    for key, value in exported.items():
        if value.numel() and not key.endswith(("quantiles", "target")):  # tables are made there, tails (theirs at 1e-4 here) found anew
            assert torch.allclose(value, state[key].to(value.dtype), rtol=1e-6), key


def test_sizes() -> None:
    lite, full = (lc_bench.build("sfu2024-pcc-rec-pointnet2-ssg", size=s) for s in ("lite", "full"))
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert count(lite) == 492870
    assert count(full) > 4 * count(lite)
    with pytest.raises(UserError, match="P\\[i - 1\\] = P\\[i\\]"):
        lc_bench.build("sfu2024-pcc-rec-pointnet2-ssg", P="[1024,256,32,1]")


@pytest.mark.parametrize("name", CLOUD_MODELS)
def test_the_decoder_gives_the_number_of_points_of_the_header(name: str, cloud: Tensor) -> None:
    model = lc_bench.build(name, **small(name))
    x = cloud[:, : model.points]
    coded = model.encode(x)
    header, segments = unpack(coded.streams[0])
    assert header.sizes == (x.shape[1],)
    first, again = (model.decode(coded.streams)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == x.shape
    for sizes in ((x.shape[1] + 4000,), (x.shape[1], 1), (3,)):
        with pytest.raises(StreamError):
            model.decode([pack(Header(header.identity, sizes), segments)])
    for place in (9, 14, len(coded.streams[0]) - 1):
        flipped = bytearray(coded.streams[0])
        flipped[place] ^= 16
        with pytest.raises(StreamError):
            model.decode([bytes(flipped)])
    for end in range(0, len(coded.streams[0]), 7):
        with pytest.raises(StreamError):
            model.decode([coded.streams[0][:end]])


@pytest.mark.parametrize("name", CLOUD_MODELS)
def test_bad_clouds_are_told(name: str, cloud: Tensor) -> None:
    model = lc_bench.build(name, **small(name))
    good = cloud[:1, : model.points]
    assert good.shape[1] == model.points or name.startswith("hrtzxf")
    for value, told in ((torch.nan, "NaN"), (torch.inf, "infinite"), (1e30, "beyond 10000")):
        bad = good.clone()
        bad[0, 5, 1] = value
        with pytest.raises(UserError, match=told):
            model.encode(bad)
    for shape in ((1, 0, 3), (0, 64, 3), (1, 64, 2), (64, 3)):
        with pytest.raises(UserError, match="takes clouds"):
            model.encode(torch.zeros(shape))
    if not name.startswith("hrtzxf"):
        with pytest.raises(UserError, match=f"a cloud of 1 points: this model takes {model.points}"):
            model.encode(good[:, :1])
    with pytest.raises(UserError, match="levels"):
        model.encode(good, level=2)


@pytest.mark.parametrize("name", CLOUD_MODELS)
def test_odd_clouds_are_coded(name: str, cloud: Tensor) -> None:
    """All points in one place, many of them twice, far away, very small."""
    model = lc_bench.build(name, **small(name))
    good = cloud[:1, : model.points]
    half = good[:, : good.shape[1] // 2]
    for odd in (torch.zeros_like(good), torch.cat([half, half], 1), 1000 * good, 1e-20 * good, good + 9000):
        model.train()
        out = model(torch.cat([odd, good]))  # normalisation needs two
        assert all(b.isfinite().all() for b in out.bits.values())
        x_hat = lc_bench.decompress(model, lc_bench.compress(model, odd))
        assert x_hat.shape == odd.shape
        assert x_hat.isfinite().all()


def test_kept_candidates_are_a_rule() -> None:
    candidates = torch.rand(1, 3, 4, 3, generator=torch.Generator().manual_seed(0))
    number = torch.tensor([[2.2, 1.0, 3.6]])
    assert kept(candidates, number, 7).tolist() == [[0, 1, 4, 8, 9, 10, 11]]
    assert kept(candidates, number, 10).tolist() == [[0, 1, 4, 8, 9, 10, 11, 0, 1, 4]]
    fewer = kept(candidates, number, 3)[0].tolist()
    assert len(set(fewer)) == 3
    assert set(fewer) < {0, 1, 4, 8, 9, 10, 11}
    assert fewer[0] == 0


def test_a_point_stands_for_those_nearest_to_it() -> None:
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [6, 0, 0], [7, 0, 0]]])
    total, belongs, index = collapsed(points[:, [0, 3]], points, 3)
    assert total.tolist() == [[1, 2]]
    assert [set(i[b].tolist()) for i, b in zip(index[0], belongs[0], strict=True)] == [{0, 1}, {2, 3, 4}]
    assert collapsed(points[:, [0, 3]], points, 2)[1].sum() == 4  # of three, only two are looked at


def test_directions_are_spread_over_the_ball() -> None:
    ball = directions()
    assert ball.shape == (43, 3)
    assert torch.allclose(ball.norm(dim=1), torch.tensor([0.0] + [1.0] * 42))
    assert ball.sum(0).abs().max() < 1e-5
    assert torch.cdist(ball[1:], ball[1:]).fill_diagonal_(9).min() > 0.5


def test_multi_scale_abstraction_and_feature_propagation() -> None:
    x, features = torch.rand(2, 100, 3), torch.rand(2, 5, 100)
    net = MultiScaleAbstraction(8, [[4, 6], [4, 7]], 20, [0.2, 0.5], [4, 8]).eval()
    centres, out = net(x, features)
    assert centres.shape == (2, 20, 3)
    assert out.shape == (2, 13, 20)
    single = SetAbstraction(8, [4, 7], 20, 0.5, 8).eval()
    single.load_state_dict(net.scales[1].state_dict())
    assert torch.equal(single(x, features)[1], out[:, 6:])
    back = FeaturePropagation(13 + 5, [9]).eval()
    assert back(x, centres, features, out).shape == (2, 9, 100)


def test_density_model_with_normals(cloud: Tensor) -> None:
    model = lc_bench.build("hrtzxf2022-pcc-rec", normals=True, channels=6, hidden=8)
    x = torch.cat([cloud, torch.nn.functional.normalize(cloud, dim=2)], 2)
    assert lc_bench.decompress(model, lc_bench.compress(model, x)).shape == x.shape
    with pytest.raises(UserError, match="\\(B, N, 6\\)"):
        model(cloud)


def test_benchmark_and_cost() -> None:
    model = lc_bench.build("sfu2024-pcc-rec-pointnet2-ssg", num_points=64)
    table = lc_bench.benchmark(model, images=3)
    assert table.image.tolist() == ["ball", "ring", "drum"]
    assert (table.points == 64).all()
    assert (table.points_decoded == 64).all()
    assert (table.bpp * 64 / 8 == table.bytes).all()
    assert table[["d1-psnr", "d2-psnr", "d1-psnr-spacing", "d2-psnr-spacing", "chamfer"]].notna().all().all()
    assert cost_of(lc_bench.build("sfu2023-pcc-rec-pointnet"))["encoder_kmacs_point"] == pytest.approx(
        147.648
    )  # a sum of products of widths
    with pytest.raises(UserError, match="holds images.*takes clouds"):
        lc_bench.benchmark(model, data="samples")
    with pytest.raises(UserError, match="holds clouds.*takes images"):
        lc_bench.benchmark(lc_bench.build("bmshj2018-factorized", N=8, M=12), data="shapes")


@pytest.mark.parametrize("name", CLOUD_MODELS)
def test_train_then_benchmark_by_command(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [f"model={name}", *(f"model.{k}={v}" for k, v in small(name).items())]
    call(
        monkeypatch,
        "run=train",
        "data=shapes",
        *own,
        *QUICK,
        "run.steps=12",
        "run.val=shapes",
        "run.val_every=6",
        "run.batch=3",
        "quality=2",
        "optimizer.lr=3e-3",
        f"hydra.run.dir={tmp_path}/t",
    )
    loss = pd.read_csv(tmp_path / "t" / "metrics.csv")["train/loss"].dropna()
    assert loss.tail(3).mean() < loss.head(3).mean()
    weights = f"weights={tmp_path}/t/model.safetensors"
    call(monkeypatch, *own, weights, "run.anchors=false", "run.images=4", "threads=1", f"hydra.run.dir={tmp_path}/b")
    records = pd.read_csv(tmp_path / "b" / "records.csv")
    assert len(records) == 4
    assert (records.encoder_kmacs_point > 0).all()
    for name_ in ("rd-d1-psnr.png", "rd-d2-psnr.png", "rd-chamfer.png"):
        assert (tmp_path / "b" / name_).read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "b" / "index.html").read_text()
    assert '"unit":"point"' in page
    call(monkeypatch, "run=check", *own, weights)


def test_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalisation statistics included."""
    own = ["run=train", "model=sfu2024-pcc-rec-pointnet2-ssg", "data=shapes", "model.num_points=64", "threads=1"]
    more = [*QUICK, "run.batch=3", "quality=2", "run.save_every=5", "run.quantiser=mixed", "scheduler=hold", "scheduler.decay=4"]
    for out, steps in (("whole", 10), ("cut", 5), ("cut", 10)):
        end = ["scheduler.steps=10", f"run.steps={steps}", "run.resume=auto", f"hydra.run.dir={tmp_path / out}"]
        call(monkeypatch, *own, *more, *end)
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_draco_beside_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("DracoPy")
    own = ["model=sfu2024-pcc-rec-pointnet2-ssg", "model.num_points=64", "weights=none", "quality=1", "run.images=2", "threads=1"]
    call(monkeypatch, *own, f"hydra.run.dir={tmp_path}")
    draco = pd.read_csv(tmp_path / "records.csv").query("codec == 'draco'")
    assert (draco.points_decoded == 64).all()
    means = draco.groupby("level")[["bpp", "d1-psnr"]].mean()
    assert means.bpp.is_monotonic_increasing
    assert means["d1-psnr"].is_monotonic_increasing


def test_without_draco_the_model_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lc_bench.bench.draco.installed", lambda: False)
    own = ["model=sfu2024-pcc-rec-pointnet2-ssg", "model.num_points=64", "weights=none", "quality=1", "run.images=2", "threads=1"]
    call(monkeypatch, *own, f"hydra.run.dir={tmp_path}")
    assert set(pd.read_csv(tmp_path / "records.csv").kind) == {"learned"}


def test_shapes_need_nothing() -> None:
    assert len(shapes()) == 12


def with_normals(cloud: Tensor) -> Tensor:
    """(B, N, 6): the normals of a ball, whatever the cloud."""
    return torch.cat([cloud, torch.nn.functional.normalize(cloud, dim=2)], 2)


def test_normals_are_coded_with_positions(cloud: Tensor) -> None:
    """(B, N, 6) in training, streams, files and records."""
    model = lc_bench.build("hrtzxf2022-pcc-rec", normals=True, channels=6, hidden=8)
    assert isinstance(model, PointCode)
    x = with_normals(cloud[:, :200])
    model.train()
    out = model(x)
    assert out.x_hat.shape == x.shape
    RateDensity(1e4)(x, out.x_hat, out.bits, 200, extras=out.extras).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    with torch.no_grad():
        expected = model(x).x_hat
    assert torch.equal(lc_bench.decompress(model, lc_bench.compress(model, x)), expected)
    assert (expected[..., 3:].abs() <= 1).all()
    record, decoded, _ = code_cloud(model, model, x[0])
    assert torch.allclose(decoded, expected[0], atol=1e-5)  # worst seen 1e-6: one cloud here, two above
    assert 0 <= record["normals-f1"] <= 1
    far = x[0] * torch.tensor([20.0, 20, 20, 1, 1, 1])
    back = cubed.decode(model, cubed.encode_cubes(model, far, 16.0).streams[0])[0]
    assert back.shape == far.shape
    assert back[:, 3:].abs().max() <= 1
    with pytest.raises(UserError, match="takes clouds"):
        model.encode(cloud)


def test_positions_as_float16(cloud: Tensor) -> None:
    """48 bits for each of the coarsest points, which the receiver sees as float16 rounds them."""
    model = lc_bench.build("hrtzxf2022-pcc-rec", float16=True, hidden=8)
    x = cloud[:, :270]
    coded = model.encode(x)
    y, _ = model.g_a(x)
    assert y["latent_xyz"].shape == (2, 3, 10)
    assert torch.equal(coded.latents["latent_xyz"][0], y["latent_xyz"].half().double())
    assert coded.bits["latent_xyz"].tolist() == [480, 480]
    assert all(60 <= row["latent_xyz"] <= 60 + 12 for row in coded.segment_bytes)  # states and first byte of a segment
    x_hat, latents = model.decode(coded.streams)
    assert torch.equal(latents["latent_xyz"][0], coded.latents["latent_xyz"][0])
    with torch.no_grad():
        out = model(x)
    assert torch.equal(out.x_hat, x_hat)
    assert out.bits["latent_xyz"].tolist() == [480, 480]
    for value in (-1.5, 0.0, -0.0, 65504.0, 6e-8, 1 / 3):
        point = torch.full((1, 4, 3), value)
        tape = EncodeTape(model.frozen)
        prior = model.codec.priors["latent_xyz"]
        assert torch.equal(prior.code(tape, "p", point), point.half().double())
    with pytest.raises(UserError, match="float16"):
        prior.code(EncodeTape(model.frozen), "p", torch.full((1, 4, 3), 7e4))
