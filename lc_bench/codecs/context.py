"""Context models: y is sent in steps, each conditioned on what was sent before.

Autoregressive context: Minnen et al. 2018, arXiv 1809.02736. A schedule is a list of steps; a step is the set of cells
that are coded together. Training sees the whole quantised latent at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..coding.tapes import RateTape, Tape
from ..entropy import GaussianPrior
from .window import Windows


def raster_wavefront(height: int, width: int, reach: int) -> list[Tensor]:
    """Steps (n,) of cells, row * width + column, that a causal window of 2 reach + 1 columns lets go together: (i, j) at (reach + 1) i + j.

    A cell of row i needs row i - 1 up to column j + reach; one column of lead per row more than that is enough.
    """
    row, column = torch.arange(height)[:, None], torch.arange(width)
    step = ((reach + 1) * row + column).flatten()
    return list(torch.argsort(step, stable=True).split(torch.unique(step, return_counts=True)[1].tolist()))


class Context(nn.Module):
    """Gaussians for y (B, C, H, W) from hyper-parameters psi (B, P, H, W) and the causal neighbourhood of each cell.

    context: MaskedConv2d C -> Q; parameters: 1x1 network P + Q -> 2 C, scales before means; level: in a model of variable
    rate, a network from 1 / step (B, 1) to (B, Q), added to the context.
    """

    def __init__(self, context: nn.Module, parameters: nn.Module, prior: GaussianPrior, level: nn.Module | None = None) -> None:
        super().__init__()
        self.level = level
        self.context = context
        self.parameters_net = parameters
        self.prior = prior

    def forward(self, tape: Tape, y: Tensor, psi: Tensor) -> Tensor:
        if isinstance(tape, RateTape) and tape.parallel:
            y_hat = tape.quantise(y)
            phi = tape.exact(self.context)(y_hat)
            theta = tape.exact(self.parameters_net)(torch.cat([psi, phi], 1))
            tape.count("y", y_hat, self.prior(theta))
            return y_hat
        return self._in_steps(tape, y, psi)

    def _in_steps(self, tape: Tape, y: Tensor, psi: Tensor) -> Tensor:
        """The same probabilities, cell by cell as they become known."""
        context, parameters = tape.exact(self.context), tape.exact(self.parameters_net)
        batch, _, height, width = y.shape
        windows = Windows(context, batch, height, width, psi)
        if self.level is not None and "y" in tape.rung.steps:
            windows.shift = tape.exact(self.level)(1 / tape.rung.steps["y"][:, None])[:, None]
        flat, side = y.flatten(2), psi.flatten(2)
        for step in raster_wavefront(height, width, windows.reach):
            cells = step.to(y.device)
            theta = parameters(torch.cat([side[:, :, cells], windows.context(cells)], 1).unsqueeze(3)).squeeze(3)
            windows.put(cells, tape.code("y", flat[:, :, cells], self.prior(theta)))
        return windows.grid()
