"""A learned codec on real bitstreams: bytes are written by one model and read by another one with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..data import CloudSet, ImageSet
from ..data.images import to_bytes, to_unit
from ..errors import UserError
from ..metrics import ms_ssim, psnr
from ..models import PointCode, TransformCode
from . import clouds
from .clock import Clock, costs, rates, reset_peak_memory
from .complexity import cost_of

Record = dict[str, Any]


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
) -> Iterator[Record]:
    """One record per image or cloud at those places; those of `known` with the same codec, weights, level and data are taken from there.

    show: is handed name, original and decoded pixels of every image that is coded.
    """
    note = {
        "codec": label,
        "kind": "learned",
        "level": level,
        "weights": sender.weights_note,
        "version": f"lc_bench {__version__}, weights {sender.weights_note} {sender.frozen.identity.weights.hex()}",
        "data": data.name,
    }
    kept = {r["image"]: r for r in known if all(r.get(k) == v for k, v in note.items())}
    check_kind(sender, data)
    cost = cost_of(sender)
    for name, pixels in data.at(places):
        if name in kept:
            yield kept[name]
            continue
        if isinstance(sender, PointCode):
            assert isinstance(receiver, PointCode)
            record, decoded, latents = clouds.code_cloud(sender, receiver, pixels, data.cube if isinstance(data, CloudSet) else None)
            check_latents(name, *latents)
            record["image"] = name
        else:
            record, decoded = code_image(sender, receiver, name, pixels)
        if show is not None:
            show(name, pixels, decoded)
        yield {**note, **record, **cost}


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
