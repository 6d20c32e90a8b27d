"""A state dict with the reference implementation's names and every entry that it expects, to load there.

Its frozen tables are left empty: it makes them when its `update` is called.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..entropy import FactorizedPrior, GaussianPrior
from ..entropy.gaussian import SMALLEST_LIKELIHOOD
from ..errors import UserError
from ..layers import GDN, CheckerboardConv2d, MaskedConv2d
from ..ops.bounds import PEDESTAL
from .variable_rate import SMALLEST_Z_STEP

TAIL_MASS = 1e-9  # of both tails, outside the quantiles that the reference keeps
SINGULAR = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}  # as its variable-step bottleneck has them


def reference_state(model: nn.Module) -> dict[str, Tensor]:
    """Of a model that the reference implementation has too; UserError for others."""
    names: Mapping[str, str] = getattr(model, "reference_names", {})
    if not names:
        raise UserError(f"{getattr(model, 'name', 'this model')}: the reference implementation has no such model")
    variable_z = getattr(getattr(model, "ladder", None), "z_net", None) is not None
    state: dict[str, Tensor] = {"lower_bound_zqstep.bound": torch.tensor([SMALLEST_Z_STEP])} if variable_z else {}
    for path, module in model.named_modules(remove_duplicate=False):
        found = {f"{_theirs(path, names)}.{key}": value for key, value in _derived(module).items()}
        state |= found
    for key, value in model.state_dict().items():
        name = _theirs(key, names)
        if name.endswith(".median"):
            continue
        if variable_z:
            name = re.sub(r"\.(matrices|biases|factors)\.(\d)$", lambda m: f".{SINGULAR[m[1]]}{m[2]}", name)
        state[name] = (-value).exp() if key == "ladder.log_step" else value.detach().clone()
    return state


def _theirs(path: str, names: Mapping[str, str]) -> str:
    """Our path under their name; the last of the names that fit counts."""
    for theirs, ours in reversed(list(names.items())):
        found = re.match(re.escape(ours).replace(r"\*", r"(\d+)") + r"(?=\.|$)", path)
        if found:
            return theirs.replace("*", found[1] if found.lastindex else "") + path[found.end() :]
    return path


def _derived(module: nn.Module) -> dict[str, Tensor]:
    """What the reference keeps in its state and we do not."""
    tables = {name: torch.zeros(0, dtype=torch.int32) for name in ("_offset", "_quantized_cdf", "_cdf_length")}
    likelihood = {"likelihood_lower_bound.bound": torch.tensor([SMALLEST_LIKELIHOOD])}
    if isinstance(module, FactorizedPrior):
        tail = math.log(2 / TAIL_MASS - 1)
        ends = module.quantile(TAIL_MASS / 2), module.median, module.quantile(1 - TAIL_MASS / 2)
        return {**tables, **likelihood, "quantiles": torch.stack(ends, 1)[:, None], "target": torch.tensor([-tail, 0.0, tail])}
    if isinstance(module, GaussianPrior):
        bound = torch.tensor([module.scale_min])
        return {**tables, **likelihood, "scale_table": torch.zeros(0), "scale_bound": bound, "lower_bound_scale.bound": bound.clone()}
    if isinstance(module, GDN):
        minima = {"beta_reparam": module.beta_min, "gamma_reparam": 0.0}
        bounds = {f"{k}.lower_bound.bound": torch.tensor([(m + PEDESTAL) ** 0.5]) for k, m in minima.items()}
        return bounds | {f"{k}.pedestal": torch.tensor([PEDESTAL]) for k in minima}
    if isinstance(module, MaskedConv2d | CheckerboardConv2d):
        return {"mask": module.mask.expand_as(module.weight).clone()}
    return {}
