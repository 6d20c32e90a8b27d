"""Distributions over quantised latents: what they cost, and their tables."""

from .factorized import FactorizedPrior
from .gaussian import GaussianPrior
from .mixture import GaussianMixturePrior

__all__ = ["FactorizedPrior", "GaussianMixturePrior", "GaussianPrior"]
