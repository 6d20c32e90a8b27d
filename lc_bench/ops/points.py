"""Operations on point clouds: sampling, neighbours, gathering. Clouds are (B, N, 3); indices are int64.

One rule decides everywhere, so that fast and obvious ways agree: squared distances are dx*dx + dy*dy + dz*dz in float64, and among
equal distances the smaller index comes first. `knn` takes candidates from scipy's k-d tree on a CPU and puts them in this order; rows in
which the tree's choice was arbitrary (a tie at the last place, as a lattice has them everywhere) ask for more, until what comes after
the tie is among them. Of points on one spot a tree holds those alone that can be asked for. Whatever is made for many rows, or compares
all with all, comes in pieces of bounded size.

Farthest point sampling: Eldar et al. 1997. Ball query and interpolation: Qi et al. 2017 (PointNet++), arXiv 1706.02413.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree  # type: ignore[attr-defined]
from torch import Tensor

from ..errors import UserError

PIECE = 1 << 18  # distances held at a time: 2 MiB, which stay in the cache
FEW = 256  # clouds up to this size are searched in full: a tree would take longer
NEARLY = 1 + 1e-12  # the tree adds squares in another order: squared distances closer than this may be ties
HELD = 1 << 19  # candidates, or pairs, of trees that are held at a time
MORE = 4  # times as many candidates where a row needs others
MOST = 1 << 12  # candidates of a row, beyond which it is searched in full


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """a (..., M, 3), b (..., N, 3) -> (..., M, N) float64."""
    out: Tensor | None = None
    for x, y in zip(a.double().unbind(-1), b.double().unbind(-1), strict=True):
        difference = x.unsqueeze(-1) - y.unsqueeze(-2)
        square = difference.mul_(difference)
        out = square if out is None else out.add_(square)
    assert out is not None
    return out


def gather(values: Tensor, index: Tensor) -> Tensor:
    """values (B, N, C), index (B, ...) -> (B, ..., C)."""
    flat = index.flatten(1).unsqueeze(-1).expand(-1, -1, values.shape[-1])
    return values.gather(1, flat).view(*index.shape, values.shape[-1])


@torch.no_grad()
def farthest_point_sample(points: Tensor, count: int) -> Tensor:
    """points (B, N, 3) -> indices (B, count): point 0, then always the point farthest from all before. Distances in the points' type."""
    batch, total, _ = points.shape
    if not 1 <= count <= total:
        raise UserError(f"farthest point sampling: {count} of {total} points; give a cloud of at least that many")
    # Coordinates apart and everything in place: one pass over contiguous memory for each step.
    x, y, z = (c.contiguous() for c in points.unbind(-1))
    nearest = torch.full_like(x, torch.inf)
    distance, square = torch.empty_like(x), torch.empty_like(x)
    chosen = torch.zeros(batch, count, dtype=torch.int64, device=points.device)
    for i in range(1, count):
        last = chosen[:, i - 1 : i]
        torch.sub(x, x.gather(1, last), out=distance).square_()
        for c in (y, z):
            distance.add_(torch.sub(c, c.gather(1, last), out=square).square_())
        torch.minimum(nearest, distance, out=nearest)
        torch.argmax(nearest, 1, out=chosen[:, i])
    return chosen


