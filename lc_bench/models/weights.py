"""Weights: ours (safetensors or .ckpt, with the configuration inside), the published ones, and checkpoints of others.

The list of published checkpoints (address, file names with the first 8 hex digits of their SHA-256, N and M by quality)
is published_weights.json, from the reference implementation's documentation.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import re
import threading
import zipfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..entropy import FactorizedPrior
from ..errors import UserError
from ..ops.fetch import fetch
from ..ops.whole import written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

# What the reference keeps in its state and we derive: tables, bounds, masks, and the quantiles' search targets.
DERIVED = re.compile(r"(_quantized_cdf|_cdf_length|_offset|scale_table|scale_bound|\.target|\.mask|reparam\.|lower_bound|QuantOffset)")
SHIPPED = Path(__file__).parent.parent / "weights"
NOTES = "lc_bench_weights"  # the entry of a .ckpt of ours that says what the metadata of a .safetensors does
HOLDERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module", "ema")  # of a state, by rank
ANALYSIS = re.compile(r"((?:.*?\.)??)g_a\.")
# What wrappers of networks and trainers put before every name, or in it.
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
NESTED = 5  # how deep a state is looked for
NUMPY: tuple[Any, ...] = (np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0])  # what makes a number, and what makes an array
# Beside what torch allows: classes that checkpoints of others hold beside the state, and that run no code.
HARMLESS: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.WindowsPath,
    datetime.datetime,
    *((function, f"{module}.{function.__name__}") for module in ("numpy.core.multiarray", "numpy._core.multiarray") for function in NUMPY),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIqQefd"},
]
ONE_AT_A_TIME = threading.Lock()  # what torch allows is one list for all threads


@dataclass
class Content:
    """What a file of weights holds. notes: the metadata of a file of ours, empty for others; own: whether names are ours."""

    path: Path
    state: dict[str, Tensor]
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        return any(name.startswith("codec.") for name in self.state)


@cache
def published() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "published_weights.json").read_text())


def published_file(name: str | None, metric: str, quality: float) -> str | None:
    """File name of the published checkpoint, if there is one."""
    files = published()["weights"].get(name, {}).get(metric, {})
    return files if isinstance(files, str) else files.get(str(quality))  # one file holds all rates of a variable-rate model


def fetch_published(file: str, cache_folder: Path) -> Path:
    """Path of a published checkpoint in the cache, downloaded once. LC_BENCH_WEIGHTS_URL overrides the address."""
    base = os.environ.get("LC_BENCH_WEIGHTS_URL") or published()["base_url"]
    prefix = file.rsplit("-", 1)[1].split(".")[0]
    advice = "put the file there, set LC_BENCH_WEIGHTS_URL to a mirror, use weights=PATH, or weights=none for an untrained model"
    return fetch(f"{base}/{file}", cache_folder / file, prefix, advice)


def load_reference_state(model: nn.Module, state: Mapping[str, Tensor], where: str = "") -> None:
    """Load a state dict with the reference implementation's names (current or as published in 2020-2023).

    UserError names what is missing, left over or of another shape; where: what it begins with, such as the file's name.
    """
    renamed, leftover = by_our_names(model, state)
    own = model.state_dict()
    missing = sorted(set(own) - set(renamed))
    if missing or leftover:
        said = f"missing {_first(missing)}, left over {_first(leftover)}"
        wanted = getattr(model, "name", "") or "this architecture"
        raise UserError(f"{where}not a state of {wanted}: {said}")
    check_shapes(renamed, own, where)
    model.load_state_dict(renamed)


def by_our_names(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """A state with the reference's names as the model has them, and names that it has not. What we derive is left out."""
    prefixes: dict[str, str] = getattr(model, "reference_names", {})
    own = model.state_dict()
    renamed: dict[str, Tensor] = {}
    leftover = []
    for key, value in state.items():
        name = key.removeprefix("module.")
        if DERIVED.search(name):
            continue
        name = _renamed(name, prefixes)
        name = re.sub(r"\._(matri)x(\d)$|\._(matrices)\.(\d)$", lambda m: f".matrices.{m[2] or m[4]}", name)
        name = re.sub(r"\._(bias|factor)(?:s|es)?\.?(\d)$", lambda m: f".{'biases' if m[1] == 'bias' else 'factors'}.{m[2]}", name)
        if name.endswith(".quantiles") and value.shape[1:] == (1, 3):
            name, value = name.removesuffix("quantiles") + "median", value[:, 0, 1]
        if name.endswith(".log_step"):
            value = -value.log()  # theirs is the gain
        if name not in own:
            leftover.append(key)
            continue
        renamed[name] = value
    return renamed, leftover


