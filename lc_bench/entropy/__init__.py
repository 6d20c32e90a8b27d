"""Distributions over quantised latents: what they cost, and their tables."""

from .factorized import FactorizedPrior
from .gaussian import GaussianPrior

__all__ = ["FactorizedPrior", "GaussianPrior"]
