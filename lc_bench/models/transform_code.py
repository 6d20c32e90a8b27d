"""Nonlinear transform coding: y = g_a(x), a latent codec for y, x_hat = g_s(y_hat).  Ballé et al. 2021, arXiv 2007.03034."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..coding.container import LARGEST_AREA, LARGEST_SIDE, LARGEST_WHOLE, Header, check_claim, least_bytes, pack, seal_of, unpack
from ..coding.frozen import Frozen, fingerprint
from ..coding.tapes import FIXED, DecodeTape, EncodeTape, RateTape, Rung
from ..errors import StreamError, UserError
from ..ops.cudnn import repeatable
from ..ops.first_weights import usual_settings
from ..ops.shapes import pad_to_multiple, padded_size
from .variable_rate import FINENESS, Ladder, in_stream

Clock = Callable[[str], AbstractContextManager[None]]

# Resampling and noise reach beyond [0, 1]; pixels of 0 .. 255, or normalised by a mean and a deviation, reach much further.
DARKEST, BRIGHTEST = -0.5, 1.5
_modes = threading.Lock()  # of evaluation and training


@dataclass
class Output:
    """x_hat (B, C, H, W); bits of each latent, (B,) each; whatever else a loss may want."""

    x_hat: Tensor
    bits: dict[str, Tensor]
    extras: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Coded:
    """A batch of streams, with what the benchmark checks and reports."""

    streams: list[bytes]
    latents: dict[str, list[Tensor]]
    bits: dict[str, Tensor]  # (B,) ideal bits of the tables, by latent
    segment_bytes: list[dict[str, int]]


class TransformCode(nn.Module):
    """An image codec. pad_to: sizes are padded to its multiples; ladder: makes it one of variable rate."""

    def __init__(
        self, g_a: nn.Module, g_s: nn.Module, codec: nn.Module, pad_to: int, channels: int = 3, ladder: Ladder | None = None
    ) -> None:
        super().__init__()
        self.g_a = g_a
        self.g_s = g_s
        self.codec = codec
        self.pad_to = pad_to
        self.channels = channels
        self.ladder = ladder
        if ladder is not None:
            ladder.suit(codec)
        self.level = 0.0  # where no other is asked for; of a model of variable rate
        self.stage = 2  # 1: trains the same layers at a fixed rate, before the ladder's turn
        self.quantiser = "noise"
        # Set by the builder: the name and the resolved model file, which identify the architecture, the keys of that
        # file (N, M, ...), and how the reference implementation names its parts.
        self.name = ""
        self.settings: dict[str, object] = {}
        self.architecture = ""
        self.reference_names: dict[str, str] = {}
        self.weights_note = "untrained"
        self._frozen: Frozen | None = None
        self._coding = 0  # calls under way that want evaluation mode
        self._to_train: list[nn.Module] = []  # once they are done
        self._range_known = False  # pixels in training come from one place: the first ones are looked at

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files hold the model alone; what coding needs of it is made anew."""
        return {**self.__dict__, "_frozen": None, "_coding": 0, "_to_train": []}

    def forward(self, x: Tensor, level: float | Tensor | None = None) -> Output:
        """x (B, C, H, W) in [0, 1]; any size. level: one, or (B,); of a model of variable rate, 0 is its lowest rate."""
        self.check_input(x)
        if not (self.training and self._range_known):
            self.check_range(x)
            self._range_known = True
        with torch.autocast(x.device.type, enabled=False):
            rung = self.rung(level, x.device)
        tape = RateTape(self.training, self.quantiser, rung, torch.is_autocast_enabled(x.device.type))
        y = whole(self.analyse(pad_to_multiple(x, self.pad_to)))
        with torch.autocast(x.device.type, enabled=False):  # but in the codec's networks, which the tape calls
            y_hat = self.codec(tape, y)
        return Output(whole(self.synthesise(y_hat, x.shape[-2:], rung)), tape.bits)

    @property
    def variable(self) -> bool:
        """Whether it has levels; not in its first stage of training."""
        return self.ladder is not None and self.stage > 1

    def rung(self, level: float | Tensor | None, device: torch.device, frozen: Frozen | None = None) -> Rung:
        """frozen: as coding wants it."""
        if self.ladder is None or self.stage == 1:
            if level is not None:
                raise UserError(f"level={level}: {self.name or 'this model'} has one rate; models of variable rate have levels")
            return FIXED
        levels = torch.as_tensor(self.level if level is None else level, device=device, dtype=torch.float64).reshape(-1)
        self.ladder.check(levels)
        return (frozen.exact(self.ladder) if frozen else self.ladder)(levels)

    def synthesise(self, y_hat: Tensor, size: torch.Size | tuple[int, ...], rung: Rung) -> Tensor:
        """y_hat of the padded image -> x_hat (B, C, *size), not yet clamped."""
        return self.g_s(_fast(rung.tell(in_type_of(self.g_s, y_hat))))[..., : size[0], : size[1]]

    def analyse(self, x: Tensor) -> Tensor:
        """y of x (B, C, H, W), which is padded."""
        return self.g_a(_fast(in_type_of(self.g_a, x))).contiguous()

    def check_input(self, x: Tensor) -> None:
        """UserError unless x is (B, C, H, W), in floating point and not empty."""
        check_tensor(x)
        if x.ndim != 4 or x.shape[1] != self.channels or 0 in x.shape:
            raise UserError(f"an input of shape {tuple(x.shape)}: the model takes (B, {self.channels}, H, W), nothing empty")
        if not x.is_floating_point():
            raise UserError(f"an input of {x.dtype}: the model takes floating point in [0, 1]; divide 8-bit pixels by 255")

    def check_range(self, x: Tensor) -> None:
        """UserError for pixels far outside [0, 1]."""
        if x.device.type == "meta":
            return
        lowest, highest = (float(end) for end in x.detach().aminmax())
        if lowest < DARKEST or highest > BRIGHTEST:
            advice = "divide 8-bit pixels by 255" if lowest >= 0 else "undo what normalised them, or divide by their largest value"
            raise UserError(f"an input with values from {lowest:.4g} to {highest:.4g}: the model takes pixels in [0, 1]; {advice}")

    def check_size(self, height: int, width: int) -> None:
        """UserError for what no reader would take."""
        if min(height, width) < 1 or max(height, width) > LARGEST_SIDE or self.padded_area(height, width) > LARGEST_AREA:
            raise UserError(f"an image of {height} x {width} pixels: 1 to {LARGEST_SIDE} on a side and {LARGEST_AREA} in all can be coded")

    def padded_area(self, height: int, width: int) -> int:
        """Pixels after padding."""
        return padded_size(height, self.pad_to) * padded_size(width, self.pad_to)

    def check_sendable(self, x: Tensor) -> None:
        """UserError for what cannot be coded: other shapes, too many pixels, NaN and infinite ones, and those far outside [0, 1]."""
        self.check_input(x)
        self.check_size(x.shape[2], x.shape[3])
        if not bool(x.isfinite().all()):
            raise UserError("the image has NaN or infinite pixels; nothing was written")
        self.check_range(x)

    @property
    def frozen(self) -> Frozen:
        """Tables and exact networks of the present weights; made anew when the weights have changed."""
        with self.evaluating():
            mark = fingerprint(self)
            kept = self._frozen
            if kept is not None and kept.fingerprint == mark:
                return kept
            with usual_settings(), torch.no_grad():
                kept = self._frozen  # which another thread may have made meanwhile
                if kept is None or kept.fingerprint != mark:
                    kept = self._frozen = Frozen(self, self.architecture.encode(), mark)
                return kept

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the model is in evaluation mode; every part of it is put back into its own mode when the last call has left."""
        with _modes:
            if self._coding == 0:
                self._to_train = [module for module in self.modules() if module.training]
                if self._to_train:
                    self.eval()
            self._coding += 1
        try:
            yield
        finally:
            with _modes:
                self._coding -= 1
                if self._coding == 0:
                    for module in self._to_train:
                        module.training = True
                    self._to_train = []

    @contextmanager
    def coding(self) -> Iterator[Frozen]:
        """What is frozen, for one call that writes or reads: in evaluation mode, without gradients, new tensors on the CPU."""
        with self.evaluating(), torch.no_grad(), tensors_on_cpu():
            yield self.frozen

    @torch.no_grad()
    def encode(self, x: Tensor, clock: Clock | None = None, level: float | None = None) -> Coded:
        """x (B, C, H, W) in [0, 1] -> B streams. UserError for NaN and infinite pixels.

        level: of a model of variable rate; the stream keeps it in sixteenths.
        """
        self.check_sendable(x)
        if self.padded_area(x.shape[2], x.shape[3]) > LARGEST_WHOLE:
            raise UserError(
                f"an image of {x.shape[2]} x {x.shape[3]} pixels: more than {LARGEST_WHOLE} are coded in tiles alone, with tile=1024"
            )
        clock = clock or (lambda _: nullcontext())
        with self.coding() as frozen:
            x = x.to(frozen.device)
            rung, written = self.sending_rung(level, x.device, frozen)
            tape = EncodeTape(frozen, rung)
            with clock("transform"):
                y = self.analyse(pad_to_multiple(x, self.pad_to))
            with clock("coding"), repeatable(frozen.device):
                self.codec(tape, y)
                header = Header(frozen.identity, tuple(x.shape[-2:]), written, place=frozen.bound)
                area = self.padded_area(x.shape[2], x.shape[3])
                segments = tape.segments([seal_of(header, len(tape.names))] * len(x), least_bytes(area))
                streams = [pack(header, row, area) for row in segments]
        sizes = [{name: len(s) for name, s in zip(tape.names, row, strict=True)} for row in segments]
        return Coded(streams, tape.latents, tape.bits, sizes)

    @torch.no_grad()
    def decode(self, streams: list[bytes], clock: Clock | None = None) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """B streams of images of one size -> x_hat (B, C, H, W) in [0, 1], and the latents that were read."""
        if isinstance(streams, bytes) or not streams:
            raise UserError("decompress takes a list of streams (bytes), at least one")
        clock = clock or (lambda _: nullcontext())
        with self.coding() as frozen:
            with clock("coding"), repeatable(frozen.device):
                headers, segments = zip(*map(unpack, streams), strict=True)
                size, level = common(headers, frozen, 2)
                rung = self.receiving_rung(level, frozen, frozen.device)
                tape = DecodeTape(frozen, list(segments), [seal_of(h, len(s)) for h, s in zip(headers, segments, strict=True)], rung)
                padded = [padded_size(s, self.pad_to) for s in size]
                for row in segments:
                    check_claim(row, padded[0] * padded[1])
                x = torch.full((1,), torch.nan, device=frozen.device, dtype=torch.float32)
                y_hat = self.codec(tape, tape.side(self.g_a, x.expand(len(streams), self.channels, *padded)))
                tape.finish()
            with clock("transform"):
                x_hat = self.synthesise(y_hat, size, rung).clamp(0, 1)
        return x_hat, tape.latents

    def sending_rung(self, level: float | None, device: torch.device, frozen: Frozen) -> tuple[Rung, int | None]:
        """The rung of a level, and what a header says of it."""
        if not self.variable:
            return self.rung(level, device, frozen), None
        self.rung(level, device)  # a level out of bounds is the user's, before it is rounded
        written = in_stream(self.level if level is None else level)
        return self.rung(written / FINENESS, device, frozen), written

    def receiving_rung(self, level: int | None, frozen: Frozen, device: torch.device) -> Rung:
        """Of a header's level."""
        if (level is not None) != self.variable:
            raise StreamError("damaged stream: a level where the model has none, or none where it has")
        if level is None or self.ladder is None:
            return FIXED
        if level > (self.ladder.levels - 1) * FINENESS:
            raise StreamError(f"damaged stream: level {level / FINENESS} of {self.ladder.levels}")
        return self.rung(level / FINENESS, device, frozen)


