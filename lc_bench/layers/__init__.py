"""Blocks that model files name: chains of words, stacks of convolutions, and what they are made of."""

from .block_transform import BlockAnalysis, BlockSynthesis
from .chain import chain
from .conv import CheckerboardConv2d, MaskedConv2d, conv_stack, sub_pixel
from .density_code import DensityAnalysis, DensitySynthesis
from .gdn import GDN, GDN1
from .grouped import group_context, group_parameters, group_ramp, neighbourhood
from .pointnet import (
    FeaturePropagation,
    MultiScaleAbstraction,
    PointNet2Analysis,
    PointNet2Synthesis,
    PointNetAnalysis,
    PointNetSynthesis,
    SetAbstraction,
)
from .qrelu import qrelu
from .residual import Attention, Residual, ResidualBottleneck, ResidualDown, ResidualUp
from .shaping import Gain, Interleave, Reshape
from .spectral import SpectralConv2d, SpectralConvTranspose2d

__all__ = [
    "GDN",
    "GDN1",
    "Attention",
    "BlockAnalysis",
    "BlockSynthesis",
    "CheckerboardConv2d",
    "DensityAnalysis",
    "DensitySynthesis",
    "FeaturePropagation",
    "Gain",
    "Interleave",
    "MaskedConv2d",
    "MultiScaleAbstraction",
    "PointNet2Analysis",
    "PointNet2Synthesis",
    "PointNetAnalysis",
    "PointNetSynthesis",
    "Reshape",
    "Residual",
    "ResidualBottleneck",
    "ResidualDown",
    "ResidualUp",
    "SetAbstraction",
    "SpectralConv2d",
    "SpectralConvTranspose2d",
    "chain",
    "conv_stack",
    "group_context",
    "group_parameters",
    "group_ramp",
    "neighbourhood",
    "qrelu",
    "sub_pixel",
]
