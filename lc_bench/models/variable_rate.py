"""Variable rate: one model, a ladder of quantisation steps.

Level 0 is the coarsest; between two levels the logarithm of the step is interpolated. Gains, reconstruction offsets and the
hyper-latent's step: Kamisli et al. 2024, arXiv 2402.18930.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..codecs import Bottleneck
from ..coding.exact import exact_form
from ..coding.tapes import Rung
from ..entropy import FactorizedPrior, GaussianMixturePrior
from ..errors import UserError
from ..ops import decimals
from ..ops.bounds import lower_bound
from ..ops.quantise import between

FINENESS = 16  # a stream says its level in sixteenths
SMALLEST_Z_STEP = 0.5


class Ladder(nn.Module):
    """steps: the first and the last level's width of y's quantiser, between which training starts; None: the codec has gains.

    tell: networks see the level; offsets: learn where in its bin a value is restored, if its prior has a scale; z_step: z's quantiser
    widens too.
    """

    def __init__(
        self, levels: int, steps: tuple[float, float] | None, tell: bool = False, offsets: bool = False, z_step: bool = False
    ) -> None:
        super().__init__()
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
            raise UserError(f"levels={levels}: a model of variable rate has 2 levels or more")
        self.levels = levels
        self.log_step = None
        if steps is not None:
            self.log_step = nn.Parameter(torch.tensor(decimals.logs_between(*steps, levels)))
        self.tell = tell
        self.offset_net = _perceptron(2, 12) if offsets else None
        self.z_net = _perceptron(1, 10) if z_step else None

    def suit(self, codec: nn.Module) -> None:
        """Leave out offsets where no latent has a scale to find them by, as under factorized priors and mixtures.

        UserError for a step of z without a z.
        """
        mixtures = [m for m in codec.modules() if isinstance(m, GaussianMixturePrior)]
        without = {m for mixture in mixtures for m in mixture.modules()}
        without |= {m for m in codec.modules() if isinstance(m, FactorizedPrior)}
        priors = [m for m in codec.modules() if hasattr(m, "make_tables")]
        if all(prior in without for prior in priors):
            self.offset_net = None
        names = {m.name for m in codec.modules() if isinstance(m, Bottleneck)}
        if self.z_net is not None and names and "z" not in names:
            raise UserError("model.vr_entbttlnck=true: the model has no hyper-latent z whose step could vary; leave it out")

    def check(self, level: Tensor) -> None:
        """UserError for levels below 0 or above the last."""
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
        return Rung(level, steps, sign, _offsets(self.offset_net))

    def exact_form(self) -> nn.Module:
        return _ExactLadder(self)


class _ExactLadder(nn.Module):
    """As coding wants it: steps in decimal arithmetic, networks in exact arithmetic; gives float64."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self.last = ladder.levels - 1
        self.log_step = None if ladder.log_step is None else ladder.log_step.detach().double().tolist()
        self.tell = ladder.tell
        self.offset_net, self.z_net = (net and exact_form(net) for net in (ladder.offset_net, ladder.z_net))
        self.known: dict[float, dict[str, float]] = {}  # by level

    def at(self, level: float) -> dict[str, float]:
        """Steps by latent."""
        assert self.log_step is not None
        steps = {"y": decimals.exp(decimals.between(self.log_step, level))}
        if self.z_net is not None:
            device = next(self.z_net.parameters()).device
            wish = self.z_net(torch.tensor([[steps["y"]]], dtype=torch.float64, device=device)).item()
            steps["z"] = max(decimals.softplus(Decimal(wish)), SMALLEST_Z_STEP)
        return steps

    def forward(self, level: Tensor) -> Rung:
        if self.log_step is None:
            return Rung(level)
        for value in set(level.tolist()) - self.known.keys():
            self.known[value] = self.at(value)
        rows = [self.known[value] for value in level.tolist()]
        steps = {name: level.new_tensor([row[name] for row in rows]) for name in rows[0]}
        sign = level.new_tensor([2 * value / self.last - 1 for value in level.tolist()]) if self.tell else None
        return Rung(level, steps, sign, _offsets(self.offset_net))


def _offsets(net: nn.Module | None) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    return {} if net is None else {"y": functools.partial(_offset, net)}


def _offset(net: nn.Module, symbols: Tensor, scale: Tensor, step: Tensor) -> Tensor:
    """Towards zero for most, never for what was quantised to zero. symbols, scale in steps."""
    known = torch.stack([scale, (1 / step).detach().expand_as(scale)], -1)
    offset = -net(known).squeeze(-1)
    return torch.where(symbols.abs() < 0.5, 0.0, symbols.detach().sign() * offset)


def _perceptron(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def in_stream(level: float) -> int:
    """The level as a header says it."""
    return round(level * FINENESS)