def _fast(x: Tensor) -> Tensor:
    """Channels last: a sixth faster on a CPU, and what bfloat16 wants everywhere."""
    return x.contiguous(memory_format=torch.channels_last)


def in_type_of(net: nn.Module, x: Tensor) -> Tensor:
    """x in the floating type of the network's weights, if it has any."""
    weight = next((p for p in net.parameters() if p.is_floating_point()), x)
    return x.to(weight.dtype)


@contextmanager
def tensors_on_cpu() -> Iterator[None]:
    """Inside, this thread makes tensors on the CPU where nothing else is said, whatever torch.set_default_device was told."""
    if torch.get_default_device().type == "cpu":
        yield
    else:
        with torch.device("cpu"):
            yield


def check_tensor(x: object) -> None:
    """UserError for anything else."""
    if not isinstance(x, Tensor):
        raise UserError(f"an input of type {type(x).__name__}: the model takes a torch.Tensor, such as torch.as_tensor gives of an array")


def whole(x: Tensor) -> Tensor:
    """Out of half precision: what entropy models compute with."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def check_identity(header: Header, frozen: Frozen) -> None:
    named = f" ({header.model})" if header.model else ""
    if header.identity.architecture != frozen.identity.architecture:
        raise StreamError(f"the stream was written by another architecture (or another N, M); load the model it was written with{named}")
    if header.identity.weights != frozen.identity.weights:
        raise StreamError(f"the stream was written with other weights of this architecture; load the ones it was written with{named}")
    if header.place not in (b"", frozen.place):
        raise StreamError(
            "the stream decodes on the device and the version of torch that wrote it alone: its model has networks without "
            "an exact form (docs/format.md), and this is another device or version"
        )


def common(headers: tuple[Header, ...], frozen: Frozen, numbers: int) -> tuple[tuple[int, ...], int | None]:
    """Size (so many numbers) and level of a batch of streams."""
    for header in headers:
        check_identity(header, frozen)
    sizes = {h.sizes for h in headers}
    if len(sizes) > 1 or len(headers[0].sizes) != numbers:
        raise StreamError(f"streams of {len(sizes)} different sizes in one batch; decode those of one size together")
    levels = {h.level for h in headers}
    if len(levels) > 1:
        raise StreamError(f"streams of {len(levels)} different levels in one batch; decode those of one level together")
    return headers[0].sizes, headers[0].level
