"""What training makes small: rate and distortion."""

from .images import RateDistortion, Terms
from .points import RateChamfer

__all__ = ["RateChamfer", "RateDistortion", "Terms"]
