"""Several latents, each under a factorized prior of its own: those of point clouds have no grid to look around in."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..coding.tapes import Tape
from ..entropy import FactorizedPrior


class Factorized(nn.Module):
    """channels: of each latent (B, C, N) by name, in the order in which they are sent; none of 0 channels."""

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.priors = nn.ModuleDict({name: FactorizedPrior(count) for name, count in channels.items() if count > 0})

    def forward(self, tape: Tape, y: Mapping[str, Tensor]) -> dict[str, Tensor]:
        latents = {}
        for name, prior in self.priors.items():
            assert isinstance(prior, FactorizedPrior)
            latents[name] = tape.code(name, y[name].unsqueeze(-1), prior).squeeze(-1)
        return latents
