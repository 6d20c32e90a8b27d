"""Tapes: one latent codec, three uses.

A codec is written once, as a function of a tape. On a `RateTape` it estimates bits, on an `EncodeTape` it writes them,
on a `DecodeTape` it reads them. What only the sender has goes through `tape.side`; networks that feed probabilities
are taken from `tape.exact`, so that sender and receiver run the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import StreamError, UserError, unknown
from ..ops.quantise import add_noise, round_straight_through
from . import seal, segment
from .frozen import Frozen


class Prior(Protocol):
    """What a tape needs to know of a distribution over a latent of shape (B, ...)."""

    @property
    def family(self) -> Any:
        """Its tables are Frozen.tables(family)."""
        ...

    @property
    def mean(self) -> Tensor | None:
        """Quantisation is to the integers about it."""
        ...

    @property
    def width(self) -> Tensor | None:
        """Scale of each element, by which reconstruction offsets go; None where an element has not one."""
        ...

    def bits(self, y: Tensor) -> Tensor:
        """Bits of each element of y, quantised or noisy; differentiable."""
        ...

    def symbols(self, y: Tensor) -> Tensor:
        """Whole numbers away from the mean that the sender takes for y: the nearest if nothing speaks for others."""
        ...

    def rounded(self, y: Tensor) -> Tensor:
        """Symbols and mean; the gradient is that of y."""
        ...

    def index(self, shape: torch.Size) -> Tensor:
        """Table of every element of a latent of that shape, int32."""
        ...

    def over(self, step: Tensor) -> Any:
        """The distribution of y / step."""
        ...


@dataclass(frozen=True)
class Rung:
    """One level of a variable-rate model: how coarsely each latent is quantised, and what its networks are told of it.

    steps: widths of the quantiser by latent, (B,) or (1,); sign: (B,) or (1,), or None where networks are told nothing;
    offsets: by latent, (symbols, scale of y / step, step) -> how far from the middle of its bin a value is restored;
    level: itself, (B,) or (1,), for codecs with gains of their own.
    """

    level: Tensor | None = None
    steps: Mapping[str, Tensor] = field(default_factory=dict)
    sign: Tensor | None = None
    offsets: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = field(default_factory=dict)

    def step(self, name: str, y: Tensor) -> Tensor | None:
        """Of a shape that broadcasts over y (B, ...)."""
        return spread(self.steps[name], y) if name in self.steps else None

    def scaled(self, name: str, y: Tensor, prior: Any) -> tuple[Tensor, Any]:
        """y / step and its prior."""
        step = self.step(name, y)
        return (y, prior) if step is None else (y / step, prior.over(step))

    def restored(self, name: str, y_hat: Tensor, prior: Any) -> Tensor:
        """From quantised y / step, and its prior, to what the networks see."""
        step = self.step(name, y_hat)
        if step is None:
            return y_hat
        if name in self.offsets and prior.width is not None:
            symbols = y_hat if prior.mean is None else y_hat - prior.mean
            y_hat = y_hat + self.offsets[name](symbols, prior.width, step)
        return y_hat * step

    def tell(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) with the level as one more channel, for networks that act on it."""
        if self.sign is None:
            return x
        return torch.cat([x, spread(self.sign, x).to(x.dtype).expand(x.shape[0], 1, *x.shape[2:])], 1)


def spread(values: Tensor, like: Tensor) -> Tensor:
    """(B,) or (1,) -> a shape that broadcasts over (B, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


FIXED = Rung()

QUANTISERS = ("noise", "mixed", "round")


class _InHalf:
    """A network in mixed precision amid arithmetic in full; gives float32."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.get_autocast_dtype(x.device.type)):
            return self.net(x).float()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)


