"""Several latents, each under a factorized prior of its own, or as it is: those of point clouds have no grid to look around in."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..coding.tapes import Tape
from ..entropy import FactorizedPrior
from .float16 import Float16


class Factorized(nn.Module):
    """channels: of each latent (B, C, N) by name, in the order in which they are sent; none of 0 channels.

    float16: names of those that are sent as such, at 16 bits a value.
    """

    def __init__(self, channels: Mapping[str, int], float16: Mapping[str, bool] | None = None) -> None:
        super().__init__()
        raw = {name for name, is_raw in (float16 or {}).items() if is_raw}
        self.priors = nn.ModuleDict({n: Float16() if n in raw else FactorizedPrior(count) for n, count in channels.items() if count > 0})

    def forward(self, tape: Tape, y: Mapping[str, Tensor]) -> dict[str, Tensor]:
        latents = {}
        for name, prior in self.priors.items():
            if isinstance(prior, Float16):
                latents[name] = prior.code(tape, name, y[name])
                continue
            assert isinstance(prior, FactorizedPrior)
            latents[name] = tape.code(name, y[name].unsqueeze(-1), prior).squeeze(-1)
        return latents
