"""Latent codecs: what is sent, in which order, conditioned on what."""

from .checkerboard import Checkerboard
from .context import Context
from .groups import ChannelGroups, checkerboard_groups
from .hyperprior import Bottleneck, GaussianLatent, Hyperprior

__all__ = ["Bottleneck", "ChannelGroups", "Checkerboard", "Context", "GaussianLatent", "Hyperprior", "checkerboard_groups"]
