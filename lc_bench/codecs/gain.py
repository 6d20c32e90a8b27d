"""Gained hyperprior: each level has a gain per channel of y and of z.  Cui et al. 2021, arXiv 2003.02012.

Between two levels the gains' logarithms are interpolated. Gains into the quantiser and out of it are learned apart.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..coding.tapes import Tape
from ..errors import UserError
from ..ops import decimals
from ..ops.quantise import between
from .hyperprior import Bottleneck


class LevelGain(nn.Module):
    """x (B, C, H, W) times a learned positive gain of each level and channel. start: of the first and the last level."""

    def __init__(self, levels: int, channels: int, start: tuple[float, float]) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.tensor(decimals.logs_between(*start, levels))[:, None].repeat(1, channels))

    def forward(self, level: Tensor) -> Tensor:
        """level (B,) -> (B, C, 1, 1)."""
        return between(self.log_gain, level).exp()[:, :, None, None]

    def exact_form(self) -> nn.Module:
        return _ExactGain(self.log_gain.detach().double().T.tolist())


class _ExactGain(nn.Module):
    """A level's gains in decimal arithmetic. log_gain: by channel, then level."""

    def __init__(self, log_gain: list[list[float]]) -> None:
        super().__init__()
        self.log_gain = log_gain
        self.known: dict[float, list[float]] = {}  # by level

    def forward(self, level: Tensor) -> Tensor:
        for value in set(level.tolist()) - self.known.keys():
            self.known[value] = [decimals.exp(decimals.between(values, value)) for values in self.log_gain]
        return level.new_tensor([self.known[value] for value in level.tolist()])[:, :, None, None]


class GainHyper(nn.Module):
    """Sends z = h_a(y) under its gain and returns h_s of what arrives: the side branch of a gained hyperprior."""

    def __init__(self, h_a: nn.Module, h_s: nn.Module, z: Bottleneck, gain: LevelGain, gain_inv: LevelGain) -> None:
        super().__init__()
        self.h_a, self.h_s, self.z = h_a, h_s, z
        self.gain, self.gain_inv = gain, gain_inv

    def forward(self, tape: Tape, y: Tensor) -> Tensor:
        level = _level(tape)
        z_hat = self.z(tape, tape.side(self.h_a, y) * tape.exact(self.gain)(level))
        return tape.exact(self.h_s)(z_hat * tape.exact(self.gain_inv)(level))


class GainHyperprior(nn.Module):
    """y under its gain, conditioned on a gained hyper-latent. hyper: GainHyper; y: a codec as in Hyperprior."""

    def __init__(self, hyper: GainHyper, y: nn.Module, gain: LevelGain, gain_inv: LevelGain) -> None:
        super().__init__()
        self.hyper, self.y = hyper, y
        self.gain, self.gain_inv = gain, gain_inv

    def forward(self, tape: Tape, y: Tensor) -> Tensor:
        level = _level(tape)
        psi = self.hyper(tape, y)
        return self.y(tape, y * tape.exact(self.gain)(level), psi) * tape.exact(self.gain_inv)(level)


def _level(tape: Tape) -> Tensor:
    if tape.rung.level is None:
        raise UserError("a codec with gains needs a level: give the model a ladder (lc_bench.models.Ladder)")
    return tape.rung.level
