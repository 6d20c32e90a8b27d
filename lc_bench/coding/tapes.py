"""Tapes: one latent codec, three uses.

A codec is written once, as a function of a tape. On a `RateTape` it estimates bits, on an `EncodeTape` it writes them,
on a `DecodeTape` it reads them. What only the sender has goes through `tape.side`; networks that feed probabilities
are taken from `tape.exact`, so that sender and receiver run the same arithmetic.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import StreamError, UserError
from ..ops.quantise import add_noise, round_straight_through
from . import segment
from .frozen import Frozen


class Prior(Protocol):
    """What a tape needs to know of a distribution over a latent of shape (B, ...)."""

    @property
    def family(self) -> nn.Module:
        """Its tables are Frozen.tables(family)."""
        ...

    @property
    def mean(self) -> Tensor | None:
        """Quantisation is to the integers about it."""
        ...

    def bits(self, y: Tensor) -> Tensor:
        """Bits of each element of y, quantised or noisy; differentiable."""
        ...

    def index(self, shape: torch.Size) -> Tensor:
        """Table of every element of a latent of that shape, int32."""
        ...


class RateTape:
    """Counts bits. Training: uniform noise (or straight-through rounding); evaluation: rounding as the coder does it."""

    def __init__(self, training: bool, quantiser: str = "noise") -> None:
        if quantiser not in ("noise", "round"):
            raise UserError(f"quantiser={quantiser}: there are: noise, round")
        self.training = training
        self.quantiser = quantiser
        self.bits: dict[str, Tensor] = {}  # (B,) by latent

    @property
    def parallel(self) -> bool:
        """Whether a context model may see the whole quantised latent at once, before its means are known."""
        return self.training

    def side(self, analysis: nn.Module, y: Tensor) -> Tensor:
        return analysis(y)

    def exact(self, net: nn.Module) -> Any:
        """The network to call in its place, with the same attributes."""
        return net

    def quantise(self, y: Tensor, mean: Tensor | None = None) -> Tensor:
        if self.training and self.quantiser == "noise":
            return add_noise(y)
        return round_straight_through(y, mean)

    def begin(self, name: str, sizes: list[int]) -> None:
        """Announce the number of symbols per sample of each coming chunk; for a latent that is coded in several."""

    def count(self, name: str, y_hat: Tensor, prior: Prior) -> None:
        bits = prior.bits(y_hat).flatten(1).sum(1)
        self.bits[name] = self.bits[name] + bits if name in self.bits else bits

    def code(self, name: str, y: Tensor, prior: Prior) -> Tensor:
        """y (B, ...) -> y_hat, what the receiver will see."""
        y_hat = self.quantise(y, prior.mean)
        self.count(name, y_hat, prior)
        return y_hat


class _CodingTape:
    """What writing and reading share: exact networks and float64 latents."""

    parallel = False
    training = False

    def __init__(self, frozen: Frozen) -> None:
        self.frozen = frozen
        self.latents: dict[str, list[Tensor]] = {}  # what the receiver sees, chunk by chunk

    def exact(self, net: nn.Module) -> Any:
        return self.frozen.exact(net)

    def keep(self, name: str, symbols: Tensor, prior: Prior) -> Tensor:
        y_hat = symbols.double() if prior.mean is None else symbols.double() + prior.mean
        self.latents.setdefault(name, []).append(y_hat)
        return y_hat


class EncodeTape(_CodingTape):
    """Collects symbols and tables in coding order; `segments` writes them."""

    def __init__(self, frozen: Frozen) -> None:
        super().__init__(frozen)
        self.names: list[str] = []
        self.parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.families: dict[str, nn.Module] = {}
        self.bits: dict[str, Tensor] = {}  # (B,) ideal bits of the tables, filled by `segments`

    def side(self, analysis: nn.Module, y: Tensor) -> Tensor:
        return analysis(y)

    def begin(self, name: str, sizes: list[int]) -> None:
        """The sender learns the sizes as it goes."""

    def code(self, name: str, y: Tensor, prior: Prior) -> Tensor:
        centred = y.double() if prior.mean is None else y.double() - prior.mean
        rounded = centred.round()
        largest = segment.LARGEST_SYMBOL
        if not bool((rounded.abs() <= largest).all()):  # also catches NaN
            bad = ~(rounded.abs() <= largest).flatten(1).all(1)
            where = ", ".join(map(str, bad.nonzero().flatten().tolist()))
            raise UserError(f"latent {name} of sample {where} has values that cannot be coded (NaN, infinite or beyond {largest})")
        symbols = rounded.to(torch.int32)
        if name not in self.parts:
            self.names.append(name)
        self.parts.setdefault(name, []).append((symbols.flatten(1), prior.index(y.shape).flatten(1)))
        self.families[name] = prior.family
        return self.keep(name, symbols, prior)

    def segments(self) -> list[list[bytes]]:
        """The segments of each sample, in the order in which the latents were first coded."""
        columns: list[list[bytes]] = []
        for name in reversed(self.names):
            symbols, index = zip(*self.parts[name], strict=True)
            tables = self.frozen.tables(self.families[name])
            sizes = [s.shape[1] for s in symbols]
            following = columns[0] if columns else None
            column, self.bits[name] = segment.encode(torch.cat(symbols, 1), torch.cat(index, 1), sizes, tables, following)
            columns.insert(0, column)
        return [list(row) for row in zip(*columns, strict=True)]


class DecodeTape(_CodingTape):
    """Reads symbols back. Whatever was not sent is NaN here, so that a codec which peeks poisons its own output."""

    def __init__(self, frozen: Frozen, segments: list[list[bytes]]) -> None:
        super().__init__(frozen)
        if len({len(row) for row in segments}) != 1:
            raise StreamError("streams with different numbers of segments in one batch: not of one model")
        self.columns = list(map(list, zip(*segments, strict=True)))
        self.sizes: dict[str, list[int]] = {}
        self.decoders: dict[str, segment.Decoder] = {}

    def side(self, analysis: nn.Module, y: Tensor) -> Tensor:
        shape = self.frozen.output_shape(analysis, y.shape)
        return torch.full((1,), torch.nan, device=y.device, dtype=y.dtype).expand(shape)

    def begin(self, name: str, sizes: list[int]) -> None:
        self.sizes[name] = sizes

    def code(self, name: str, y: Tensor, prior: Prior) -> Tensor:
        index = prior.index(y.shape).flatten(1)
        if name not in self.decoders:
            if len(self.decoders) == len(self.columns):
                raise StreamError(f"damaged stream: it has {len(self.columns)} segments, the model wants more")
            column = self.columns[len(self.decoders)]
            if self.decoders:  # a segment is read to its end before the next one starts
                column = [own + carried for own, carried in zip(column, self._carried(), strict=True)]
            sizes = self.sizes.get(name, [index.shape[1]])
            self.decoders[name] = segment.Decoder(column, sizes, self.frozen.tables(prior.family))
        return self.keep(name, self.decoders[name].next(index).view(y.shape), prior)

    def _carried(self) -> list[bytes]:
        """What the latest segment carried, once it is read to its end."""
        carried = next(reversed(self.decoders.values())).carried
        if carried is None:
            raise StreamError("damaged stream: a segment was not read to its end")
        return carried

    def finish(self) -> None:
        """StreamError unless every segment was read to its end."""
        if len(self.decoders) != len(self.columns):
            raise StreamError(f"damaged stream: it has {len(self.columns)} segments, the model reads {len(self.decoders)}")
        if any(self._carried()):
            raise StreamError("damaged stream: its last segment carries bytes of another one")


Tape = RateTape | EncodeTape | DecodeTape
