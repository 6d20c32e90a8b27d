"""Latent codecs: what is sent, in which order, conditioned on what."""

from .context import Context
from .hyperprior import Bottleneck, GaussianLatent, Hyperprior

__all__ = ["Bottleneck", "Context", "GaussianLatent", "Hyperprior"]
