"""Whole models: transforms around a latent codec, streams, weights."""

from .point_code import PointCode
from .transform_code import Coded, Output, TransformCode
from .variable_rate import Ladder

__all__ = ["Coded", "Ladder", "Output", "PointCode", "TransformCode"]
