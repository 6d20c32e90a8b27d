"""Latent codecs: what is sent, in which order, conditioned on what."""

from .checkerboard import Checkerboard
from .context import Context
from .gain import GainHyper, GainHyperprior, LevelGain
from .groups import ChannelGroups, checkerboard_groups
from .hyperprior import Bottleneck, GaussianLatent, Hyperprior
from .mixture import MixtureLatent
from .several import Factorized

__all__ = [
    "Bottleneck",
    "ChannelGroups",
    "Checkerboard",
    "Context",
    "Factorized",
    "GainHyper",
    "GainHyperprior",
    "GaussianLatent",
    "Hyperprior",
    "LevelGain",
    "MixtureLatent",
    "checkerboard_groups",
]
