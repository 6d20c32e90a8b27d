"""Fast and obvious ways agree, ties included: coordinates on a small grid make many, and squares of whole numbers are exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lc_bench.errors import UserError
from lc_bench.ops import points as ops


def grid(seed: int, batch: int = 2, count: int = 500, side: int = 7) -> Tensor:
    """Clouds of whole numbers: duplicates and equal distances everywhere."""
    return torch.randint(side, (batch, count, 3), generator=torch.Generator().manual_seed(seed)).float()


def spread_out(seed: int, count: int = 700) -> Tensor:
    return torch.rand(2, count, 3, generator=torch.Generator().manual_seed(seed))


CLOUDS = pytest.mark.parametrize(
    "cloud", [grid(0), grid(1, side=2), spread_out(2), torch.zeros(2, 300, 3)], ids=["grid", "cube", "even", "one place"]
)


@CLOUDS
def test_farthest_point_sampling_is_greedy(cloud: Tensor) -> None:
    fast = ops.farthest_point_sample(cloud, 60)
    for points, chosen in zip(cloud, fast.tolist(), strict=True):
        taken = [0]
        for _ in range(59):
            distance = torch.stack([square_sum(points - points[i]) for i in taken]).amin(0)
            taken.append(int((distance == distance.max()).nonzero()[0]))
        assert chosen == taken


def square_sum(difference: Tensor) -> Tensor:
    x, y, z = difference.unbind(1)
    return x * x + y * y + z * z


@CLOUDS
@pytest.mark.parametrize("k", [1, 3, 16])
def test_knn_is_by_distance_then_index(cloud: Tensor, k: int) -> None:
    distance, index = ops.knn(cloud[:, ::5], cloud, k)
    for points, found, far in zip(cloud, index, distance, strict=True):
        for query, row, values in zip(points[::5], found.tolist(), far, strict=True):
            all_of_them = square_sum(points.double() - query.double())
            order = sorted(range(len(points)), key=lambda i: (all_of_them[i].item(), i))
            assert row == order[:k]
            assert torch.equal(values, all_of_them[row])


@CLOUDS
@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0])
def test_ball_query_takes_first_hits_and_pads(cloud: Tensor, radius: float) -> None:
    """On the grid, many points lie exactly on the sphere of radius 1 or 2: those are outside."""
    centres = cloud[:, :40]
    fast = ops.ball_query(centres, cloud, radius, 5)
    for points, rows in zip(cloud, fast.tolist(), strict=True):
        for centre, row in zip(points[:40], rows, strict=True):
            hits = (square_sum(points.double() - centre.double()) < radius**2).nonzero().flatten().tolist()
            assert row == (hits + hits[:1] * 5)[:5]


def test_ball_query_without_hits_and_with_few_points() -> None:
    far = torch.full((1, 2, 3), 9.0)
    assert (ops.ball_query(far, spread_out(0)[:1], 0.1, 4) == 0).all()
    assert ops.ball_query(torch.zeros(1, 1, 3), torch.zeros(1, 2, 3), 0.1, 4).tolist() == [[[0, 1, 0, 0]]]


@CLOUDS
def test_searches_in_full_and_by_tree_are_the_same(cloud: Tensor) -> None:
    for fast, full in zip(ops.knn(cloud, cloud, 4), ops.knn_in_full(cloud, cloud, 4), strict=True):
        assert torch.equal(fast, full)
    assert torch.equal(ops.ball_query(cloud, cloud, 1.0, 6), ops.ball_query_in_full(cloud, cloud, 1.0, 6))
    index = ops.nearest(cloud.flip(1), cloud)
    assert torch.equal(
        ops.squared_distances(cloud.flip(1), cloud).gather(2, index[..., None])[..., 0], ops.knn(cloud.flip(1), cloud, 1)[0][..., 0]
    )


def test_interpolation_of_a_linear_field_and_at_its_own_points() -> None:
    points = spread_out(3)
    values = points @ torch.tensor([[1.0], [2.0], [-1.0]])
    assert torch.allclose(ops.interpolate(points, points, values), values, atol=2e-3)  # worst seen 4e-4: 1e-8 softens the weights
    between = ops.interpolate((points[:, :1] + points[:, 1:2]) / 2, points[:, :2], values[:, :2])
    assert torch.allclose(between, values[:, :2].mean(1, keepdim=True), atol=1e-6)


def test_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    plain = ops.squared_distances

    def watched(a: Tensor, b: Tensor) -> Tensor:
        nonlocal largest
        out = plain(a, b)
        largest = max(largest, out.numel())
        return out

    monkeypatch.setattr(ops, "squared_distances", watched)
    cloud = grid(0, count=2000, side=50)
    ops.knn_in_full(cloud, cloud, 3)
    ops.ball_query_in_full(cloud, cloud, 2.0, 3)
    assert largest <= ops.PIECE


def test_too_few_points_are_told() -> None:
    with pytest.raises(UserError, match="5 of 3 points"):
        ops.farthest_point_sample(torch.zeros(1, 3, 3), 5)
    with pytest.raises(UserError, match="5 nearest neighbours in a cloud of 3"):
        ops.knn(torch.zeros(1, 3, 3), torch.zeros(1, 3, 3), 5)


def test_nearest_among_points_on_one_spot() -> None:
    """Many ties, none of which the slow way has to settle: the first of equal points is taken."""
    draw = torch.Generator().manual_seed(5)
    spots = torch.randn(40, 3, generator=draw)
    points = spots[torch.randint(40, (900,), generator=draw)]
    queries = torch.cat([points[:200], torch.randn(200, 3, generator=draw), (spots[:20] + spots[20:]) / 2])
    found, expected = ops.knn(queries[None], points[None], 1), ops.knn_in_full(queries[None], points[None], 1)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def lattice(*sides: int) -> Tensor:
    """Points of whole numbers, shuffled: (product of sides, 3)."""
    points = torch.cartesian_prod(*(torch.arange(side).float() for side in sides))
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(len(points)))]


def clump_and_outliers() -> Tensor:
    draw = torch.Generator().manual_seed(6)
    return torch.cat([torch.randn(3000, 3, generator=draw) * 1e-3, torch.randn(20, 3, generator=draw) * 1e5])


@pytest.mark.parametrize(
    "cloud",
    [
        lattice(14, 14, 14),
        lattice(55, 55, 1),
        lattice(3000, 1, 1),
        lattice(6, 5, 7).repeat(9, 1),
        torch.ones(3000, 3),
        clump_and_outliers(),
    ],
    ids=["lattice", "plane", "line", "spots of nine", "one spot", "clump"],
)
@pytest.mark.parametrize("k", [1, 2, 16])
def test_ties_are_settled_among_few(cloud: Tensor, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties at the last place are everywhere here; comparing all with all takes gigabytes for 20,000 such points."""
    queries = torch.cat([cloud, cloud[::3] + 0.5])
    asked = torch.arange(0, len(queries), 37)
    expected = ops.knn_in_full(queries[None, asked], cloud[None], k)
    monkeypatch.setattr(ops, "knn_in_full", None)
    monkeypatch.setattr(ops, "HELD", 1 << 14)
    largest = 0
    plain = ops._candidates

    def watched(tree: object, some: Tensor, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
        nonlocal largest
        largest = max(largest, len(some) * count)
        return plain(tree, some, points, count)  # type: ignore[arg-type]

    monkeypatch.setattr(ops, "_candidates", watched)
    for found, wanted in zip(ops.knn(queries[None], cloud[None], k), expected, strict=True):
        assert torch.equal(found[:, asked], wanted)
    assert largest <= 1 << 14


def test_a_tie_of_very_many_is_settled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """All points on a sphere about the query: the first of them are the nearest."""
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    corners = torch.tensor([[3.0, 4.0, 12.0], [4.0, 3.0, 12.0], [12.0, 3.0, 4.0], [12.0, 4.0, 3.0], [4.0, 12.0, 3.0], [3.0, 12.0, 4.0]])
    sphere = (signs[:, None] * corners).flatten(0, 1)
    cloud = torch.cat([sphere, torch.full((300, 3), 50.0)])
    monkeypatch.setattr(ops, "MOST", 16)  # below what it takes to see past the tie
    distance, index = ops.knn(torch.zeros(1, 1, 3), cloud[None], 5)
    assert index.tolist() == [[[0, 1, 2, 3, 4]]]
    assert distance.unique().tolist() == [169.0]


def test_balls_full_of_points_are_searched_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = lattice(12, 12, 12)[None]
    expected = ops.ball_query_in_full(cloud[:, :50], cloud, 30.0, 4)
    monkeypatch.setattr(ops, "HELD", 1 << 12)
    largest = 0
    plain = ops._hits

    def watched(tree: object, centres: Tensor, *others: object) -> Tensor:
        nonlocal largest
        largest = max(largest, len(centres) * cloud.shape[1])
        return plain(tree, centres, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(ops, "_hits", watched)
    assert torch.equal(ops.ball_query(cloud[:, :50], cloud, 30.0, 4), expected)
    assert largest <= (1 << 12) + cloud.shape[1]
