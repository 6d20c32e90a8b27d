"""Networks in exact arithmetic: whole numbers held in float64, every sum below 2^53, so that no order of adding matters.

Values are multiples of 2^-14 between -2^14 and 2^14. Weights are rounded to multiples of 2^-w, with w per output channel as
fine as the sums allow; after each layer the sum is rounded to the grid of values. Every device, batch size and number of
threads then agrees bit for bit. In integer arithmetic: Ballé et al. 2019, openreview S1zz2i0cY7.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import UserError
from ..ops import cudnn

# Latents and means reach hundreds, and 2^-14 is far below what moves a scale into another table. Of the 53 bits of a sum these
# 28 leave 25 to the weights: with sums of magnitudes about 50, as trained networks have, their steps are 2^-19.
UNIT = 2.0**-14
LARGEST = 2.0**14
WEIGHT_UNITS = 2.0**25  # the magnitudes of a channel's weights and 1 for its bias, in their units, add up to less
COARSEST_WEIGHT, FINEST_WEIGHT = 1, 24  # the half that rounding adds is a multiple of 2^-1
SLOPE_UNIT = 2.0**-16
FEW = 64  # cells, as in a step of a wavefront: with cells as rows the product of so few is three times as fast


class NoExactForm(UserError):
    """A layer that exact arithmetic does not cover."""


def exact_form(net: nn.Module) -> nn.Module:
    """What computes net in exact arithmetic; takes any float tensor, gives float64. NoExactForm names a layer that has none.

    A layer of a user's own may have a method `exact_form()` that returns its module: from float64 multiples of UNIT, at most LARGEST
    in magnitude, to such, with sums that stay below 2^53 units.
    """
    form = _layer(net)
    return form if isinstance(form, ExactWindow) else nn.Sequential(OnGrid(), form)


def on_grid(x: Tensor) -> Tensor:
    """The nearest multiple of UNIT, halves up."""
    return settle(x.double().mul(1 / UNIT).add_(0.5))


def settle(units: Tensor) -> Tensor:
    """Sums of units, with a half added -> values on the grid; works in place."""
    return units.floor_().clamp_(-LARGEST / UNIT, LARGEST / UNIT).mul_(UNIT)


class OnGrid(nn.Module):
    """Any tensor -> the nearest multiples of UNIT, float64."""

    def forward(self, x: Tensor) -> Tensor:
        return on_grid(x)


class Exact(nn.Module):
    """A convolution or linear layer. Its copy's weights give sums in units, its bias adds the half that rounding wants."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        weight = _weight(layer)
        self.layer = copy.deepcopy(layer).to(torch.float64)
        if parametrize.is_parametrized(self.layer, "weight"):
            self.layer.__class__ = parametrize.type_before_parametrizations(self.layer)  # removing it would alter the original's class
            del self.layer.parametrizations
        transposed = layer.transposed if isinstance(layer, nn.modules.conv._ConvNd) else False
        rows = _by_output(weight, layer.groups) if transposed else weight
        rounded = round_weight(rows.reshape(len(rows), -1)).reshape(rows.shape) / UNIT
        weight = _by_input(rounded, layer.groups) if transposed else rounded
        bias = np.zeros(len(rows)) if layer.bias is None else _finite(layer.bias)
        units = np.floor(np.clip(bias, -LARGEST, LARGEST) / UNIT + 0.5) + 0.5
        device = layer.bias.device if layer.bias is not None else next(layer.parameters()).device
        self.layer.weight = nn.Parameter(torch.from_numpy(weight).to(device), requires_grad=False)
        self.layer.bias = nn.Parameter(torch.from_numpy(units).to(device), requires_grad=False)
        self.pointwise = isinstance(layer, nn.Conv2d) and _is_pointwise(layer)

    def forward(self, x: Tensor) -> Tensor:
        if self.pointwise and x.ndim == 4 and x.shape[2] * x.shape[3] <= FEW:
            cells = x.flatten(2).transpose(1, 2)
            out = settle(F.linear(cells, self.layer.weight.flatten(1), self.layer.bias))
            return out.transpose(1, 2).unflatten(2, x.shape[2:])
        with cudnn.without(x.device):
            return settle(self.layer(x))


class ExactWindow(Exact):
    """A convolution with `taps`, over the whole plane or over gathered windows: the same values."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.kernel_size, self.in_channels, self.out_channels = layer.kernel_size, layer.in_channels, layer.out_channels

    @property
    def taps(self) -> Tensor:
        return self.layer.taps

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(on_grid(x))

    def enter(self, values: Tensor) -> Tensor:
        return on_grid(values)

    def gathered(self) -> Callable[[Tensor], Tensor]:
        of_units = self.layer.gathered()
        return lambda window: settle(of_units(window))


class ExactLeakyReLU(nn.Module):
    """Its slope is a multiple of 2^-16."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = float(np.floor(slope / SLOPE_UNIT + 0.5)) * SLOPE_UNIT

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, settle((x * (self.slope / UNIT)).add_(0.5)))


