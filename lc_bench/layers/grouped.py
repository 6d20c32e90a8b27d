"""Networks of a context model by channel groups: what `checkerboard_groups` calls for each group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .conv import CheckerboardConv2d, conv_stack


def group_context(
    before: int, group: int, widths: Sequence[int], kernel: int | Sequence[int], act: str, out: int | None = None, told: bool = False
) -> nn.Module:
    """Channels before a group -> `out` parameters (twice the group without); told: one more channel says the level."""
    return conv_stack([before + told, *widths, out or 2 * group], kernel=kernel, stride=1, act=act)


def neighbourhood(group: int, width: int | None = None, kernel: int = 5) -> nn.Module:
    """Coded cells of the group around a cell -> `width` parameters (twice the group without)."""
    return CheckerboardConv2d(group, width or 2 * group, kernel)


def group_parameters(
    group: int, is_first: bool, psi: int, hidden: Sequence[int], act: str, neighbours: int | None = None, context: int | None = None
) -> nn.Module:
    """Neighbourhood, context and `psi` hyper-parameters of a cell -> scales and means of the group; the first has no context.

    neighbours, context: numbers of their channels, where they are not twice the group.
    """
    inputs = (neighbours or 2 * group) + (0 if is_first else context or 2 * group) + psi
    return conv_stack([inputs, *hidden, 2 * group], kernel=1, stride=1, act=act)


def group_ramp(group: int, is_first: bool, psi: int) -> nn.Module:
    """As group_parameters, with two hidden layers whose widths lie evenly between, psi at least."""
    inputs = 2 * group * (1 if is_first else 2) + psi
    ramp = torch.linspace(inputs, 2 * group, 4).floor().int().tolist()
    return conv_stack([inputs, *(max(psi, width) for width in ramp[1:3]), 2 * group], kernel=1, stride=1, act="relu")
