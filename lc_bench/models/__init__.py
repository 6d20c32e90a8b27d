"""Whole models: transforms around a latent codec, streams, weights."""

from .transform_code import Output, TransformCode

__all__ = ["Output", "TransformCode"]
