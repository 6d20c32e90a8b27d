"""A latent under a Gaussian mixture, coded by decisions between sets of integers.

Is the symbol the middle one? On which side? How far, by doubling? And where in that span, by halving? A near-certain answer
costs next to nothing, a settled question nothing. Cost on a latent of 295 k elements: docs/models.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..coding.tapes import DecodeTape, EncodeTape, RateTape, Tape
from ..entropy import GaussianMixturePrior
from ..entropy.mixture import Decision, GaussianMixture
from ..errors import UserError

SPANS = 20  # symbols lie less than 2^20 from the middle


class MixtureLatent(nn.Module):
    """y (B, C, H, W) under the mixtures that the parameters (B, 3 K C, H, W) say. Quantises to the integers."""

    def __init__(self, prior: GaussianMixturePrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, tape: Tape, y: Tensor, parameters: Tensor) -> Tensor:
        mixture = self.prior(parameters)
        if isinstance(tape, RateTape):
            return tape.code("y", y, mixture)
        y, mixture = tape.rung.scaled("y", y.double(), mixture)
        return tape.keep("y", _Questions(tape, y, mixture).answer().view(y.shape), mixture)


class _Questions:
    """One latent, element by element (n,). What is sent is in `target`, which is NaN when decoding."""

    def __init__(self, tape: EncodeTape | DecodeTape, y: Tensor, mixture: GaussianMixture) -> None:
        self.tape, self.shape, self.family = tape, y.shape, mixture.family.odds
        self.target = y.round().flatten()
        self.mixture = mixture.whole()
        self.middle = self.mixture.middle
        far = (self.target - self.middle).abs()
        if isinstance(tape, EncodeTape) and not bool((far < 1 << SPANS).all()):  # also catches NaN
            raise UserError(f"latent y has values that cannot be coded (NaN, infinite or 2^{SPANS} and more from what was expected)")

    def ask(self, place: Tensor, one: Tensor, zero: Tensor, truth: Callable[[Tensor], Tensor]) -> Tensor:
        """Of the elements at `place`: yes or no? one and zero: masses of both answers; truth: of the sender's symbols."""
        table = torch.zeros(self.target.shape, dtype=torch.int32, device=place.device)
        table[place] = self.family.index(one, zero)
        bit = torch.zeros_like(self.target)
        bit[place] = truth(self.target[place]).to(bit)
        told = self.tape.send("y", bit.view(self.shape), Decision(self.family, table.view(self.shape)))
        return told.flatten()[place] > 0

    def answer(self) -> Tensor:
        """The symbols."""
        symbols = self.middle.clone()
        every = torch.arange(len(symbols), device=symbols.device)
        at = self.mixture.mass(symbols, symbols)
        place = every[self.ask(every, self.mixture.total - at, at, lambda t: t != self.middle)]
        m, mixture = self.middle[place], self.mixture.at(place)
        above = self.ask(place, mixture.mass(m + 1, m + 2**SPANS), mixture.mass(m - 2**SPANS, m - 1), lambda t: t > m)
        sign = torch.where(above, 1.0, -1.0).to(m)

        def compare(some: Tensor, low: Tensor | float, edge: Tensor | float, high: Tensor | float) -> Tensor:
            """Of some of them, whose distances lie in low .. high: at `edge` or beyond?"""
            m_, sign_, part = m[some], sign[some], mixture.at(some)
            beyond, before = (part.mass(*_ordered(m_, sign_, *ends)) for ends in ((edge, high), (low, edge - 1)))
            return self.ask(place[some], beyond, before, lambda t: (t - m_).abs() >= edge)

        span = torch.zeros_like(place)
        growing = torch.arange(len(place), device=place.device)
        for k in range(SPANS - 1):
            growing = growing[compare(growing, 2.0**k, 2.0 ** (k + 1), 2.0**SPANS - 1)]
            span[growing] = k + 1
        low = 2.0 ** span.to(m)
        for k in reversed(range(SPANS - 1)):
            wide = (span > k).nonzero().flatten()
            half = 2.0**k
            upper = compare(wide, low[wide], low[wide] + half, low[wide] + 2 * half - 1)
            low[wide] += half * upper.to(low)
        symbols[place] = m + sign * low
        return symbols


def _ordered(middle: Tensor, sign: Tensor, near: Tensor | float, far: Tensor | float) -> tuple[Tensor, Tensor]:
    """Lowest and highest of the integers at distances near .. far on one side."""
    a, b = middle + sign * near, middle + sign * far
    return torch.minimum(a, b), torch.maximum(a, b)
