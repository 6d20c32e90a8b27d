"""Variable rate: one model, a ladder of quantisation steps.

Level 0 is the coarsest; between two levels the logarithm of the step is interpolated. Gains, reconstruction offsets and the
hyper-latent's step: Kamisli et al. 2024, arXiv 2402.18930.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..coding.tapes import Rung
from ..errors import UserError
from ..ops.bounds import lower_bound
from ..ops.quantise import between

FINENESS = 16  # a stream says its level in sixteenths
SMALLEST_Z_STEP = 0.5


class Ladder(nn.Module):
    """steps: the first and the last level's width of y's quantiser, between which training starts; None: the codec has gains.

    tell: networks see the level; offsets: learn where in its bin a value is restored; z_step: z's quantiser widens too.
    """

    def __init__(
        self, levels: int, steps: tuple[float, float] | None, tell: bool = False, offsets: bool = False, z_step: bool = False
    ) -> None:
        super().__init__()
        self.levels = levels
        self.log_step = None
        if steps is not None:
            first, last = torch.tensor(steps, dtype=torch.float64).log()
            self.log_step = nn.Parameter(torch.linspace(float(first), float(last), levels))
        self.tell = tell
        self.offset_net = _perceptron(2, 12) if offsets else None
        self.z_net = _perceptron(1, 10) if z_step else None

    def check(self, level: Tensor) -> None:
        if level.numel() == 0 or not bool(((level >= 0) & (level <= self.levels - 1)).all()):
            raise UserError(f"level={level.tolist()}: levels are 0 to {self.levels - 1} and everything between")

    def forward(self, level: Tensor) -> Rung:
        """level (B,) or (1,)."""
        if self.log_step is None:
            return Rung(level)
        step = between(self.log_step, level).exp()
        steps = {"y": step}
        if self.z_net is not None:
            steps["z"] = lower_bound(F.softplus(self.z_net(step[:, None])).squeeze(1), SMALLEST_Z_STEP)
        sign = (2 * level / (self.levels - 1) - 1).to(self.log_step) if self.tell else None
        return Rung(level, steps, sign, {} if self.offset_net is None else {"y": self._offset})

    def _offset(self, symbols: Tensor, scale: Tensor, step: Tensor) -> Tensor:
        """Towards zero for most, never for what was quantised to zero. symbols, scale in steps."""
        assert self.offset_net is not None
        known = torch.stack([scale, (1 / step).detach().expand_as(scale)], -1)
        offset = -self.offset_net(known).squeeze(-1)
        return torch.where(symbols.abs() < 0.5, 0.0, symbols.detach().sign() * offset)


def _perceptron(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def in_stream(level: float) -> int:
    """The level as a header says it."""
    return round(level * FINENESS)