class RateTape:
    """Counts bits. Evaluation: rounding as the coder does it. Training: by quantiser,

    - noise: uniform noise, in what is counted and in what the networks see (Ballé et al. 2017);
    - mixed: noise in what is counted, straight-through rounding in what the networks see (Minnen and Singh 2020);
    - round: straight-through rounding in both.
    """

    def __init__(self, training: bool, quantiser: str = "noise", rung: Rung = FIXED, mixed_precision: bool = False) -> None:
        if quantiser not in QUANTISERS:
            raise unknown("quantiser", quantiser, QUANTISERS)
        self.training = training
        self.quantiser = quantiser
        self.rung = rung
        self.mixed_precision = mixed_precision
        self.tell = rung.tell
        self.bits: dict[str, Tensor] = {}  # (B,) by latent

    @property
    def parallel(self) -> bool:
        """Whether a context model may see the whole quantised latent at once, before its means are known: noise needs none of them."""
        return self.training and self.quantiser == "noise" and not self.rung.steps

    def side(self, analysis: nn.Module, y: Tensor) -> Tensor:
        """analysis(y), which only the sender can compute."""
        return self.exact(analysis)(y)

    def exact(self, net: nn.Module) -> Any:
        """The network to call in its place, with the same attributes."""
        return _InHalf(net) if self.mixed_precision else net

    def quantise(self, y: Tensor, mean: Tensor | None = None) -> Tensor:
        """y (B, ...) with noise, or rounded about the mean; the gradient is that of y."""
        return add_noise(y) if self.training and self.quantiser == "noise" else round_straight_through(y, mean)

    def count(self, name: str, y_hat: Tensor, prior: Prior) -> None:
        """Add the bits of y_hat (B, ...) to those of that name."""
        bits = prior.bits(y_hat).flatten(1).sum(1)
        self.bits[name] = self.bits[name] + bits if name in self.bits else bits

    def code(self, name: str, y: Tensor, prior: Prior) -> Tensor:
        """y (B, ...) -> y_hat, what the receiver will see."""
        y, prior = self.rung.scaled(name, y, prior)
        y_hat = self.quantise(y, prior.mean) if self.training else prior.rounded(y)
        mixed = self.training and self.quantiser == "mixed"
        self.count(name, add_noise(y) if mixed else y_hat, prior)
        return self.rung.restored(name, y_hat, prior)


class _CodingTape:
    """What writing and reading share: exact networks and float64 latents."""

    parallel = False
    training = False

    def __init__(self, frozen: Frozen, rung: Rung = FIXED) -> None:
        self.frozen = frozen
        self.rung = rung
        self.tell = rung.tell
        self.latents: dict[str, list[Tensor]] = {}  # what the receiver sees, chunk by chunk

    def exact(self, net: nn.Module) -> Any:
        """The network in exact arithmetic: takes any float tensor, gives float64."""
        return self.frozen.exact(net)

    def code(self, name: str, y: Tensor, prior: Prior) -> Tensor:
        """y (B, ...) -> y_hat, what the receiver sees."""
        y, prior = self.rung.scaled(name, y.double(), prior)
        return self.keep(name, self.send(name, y, prior), prior)

    def send(self, name: str, y: Tensor, prior: Any) -> Tensor:
        """Symbols of y, which is in steps already, over the wire; a codec that makes its own of them calls this, then `keep`."""
        raise NotImplementedError

    def keep(self, name: str, symbols: Tensor, prior: Prior) -> Tensor:
        """Symbols of y / step and its prior -> y_hat."""
        y_hat = self.rung.restored(name, symbols.double() if prior.mean is None else symbols.double() + prior.mean, prior)
        self.latents.setdefault(name, []).append(y_hat)
        return y_hat


