"""How far a transform sees: measured, by putting NaN into one cell and looking where it comes out.

Cells are those of the latent: `stride` pixels on a side. NaN survives every product, also that with a weight of zero, so what
is found holds for all weights. In float64, where convolutions are plain sums of products.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..errors import UserError

SPANS = (9, 17, 33)  # cells on a side of what is tried
LARGEST_REACH = SPANS[-1] // 2 - 1
_known: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def analysis_reach(g_a: nn.Module, channels: int, stride: int) -> int:
    """Cells on each side whose pixels one cell of y depends on."""

    def spread(net: nn.Module, span: int) -> Tensor:
        x = torch.full((1, channels, span * stride, span * stride), 0.5, dtype=torch.float64)
        centre = span // 2 * stride
        x[..., centre : centre + stride, centre : centre + stride] = torch.nan
        return net(x).isnan().any(1)[0]

    return _measured(g_a, "analysis", spread)


def synthesis_reach(g_s: nn.Module, channels: int, stride: int, tell: Callable[[Tensor], Tensor]) -> int:
    """Cells of y_hat on each side that the pixels of one cell depend on. tell: adds what the network is told beside y_hat."""

    def spread(net: nn.Module, span: int) -> Tensor:
        y_hat = torch.full((1, channels, span, span), 0.5, dtype=torch.float64)
        y_hat[..., span // 2, span // 2] = torch.nan
        return net(tell(y_hat)).isnan().any(1)[0].unflatten(0, (span, stride)).unflatten(2, (span, stride)).any(3).any(1)

    return _measured(g_s, "synthesis", spread)


@torch.no_grad()
def _measured(net: nn.Module, what: str, spread: Callable[[nn.Module, int], Tensor]) -> int:
    if net not in _known:
        plain = copy.deepcopy(net).cpu().double().eval()
        for span in SPANS:
            places = spread(plain, span).nonzero()  # (n, 2)
            reach = int((places - span // 2).abs().max())
            if reach < span // 2:
                break
        else:
            raise UserError(
                f"the {what} transform sees more than {LARGEST_REACH} latent cells around each one, perhaps the whole image: "
                "such a model cannot code in tiles. Code the image as a whole (tile=0)"
            )
        _known[net] = reach
    return _known[net]
