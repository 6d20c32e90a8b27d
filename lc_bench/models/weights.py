"""Weights: ours (safetensors, with the configuration inside), the published ones, and the reference's names.

The list of published checkpoints (address, file names with the first 8 hex digits of their SHA-256, N and M by quality)
is published_weights.json, from the reference implementation's documentation.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..entropy import FactorizedPrior
from ..errors import UserError
from ..ops.fetch import fetch

if TYPE_CHECKING:
    from collections.abc import Mapping

# What the reference keeps in its state and we derive: tables, bounds, masks, and the quantiles' search targets.
DERIVED = re.compile(r"(_quantized_cdf|_cdf_length|_offset|scale_table|scale_bound|\.target|\.mask|reparam\.|lower_bound|QuantOffset)")
SHIPPED = Path(__file__).parent.parent / "weights"


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


def load_reference_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict with the reference implementation's names (current or as published in 2020-2023).

    UserError names what is missing, left over or of another shape.
    """
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
        if name.endswith(".quantiles"):
            name, value = name.removesuffix("quantiles") + "median", value[:, 0, 1]
        if name.endswith(".log_step"):
            value = -value.log()  # theirs is the gain
        if name not in own:
            leftover.append(key)
            continue
        renamed[name] = value
    missing = sorted(set(own) - set(renamed))
    if missing or leftover:
        raise UserError(f"not a state of this architecture: missing {missing[:4] or 'nothing'}, left over {leftover[:4] or 'nothing'}")
    wrong = [k for k, v in renamed.items() if v.shape != own[k].shape]
    if wrong:
        shapes = ", ".join(f"{k} {tuple(renamed[k].shape)} instead of {tuple(own[k].shape)}" for k in wrong[:3])
        raise UserError(f"weights of other sizes: {shapes}. Give the N and M (or quality) that they were trained with")
    model.load_state_dict(renamed)


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """With the first of the prefixes that fits replaced; a * stands for one number, kept in its place."""
    for theirs, ours in prefixes.items():
        found = re.match(re.escape(theirs).replace(r"\*", r"(\d+)") + r"(?=\.|$)", name)
        if found:
            return ours.replace("*", found[1] if found.lastindex else "") + name[found.end() :]
    return name


def save(model: nn.Module, path: Path, /, dtype: torch.dtype | None = None, **metadata: object) -> None:
    """Write our format: tensors (as `dtype`, if given), and as metadata the resolved model file and what else is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    part = path.with_name(path.name + ".part")
    state = {
        k: v.detach().cpu().to(dtype if dtype and v.is_floating_point() else v.dtype).contiguous() for k, v in model.state_dict().items()
    }
    save_file(state, part, {"format": "lc_bench", "architecture": getattr(model, "architecture", ""), **notes})
    part.replace(path)


def load_file(model: nn.Module, path: Path) -> dict[str, str]:
    """Load ours (.safetensors), a training checkpoint of ours (.ckpt), or a published checkpoint; returns its metadata."""
    if not path.is_file():
        raise UserError(f"weights={path}: no such file. Allowed: auto, none, or the path of a .safetensors, .ckpt or .pth.tar file")
    if path.suffix == ".safetensors":
        return _load_safetensors(model, path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise UserError(f"weights={path}: cannot be read as a checkpoint without running code from it ({why})") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"weights={path}: no state dict in it")
    if any(k.startswith("model.") for k in state):
        _load_own(model, {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}, path)
        for module in model.modules():
            if isinstance(module, FactorizedPrior):
                module.update_median()  # training keeps none
    else:
        load_reference_state(model, state)
    return {}


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing for other files."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights={path}: not a safetensors file ({error})") from None


def _load_safetensors(model: nn.Module, path: Path) -> dict[str, str]:
    metadata = read_metadata(path)
    with safe_open(path, "pt") as file:
        state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
    if metadata.get("format") == "lc_bench":
        if metadata.get("architecture") != getattr(model, "architecture", ""):
            own = getattr(model, "name", "the model")
            raise UserError(f"weights={path}: made for {metadata.get('model', 'another architecture')}, other layers than {own} has here")
        _load_own(model, state, path)
    else:
        load_reference_state(model, state)
    return metadata


def _load_own(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    different = sorted(set(own) ^ set(state)) or [k for k in own if own[k].shape != state[k].shape]
    if different:
        raise UserError(
            f"weights={path}: of another architecture than {getattr(model, 'name', 'the model')}; first difference: {different[0]}"
        )
    model.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()})
