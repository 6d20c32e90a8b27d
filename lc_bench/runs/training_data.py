"""What a training learns from, and what it is validated on: the right split of each, and none of one in the other."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..config import check_choice, choices, compose, make, plain
from ..data import CloudSet, ImageSet
from ..errors import UserError, unknown
from .values import check_data

log = logging.getLogger(__name__)

OF_BENCHMARKS = ("samples", "shapes")  # what a benchmark takes where no data is chosen
LISTED = 1000  # files of a set whose sizes tell it from another with the same names


def set_of(node: DictConfig) -> ImageSet | CloudSet:
    """What a node of conf/data makes; UserError where that is no set of images or clouds."""
    data = make(node)
    if not isinstance(data, ImageSet | CloudSet):
        target = OmegaConf.select(node, "_target_") if OmegaConf.is_dict(node) else node
        raise UserError(f"data: {target} gives {type(data).__name__}; a data set is an ImageSet or a CloudSet of lc_bench.data")
    return data


def training_set(cfg: DictConfig) -> ImageSet | CloudSet:
    """The set of `data=`. UserError where none was chosen; a set that is for benchmarks alone is taken with a warning."""
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        named = any(word.lstrip("+").partition("=")[0] == "data" for word in hydra.overrides.task)
        chosen = hydra.runtime.choices.get("data")
        if chosen in OF_BENCHMARKS and not named:
            raise UserError(
                f"data: has to be given for training, such as data=folder data.path=photos, or data=bsds500. "
                f"Without it a benchmark takes {chosen}; what was trained on them cannot be measured on them"
            )
    data = set_of(cfg.data)
    if str(cfg.data.get("split")) == "test":
        log.warning(f"data={data.name}: images to test on. What is trained on them cannot be measured on them")
    return data


def validation_set(cfg: DictConfig, clouds: bool) -> ImageSet | CloudSet | None:
    """The set of run.val: a name of conf/data, a folder, or a mapping {data: NAME, KEY: VALUE, ...} with keys of that set's own.

    Of a set with several splits, the one for validation, or for want of it the one to test on. clouds: what a folder holds.
    """
    given = plain(cfg.run.val)
    if given is None:
        return None
    name, keys = _named(given, "clouds" if clouds else "folder")
    model = [f"model={cfg.model.name}"] if cfg.model.name in choices("model") else []
    points = [f"model.num_points={cfg.model.num_points}"] if "num_points" in cfg.model else []
    composed = compose(f"data={name}", *model, *points)
    OmegaConf.set_struct(composed, False)
    written = OmegaConf.to_container(composed.data, resolve=False)
    assert isinstance(written, dict)
    for key, value in keys.items():
        if key not in written:
            raise unknown(f"run.val.{key}", value, (k for k in written if k != "_target_"))
        composed.data[key] = value
    absent = sorted(str(key).removeprefix("data.") for key in OmegaConf.missing_keys(composed.data))
    if absent:
        raise UserError(
            f"run.val={name}: {absent[0]} has to be given: run.val=FOLDER, or 'run.val={{data: {name}, {absent[0]}: ...}}' "
            "(keys of data= are those of the training set)"
        )
    if "split_of" in str(written.get("split")):
        composed.run.split = "held"
    check_data(composed)
    return set_of(composed.data)


def _named(given: Any, of_folders: str) -> tuple[str, dict[str, Any]]:
    """Name in conf/data, and keys."""
    if isinstance(given, Mapping):
        keys = {str(key): value for key, value in given.items()}
        name = str(keys.pop("data", of_folders))
        check_choice("data", name)
        return name, keys
    if isinstance(given, str) and given in choices("data"):
        return given, {}
    if str(given).strip() and isinstance(given, str | int | float) and Path(str(given)).expanduser().is_dir():
        return of_folders, {"path": str(given)}
    raise unknown("run.val", given, choices("data"), "Or give a folder, or 'run.val={data: NAME, split: val}' with keys of that set.")


def warn_of_overlap(training: ImageSet | CloudSet, held_out: ImageSet | CloudSet) -> None:
    """Samples that are in both."""
    both = len(_places(training) & _places(held_out))
    if both:
        log.warning(f"run.val: {both} of its {len(held_out)} samples are trained on too; what it measures is not what others would get")


def _places(data: ImageSet | CloudSet) -> set[str]:
    if isinstance(data, ImageSet):
        return {str(path.resolve()) for path in data.paths}
    return {f"{data.name}/{name}" for name in data.names}


def identity(data: ImageSet | CloudSet) -> str:
    """How many samples, and a digest of their names and sizes: the same wherever the set lies."""
    digest = hashlib.sha256(repr(data.names).encode())
    if isinstance(data, ImageSet):
        step = max(1, len(data) // LISTED)
        digest.update(repr([path.stat().st_size for path in data.paths[::step] if path.is_file()]).encode())
    else:
        digest.update(repr((data.count, data.scale, data.cube)).encode())
    return f"{len(data)} samples, {digest.hexdigest()[:12]}"
