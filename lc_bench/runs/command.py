"""The command that benchmarks what a training has made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..config import choices, compose, is_variable, own_conf_dir
from .sweep import quoted

PLAIN = r"[\w./+-]+"  # stands for itself in Hydra's grammar


def benchmark_of(cfg: DictConfig, output: Path) -> str:
    """A command line, quoted for a shell: the model as it was trained, its weights, and the validation set if there was one."""
    name = chosen_model(cfg)
    usual = OmegaConf.to_container(compose(f"model={name}").model, resolve=False)
    own = OmegaConf.to_container(cfg.model, resolve=False)
    assert isinstance(own, dict)
    assert isinstance(usual, dict)
    words = [f"model={name}", *differences(own, usual, "model")]
    if not is_variable(cfg):
        words.append(f"quality={cfg.quality}")
    if cfg.rate.name not in ("mse", compose(f"model={name}").rate.name):
        words.append(f"rate={cfg.rate.name}")
    words.append(f"weights={as_value(str(output / 'model.safetensors'))}")
    val = cfg.run.get("val")
    if isinstance(val, str) and val in choices("data"):
        words.append(f"data={val}")
    elif isinstance(val, str):
        words += [f"data={'clouds' if 'num_points' in cfg.model else 'folder'}", f"data.path={as_value(val)}"]
    folder = own_conf_dir()
    return shlex.join(["python", "-m", "lc_bench", *(["--config-dir", str(folder)] if folder else []), *words])


def chosen_model(cfg: DictConfig) -> str:
    """The name of the model's file, which may be another than the one that the file says."""
    from hydra.core.hydra_config import HydraConfig

    known: Any = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return str(known.get("model", cfg.model.name))


def differences(own: Mapping[Any, Any], usual: Mapping[Any, Any], above: str) -> Iterator[str]:
    """Overrides that make the one of the other; keys that only the usual one has stay."""
    for key, value in own.items():
        place = f"{above}.{key}"
        if key in usual and usual[key] == value:
            continue
        if isinstance(value, dict) and isinstance(usual.get(key), dict):
            yield from differences(value, usual[key], place)
        else:
            yield f"{'' if key in usual else '+'}{place}={as_value(value)}"


def as_value(value: Any) -> str:
    """In Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(as_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{as_value(one)}' for key, one in value.items())}}}"
    if isinstance(value, str) and not re.fullmatch(PLAIN, value):
        return quoted(value)
    return str(value)
