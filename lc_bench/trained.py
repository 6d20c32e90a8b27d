"""Configurations as files of weights need them: N, M and whatever else shaped the networks comes out of the file.

A file of ours holds its resolved model file. Of it, sizes are taken over, and networks as far as they are made of parts that
are known here: a file of weights may come from anybody, and must not name what is called. In a state dict with the reference's
names, N and M are read from the shapes.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from . import codecs, entropy, layers, models
from .config import compose, make, typed
from .errors import UserError
from .models import weights

log = logging.getLogger(__name__)

# Of a model file: what says nothing of its networks.
ELSEWHERE = ("name", "net", "qualities", "published", "reference_names", "stage", "bd_anchor", "rates")
SIZES = ("N", "M")
STEPS = (48, 96)  # by which N and M are enlarged to see which sides are theirs


def path_of(source: object) -> Path | None:
    """The file that `weights` names; None for auto and none. UserError for what is neither."""
    if isinstance(source, Path):
        return source.expanduser()
    if not isinstance(source, str) or not source.strip():
        raise UserError(f"weights={typed(source)}: give auto, none, or the path of a .safetensors, .ckpt or .pth.tar file")
    return None if source in ("auto", "none") else Path(source).expanduser()


def settings_of(model: DictConfig) -> dict[str, Any]:
    """The plain keys of a composed model's file, such as N and M, for one quality."""
    found: dict[str, Any] = {}
    for key in model:
        if key not in ELSEWHERE:
            value = model[key]
            found[str(key)] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return found


def architecture_of(cfg: DictConfig) -> str:
    """The resolved model file of one quality, as text that is equal for equal networks."""
    resolved = OmegaConf.to_container(cfg.model.net, resolve=True)
    return OmegaConf.to_yaml(OmegaConf.create({"name": cfg.model.name, "net": resolved}), sort_keys=True)


def with_sizes(cfg: DictConfig) -> DictConfig:
    """The configuration with the sizes of the file that `weights` names; itself where that names none, or no file of ours.

    UserError where a size was chosen that is not the file's.
    """
    path = path_of(cfg.weights)
    if path is None:
        return cfg
    notes = weights.read_metadata(path)
    if notes.get("model") != cfg.model.name:
        return cfg
    kept = {key: value for key, value in _settings_in(notes, path).items() if key not in ELSEWHERE}
    usual: dict[Any, Any] | None = None
    fitted = cfg.copy()
    with open_dict(fitted):
        for key, value in kept.items():
            here = _raw(cfg.model).get(key)
            if here == value:
                continue
            usual = _raw(compose(f"model={cfg.model.name}").model) if usual is None else usual
            if key in usual and here != usual[key]:
                raise UserError(f"model.{key}={here}: weights={cfg.weights} has {key}={value}; leave {key} out, it comes from the file")
            fitted.model[key] = value
    return fitted


def with_networks(cfg: DictConfig, content: weights.Content) -> DictConfig:
    """A configuration of one quality whose model is the one that the file's weights are of, as far as the file can tell.

    What does not fit then is for loading to say.
    """
    if not content.notes:
        return cfg if content.own else _with_inferred(cfg, content)
    text = content.notes.get("architecture", "")
    if content.notes.get("model", cfg.model.name) != cfg.model.name or text == architecture_of(cfg):
        return cfg
    try:
        whole = yaml.safe_load(text)
        net = dict(whole["net"])
    except (yaml.YAMLError, TypeError, KeyError, ValueError):
        return cfg
    if whole.get("name") != cfg.model.name:
        return cfg
    kept = _settings_in(content.notes, content.path)
    chosen, usual = _raw(cfg.model), _raw(compose(f"model={cfg.model.name}", f"quality={cfg.quality}").model)
    altered = [key for key, value in usual.items() if chosen.get(key) not in (value, kept.get(key)) and key not in ELSEWHERE]
    if altered or chosen["net"] != usual["net"]:
        return cfg  # a model that was put together on purpose
    check_parts(net, _targets(chosen["net"]), content.path)
    fitted = cfg.copy()
    with open_dict(fitted):
        fitted.model.net = net
    return fitted


def _raw(model: DictConfig) -> dict[Any, Any]:
    """As written, interpolations unresolved."""
    raw = OmegaConf.to_container(model, resolve=False)
    assert isinstance(raw, dict)
    return raw


