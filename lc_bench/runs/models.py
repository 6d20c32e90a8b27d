"""run=check, run=export, run=script: whether a checkpoint fits, weights and decoders for elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ..api import export_decoder, load_from, qualities_for
from ..bench.learned import check_latents
from ..errors import UserError
from ..models import PointCode, TransformCode
from ..models.export import reference_state
from ..ops.whole import written_whole
from .origin import load_one, words_of

log = logging.getLogger(__name__)


def check(cfg: DictConfig) -> None:
    """Load weights into their model, write a sample and read it back; UserError says what does not fit."""
    for quality in qualities_for(cfg):
        sender, receiver = load_from(cfg, quality), load_from(cfg, quality)
        broken = [name for name, value in sender.state_dict().items() if not bool(value.isfinite().all())]
        if broken:
            raise UserError(f"weights={cfg.weights}: NaN or infinite values in {', '.join(broken[:4])}")
        coded = sender.encode(example_for(sender))
        check_latents("test sample", coded.latents, receiver.decode(coded.streams)[1])
        count = sum(p.numel() for p in sender.parameters())
        identity = sender.frozen.identity.weights.hex()
        log.info(f"{cfg.model.name} quality {quality}: {sender.weights_note} weights {identity}, {count:,} parameters; codes and decodes")


def example_for(model: TransformCode) -> Tensor:
    """An image of waves (1, 3, 128, 192), or a ball (1, N, 3)."""
    if isinstance(model, PointCode):
        return torch.nn.functional.normalize(torch.randn(1, model.points, 3, generator=torch.Generator().manual_seed(0)), dim=2)
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 128), torch.linspace(0, 9, 192), indexing="ij")
    return torch.stack([0.5 + 0.4 * (rows * f).sin() * columns.cos() for f in (1, 2, 3)])[None]


def export(cfg: DictConfig) -> None:
    """Write weights under the reference implementation's names, as a checkpoint that it loads."""
    (quality, *more) = qualities_for(cfg)
    if more and not cfg.model.get("levels"):
        raise UserError(f"quality={cfg.quality}: export writes one checkpoint; give one quality, such as quality=3")
    path = _new_file(cfg)
    model = load_from(cfg, quality)
    state = reference_state(model)
    with written_whole(path) as part:
        torch.save(state, part)
    log.info(f"{path}: {cfg.model.name} quality {quality}, {model.weights_note} weights, {len(state)} entries")


def script(cfg: DictConfig) -> None:
    """Write a decoder that runs without Python source; quality 3 where none is chosen."""
    size = list(cfg.run.size) if OmegaConf.is_list(cfg.run.size) else []
    if len(size) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in size):
        raise UserError(f"run.size={cfg.run.size}: give [height,width] in pixels, such as run.size=[512,768]")
    path = _new_file(cfg)
    model = load_one(cfg)
    export_decoder(model, path, (size[0], size[1]))
    level = f" level {model.level:g}" if model.variable else ""
    log.info(f"{path}: decoder of {words_of(cfg)}{level} for {size[1]} x {size[0]} pixels, {path.stat().st_size:,} bytes")


def _new_file(cfg: DictConfig) -> Path:
    path = Path(cfg.run.to).expanduser()
    if path.exists():
        raise UserError(f"run.to={path}: is there already; give another name or remove it")
    return path
