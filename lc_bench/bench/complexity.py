"""Multiply-accumulates per pixel or point of encoder and decoder, counted by torch; of image models while they run on shapes alone."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..coding.tapes import RateTape, Rung
from ..models import PointCode, TransformCode
from . import clouds


class _CountingTape(RateTape):
    """Sender's networks count for the encoder, exact ones for both sides."""

    def __init__(self, rung: Rung) -> None:
        super().__init__(training=True, rung=rung)
        self.encoder = self.both = 0

    def side(self, analysis: nn.Module, y: Tensor) -> Tensor:
        out, macs = _count(analysis, y)
        self.encoder += macs
        return out

    def exact(self, net: nn.Module) -> nn.Module:
        return _Counted(net, self)

    def count(self, name, y_hat, prior) -> None:  # type: ignore[no-untyped-def]
        """Bits are not counted: a coder looks its probabilities up."""


class _Counted(nn.Module):
    def __init__(self, net: nn.Module, tape: _CountingTape) -> None:
        super().__init__()
        self.net = net
        self.tape = tape

    def forward(self, x: Tensor) -> Tensor:
        out, macs = _count(self.net, x)
        self.tape.both += macs
        return out


def _count(net: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    counter = FlopCounterMode(display=False)
    with counter:
        out = net(x)
    return out, counter.get_total_flops() // 2


def cost_of(model: TransformCode) -> dict[str, float]:
    """Of a model of images or of clouds; what is counted is per pixel (kmacs_px) or per point (kmacs_point)."""
    return clouds.complexity(model) if isinstance(model, PointCode) else complexity(model)


@torch.no_grad()
def complexity(model: TransformCode, size: int = 256) -> dict[str, float]:
    """kMACs per pixel of encoder and decoder (analysis, side information, context; synthesis), and parameters."""
    meta = copy.deepcopy(model).to("meta")
    x = torch.empty(1, model.channels, size, size, device="meta")
    tell = model.ladder is not None and model.ladder.tell
    rung = Rung(torch.zeros(1, device="meta"), {}, torch.zeros(1, device="meta") if tell else None)
    tape = _CountingTape(rung)
    y_hat = meta.codec(tape, tape.side(meta.g_a, x))
    _, synthesis = _count(meta.g_s, rung.tell(y_hat))
    scale = 1e3 * size * size
    return {
        "encoder_kmacs_px": (tape.encoder + tape.both) / scale,
        "decoder_kmacs_px": (tape.both + synthesis) / scale,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