def check_shapes(given: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str) -> None:
    """UserError with the first shapes that differ, and for tensors that hold no plain numbers."""
    odd = [key for key, value in given.items() if value.layout != torch.strided or value.is_meta or value.is_complex()]
    if odd:
        raise UserError(f"{where}{_first(odd)} cannot be used: sparse, complex, or without values; save them as plain tensors")
    wrong = [key for key, value in given.items() if value.shape != own[key].shape]
    if wrong:
        shapes = ", ".join(f"{k} is {tuple(given[k].shape)}, expected {tuple(own[k].shape)}" for k in wrong[:3])
        raise UserError(f"{where}weights of other sizes: {shapes}. Give the N and M (or quality) that they were trained with")


def _first(names: list[str], count: int = 4) -> str:
    """Some names, and how many there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{names[:count]}{more}" if names else "nothing"


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """With the first of the prefixes that fits replaced; a * stands for one number, kept in its place."""
    for theirs, ours in prefixes.items():
        found = re.match(re.escape(theirs).replace(r"\*", r"(\d+)") + r"(?=\.|$)", name)
        if found:
            return ours.replace("*", found[1] if found.lastindex else "") + name[found.end() :]
    return name


def notes_of(model: nn.Module, /, **metadata: object) -> dict[str, str]:
    """What a file of the model's weights says beside them: its resolved model file, its sizes, and what is given."""
    notes = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    settings = json.dumps(getattr(model, "settings", {}), sort_keys=True)
    known = {"model": getattr(model, "name", ""), "architecture": getattr(model, "architecture", ""), "settings": settings}
    return {"format": "lc_bench", **known, **notes}


def save(model: nn.Module, path: Path, /, dtype: torch.dtype | None = None, **metadata: object) -> None:
    """Write our format: tensors (as `dtype`, if given), and as metadata the resolved model file and what else is given."""
    state = {
        k: v.detach().cpu().to(dtype if dtype and v.is_floating_point() else v.dtype).contiguous() for k, v in model.state_dict().items()
    }
    with written_whole(path) as part:
        save_file(state, part, notes_of(model, **metadata))


def load_file(model: nn.Module, path: Path) -> dict[str, str]:
    """Load ours (.safetensors or .ckpt) or a checkpoint with the reference's names; returns its metadata."""
    return load_content(model, read(path))


def load_content(model: nn.Module, content: Content) -> dict[str, str]:
    """Give the model what was read; UserError with the file's name for what does not fit."""
    where = f"weights={content.path}: "
    if not content.own:
        load_reference_state(model, content.state, where)
        return content.notes
    _load_own(model, content, where)
    if content.path.suffix != ".safetensors":
        for module in model.modules():
            if isinstance(module, FactorizedPrior):
                module.update_median()  # training keeps none
    return content.notes


def read(path: Path) -> Content:
    """Of a file; no code from it is run. UserError for what is no file of weights."""
    _check_file(path)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
                return Content(path, unwrapped(state), _ours(file.metadata()))
        except (SafetensorError, OSError) as error:
            raise UserError(f"weights={path}: not a safetensors file ({error})") from None
    whole = _unpickled(path)
    state = state_in(whole)
    if state is None:
        entries = _first([str(key) for key in whole]) if isinstance(whole, dict) else type(whole).__name__
        raise UserError(
            f"weights={path}: no state dict in it, which is looked for as it is and under {', '.join(HOLDERS)}; it has {entries}"
        )
    return Content(path, unwrapped(state), _ours(whole.get(NOTES)))


