"""Rectifier of integer networks: clamps to `bits` bits.  Ballé et al. 2019, openreview S1zz2i0cY7."""

from __future__ import annotations

import torch
from torch import Tensor

# Makes the integral of the soft gradient that of the hard one (ibid., with the gamma function at beta = 100).
ALPHA = 0.9943258522851727


class _QReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, bits: int, beta: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.largest, ctx.beta = 2**bits - 1, beta
        return x.clamp(0, ctx.largest)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (x,) = ctx.saved_tensors
        soft = torch.exp(-((ALPHA * (2 * x / ctx.largest - 1).abs()) ** ctx.beta))
        inside = (x >= 0) & (x <= ctx.largest)
        return torch.where(inside, grad, grad * soft), None, None


def qrelu(x: Tensor, bits: int = 8, beta: float = 100.0) -> Tensor:
    """clamp(x, 0, 2^bits - 1); outside, the gradient fades within some percent of the range instead of vanishing at once."""
    return _QReLU.apply(x, bits, beta)  # type: ignore[return-value]
