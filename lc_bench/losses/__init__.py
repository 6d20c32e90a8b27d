"""What training makes small: rate and distortion."""

from .images import RateDistortion, Terms
from .points import RateChamfer, RateDensity

__all__ = ["RateChamfer", "RateDensity", "RateDistortion", "Terms"]
