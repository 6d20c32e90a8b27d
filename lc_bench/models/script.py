"""A model's decoder as one TorchScript file, for images of one padded size: entropy decoding and synthesis, without Python source.

    decoder = torch.jit.load(path)
    x_hat = decoder(torch.frombuffer(bytearray(stream), dtype=torch.uint8))      # (1, C, H, W) in [0, 1]

The codec that trains and codes is traced on a tape that reads (coding/script_tape.py). The decoder runs on the CPU, whatever
device wrote the stream. Before it is saved it has to decode an image other than the one it was traced with.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..coding.container import MAGIC, VERSION, unpack
from ..coding.script_tape import ScriptTape
from ..coding.scripted import coder, compiled, finish, open_stream
from ..errors import UserError
from ..ops.shapes import padded_size
from ..ops.whole import written_whole
from .transform_code import TransformCode

CLOSE = 1e-4  # pixels of the exported decoder and the model's own; sums of g_s in fp32


def export_decoder(model: TransformCode, path: str | Path, size: tuple[int, int], level: float | None = None) -> None:
    """Write the decoder of streams of that level for images of `size` (height, width), and others that are padded as it is."""
    model.check_size(*size)
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    padded = padded_size(size[0], model.pad_to), padded_size(size[1], model.pad_to)
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 0.8, padded[1]).expand(1, model.channels, *padded)
    examples = [ramp + 0.2 * torch.rand(ramp.shape, generator=generator), 1 - ramp]
    streams = [model.encode(x, level=level).streams for x in examples]
    if model.frozen.bound:
        raise UserError(
            f"{model.name or 'the model'} has networks without an exact form ({model.frozen.inexact[0]}): its streams decode where they "
            "were written, and an exported decoder would be another place"
        )
    count = len(unpack(streams[0][0])[1])
    expected = [model.decode(stream)[0] for stream in streams]  # what a trace must not make is made now
    bytes_of = [torch.frombuffer(bytearray(stream), dtype=torch.uint8) for (stream,) in streams]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that shapes and the like become constants, which is the idea
        decoder: Any = torch.jit.trace(_decoding(model, count, padded, level), (bytes_of[0],), check_trace=False)
        if not all(_agrees(decoder, stream, x_hat) for stream, x_hat in zip(bytes_of, expected, strict=True)):
            raise UserError(f"{model.name or 'the model'}: it decides by the image what to do, outside tensors; it cannot be exported")
    _save(decoder, path)


def _agrees(decoder: Any, stream: Tensor, x_hat: Tensor) -> bool:
    try:
        found = decoder(stream)
    except torch.jit.Error:  # what it read was not what was written
        return False
    return found.shape == x_hat.shape and bool((found - x_hat).abs().max() < CLOSE)


def export_coder(path: str | Path) -> None:
    """Write the entropy coder: what scripted.Coder has."""
    _save(coder(), path)


def _save(what: Any, path: str | Path) -> None:
    with written_whole(Path(path).expanduser()) as part:
        torch.jit.save(what, str(part))


def _decoding(model: TransformCode, segments: int, padded: tuple[int, int], level: float | None) -> Any:
    """A function from a stream (n,) uint8 to x_hat (1, C, H, W), to be traced."""
    frozen = model.frozen
    rung, written = model.sending_rung(level, torch.device("cpu"), frozen)
    head = [*MAGIC, VERSION, *frozen.identity.architecture, *frozen.identity.weights]
    x = torch.full((1,), torch.nan, dtype=next(model.g_s.parameters()).dtype).expand(1, model.channels, *padded)

    def decode(stream: Tensor) -> Tensor:
        sizes, *parts = compiled(open_stream)(stream, head, segments, -1 if written is None else written, list(padded), model.pad_to)
        tape = ScriptTape(frozen, parts, sizes[2:], rung)
        y_hat = model.codec(tape, tape.side(model.g_a, x))
        return compiled(finish)(model.synthesise(y_hat, padded, rung), sizes, tape.carried())

    return decode
