"""Blocks that model files name: stacks of convolutions, GDN, masked convolutions."""

from .block_transform import BlockAnalysis, BlockSynthesis
from .conv import MaskedConv2d, conv_stack
from .gdn import GDN
from .grouped import group_context, group_parameters, neighbourhood
from .residual import ResidualBottleneck

__all__ = [
    "GDN",
    "BlockAnalysis",
    "BlockSynthesis",
    "MaskedConv2d",
    "ResidualBottleneck",
    "conv_stack",
    "group_context",
    "group_parameters",
    "neighbourhood",
]
