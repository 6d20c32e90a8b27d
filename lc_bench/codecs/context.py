"""Context models: y is sent in steps, each conditioned on what was sent before.

Autoregressive context: Minnen et al. 2018, arXiv 1809.02736. A schedule is a list of steps; a step is the set of cells
(row, column) that are coded together. Training sees the whole quantised latent at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..coding.tapes import RateTape, Tape
from ..entropy import GaussianPrior


def raster_wavefront(height: int, width: int, reach: int) -> list[Tensor]:
    """Steps (n, 2) of cells that a causal window of 2 reach + 1 columns lets go together: cell (i, j) at (reach + 1) i + j.

    A cell of row i needs row i - 1 up to column j + reach; one column of lead per row more than that is enough.
    """
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells = torch.stack([row.flatten(), column.flatten()], 1)
    step = (reach + 1) * cells[:, 0] + cells[:, 1]
    order = torch.argsort(step, stable=True)
    used, sizes = torch.unique(step, return_counts=True)
    del used
    return list(cells[order].split(sizes.tolist()))


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

    def sizes(self, shape: torch.Size) -> list[int]:
        """Symbols per sample of each chunk."""
        _, channels, height, width = shape
        return [channels * len(cells) for cells in raster_wavefront(height, width, self.context.kernel_size[0] // 2)]  # type: ignore[index,operator]

    def forward(self, tape: Tape, y: Tensor, psi: Tensor) -> Tensor:
        if isinstance(tape, RateTape) and tape.parallel:
            y_hat = tape.quantise(y)
            phi = tape.exact(self.context)(y_hat)
            theta = tape.exact(self.parameters_net)(torch.cat([psi, phi], 1))
            tape.count("y", y_hat, self.prior(theta))
            return y_hat
        return self._in_steps(tape, y, psi)

    def _in_steps(self, tape: Tape, y: Tensor, psi: Tensor) -> Tensor:
        """The same probabilities, cell by cell as they become known; latents lie (B, cells, C) so that a window is one gather."""
        context, parameters = tape.exact(self.context), tape.exact(self.parameters_net)
        batch, channels, height, width = y.shape
        reach = context.kernel_size[0] // 2
        padded_width = width + 2 * reach
        bias = context.bias
        if self.level is not None and "y" in tape.rung.steps:
            bias = bias + tape.exact(self.level)(1 / tape.rung.steps["y"][:, None])[:, None]
        y_hat = psi.new_zeros(batch, (height + 2 * reach) * padded_width, channels)
        offsets = (context.taps[:, 0] * padded_width + context.taps[:, 1]).to(y.device)
        weight = context.tap_weight()
        steps = [cells.to(y.device) for cells in raster_wavefront(height, width, reach)]
        for cells in steps:
            row, column = cells.unbind(1)
            corner = row * padded_width + column
            window = y_hat[:, (corner[:, None] + offsets).flatten()].view(batch, len(cells), -1)
            phi = (window @ weight + bias).transpose(1, 2)
            theta = parameters(torch.cat([psi[:, :, row, column], phi], 1).unsqueeze(3)).squeeze(3)
            coded = tape.code("y", y[:, :, row, column], self.prior(theta))
            y_hat[:, corner + reach * padded_width + reach] = coded.transpose(1, 2)
        grid = y_hat.view(batch, height + 2 * reach, padded_width, channels)
        return grid[:, reach : reach + height, reach : reach + width].permute(0, 3, 1, 2)