def _settings_in(notes: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Sizes that a file tells; UserError for what is no plain value."""
    try:
        settings = json.loads(notes.get("settings", "{}"))
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or "${" in json.dumps(settings) or "_target_" in json.dumps(settings):
        raise UserError(f"weights={path}: what it says of its sizes cannot be read; the file is damaged, or not written by lc_bench")
    return settings


def check_parts(net: Any, known: set[str], path: Path) -> None:
    """UserError unless every part of a network that a file describes is one of ours, of torch.nn, or in the model's file here."""
    if "${" in json.dumps(net):
        raise UserError(f"weights={path}: what it says of its networks cannot be read; the file is damaged, or not written by lc_bench")
    for target in sorted(_targets(net) - known):
        package, _, name = target.rpartition(".")
        ours = {f"lc_bench.{part.__name__.rpartition('.')[2]}": part for part in (layers, codecs, entropy, models)}
        in_torch = package == "torch.nn" and isinstance(getattr(nn, name, None), type)
        if not in_torch and not (package in ours and name in ours[package].__all__):
            raise UserError(
                f"weights={path}: its networks are made by {target}, which model files here do not use; give a model=... that does"
            )


def _targets(node: Any) -> set[str]:
    """What is called to make a network."""
    if isinstance(node, dict):
        own = {str(node["_target_"])} if "_target_" in node else set()
        return own.union(*map(_targets, node.values()))
    if isinstance(node, list):
        return set().union(*map(_targets, node))
    return set()


def _with_inferred(cfg: DictConfig, content: weights.Content) -> DictConfig:
    """With N and M as the shapes of a state with the reference's names have them, where they are others than the quality's."""
    keys = [key for key in SIZES if key in cfg.model]
    usual = _raw(compose(f"model={cfg.model.name}", f"quality={cfg.quality}").model)
    raw = _raw(cfg.model)
    if not keys or not content.state or any(raw[key] != usual.get(key) for key in keys):
        return cfg
    present = {key: int(cfg.model[key]) for key in keys}
    found = sizes_in(cfg, content.state, present)
    if found == present:
        return cfg
    fitted = cfg.copy()
    for key, value in found.items():
        fitted.model[key] = value
    sizes = ", ".join(f"{key}={value}" for key, value in found.items())
    log.info(f"weights={content.path}: {sizes}, by its shapes")
    return fitted


def sizes_in(cfg: DictConfig, state: Mapping[str, Tensor], present: Mapping[str, int]) -> dict[str, int]:
    """N and M of a state. Sides that grow with N in the model are N's, those that grow with M are M's."""
    larger = {key: value + step for (key, value), step in zip(present.items(), STEPS, strict=False)}
    here, there = _skeleton(cfg, present), _skeleton(cfg, larger)
    given, _ = weights.by_our_names(here, state)
    before, after = here.state_dict(), there.state_dict()
    found = dict(present)
    for key in present:
        for name, value in given.items():
            sides = zip(before[name].shape, after[name].shape, value.shape, strict=False)
            its = [side for old, new, side in sides if (old, new) == (present[key], larger[key])]
            if its and value.ndim == before[name].ndim:
                found[key] = its[0]
                break
    return found


def _skeleton(cfg: DictConfig, sizes: Mapping[str, int]) -> nn.Module:
    """The model with shapes alone."""
    sized = cfg.copy()
    for key, value in sizes.items():
        sized.model[key] = value
    with open_dict(sized):
        sized.model.net.pop("ladder", None)  # which computes, and has neither N nor M
    with torch.device("meta"):
        model: nn.Module = make(sized.model.net)
    model.reference_names = {str(k): str(v) for k, v in (cfg.model.get("reference_names") or {}).items()}  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return model


def words_for(source: object) -> list[str]:
    """`model=...` and `rate=...` of a file of ours, for a command that names the file alone; empty for other files."""
    path = path_of(source)
    notes = weights.read_metadata(path) if path is not None and path.is_file() else {}
    words = {"model": notes.get("model", ""), "rate": notes.get("metric", "")}
    return [f"{key}={value}" for key, value in words.items() if re.fullmatch(r"[\w.+-]+", value)]
