"""Metrics and losses against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lc_bench.errors import UserError
from lc_bench.losses import RateChamfer, RateDensity
from lc_bench.losses.points import chamfer_terms
from lc_bench.metrics import points as metrics
from lc_bench.metrics.density import density_difference, normals_f1


@pytest.fixture
def pair(cloud: Tensor) -> tuple[Tensor, Tensor]:
    noise = torch.randn(cloud.shape[1], 3, generator=torch.Generator().manual_seed(3))
    return cloud[0], (cloud[0] + 0.05 * noise)[:500]


def brute(a: Tensor, b: Tensor) -> tuple[float, float]:
    there = sum(min(float(((p - q) ** 2).sum()) for q in b) for p in a) / len(a)
    back = sum(min(float(((p - q) ** 2).sum()) for q in a) for p in b) / len(b)
    return there, back


def test_chamfer_and_d1(pair: tuple[Tensor, Tensor]) -> None:
    a, b = pair[0][:60].double(), pair[1][:50].double()
    there, back = brute(a, b)
    assert metrics.chamfer(a, b) == pytest.approx(there + back, rel=1e-12)
    assert metrics.d1_mse(a, b) == pytest.approx((there, back), rel=1e-12)
    assert metrics.psnr((there, back), 2.0) == pytest.approx(10 * math.log10(12 / max(there, back)))
    assert metrics.psnr(metrics.d1_mse(a, a), 2.0) == math.inf


def test_both_peaks() -> None:
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]])
    assert metrics.peak(line, "box") == 3
    assert metrics.peak(line, "spacing") == 2
    with pytest.raises(UserError, match="box, spacing"):
        metrics.peak(line, "diagonal")


def test_d2_counts_only_what_leaves_the_plane() -> None:
    plane = torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 0.0])
    aside, above = plane + torch.tensor([0.003, 0.0, 0.0]), plane + torch.tensor([0.0, 0.0, 0.01])
    assert max(metrics.d2_mse(plane, aside)) < 1e-12
    assert metrics.d2_mse(plane, above) == pytest.approx((1e-4, 1e-4), rel=1e-4)
    normals = torch.tensor([[1.0, 0.0, 0.0]]).expand(400, 3)
    assert max(metrics.d2_mse(plane, above, normals)) < 1e-12
    assert (metrics.estimated_normals(plane)[:, 2].abs() > 0.999).all()


def test_chamfer_loss_and_its_gradient(cloud: Tensor) -> None:
    x, x_hat = cloud[:, :80].double(), (cloud[:, 80:150].double() * 0.9).requires_grad_()
    there, back, index = chamfer_terms(x, x_hat)
    distance = (x[:, :, None] - x_hat[:, None]).square().sum(-1)
    assert torch.allclose(there, distance.amin(2).mean(1))
    assert torch.allclose(back, distance.amin(1).mean(1))
    assert torch.equal(index, distance.argmin(1))
    loss = RateChamfer(3.0)(x, x_hat, {"y": torch.tensor([80.0, 160.0])}, 80)
    assert loss.bpp == pytest.approx(1.5)
    assert loss.loss.item() == pytest.approx(1.5 + 3 * (there + back).mean().item())
    (ours,) = torch.autograd.grad(loss.loss, x_hat)
    (plain,) = torch.autograd.grad(3 * (distance.amin(2).mean(1) + distance.amin(1).mean(1)).mean(), x_hat)
    assert torch.allclose(ours, plain)


def test_density_loss_by_hand() -> None:
    """One point that stands for two, told to stand for three, at a mean distance of 1 instead of 2; and a cloud that is matched exactly."""
    cloud = torch.tensor([[[0.0, 0, 0], [2, 0, 0]]])
    given = {
        "points0": cloud, "points0_hat": cloud.clone(), "points1": cloud[:, :1], "points1_hat": cloud[:, :1] + 3.0,
        "number0": torch.tensor([[2.0]]), "number0_hat": torch.tensor([[3.0]]),
        "distance0": torch.tensor([[1.0]]), "distance0_hat": torch.tensor([[2.0]]),
    }  # fmt: skip
    loss = RateDensity(1e4, stages=[1.0])
    found = loss.terms(given)
    assert {k: v.item() for k, v in found.items()} == {"chamfer": 0, "number": 1, "spread": 1, "total": 1, "latents": 9}
    total = loss(cloud, cloud, {"y": torch.tensor([4.0])}, 2, None, given)
    assert total.loss.item() == pytest.approx(2 + 1 + 50 + 5e-3 + 900)
    with pytest.raises(UserError, match="rate=chamfer"):
        loss(cloud, cloud, {"y": torch.tensor([4.0])}, 2)


def test_density_loss_looks_up_the_nearest_point_of_a_stage() -> None:
    """Numbers of stage 0 belong to points of stage 1, of which the decoder has its own, in another order."""
    stage1 = torch.tensor([[[0.0, 0, 0], [5, 0, 0]]])
    given = {
        "points0": stage1, "points0_hat": stage1, "points1": stage1, "points1_hat": stage1.flip(1) + 0.1,
        "points2": stage1[:, :1], "points2_hat": stage1[:, :1],
        "number0": torch.tensor([[2.0, 7.0]]), "number0_hat": torch.tensor([[7.0, 2.0]]),
        "number1": torch.tensor([[4.0]]), "number1_hat": torch.tensor([[4.0]]),
    }  # fmt: skip
    assert RateDensity(1e4, stages=[1.0, 0.1]).terms(given)["number"].item() == 0


def local(points: list[list[float]], radius: float) -> list[tuple[int, float]]:
    found = []
    for p in points:
        inside = [d for d in sorted(math.dist(p, q) for q in points)[:100] if d <= radius]
        found.append((len(inside), sum(inside) / len(inside)))
    return found


def test_density_difference(pair: tuple[Tensor, Tensor]) -> None:
    a, b = pair[0][:130].double().tolist(), (0.1 * pair[1][:90]).double().tolist()  # b is dense: more than 100 in a ball are not counted

    def off(ours: list[list[float]], theirs: list[list[float]]) -> float:
        of_ours, of_theirs, total = local(ours, 0.3), local(theirs, 0.3), 0.0
        for p, (number, distance) in zip(ours, of_ours, strict=True):
            there = min(range(len(theirs)), key=lambda i: math.dist(p, theirs[i]))
            n, d = of_theirs[there]
            total += (abs(n - number) / n + 1e-5 * abs(d - distance) / (d + 1e-8)) / len(ours)
        return total

    x, y = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert density_difference(x, y, 0.3) == pytest.approx(off(a, b) + off(b, a), rel=1e-6)
    assert density_difference(y, x, 0.3) == pytest.approx(density_difference(x, y, 0.3))
    assert density_difference(x, x) == 0
    assert density_difference(x[:1], x[:1]) == 0


def test_normals_f1(pair: tuple[Tensor, Tensor]) -> None:
    draw = torch.Generator().manual_seed(1)
    a = torch.cat([pair[0][:80], torch.nn.functional.normalize(torch.randn(80, 3, generator=draw), dim=1)], 1).double()
    b = torch.cat([pair[0][20:120], torch.nn.functional.normalize(torch.randn(100, 3, generator=draw), dim=1)], 1).double()
    b[:30, 3:] = a[20:50, 3:]
    right, found = 0, set()
    for q in b.tolist():
        i = min(range(80), key=lambda i: math.dist(q[:3], a[i, :3].tolist()))
        if math.dist(q[:3], a[i, :3].tolist()) <= 0.2 and math.dist(q[3:], a[i, 3:].tolist()) <= 0.5:
            right += 1
            found.add(i)
    expected = 2 * right / (2 * right + (100 - right) + (80 - len(found)))
    assert 0.2 < expected < 0.8
    assert normals_f1(a, b, near=0.2) == pytest.approx(expected)
    assert normals_f1(a, a) == 1