@torch.no_grad()
def knn(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """queries (B, M, 3), points (B, N, 3) -> squared distances (B, M, k) float64 and indices (B, M, k), nearest first."""
    if not 1 <= k <= points.shape[1]:
        raise UserError(f"{k} nearest neighbours in a cloud of {points.shape[1]} points: give a cloud of at least that many")
    if points.device.type == "cpu" and points.shape[1] > FEW:
        found = [_knn_by_tree(q, p, k) for q, p in zip(queries, points, strict=True)]
        return torch.stack([d for d, _ in found]), torch.stack([i for _, i in found])
    return knn_in_full(queries, points, k)


@torch.no_grad()
def nearest(queries: Tensor, points: Tensor) -> Tensor:
    """queries (B, M, 3), points (B, N, 3) -> index (B, M) of a nearest point; of equally near ones, any."""
    if points.device.type == "cpu":
        return torch.stack([_nearest_by_tree(q, p) for q, p in zip(queries, points, strict=True)])
    return torch.cat([squared_distances(piece, points).argmin(-1) for piece in _pieces(queries, points)], 1)


def _pieces(queries: Tensor, points: Tensor) -> tuple[Tensor, ...]:
    return queries.split(max(1, PIECE // (points.shape[0] * points.shape[1])), 1)


def knn_in_full(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `knn`, by comparing all with all."""
    distances, indices = [], []
    for piece in _pieces(queries, points):
        d, i = squared_distances(piece, points).sort(dim=-1, stable=True)
        distances.append(d[..., :k])
        indices.append(i[..., :k])
    return torch.cat(distances, 1), torch.cat(indices, 1)


def _tree(points: Tensor) -> cKDTree:
    """Quicker to build than a balanced one. Equal points would all lie in one leaf, so there may be few of them."""
    return cKDTree(points.double().numpy(), balanced_tree=False, compact_nodes=False)


def first_of_spots(points: Tensor, most: int) -> Tensor:
    """points (N, 3) -> indices, rising: of those that lie on one spot the first `most`, all others."""
    coordinates = points.numpy()
    order = np.lexsort(coordinates.T)  # stable: by index within a spot
    ordered = coordinates[order]
    starts = np.append(True, (ordered[1:] != ordered[:-1]).any(1))
    place = np.arange(len(order))
    rank = place - np.maximum.accumulate(np.where(starts, place, 0))
    return torch.from_numpy(np.sort(order[rank < most]))


def _nearest_by_tree(queries: Tensor, points: Tensor) -> Tensor:
    """One cloud: queries (M, 3), points (N, 3) -> (M,)."""
    first = first_of_spots(points, 1)
    return first[torch.from_numpy(_tree(points[first]).query(queries.double().numpy())[1]).long()]


def _knn_by_tree(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """One cloud: queries (M, 3), points (N, 3)."""
    first = first_of_spots(points, k)  # others on a spot come after k that are as near
    queries, points = queries.double(), points[first].double()
    tree = _tree(points)
    distance = queries.new_empty(len(queries), k)
    index = first.new_empty(len(queries), k)
    left, count = torch.arange(len(queries)), k + 1  # one more than asked tells whether the last place is a tie
    while len(left):
        count = min(count, len(points))
        tied = [left[:0]]
        for rows in left.split(max(1, HELD // count)):
            if count > MOST and count > k + 1:
                far, found = (part[0] for part in knn_in_full(queries[rows][None], points[None], k))
            else:
                far, found = _candidates(tree, queries[rows], points, count)
            distance[rows], index[rows] = far[:, :k], first[found[:, :k]]
            if k < far.shape[1] < len(points):  # else these are all that there are, or were compared with all
                tied.append(rows[far[:, -1] <= far[:, k - 1] * NEARLY])
        left, count = torch.cat(tied), MORE * count
    return distance, index


def _candidates(tree: cKDTree, queries: Tensor, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """queries (M, 3), float64 points (N, 3) of a tree -> of the `count` that it takes for nearest, squared distances and indices, by
    distance, then index."""
    found = np.asarray(tree.query(queries.numpy(), count)[1]).reshape(len(queries), count)
    index = torch.from_numpy(found).long().sort(1).values  # then a stable sort by distance leaves equal ones in order
    difference = (queries[:, None] - points[index]).square()
    distance, order = difference[..., 0].add(difference[..., 1]).add(difference[..., 2]).sort(dim=1, stable=True)
    return distance, index.gather(1, order)


@torch.no_grad()
def ball_query(centres: Tensor, points: Tensor, radius: float, count: int) -> Tensor:
    """centres (B, M, 3), points (B, N, 3) -> (B, M, count): the first points in index order that are nearer than `radius`.

    Where there are fewer, the first is repeated; where there is none, it is point 0.
    """
    if points.device.type == "cpu" and points.shape[1] > FEW:
        return torch.stack([_ball_by_tree(c, p, radius, count) for c, p in zip(centres, points, strict=True)])
    return ball_query_in_full(centres, points, radius, count)


def ball_query_in_full(centres: Tensor, points: Tensor, radius: float, count: int) -> Tensor:
    """As `ball_query`, by comparing all with all."""
    found = []
    for piece in _pieces(centres, points):
        inside = squared_distances(piece, points) < radius * radius
        number = torch.arange(points.shape[1], device=points.device)
        hits = torch.where(inside, number, len(number)).sort(-1).values[..., :count]  # those outside come last
        hits = torch.cat([hits, hits.new_full((*hits.shape[:-1], count - hits.shape[-1]), len(number))], -1)
        first = torch.where(hits[..., :1] < len(number), hits[..., :1], 0)
        found.append(torch.where(hits < len(number), hits, first))
    return torch.cat(found, 1)


def _ball_by_tree(centres: Tensor, points: Tensor, radius: float, count: int) -> Tensor:
    """One cloud: centres (M, 3), points (N, 3)."""
    first = first_of_spots(points, count)  # others on a spot are hit after so many
    centres, inside = centres.double(), points[first].double()
    tree = _tree(inside)
    ends = np.cumsum(tree.query_ball_point(centres.numpy(), radius * NEARLY, return_length=True))
    pieces = np.bincount(ends // HELD)
    parts = centres.split(pieces[pieces > 0].tolist())
    return torch.cat([_hits(tree, part, inside, first, radius, count) for part in parts])


def _hits(tree: cKDTree, centres: Tensor, points: Tensor, first: Tensor, radius: float, count: int) -> Tensor:
    """As `ball_query` has them, of float64 centres (M, 3) and points (N, 3) of a tree, whose indices are in `first`."""
    pairs = _tree(centres).sparse_distance_matrix(tree, radius * NEARLY, output_type="ndarray")
    centre, point = (torch.from_numpy(pairs[key].copy()) for key in ("i", "j"))
    difference = (centres[centre] - points[point]).square()
    inside = difference[:, 0].add(difference[:, 1]).add(difference[:, 2]) < radius * radius
    key = (centre[inside] * len(points) + point[inside]).sort().values
    centre, point = key // len(points), key % len(points)
    hits = centre.bincount(minlength=len(centres))
    start = hits.cumsum(0) - hits
    place = torch.arange(count).expand(len(centres), count)
    padded = torch.cat([first[point], point.new_zeros(1)])  # its end stands in where a centre has no hit at all
    chosen = padded[(start[:, None] + torch.where(place < hits[:, None], place, 0)).clamp_max(len(point))]
    return torch.where(hits[:, None] > 0, chosen, 0)


def interpolate(queries: Tensor, points: Tensor, values: Tensor, k: int = 3) -> Tensor:
    """Values (B, N, C) at points, brought to queries (B, M, 3) by weights 1 / distance^2 of the k nearest -> (B, M, C)."""
    distance, index = knn(queries, points, min(k, points.shape[1]))
    weight = 1 / (distance + 1e-8)
    weight = (weight / weight.sum(-1, keepdim=True)).to(values.dtype)
    return (gather(values, index) * weight.unsqueeze(-1)).sum(-2)
