"""Which model wrote a file, in words that the file carries: `lite`, or `mbt2018-mean quality=3 rate=ms-ssim`.

With them run=decompress needs no model=. They are a hint, taken apart with care: identity is what the header's digests say.
"""

from __future__ import annotations

import re

from omegaconf import DictConfig

from ..api import load_from, qualities_for
from ..coding.container import LONGEST_NAME, Header
from ..config import DEFAULT_QUALITY, choices, compose, is_variable
from ..errors import StreamError, UserError
from ..models import TransformCode

# Keys that choose no model.
OTHERS = ("run", "input", "output", "region", "overwrite", "format", "tile", "cube", "points", "columns", "level")


def overrides() -> list[str]:
    """What the command line says, besides settings of Hydra's own."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


def is_given(key: str) -> bool:
    return any(word.lstrip("+").partition("=")[0] == key for word in overrides())


def load_one(cfg: DictConfig) -> TransformCode:
    """The model of a configuration; quality 3 (in a file of weights: its own) where none is chosen."""
    return load_from(cfg, _quality(cfg))


def _quality(cfg: DictConfig) -> float:
    if cfg.quality == "all" and (is_variable(cfg) or str(cfg.weights) in ("auto", "none")):
        return DEFAULT_QUALITY
    quality, *more = qualities_for(cfg)
    if more:
        raise UserError(f"quality={cfg.quality}: a file has one, such as quality=3")
    return quality


def words_of(cfg: DictConfig) -> str:
    """For the header of what this configuration writes."""
    words = [cfg.model.name]
    if not is_variable(cfg):  # else the header says the level, and all levels share their weights
        words.append(f"quality={_quality(cfg)}")
    if cfg.rate.name != "mse":
        words.append(f"rate={cfg.rate.name}")
    if str(cfg.weights) != "auto":
        words.append("weights=none" if str(cfg.weights) == "none" else "weights=own")
    text = " ".join(words)
    if len(text) > LONGEST_NAME or not text.isascii():
        raise UserError(f"model={cfg.model.name}: a name that files carry has ASCII characters, {LONGEST_NAME - 50} at most")
    return text


def load_for(header: Header, cfg: DictConfig) -> TransformCode:
    """The model that the command line names, else the one that the header does."""
    if is_given("model"):
        return load_one(cfg)
    if not header.model:
        raise UserError("the stream does not say which model wrote it; give model=..., and quality=... if that has several")
    name, *rest = header.model.split(" ")
    keys = {key: value for key, _, value in (word.partition("=") for word in rest)}
    quality, metric, weights = keys.pop("quality", "all"), keys.pop("rate", "mse"), keys.pop("weights", "auto")
    known = name in choices("model") and metric in choices("rate") and weights in ("auto", "none", "own")
    if keys or not known or not re.fullmatch(r"all|\d{1,3}(\.\d{1,9})?", quality):
        raise StreamError(f"the stream says it was written by {header.model!r}, which is not known here; give model=...")
    if weights == "own" and not is_given("weights"):
        raise UserError(f"the stream was written by {header.model} with weights that are not published; give weights=PATH")
    own = [word for word in overrides() if word.lstrip("+").partition("=")[0] not in OTHERS]
    stated = [f"weights={weights}"] if weights == "none" else []
    return load_one(compose(f"model={name}", f"quality={quality}", f"rate={metric}", *stated, *own))
