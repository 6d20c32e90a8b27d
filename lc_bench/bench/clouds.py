"""A point-cloud codec on real bitstreams: one cloud to bytes and back, and what that gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..errors import UserError
from ..metrics import points as metrics
from ..metrics.density import density_difference, normals_f1
from ..models import PointCode, cubed
from .clock import Clock, costs, rates, reset_peak_memory


def measures(original: Tensor, decoded: Tensor, unit: float = 1.0) -> dict[str, float]:
    """original, decoded (N, 3), or with normals (N, 6). Of the two conventions of the peak, D1 and D2 without a suffix take the box.

    unit: what counts as 1 in densities; half a side for clouds in cubes.
    """
    normals = {"normals-f1": normals_f1(original, decoded)} if original.shape[1] == 6 else {}
    original, decoded = original[:, :3].contiguous(), decoded[:, :3].contiguous()
    d1, d2 = metrics.d1_mse(original, decoded), metrics.d2_mse(original, decoded)
    box, spacing = (metrics.peak(original, p) for p in metrics.PEAKS)
    return {
        "d1-psnr": metrics.psnr(d1, box),
        "d2-psnr": metrics.psnr(d2, box),
        "d1-psnr-spacing": metrics.psnr(d1, spacing),
        "d2-psnr-spacing": metrics.psnr(d2, spacing),
        "chamfer": sum(d1),
        "density": density_difference(original / unit, decoded / unit),
        **normals,
    }


def code_cloud(
    sender: PointCode, receiver: PointCode, points: Tensor, cube: float | None = None
) -> tuple[dict[str, Any], Tensor, tuple[Any, Any]]:
    """points (N, 3) -> record, decoded points, and the latents that were written and read. cube: side of cubes to code it in."""
    if cube is not None and sender.fixed:
        raise UserError(
            f"{sender.name} takes {sender.points} points, no cubes of any number (data.split=train data.points={sender.points})"
        )
    device = next(sender.parameters()).device
    x = points.to(device)
    write, read = Clock(device), Clock(device)
    reset_peak_memory(device)
    coded = sender.encode(x[None], write) if cube is None else cubed.encode_cubes(sender, x, cube, write)
    decoded, latents = cubed.decode(receiver, coded.streams[0], read)
    decoded = decoded.cpu().to(points.dtype)
    count = len(points)
    record = {
        "points": count,
        "points_decoded": len(decoded),
        **rates(coded, count),
        **measures(points, decoded, 1.0 if cube is None else cube / 2),
        **costs(write, read, coded),
    }
    return record, decoded, (coded.latents, latents)


@torch.no_grad()
def complexity(model: PointCode) -> dict[str, float]:
    """kMACs per point of encoder and decoder, on a cloud of the size that the model is made for, and parameters."""
    count = model.points
    weight = next(model.parameters())
    draw = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(1, count, 3, generator=draw), dim=2).to(weight)
    there, back = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with there:
        y, _ = model.g_a(x)
    with back:
        model.g_s(y, count)
    scale = 2e3 * count
    return {
        "encoder_kmacs_point": there.get_total_flops() / scale,
        "decoder_kmacs_point": back.get_total_flops() / scale,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
