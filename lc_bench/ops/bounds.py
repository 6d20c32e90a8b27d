"""Bounds that training can leave again."""

from __future__ import annotations

import torch
from torch import Tensor


class _LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, bound: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * ((x >= ctx.bound) | (grad < 0)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound); below the bound the gradient still passes where it pushes x up."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return x.clamp_min(bound)  # a trace can record this
    return _LowerBound.apply(x, bound)  # type: ignore[return-value]


# Non-negative parameters are kept as square roots of (value + pedestal), which slows their gradient near zero.
# Ballé et al. 2016, arXiv 1511.06281, section 3.
PEDESTAL = 2.0**-36


def to_root(value: Tensor) -> Tensor:
    """What to keep of a non-negative value."""
    return (value + PEDESTAL).clamp_min(PEDESTAL).sqrt()


def from_root(root: Tensor, minimum: float = 0.0) -> Tensor:
    """The value that is kept as `root`, at least `minimum`."""
    return lower_bound(root, (minimum + PEDESTAL) ** 0.5) ** 2 - PEDESTAL
