"""Channel groups: each is sent knowing all that came before.

Minnen and Singh 2020, arXiv 2007.08739; groups of uneven size: He et al. 2022, arXiv 2203.10886.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..coding.tapes import Tape
from ..entropy import GaussianPrior
from ..errors import UserError
from .checkerboard import Checkerboard


class ChannelGroups(nn.Module):
    """y (B, sum(groups), H, W) from hyper-parameters psi (B, P, H, W).

    codecs: one per group; contexts: networks from all the channels before a group to further parameters, one per group
    but the first. They are put before psi.
    """

    def __init__(self, groups: Sequence[int], contexts: Sequence[nn.Module], codecs: Sequence[nn.Module]) -> None:
        super().__init__()
        if not len(groups) == len(codecs) == len(contexts) + 1:
            raise UserError(f"ChannelGroups: {len(groups)} groups, {len(codecs)} codecs, {len(contexts)} contexts; give n, n and n - 1")
        self.groups = list(groups)
        self.contexts = nn.ModuleList(contexts)
        self.codecs = nn.ModuleList(codecs)

    def sizes(self, shape: torch.Size) -> list[int]:
        batch, _, height, width = shape
        parts = zip(self.groups, self.codecs, strict=True)
        return [size for channels, codec in parts for size in codec.sizes(torch.Size((batch, channels, height, width)))]  # type: ignore[operator]

    def forward(self, tape: Tape, y: Tensor, psi: Tensor) -> Tensor:
        known: list[Tensor] = []
        for i, (part, codec) in enumerate(zip(y.split(self.groups, 1), self.codecs, strict=True)):
            side = psi if i == 0 else torch.cat([tape.exact(self.contexts[i - 1])(tape.tell(torch.cat(known, 1))), psi], 1)
            known.append(codec(tape, part, side))
        return torch.cat(known, 1)


def checkerboard_groups(
    groups: Sequence[int],
    context: Callable[[int, int], nn.Module],
    neighbours: Callable[[int], nn.Module],
    parameters: Callable[[int, bool], nn.Module],
    prior: GaussianPrior,
) -> ChannelGroups:
    """Channel groups with a checkerboard inside each.

    context(channels before, channels of the group), neighbours(channels of the group) and parameters(channels of the group,
    whether it is the first) make the networks.
    """
    before = [sum(groups[:i]) for i in range(len(groups))]
    return ChannelGroups(
        groups,
        [context(b, g) for b, g in zip(before[1:], groups[1:], strict=True)],
        [Checkerboard(neighbours(g), parameters(g, i == 0), prior) for i, g in enumerate(groups)],
    )