class EncodeTape(_CodingTape):
    """Collects symbols and tables in coding order; `segments` writes them."""

    def __init__(self, frozen: Frozen, rung: Rung = FIXED) -> None:
        super().__init__(frozen, rung)
        self.names: list[str] = []
        self.parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.families: dict[str, Any] = {}
        self.bits: dict[str, Tensor] = {}  # (B,) ideal bits of the tables, filled by `segments`

    def side(self, analysis: nn.Module, y: Tensor) -> Tensor:
        """analysis(y), which only the sender can compute."""
        return analysis(y)

    def send(self, name: str, y: Tensor, prior: Any) -> Tensor:
        """Symbols of y (B, ...), int32; UserError for values that cannot be coded."""
        rounded = prior.symbols(y)
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
        return symbols

    def segments(self, seals: list[int], least: int = 0) -> list[list[bytes]]:
        """The segments of each sample, in the order in which the latents were first coded.

        seals: of the headers; least: bytes below which a sample is filled up, so that its last segment must not lose its end.
        """
        rows = self._segments(seals, True)
        if all(sum(map(len, row)) >= least for row in rows):
            return rows
        return [row if sum(map(len, row)) >= least else plain for row, plain in zip(rows, self._segments(seals, False), strict=True)]

    def _segments(self, seals: list[int], carry: bool) -> list[list[bytes]]:
        columns: list[list[bytes]] = []
        sealed: dict[str, list[int]] = {}
        place = 0
        for name in self.names:
            for symbols, _ in self.parts[name]:
                seals = [(one + more) & seal.MASK for one, more in zip(seals, seal.of_symbols(symbols, place).tolist(), strict=True)]
                place += symbols.shape[1]
            sealed[name] = seals
        for name in reversed(self.names):
            symbols, index = zip(*self.parts[name], strict=True)
            tables = self.frozen.tables(self.families[name])
            following = columns[0] if columns and carry else None
            column, self.bits[name] = segment.encode(list(symbols), list(index), tables, following, sealed[name])
            columns.insert(0, column)
        return [list(row) for row in zip(*columns, strict=True)]


class DecodeTape(_CodingTape):
    """Reads symbols back. Whatever was not sent is NaN here, so that a codec which peeks poisons its own output."""

    def __init__(self, frozen: Frozen, segments: list[list[bytes]], seals: list[int], rung: Rung = FIXED) -> None:
        """seals: of the headers."""
        super().__init__(frozen, rung)
        self.seals = torch.tensor(seals, device=frozen.device)
        self.place = 0  # symbols of a stream so far
        if len({len(row) for row in segments}) != 1:
            raise StreamError("streams with different numbers of segments in one batch: not of one model")
        self.columns = list(map(list, zip(*segments, strict=True)))
        self.decoders: dict[str, segment.Decoder] = {}

    def side(self, analysis: nn.Module, y: Tensor) -> Tensor:
        """NaN of the shape of analysis(y)."""
        shape = self.frozen.output_shape(analysis, y.shape)
        return torch.full((1,), torch.nan, device=y.device, dtype=y.dtype).expand(shape)

    def send(self, name: str, y: Tensor, prior: Any) -> Tensor:
        """Symbols (B, ...), read; StreamError where the stream has no such segment."""
        index = prior.index(y.shape).flatten(1)
        if name not in self.decoders:
            if len(self.decoders) == len(self.columns):
                raise StreamError(f"damaged stream: it has {len(self.columns)} segments, the model wants more")
            column = self.columns[len(self.decoders)]
            if self.decoders:  # a segment is read to its end before the next one starts
                column = [own + carried for own, carried in zip(column, self._carried(), strict=True)]
            self.decoders[name] = segment.Decoder(column, self.frozen.tables(prior.family))
        symbols = self.decoders[name].next(index)
        self.seals += seal.of_symbols(symbols, self.place)
        self.place += symbols.shape[1]
        return symbols.view(y.shape)

    def _carried(self) -> list[bytes]:
        """What the latest segment carried, once it is read to its end."""
        return next(reversed(self.decoders.values())).finish((self.seals & seal.MASK).tolist())

    def finish(self) -> None:
        """StreamError unless every segment was read to its end."""
        if len(self.decoders) != len(self.columns):
            raise StreamError(f"damaged stream: it has {len(self.columns)} segments, the model reads {len(self.decoders)}")
        if any(self._carried()):
            raise StreamError("damaged stream: its last segment carries bytes of another one")


Tape = RateTape | EncodeTape | DecodeTape
