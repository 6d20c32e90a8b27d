"""Networks of a context model by channel groups: what `checkerboard_groups` calls for each group."""

from __future__ import annotations

from torch import nn

from .conv import conv_stack


def group_context(before: int, group: int, width: int) -> nn.Module:
    """All channels before a group, and the level, -> `width` parameters."""
    del group
    return conv_stack([before + 1, width, width], kernel=[3, 1], stride=1, act="leaky_relu")


def neighbourhood(group: int, width: int) -> nn.Module:
    """Coded cells of the group around a cell -> `width` parameters."""
    return nn.Conv2d(group, width, 3, padding=1)


def group_parameters(group: int, is_first: bool, first: int, others: int, hidden: int) -> nn.Module:
    """Neighbourhood, context and hyper-parameters of a cell -> scales and means of the group."""
    return conv_stack([first if is_first else others, hidden, 2 * group], kernel=1, stride=1, act="leaky_relu")
