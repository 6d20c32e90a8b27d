"""A latent sent as float16, 16 bits each: the way in which He et al. 2022 (arXiv 2204.12684) may send positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..coding.tables import Tables
from ..coding.tapes import EncodeTape, RateTape, Tape
from ..entropy.rounding import Rounding
from ..errors import StreamError, UserError


class Float16(nn.Module):
    """High and low bytes are symbols of one table, in which all are alike."""

    def code(self, tape: Tape, name: str, y: Tensor) -> Tensor:
        """y (B, ...) -> what the receiver sees. UserError for what no float16 holds."""
        if isinstance(tape, RateTape):
            y_hat = y + (y.half().to(y.dtype) - y).detach()
            tape.bits[name] = torch.full((len(y),), 16.0 * y[0].numel(), device=y.device)
            return y_hat
        half = y.to(torch.float16)
        if isinstance(tape, EncodeTape) and not bool(half.isfinite().all()):
            raise UserError(f"latent {name} has values that no float16 holds (NaN, or beyond 65504)")
        pattern = half.view(torch.int16).int() & 0xFFFF
        both = tape.send(name, torch.stack([pattern >> 8, pattern & 0xFF], 1).double(), Bytes(self, y.device))
        told = both[:, 0] << 8 | both[:, 1]
        y_hat = torch.where(told < 1 << 15, told, told - (1 << 16)).to(torch.int16).view(torch.float16).double()
        if not bool(y_hat.isfinite().all()):
            raise StreamError(f"damaged stream: latent {name} is not finite")
        tape.latents.setdefault(name, []).append(y_hat)
        return y_hat

    def make_tables(self) -> Tables:
        return Tables.from_pmf(np.full((1, 256), 1 / 256), np.array([256]), np.zeros(1, np.int64), np.zeros(1, bool))


@dataclass(frozen=True)
class Bytes(Rounding):
    """A prior over bytes on the device of what is sent."""

    family: Float16
    device: torch.device

    @property
    def mean(self) -> None:
        return None

    def index(self, shape: torch.Size) -> Tensor:
        return torch.zeros((), dtype=torch.int32, device=self.device).expand(shape)
