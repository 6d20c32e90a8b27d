"""A learned codec on real bitstreams: bytes are written by one model and read by another one with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..data import CloudSet, ImageSet
from ..data.identity import content_of
from ..data.images import to_bytes, to_unit
from ..errors import UserError
from ..metrics import ms_ssim, psnr
from ..models import PointCode, TransformCode
from ..ops.device import machine_stamp
from . import clouds
from .clock import Clock, costs, rates, reset_peak_memory
from .complexity import cost_of

Record = dict[str, Any]
WARM_SIDE, WARM_POINTS = 256, 2048  # of the part of a sample that is coded before the clock runs, on a CPU


class MismatchError(RuntimeError):
    """The decoder read other latents than the encoder wrote: a bug, never a number in a table."""


def run_model(
    sender: TransformCode,
    receiver: TransformCode,
    data: ImageSet | CloudSet,
    label: str,
    level: float,
    places: Iterable[int],
    known: Sequence[Record] = (),
    show: Callable[[str, Tensor, Tensor], None] | None = None,
    refused: Callable[[str], None] | None = None,
) -> Iterator[Record]:
    """One record per image or cloud at those places; those of `known` with the same codec, weights, level and sample are taken from there.

    show: is handed name, original and decoded pixels of every image that is coded; refused: what is to be said of a sample that the model
    cannot code, which then has no record. Without it the first such sample ends the run.
    """
    note = {
        "codec": label,
        "kind": "learned",
        "level": level,
        "weights": sender.weights_note,
        "version": f"lc_bench {__version__}, weights {sender.weights_note} {sender.frozen.identity.weights.hex()}",
        "data": data.name,
    }
    kept = {(r["image"], r.get("content")): r for r in known if all(r.get(k) == v for k, v in note.items())}
    check_kind(sender, data)
    cost = {**cost_of(sender), **machine_stamp(next(sender.parameters()).device)}
    cube = data.cube if isinstance(data, CloudSet) else None
    warm = False
    for name, pixels in data.at(places):
        content = content_of(pixels)
        earlier = kept.get((name, content))
        if earlier is not None and (cube is None or earlier.get("cube") == cube):
            yield earlier
            continue
        try:
            if not warm:
                warm_up(sender, receiver, pixels, cube)
                warm = True
            record, decoded = code(sender, receiver, name, pixels, cube)
        except (UserError, MemoryError, RuntimeError) as error:
            if refused is None or not is_about_the_sample(error):
                raise
            refused(f"{name}: {label}: {error}")
            continue
        if show is not None:
            show(name, pixels, decoded)
        yield {**note, "content": content, **record, **cost}


def is_about_the_sample(error: BaseException) -> bool:
    """Whether another sample may do: this one is of the wrong size, or there is not enough memory for it."""
    short = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
    return isinstance(error, UserError) or short


def warm_up(sender: TransformCode, receiver: TransformCode, sample: Tensor, cube: float | None) -> None:
    """One pass that nobody times: exact networks and tables are made, kernels are chosen and compiled, on both sides.

    A part of the sample is enough for that on a CPU; a GPU chooses by the size, and is fast.
    """
    small = next(sender.parameters()).device.type == "cpu"
    if isinstance(sender, PointCode):
        part = sample[:WARM_POINTS] if small and not sender.fixed else sample
    else:
        part = sample[:, :WARM_SIDE, :WARM_SIDE] if small else sample
    code(sender, receiver, "warm-up", part, cube)


def code(sender: TransformCode, receiver: TransformCode, name: str, sample: Tensor, cube: float | None = None) -> tuple[Record, Tensor]:
    """An image (3, H, W) uint8 or a cloud (N, 3) to bytes and back: its record, and what came back."""
    if not isinstance(sender, PointCode):
        return code_image(sender, receiver, name, sample)
    assert isinstance(receiver, PointCode)
    record, decoded, latents = clouds.code_cloud(sender, receiver, sample, cube)
    check_latents(name, *latents)
    return {"image": name, **({} if cube is None else {"cube": cube}), **record}, decoded


def check_kind(model: TransformCode, data: ImageSet | CloudSet) -> None:
    """UserError for a model of clouds on images, and the other way round."""
    if isinstance(model, PointCode) != isinstance(data, CloudSet):
        holds, takes = ("clouds", "images") if isinstance(data, CloudSet) else ("images", "clouds")
        advice = "data=samples" if takes == "images" else "data=shapes"
        raise UserError(f"data={data.name}: holds {holds}, {model.name or 'the model'} takes {takes}; use {advice}, or another of its kind")


def code_image(sender: TransformCode, receiver: TransformCode, name: str, pixels: Tensor) -> tuple[Record, Tensor]:
    """Encode one image (3, H, W) uint8 to bytes, decode those, measure; also the decoded pixels."""
    device = next(sender.parameters()).device
    x = to_unit(pixels)[None].to(device)
    write, read = Clock(device), Clock(device)
    reset_peak_memory(device)
    coded = sender.encode(x, write)
    x_hat, latents = receiver.decode(coded.streams, read)
    check_latents(name, coded.latents, latents)
    decoded = to_bytes(x_hat[0]).cpu()
    area = pixels.shape[1] * pixels.shape[2]
    record = {
        "image": name,
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        **rates(coded, area),
        "psnr-rgb": psnr(decoded, pixels),
        "ms-ssim-rgb": ms_ssim(decoded, pixels),
        **costs(write, read, coded),
    }
    return record, decoded


def check_latents(name: str, written: dict[str, list[Tensor]], read: dict[str, list[Tensor]]) -> None:
    """MismatchError unless the receiver saw, bit for bit, what the sender says it would."""
    for latent, parts in written.items():
        for ours, theirs in zip(parts, read.get(latent, []), strict=True):
            if not torch.equal(ours, theirs):
                share = (ours != theirs).double().mean().item()
                raise MismatchError(f"{name}: latent {latent} was decoded differently in {share:.2%} of its values")