def read_metadata(path: Path) -> dict[str, str]:
    """What a file of ours says of itself, tensors unread; nothing for other files."""
    _check_file(path)
    if path.suffix != ".safetensors":
        whole = _unpickled(path)
        return _ours(whole.get(NOTES)) if isinstance(whole, dict) else {}
    try:
        with safe_open(path, "pt") as file:
            return _ours(file.metadata())
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights={path}: not a safetensors file ({error})") from None


def _ours(metadata: object) -> dict[str, str]:
    """Metadata of a file of ours."""
    if not isinstance(metadata, dict) or metadata.get("format") != "lc_bench":
        return {}
    return {str(key): str(value) for key, value in metadata.items()}


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"weights={path}: no such file. Allowed: auto, none, or the path of a .safetensors, .ckpt or .pth.tar file")


def _unpickled(path: Path) -> Any:
    """A checkpoint, its tensors mapped where the file allows it."""
    try:
        with ONE_AT_A_TIME, torch.serialization.safe_globals(HARMLESS):
            # Files of the format before torch 1.6 cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        needed = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"{type(error).__name__}: {' '.join(str(error).partition('. ')[0].split())[:200]}"
        why = f"it holds a {needed[1]}" if needed else why
        advice = "If you trust it, keep its tensors alone: torch.save(model.state_dict(), ...)"
        raise UserError(f"weights={path}: cannot be read as a checkpoint without running code from it ({why}). {advice}") from None


def state_in(whole: Any, depth: int = NESTED) -> dict[str, Tensor] | None:
    """The state dict that a checkpoint is, or holds under one of the usual names; None if there is none.

    Under other names a state is taken too, if it has an analysis transform.
    """
    if not isinstance(whole, dict) or not whole or depth == 0:
        return None
    tensors = {str(key): value for key, value in whole.items() if isinstance(value, Tensor)}
    if len(tensors) == len(whole) or any(key.endswith(".weight") for key in tensors):
        return tensors
    for name in (*HOLDERS, *whole):
        inside = state_in(whole.get(name), depth - 1)
        if inside is not None and (name in HOLDERS or any(ANALYSIS.match(key) for key in inside)):
            return inside
    return None


def unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers put before them: model.module.g_a.0.weight is g_a.0.weight.

    Where a trainer keeps other networks beside the model (a loss, an average), those are left out.
    """
    for wrapper in WRAPPERS:
        inside = {key.removeprefix(wrapper): value for key, value in state.items() if key.startswith(wrapper)}
        is_model = 2 * len(inside) > len(state) or any(key.startswith("g_a.") for key in inside)
        if is_model and not any(key.startswith("g_a.") for key in state):
            return unwrapped(inside)
    outside = {found[1] for found in map(ANALYSIS.match, state) if found}
    if len(outside) == 1 and "" not in outside:  # the one network with an analysis transform, whatever it is called
        prefix = outside.pop()
        return unwrapped({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
    return {re.sub(r"(?<=\.)(_orig_mod|module)\.", "", key): value for key, value in state.items()}


def _load_own(model: nn.Module, content: Content, where: str) -> None:
    own, state = model.state_dict(), content.state
    name = getattr(model, "name", "") or "the model"
    architecture = getattr(model, "architecture", "")
    made = content.notes.get("model")
    maker = (
        f"of another architecture, made for {made}, other layers than {name} has here" if made else f"of another architecture than {name}"
    )
    if set(own) != set(state):
        missing, leftover = _first(sorted(set(own) - set(state))), _first(sorted(set(state) - set(own)))
        raise UserError(f"{where}{maker}: missing {missing}, left over {leftover}")
    check_shapes(state, own, where)
    if content.notes.get("architecture", architecture) != architecture:
        raise UserError(f"{where}{maker}, though of the same sizes")
    model.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()})
