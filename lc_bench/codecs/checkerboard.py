"""Checkerboard context: half of the cells first, the other half knowing its neighbours.  He et al. 2021, arXiv 2103.15306."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..coding.tapes import RateTape, Tape
from ..entropy import GaussianPrior
from .window import Windows


def checkerboard(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Flat places of the anchors (row + column even) and of the others."""
    row, column = torch.arange(height)[:, None], torch.arange(width)
    odd = (row + column).flatten() % 2
    return (odd == 0).nonzero().flatten(), odd.nonzero().flatten()


class Checkerboard(nn.Module):
    """Gaussians for y (B, C, H, W) from hyper-parameters psi (B, P, H, W) and, for every other cell, its coded neighbours.

    context: CheckerboardConv2d C -> Q; parameters: 1x1 network Q + P -> 2 C. Anchors
    get zeros in place of Q. Training with noise may take `one_pass` over the whole latent: faster, but its latents are not
    rounded about means as the coder rounds them.
    """

    def __init__(self, context: nn.Module, parameters: nn.Module, prior: GaussianPrior, one_pass: bool = False) -> None:
        super().__init__()
        self.one_pass = one_pass
        self.context: Any = context
        self.parameters_net = parameters
        self.prior = prior

    def forward(self, tape: Tape, y: Tensor, psi: Tensor) -> Tensor:
        if self.one_pass and isinstance(tape, RateTape) and tape.parallel and tape.quantiser == "noise":
            return self._in_one_pass(tape, y, psi)
        context, parameters = tape.exact(self.context), tape.exact(self.parameters_net)
        batch, channels, height, width = y.shape
        anchors, others = (cells.to(y.device) for cells in checkerboard(height, width))
        flat, side = y.flatten(2), psi.flatten(2)

        def code(cells: Tensor, phi: Tensor) -> Tensor:
            theta = parameters(torch.cat([phi, side[:, :, cells]], 1).unsqueeze(3)).squeeze(3)
            return tape.code("y", flat[:, :, cells], self.prior(theta))

        first = code(anchors, psi.new_zeros(()).expand(batch, self.context.out_channels, len(anchors)))
        if tape.training:
            known = psi.new_zeros(batch, channels, height * width).index_copy(2, anchors, first)
            phi = context(known.unflatten(2, (height, width))).flatten(2)[:, :, others]
            return known.index_copy(2, others, code(others, phi)).unflatten(2, (height, width))
        windows = Windows(context, batch, height, width, psi)
        windows.put(anchors, first)
        windows.put(others, code(others, windows.context(others)))
        return windows.grid()

    def _in_one_pass(self, tape: RateTape, y: Tensor, psi: Tensor) -> Tensor:
        y_hat = tape.quantise(y)
        anchor = torch.zeros(y.shape[2] * y.shape[3], device=y.device, dtype=torch.bool)
        anchor[checkerboard(*y.shape[2:])[0].to(y.device)] = True
        anchor = anchor.view(y.shape[2:])
        phi = self.context(y_hat.where(anchor, 0.0)).where(~anchor, 0.0)
        tape.count("y", y_hat, self.prior(self.parameters_net(torch.cat([phi, psi], 1))))
        return y_hat
