"""Channel groups: each is sent knowing those that came before.

Minnen and Singh 2020, arXiv 2007.08739; groups of uneven size: He et al. 2022, arXiv 2203.10886.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..coding.tapes import Tape
from ..entropy import GaussianPrior
from ..errors import UserError, unknown
from .checkerboard import Checkerboard

SEEN = ("all", "first and latest")


class ChannelGroups(nn.Module):
    """y (B, sum(groups), H, W) from hyper-parameters psi (B, P, H, W).

    codecs: one per group; contexts: networks from the channels before a group to further parameters, one per group but the
    first. They are put before psi. seen: which groups a context sees of those before it.
    """

    def __init__(self, groups: Sequence[int], contexts: Sequence[nn.Module], codecs: Sequence[nn.Module], seen: str = "all") -> None:
        super().__init__()
        if not len(groups) == len(codecs) == len(contexts) + 1:
            raise UserError(f"ChannelGroups: {len(groups)} groups, {len(codecs)} codecs, {len(contexts)} contexts; give n, n and n - 1")
        if seen not in SEEN:
            raise unknown("seen", seen, SEEN)
        self.groups = list(groups)
        self.contexts = nn.ModuleDict({str(i): context for i, context in enumerate(contexts, 1)})
        self.codecs = nn.ModuleList(codecs)
        self.seen = seen

    def forward(self, tape: Tape, y: Tensor, psi: Tensor) -> Tensor:
        known: list[Tensor] = []
        for i, (part, codec) in enumerate(zip(y.split(self.groups, 1), self.codecs, strict=True)):
            side = psi
            if i > 0:
                seen = torch.cat([known[place] for place in visible(i, self.seen)], 1)
                side = torch.cat([tape.exact(self.contexts[str(i)])(tape.tell(seen)), psi], 1)
            known.append(codec(tape, part, side))
        return torch.cat(known, 1)


def visible(group: int, seen: str) -> list[int]:
    """Which groups a context sees."""
    return list(range(group)) if seen == "all" else sorted({0, group - 1})


def checkerboard_groups(
    groups: Sequence[int],
    context: Callable[[int, int], nn.Module],
    neighbours: Callable[[int], nn.Module],
    parameters: Callable[[int, bool], nn.Module],
    prior: GaussianPrior,
    seen: str = "all",
) -> ChannelGroups:
    """Channel groups with a checkerboard inside each.

    context(channels that it sees, channels of the group), neighbours(channels of the group) and parameters(channels of the
    group, whether it is the first) make the networks.
    """
    before = [sum(groups[place] for place in visible(i, seen)) for i in range(1, len(groups))]
    return ChannelGroups(
        groups,
        [context(b, g) for b, g in zip(before, groups[1:], strict=True)],
        [Checkerboard(neighbours(g), parameters(g, i == 0), prior) for i, g in enumerate(groups)],
        seen,
    )
