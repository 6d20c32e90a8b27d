"""Networks as a list of words, which is how papers print them: `[down 192, residual, attention, conv3/2 320]`.

A word is a kind, and after it the channels that it gives; kinds without a number keep the channels. `conv5/2` is a 5x5
convolution of stride 2, `deconv5/2` a transposed one, `subpel3/2` one whose channels become 2x2 pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import nn

from ..errors import UserError
from .conv import sub_pixel
from .gdn import GDN, GDN1
from .residual import Attention, Residual, ResidualBottleneck, ResidualDown, ResidualUp
from .spectral import SpectralConv2d, SpectralConvTranspose2d

CHANGING: dict[str, Callable[[int, int], nn.Module]] = {"residual": Residual, "down": ResidualDown, "up": ResidualUp}
KEEPING: dict[str, Callable[[int], nn.Module]] = {
    "attention": Attention,
    "bottleneck": ResidualBottleneck,
    "gdn": GDN,
    "igdn": lambda channels: GDN(channels, inverse=True),
    "gdn1": GDN1,
    "igdn1": lambda channels: GDN1(channels, inverse=True),
    "relu": lambda channels: nn.ReLU(inplace=True),
    "leaky_relu": lambda channels: nn.LeakyReLU(inplace=True),
}
SIZED: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "conv": lambda a, b, k, s: nn.Conv2d(a, b, k, s, padding=k // 2),
    "deconv": lambda a, b, k, s: nn.ConvTranspose2d(a, b, k, s, padding=k // 2, output_padding=s - 1),
    "subpel": lambda a, b, k, s: sub_pixel(a, b, k, s),
    "spectral": lambda a, b, k, s: SpectralConv2d(a, b, k, s, padding=k // 2),
    "despectral": lambda a, b, k, s: SpectralConvTranspose2d(a, b, k, s, padding=k // 2, output_padding=s - 1),
}


def chain(channels: int, blocks: Sequence[str]) -> nn.Sequential:
    """One module per word; channels: of the input. UserError for an unknown word, which lists all."""
    layers: list[nn.Module] = []
    for word in blocks:
        module, channels = _block(str(word), channels)
        layers.append(module)
    return nn.Sequential(*layers)


def _block(word: str, before: int) -> tuple[nn.Module, int]:
    found = re.fullmatch(r"(i?gdn1|[a-z_]+)(?:(\d+)(?:/(\d+))?)?(?: +(\d+))?", word.strip())
    kind, kernel, stride, channels = found.groups() if found else ("", None, None, None)
    after = int(channels) if channels else before
    if kind in SIZED and kernel:
        return SIZED[kind](before, after, int(kernel), int(stride or 1)), after
    if kind in CHANGING and kernel is None:
        return CHANGING[kind](before, after), after
    if kind in KEEPING and kernel is None and after == before:
        return KEEPING[kind](before), before
    sized = ", ".join(f"{k}5/2" for k in SIZED)
    raise UserError(f"chain: {word!r} after {before} channels. There are: {', '.join([*CHANGING, *KEEPING])}, {sized}")
