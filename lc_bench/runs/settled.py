"""Keys that stand at the top of a configuration, as every run may count on them: weights, output, device, sweep."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from ..config import check_level, typed
from ..errors import UserError, unknown

DEVICES = ("auto", "cpu", "cuda")


def settled(cfg: DictConfig) -> DictConfig:
    """The configuration, its model with the sizes of its file of weights; UserError for values of another kind than their keys take."""
    for key, example in (("output", "output=outputs/mine"), ("sweep", "sweep=mine")):
        if OmegaConf.is_missing(cfg, key):
            continue
        value = cfg[key]
        if isinstance(value, int | float) and not isinstance(value, bool):
            cfg[key] = value = str(value)  # a folder called 2024
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{key}={typed(value)}: give a folder, such as {example}")
    if cfg.device not in DEVICES:
        raise unknown("device", typed(cfg.device), DEVICES)
    check_level(cfg)
    if cfg.weights in ("auto", "none"):
        return cfg
    from ..trained import with_sizes  # torch, which listings do without

    return with_sizes(cfg)
