"""Nonlinear transform coding: y = g_a(x), a latent codec for y, x_hat = g_s(y_hat).  Ballé et al. 2021, arXiv 2007.03034."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..coding.container import LARGEST_AREA, Header, pack, unpack
from ..coding.frozen import Frozen, fingerprint, repeatable
from ..coding.tapes import DecodeTape, EncodeTape, RateTape
from ..errors import StreamError, UserError
from ..ops.shapes import pad_to_multiple, padded_size

Clock = Callable[[str], AbstractContextManager[None]]


@dataclass
class Output:
    """x_hat (B, C, H, W); bits of each latent, (B,) each; whatever else a loss may want."""

    x_hat: Tensor
    bits: dict[str, Tensor]
    extras: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Coded:
    """A batch of streams, with what the benchmark checks and reports."""

    streams: list[bytes]
    latents: dict[str, list[Tensor]]
    bits: dict[str, Tensor]  # (B,) ideal bits of the tables, by latent
    segment_bytes: list[dict[str, int]]


class TransformCode(nn.Module):
    """An image codec. pad_to: sizes are padded to its multiples."""

    def __init__(self, g_a: nn.Module, g_s: nn.Module, codec: nn.Module, pad_to: int, channels: int = 3) -> None:
        super().__init__()
        self.g_a = g_a
        self.g_s = g_s
        self.codec = codec
        self.pad_to = pad_to
        self.channels = channels
        self.quantiser = "noise"
        # Set by the builder: the name and the resolved model file, which identify the architecture, and how the
        # reference implementation names its parts.
        self.name = ""
        self.architecture = ""
        self.reference_names: dict[str, str] = {}
        self.weights_note = "untrained"
        self._frozen: Frozen | None = None

    def forward(self, x: Tensor) -> Output:
        """x (B, C, H, W) in [0, 1]; any size."""
        self.check_input(x)
        tape = RateTape(self.training, self.quantiser)
        y_hat = self.codec(tape, self.g_a(pad_to_multiple(x, self.pad_to)))
        return Output(self.synthesise(y_hat, x.shape[-2:]), tape.bits)

    def synthesise(self, y_hat: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
        return self.g_s(y_hat.to(next(self.g_s.parameters()).dtype))[..., : size[0], : size[1]]

    def check_input(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels or 0 in x.shape:
            raise UserError(f"an input of shape {tuple(x.shape)}: the model takes (B, {self.channels}, H, W), nothing empty")

    @property
    def frozen(self) -> Frozen:
        """Tables and exact networks of the present weights; made anew when the weights have changed."""
        if self._frozen is None or self._frozen.fingerprint != fingerprint(self):
            self._frozen = Frozen(self, self.architecture.encode())
        return self._frozen

    @torch.no_grad()
    def encode(self, x: Tensor, clock: Clock | None = None) -> Coded:
        """x (B, C, H, W) in [0, 1] -> B streams. UserError for NaN and infinite pixels."""
        self.check_input(x)
        if not bool(x.isfinite().all()):
            raise UserError("the image has NaN or infinite pixels; nothing was written")
        clock = clock or (lambda _: nullcontext())
        self.eval()
        frozen = self.frozen
        tape = EncodeTape(frozen)
        with clock("transform"):
            y = self.g_a(pad_to_multiple(x, self.pad_to))
        with clock("coding"), repeatable():
            self.codec(tape, y)
            segments = tape.segments()
            header = Header(frozen.identity, tuple(x.shape[-2:]))
            streams = [pack(header, row) for row in segments]
        sizes = [{name: len(s) for name, s in zip(tape.names, row, strict=True)} for row in segments]
        return Coded(streams, tape.latents, tape.bits, sizes)

    @torch.no_grad()
    def decode(self, streams: list[bytes], clock: Clock | None = None) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """B streams of images of one size -> x_hat (B, C, H, W) in [0, 1], and the latents that were read."""
        if isinstance(streams, bytes) or not streams:
            raise UserError("decompress takes a list of streams (bytes), at least one")
        clock = clock or (lambda _: nullcontext())
        self.eval()
        frozen = self.frozen
        with clock("coding"), repeatable():
            headers, segments = zip(*map(unpack, streams), strict=True)
            size = _common_size(headers, frozen)
            tape = DecodeTape(frozen, list(segments))
            weight = next(self.g_s.parameters())
            padded = [padded_size(s, self.pad_to) for s in size]
            if padded[0] * padded[1] > LARGEST_AREA:
                raise StreamError(f"stream of {size[0]} x {size[1]}: more than {LARGEST_AREA} samples are not decoded")
            x = torch.full((1,), torch.nan, device=weight.device, dtype=weight.dtype)
            y_hat = self.codec(tape, tape.side(self.g_a, x.expand(len(streams), self.channels, *padded)))
            tape.finish()
        with clock("transform"):
            x_hat = self.synthesise(y_hat, size).clamp(0, 1)
        return x_hat, tape.latents


def _common_size(headers: tuple[Header, ...], frozen: Frozen) -> tuple[int, ...]:
    for header in headers:
        if header.identity.architecture != frozen.identity.architecture:
            raise StreamError("the stream was written by another architecture (or another N, M); load the model it was written with")
        if header.identity.weights != frozen.identity.weights:
            raise StreamError("the stream was written with other weights of this architecture; load the ones it was written with")
    sizes = {h.sizes for h in headers}
    if len(sizes) > 1 or len(headers[0].sizes) != 2:
        raise StreamError(f"streams of {len(sizes)} different sizes in one batch; decode images of one size together")
    return headers[0].sizes
