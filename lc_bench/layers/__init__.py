"""Blocks that model files name: stacks of convolutions, GDN, masked convolutions."""

from .conv import MaskedConv2d, conv_stack
from .gdn import GDN

__all__ = ["GDN", "MaskedConv2d", "conv_stack"]