def round_weight(weight: np.ndarray) -> np.ndarray:
    """weight (O, n) -> each row as k * 2^-w with k whole, for the largest w of 1 .. 24 at which sum |k| + 2^w < 2^25."""
    total = np.maximum(np.abs(weight).sum(1), 1.0)
    # Two finer than the sum suggests is too fine for certain: rounding moves it by half a unit per weight.
    bits = np.clip(np.floor(np.log2(WEIGHT_UNITS / total)) + 2, COARSEST_WEIGHT, FINEST_WEIGHT).astype(np.int64)
    rounded, rows = np.empty_like(weight), np.arange(len(weight))
    while len(rows):
        units = np.rint(weight[rows] * np.ldexp(1.0, bits[rows])[:, None])
        over = np.abs(units).sum(1) + np.ldexp(1.0, bits[rows]) >= WEIGHT_UNITS
        rounded[rows[~over]] = (units * np.ldexp(1.0, -bits[rows])[:, None])[~over]
        rows = rows[over]
        if (bits[rows] == COARSEST_WEIGHT).any():
            raise NoExactForm(f"weights of one output channel have magnitudes that add up to {total.max():.3g}; exact sums allow 2^24")
        bits[rows] -= 1
    return rounded


def _layer(net: Any) -> nn.Module:
    if "forward" in vars(net) or net._forward_hooks or net._forward_pre_hooks:
        raise NoExactForm(f"{type(net).__name__} has hooks, or a forward() put in its place: what they do has no exact form")
    if _describes(net, "exact_form"):
        return net.exact_form()
    if isinstance(net, nn.Sequential) and _computes_as(net, nn.Sequential):
        return nn.Sequential(*map(_layer, net))
    if isinstance(net, nn.Conv1d | nn.Conv2d | nn.Conv3d) and _describes(net, "gathered"):
        return ExactWindow(net)
    if any(isinstance(net, kind) and _computes_as(net, kind) for kind in _PLAIN):
        return Exact(net)
    if isinstance(net, nn.LeakyReLU) and _computes_as(net, nn.LeakyReLU) and 0 <= net.negative_slope <= 1:
        return ExactLeakyReLU(net.negative_slope)
    if any(isinstance(net, kind) and _computes_as(net, kind) for kind in _KEEPING_THE_GRID):
        return copy.deepcopy(net)
    raise NoExactForm(f"{type(net).__name__} has no exact form: give it a method exact_form() (docs/format.md)")


_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_KEEPING_THE_GRID = (nn.ReLU, nn.Identity, nn.PixelShuffle, nn.PixelUnshuffle)
_COMPUTING = ("__call__", "forward", "_conv_forward", "_output_padding")  # a subclass with one of its own computes something else


def _computes_as(net: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a subclass does what its base does."""
    return all(getattr(type(net), name, None) is getattr(kind, name, None) for name in _COMPUTING)


def _describes(net: nn.Module, method: str) -> bool:
    """Whether the class has such a method, and no class derived from where it stands computes something else."""
    for kind in type(net).__mro__:
        if method in vars(kind):
            return True
        if any(name in vars(kind) for name in _COMPUTING):
            return False
    return False


def _is_pointwise(layer: nn.Conv2d) -> bool:
    """Whether each cell of the output depends on the same cell of the input alone."""
    padded = any(layer.padding) if isinstance(layer.padding, tuple) else False  # "same" of a 1x1 kernel is nothing
    return layer.groups == 1 and set(layer.kernel_size) == {1} and set(layer.stride) == {1} and not padded


def _weight(layer: Any) -> np.ndarray:
    if not parametrize.is_parametrized(layer, "weight"):
        return _finite(layer.weight * layer.mask if hasattr(layer, "mask") else layer.weight)
    made = layer.parametrizations.weight
    if len(made) != 1 or not hasattr(made[0], "exact_weight"):
        raise NoExactForm(f"{type(layer).__name__} makes its weight by a rule without exact_weight()")
    _finite(made.original)
    return _finite(made[0].exact_weight(made.original))


def _finite(values: Tensor) -> np.ndarray:
    """float64 on the CPU."""
    out = values.detach().cpu().double().numpy()
    if not np.isfinite(out).all():
        raise UserError("a model's weights are NaN or infinite; nothing can be coded with it. Load weights of a run that converged")
    return out


def _by_output(weight: np.ndarray, groups: int) -> np.ndarray:
    """Of a transposed convolution: (in, out / groups, k...) -> (out, in / groups, k...)."""
    split = weight.reshape(groups, -1, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(-1, split.shape[1], *weight.shape[2:])


def _by_input(weight: np.ndarray, groups: int) -> np.ndarray:
    """The way back; the same exchange."""
    return np.ascontiguousarray(_by_output(weight, groups))
