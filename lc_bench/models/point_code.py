"""Point-cloud codecs: latents by name = g_a(x), a codec for them, x_hat = g_s(latents, number of points).

The same as an image codec to everything above: a stream's sizes are (N,), and the decoder gives as many points as they say.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..coding.container import LARGEST_PIECE, Header, filled, least_of_points, pack, seal_of, unpack
from ..coding.frozen import Frozen
from ..coding.tapes import FIXED, DecodeTape, EncodeTape, RateTape
from ..errors import StreamError, UserError
from ..ops.cudnn import repeatable
from .transform_code import Clock, Coded, Output, TransformCode, check_tensor, common, in_type_of

LARGEST_COORDINATE = 1e4  # beyond it, squared distances of float32 say nothing of a cloud's shape
MOST_AWAY = 16  # sizes of a cloud from the origin, up to which its points are float32
LEAST_SINGLE = 1e-30  # size of a cloud in float32
SMALLEST = 2.0**-126  # size that says that all points of a cloud are its centre; sizes of others are above it
UNPLACED = (0.0, 0.0, 0.0, 1.0)


class PointCode(TransformCode):
    """g_a, g_s: an analysis and a synthesis as lc_bench.layers.pointnet has them; smallest: number of points;
    points: how many it is made for."""

    def __init__(
        self,
        g_a: nn.Module,
        g_s: nn.Module,
        codec: nn.Module,
        points: int,
        smallest: int = 1,
        channels: int = 3,
        ladder: nn.Module | None = None,
    ) -> None:
        if ladder is not None:
            raise UserError("model/trait=variable_rate: models of clouds have one rate, only those of images have levels; leave it out")
        super().__init__(g_a, g_s, codec, pad_to=1, channels=channels)
        self.points = points
        self.smallest = smallest

    def forward(self, x: Tensor, level: float | Tensor | None = None) -> Output:
        """x (B, N, 3), in the unit sphere or cube."""
        self.check_input(x)
        self.rung(level, x.device)
        tape = RateTape(self.training, self.quantiser)
        y, wanted = self.g_a(in_type_of(self.g_a, x))
        y_hat = self.codec(tape, y)
        x_hat, given = self.g_s(y_hat, x.shape[1])
        return Output(x_hat, tape.bits, {**wanted, **given})

    @property
    def fixed(self) -> bool:
        """Whether it takes clouds of `points` points alone."""
        try:
            self.g_a.shapes(self.points + 1)  # type: ignore[operator]
        except UserError:
            return True
        return False

    def check_input(self, x: Tensor) -> None:
        """UserError unless x is (B, N, channels) in floating point, with enough points."""
        check_tensor(x)
        if x.ndim != 3 or x.shape[2] != self.channels or 0 in x.shape:
            raise UserError(f"an input of shape {tuple(x.shape)}: the model takes clouds (B, N, {self.channels}), nothing empty")
        if not x.is_floating_point():
            raise UserError(
                f"a cloud of {x.dtype}: the model takes floating point; scale whole numbers to the unit sphere (data.normalise=l2)"
            )
        if x.shape[1] < self.smallest:
            raise UserError(f"a cloud of {x.shape[1]} points: {self.name or 'the model'} needs {self.smallest} or more")

    def check_sendable(self, x: Tensor) -> None:
        """UserError for NaN, infinite and huge coordinates, and for too many points."""
        self.check_input(x)
        if x.shape[1] > LARGEST_PIECE:
            raise UserError(
                f"a cloud of {x.shape[1]} points: more than {LARGEST_PIECE} in one piece are not coded; code it in cubes (cube=...), "
                "or fewer of its points (points=...)"
            )
        if not bool((x.abs() <= LARGEST_COORDINATE).all()):  # also catches NaN
            raise UserError(
                f"the cloud has NaN or infinite coordinates, or some beyond {LARGEST_COORDINATE:.0f}; nothing was written. "
                "Models take clouds scaled to the unit sphere (data.normalise=l2)"
            )

    @torch.no_grad()
    def encode(
        self, x: Tensor, clock: Clock | None = None, level: float | None = None, scale: tuple[float, float, float, float] | None = None
    ) -> Coded:
        """x (B, N, 3) -> B streams. UserError for NaN, infinite and huge coordinates. scale: what headers say of their place."""
        self.rung(level, x.device)
        with self.coding() as frozen:
            header = Header(frozen.identity, (x.shape[1],), scale=scale)
            tape, segments = self.write(x, clock or (lambda _: nullcontext()), header, frozen)
            header = replace(header, place=frozen.bound)
            streams = [pack(header, row) for row in segments]
        sizes = [{name: len(s) for name, s in zip(tape.names, row, strict=True)} for row in segments]
        return Coded(streams, tape.latents, tape.bits, sizes)

    @torch.no_grad()
    def write(
        self,
        x: Tensor,
        clock: Clock,
        header: Header,
        frozen: Frozen,
        part: tuple[int | None, bytes] = (None, b""),
        spare: int = 0,
    ) -> tuple[EncodeTape, list[list[bytes]]]:
        """x (B, N, 3) -> the tape that wrote them, and the segments of each.

        frozen: as `coding` gives it, within which this is called. part: number and place of a cube, if it is one, for its seal;
        spare: bytes that other cubes have beyond what their points need, less what they lack.
        """
        self.check_sendable(x)
        tape = EncodeTape(frozen)
        with clock("transform"):
            y, _ = self.g_a(in_type_of(self.g_a, x.to(frozen.device)))
        with clock("coding"), repeatable(frozen.device):
            self.codec(tape, y)
            header = replace(header, place=frozen.bound)
            least = least_of_points(x.shape[1]) if part[0] is None else -spare
            rows = tape.segments([seal_of(header, len(tape.names), *part)] * len(x), least)
            return tape, [filled(row, least) for row in rows]

    @torch.no_grad()
    def decode(self, streams: list[bytes], clock: Clock | None = None) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """B streams of clouds of one size -> x_hat (B, N, 3), and the latents that were read. float64 where `as_single` says so."""
        if isinstance(streams, bytes) or not streams:
            raise UserError("decompress takes a list of streams (bytes), at least one")
        with self.coding() as frozen:
            headers, segments = zip(*map(unpack, streams), strict=True)
            (count,), _ = common(headers, frozen, 1)
            seals = [seal_of(h, len(row)) for h, row in zip(headers, segments, strict=True)]
            x_hat, latents = self.read(list(segments), seals, count, clock or (lambda _: nullcontext()), frozen)
            scales = [torch.tensor(h.scale or UNPLACED, device=x_hat.device, dtype=torch.float64) for h in headers]
            points = [placed(x, scale) for x, scale in zip(x_hat, scales, strict=True)]
            return torch.stack([p.double() for p in points] if any(p.dtype == torch.float64 for p in points) else points), latents

    @torch.no_grad()
    def read(
        self, segments: list[list[bytes]], seals: list[int], count: int, clock: Clock, frozen: Frozen
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Segments of B clouds of `count` points -> x_hat (B, N, 3) as it was coded, and the latents that were read.

        frozen: as `coding` gives it, within which this is called.
        """
        with clock("coding"), repeatable(frozen.device):
            try:
                shapes = self.g_a.shapes(count)  # type: ignore[operator]
            except UserError as error:
                raise StreamError(f"damaged stream: {error}") from None
            tape = DecodeTape(frozen, segments, seals, FIXED)
            nothing = torch.full((1,), torch.nan, device=frozen.device, dtype=torch.float32)
            y_hat = self.codec(tape, {name: nothing.expand(len(segments), *shape) for name, shape in shapes.items()})
            tape.finish()
        with clock("transform"), repeatable(frozen.device):
            x_hat, _ = self.g_s({name: in_type_of(self.g_s, value) for name, value in y_hat.items()}, count)
        return x_hat, tape.latents


def placed(x: Tensor, scale: Tensor) -> Tensor:
    """Points (N, 3), or with normals (N, 6), back to where they were: scale (4,) float64 is their centre and scale."""
    if bool((scale == torch.tensor(UNPLACED, device=scale.device)).all()):
        return x
    points = x[:, :3].double() * scale[3] + scale[:3]
    if scale[3] <= SMALLEST:
        points = scale[:3].expand_as(points)
    return as_single(torch.cat([points, x[:, 3:].double()], 1), float(scale[3]))


def as_single(points: Tensor, size: float) -> Tensor:
    """Points (N, 3) or (N, 6) float64 of a cloud of this size as float32, but for one far from the origin or very small, of which that has
    too few digits.
    """
    if size < LEAST_SINGLE or points[:, :3].abs().max() > MOST_AWAY * size:
        return points
    return points.float()
