"""What a script or a notebook imports: build, load, compress, decompress, benchmark.

model = lc_bench.load("mbt2018", quality=3)
streams = lc_bench.compress(model, x)          # x (B, 3, H, W) in [0, 1]
x_hat = lc_bench.decompress(model, streams)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor

from .bench.learned import run_model
from .coding.container import Stream, is_cubed, is_tiled, read_head, unpack
from .coding.cubes import unpack_cubes
from .coding.tiles import TileFile
from .config import DEFAULT_QUALITY, at_quality, check_choice, compose, is_variable, literal, make, qualities_of, quoted
from .config import list_models as list_models
from .errors import StreamError, UserError, unknown
from .models import PointCode, TransformCode, cubed, script, tiled, weights
from .models.weights import read_metadata
from .ops.first_weights import drawn_from
from .ops.paths import cache_dir
from .trained import architecture_of, path_of, settings_of, with_networks, with_sizes

SETTINGS = ("quality", "level", "seed")  # of `build`, beside the keys of a model


def build(name: str, quality: float | None = None, seed: int = 0, level: float | None = None, **overrides: Any) -> TransformCode:
    """An untrained model in evaluation mode; overrides are keys of its YAML, such as N=16.

    quality: 1 is the lowest; None is 3. Of a model of variable rate, where `model.level` starts, which level says too: level 0 is
    quality 1. UserError for an unknown name, quality or key.
    """
    return build_from(_composed(name, _quality(name, quality, level), overrides), seed)


def _composed(name: str, quality: float, overrides: Mapping[str, Any], *words: str) -> DictConfig:
    """The configuration of a model at one quality."""
    check_choice("model", name)
    known = compose(f"model={name}").model
    for key in overrides:
        if key not in known:
            keys = [str(k) for k in known if k not in ("net", "reference_names")]
            raise unknown(key, overrides[key], [*SETTINGS, *keys], f"The last {len(keys)} are those of {name}.", wrong=key)
    # Text is in Hydra's grammar: groups="[2,4]".
    chosen = [f"model.{k}={v if isinstance(v, str) else literal(v)}" for k, v in overrides.items()]
    return compose(f"model={name}", f"quality={quality}", *words, *chosen)


def _quality(name: str, quality: float | None, level: float | None) -> float:
    """What a caller asks for by either name."""
    if level is None:
        return DEFAULT_QUALITY if quality is None else quality
    if quality is not None:
        raise UserError(f"level={level} and quality={quality}: give one of them; level 0 is quality 1")
    check_choice("model", name)
    return qualities_of(compose(f"model={name}", f"level={level}"))[0]


def build_from(cfg: DictConfig, seed: int = 0) -> TransformCode:
    """The model of a composed configuration with one quality. Its first weights depend on the seed alone."""
    with drawn_from(seed):
        model: TransformCode = make(cfg.model.net).eval()
    model.name = cfg.model.name
    model.architecture = architecture_of(cfg)
    model.settings = settings_of(cfg.model)
    if is_variable(cfg):
        model.level = cfg.quality - 1
    model.stage = cfg.model.get("stage", 2)
    model.reference_names = {str(k): str(v) for k, v in (cfg.model.get("reference_names") or {}).items()}
    return model


def load(
    name: str | None = None,
    quality: float | None = None,
    weights: str | Path = "auto",
    metric: str | None = None,
    level: float | None = None,
    **overrides: Any,
) -> TransformCode:
    """A model with its weights. weights: "auto" (shipped or published), "none" (untrained), or a path.

    A file of ours says itself which model, quality and metric it is of, and with which N and M; name and the others may then be left
    out. In a file with the reference's names, N and M are inferred. quality: 1 is the lowest, None is 3; level: of a model of variable
    rate, 0 is quality 1. metric: that it was trained for; None is mse, or what its YAML says. UserError where no weights are
    published, or they do not fit.
    """
    path = path_of(weights)
    notes = read_metadata(path) if path is not None else {}
    name = name or notes.get("model")
    if not name:
        raise UserError(f"load(weights={str(weights)!r}): give the model's name too, as load('lite'); list_models() has them all")
    if quality is None and level is None and notes.get("quality", "all") != "all":
        quality = int(notes["quality"])
    asked = _quality(name, quality, level)
    metric = metric or notes.get("metric") or str(compose(f"model={name}").rate.name)
    check_choice("rate", metric)
    cfg = _composed(name, asked, overrides, f"rate={metric}", f"weights={quoted(str(weights))}")
    return load_from(cfg, qualities_for(with_sizes(cfg))[0])


def load_from(cfg: DictConfig, quality: float) -> TransformCode:
    """The model of a composed configuration at that quality, with the weights that it asks for."""
    chosen = as_trained(at_quality(cfg, quality))
    model = build_from(chosen, cfg.seed)
    give_weights(model, chosen, cfg.weights)
    return model


def as_trained(cfg: DictConfig) -> DictConfig:
    """A configuration of one quality, its model as the file of weights has it: N, M and networks."""
    path = path_of(cfg.weights)
    if path is None:
        return cfg
    notes = read_metadata(path)
    # Tensors tell the sizes of a file that says nothing itself; those of ours are read once, when they are loaded.
    content = weights.Content(path, {}, notes) if notes else weights.read(path)
    return with_networks(with_sizes(cfg), content)


def qualities_for(cfg: DictConfig) -> list[float]:
    """The qualities to run. A file of weights has one, unless its model is of variable rate: another is a UserError."""
    path = path_of(cfg.weights)
    cfg = with_sizes(cfg)
    if path is None or is_variable(cfg):
        listed = qualities_of(cfg)
        if cfg.quality == "all" and str(cfg.weights) == "auto":  # of a model that ships at some qualities, those
            return [q for q in listed if shipped_file(at_quality(cfg, q)).is_file() or published_name(cfg, q)] or listed
        return listed
    trained = weights.read_metadata(path).get("quality")
    if trained == "all":
        raise UserError(f"weights={cfg.weights}: of a model of variable rate, which {cfg.model.name} is not here")
    if cfg.quality == "all":
        if trained is None:
            raise UserError(f"weights={cfg.weights}: say which quality it is, as quality=3")
        return [int(trained)]
    asked = qualities_of(cfg)
    if trained is not None and asked != [int(trained)]:
        raise UserError(f"quality={cfg.quality}: weights={cfg.weights} was trained for quality {trained}; give that one, or none")
    if len(asked) > 1:
        raise UserError(f"quality={cfg.quality}: one file of weights has one quality")
    return asked


def give_weights(model: TransformCode, cfg: DictConfig, source: str | Path) -> None:
    """Load what `source` says and note in `model.weights_note` what was loaded."""
    name, metric, quality = cfg.model.name, cfg.rate.name, cfg.quality
    if str(source) == "none":
        model.weights_note = "untrained"
        return
    path = path_of(source)
    if path is not None:
        trained = weights.load_file(model, path).get("metric", metric)
        if trained != metric:
            raise UserError(f"rate={metric}: weights={source} was trained for {trained}; use rate={trained}")
        model.weights_note = f"{path.parent.name}/{path.name}" if path.parent.name else path.name
        return
    if shipped_file(cfg).is_file():
        weights.load_file(model, shipped_file(cfg))
        model.weights_note = "shipped"
        return
    file = published_name(cfg, quality)
    if file is None:
        raise UserError(
            f"weights=auto: none are published for {name}, {metric}, quality {quality}. Train it (run=train) or use weights=none"
        )
    weights.load_file(model, weights.fetch_published(file, cache_dir() / "weights"))
    model.weights_note = "published"


def shipped_file(cfg: DictConfig) -> Path:
    """Where weights of this model, metric and quality lie, if they ship."""
    quality = "" if is_variable(cfg) else f"-{cfg.quality}"
    return weights.SHIPPED / f"{cfg.model.name}-{cfg.rate.name}{quality}.safetensors"


def published_name(cfg: DictConfig, quality: float) -> str | None:
    return weights.published_file(cfg.model.get("published"), cfg.rate.name, quality)


def load_reference_state(model: TransformCode, state: Mapping[str, Tensor]) -> None:
    """Load a state dict, tensors by the reference implementation's names (2020 to now); UserError says what does not fit.

    A checkpoint that holds one, as {"state_dict": ...}, serves too, and so do names behind `module.` and the like.
    """
    weights.load_reference_state(model, weights.unwrapped(weights.state_in(dict(state)) or {}))
    model.weights_note = "reference state"


def compress(model: TransformCode, x: Tensor, level: float | None = None, tile: int | None = None) -> list[bytes]:
    """x (B, C, H, W) in [0, 1], any size -> B self-describing streams.

    level: of a model of variable rate, 0 to 7 and everything between; None is the quality that it was loaded with.
    tile: side in pixels of tiles that are coded each for itself, 0 for none; None: 1024 for images above 4 megapixels.
    Clouds are x (B, N, 3), or (B, N, 6) with normals. UserError for NaN and infinite values, and for what the model does not take.
    """
    if isinstance(model, PointCode):
        return model.encode(x, level=level).streams
    model.check_sendable(x)
    size = (x.shape[2], x.shape[3])
    side = tiled.tile_for(size, tile)
    if side == 0:
        return model.encode(x, level=level).streams

    def reader(image: Tensor) -> tiled.Source:
        return lambda top, left, height, width: image[:, top : top + height, left : left + width]

    return [tiled.encode(model, reader(image), size, level, side) for image in x]


def decompress(model: TransformCode, streams: list[bytes], region: tiled.Region | None = None) -> Tensor:
    """Streams of images of one size -> x_hat (B, C, H, W) in [0, 1]; of clouds -> (B, N, 3). StreamError for anything damaged or foreign.

    region: (top, left, height, width) in pixels, None for the whole image. Of an image in tiles only those are decoded
    that it needs.
    """
    if isinstance(model, PointCode) and region is None:
        whole = isinstance(streams, bytes) or not any(map(is_cubed, streams))
        return model.decode(streams)[0] if whole else torch.stack([cubed.decode(model, stream)[0] for stream in streams])
    if isinstance(streams, bytes) or not streams or not any(map(is_tiled, streams)):
        x_hat = model.decode(streams)[0]
        top, left, height, width = tiled.region_of(region, x_hat.shape[2:])
        return x_hat[..., top : top + height, left : left + width]
    headers = [read_head(stream)[0] for stream in streams]
    sizes = {header.sizes if region is None else region[2:] for header in headers}
    if len(sizes) > 1 or not all(map(is_tiled, streams)):
        raise StreamError("streams of different sizes, or in tiles and not, in one batch; decode images of one size together")
    out: Tensor | None = None
    for place, stream in enumerate(streams):
        for top, left, part in tiled.decode(model, stream, region):
            if out is None:
                out = part.new_empty(len(streams), len(part), *sizes.pop())
            out[place, :, top : top + part.shape[1], left : left + part.shape[2]] = part
    assert out is not None
    return out


def inspect(stream: Stream) -> dict[str, Any]:
    """What a stream says of itself; no model is needed. StreamError unless all its checksums match.

    sizes: height and width, or number of points; level: None of models of one rate; segments: bytes of each latent, in coding order,
    over all tiles or cubes; parts: number of these, 1 for a whole image or cloud; head: bytes of everything else.
    """
    header, _, _ = read_head(stream)
    if is_tiled(stream):
        file = TileFile(stream)
        parts = [file.segments(number) for number in range(file.rows * file.columns)]
    else:
        parts = [cube.segments for cube in unpack_cubes(stream[:])[1]] if is_cubed(stream) else [unpack(stream)[1]]
    segments = [sum(map(len, latent)) for latent in zip(*parts, strict=True)]
    return {
        "version": stream[2],
        "architecture": header.identity.architecture.hex(),
        "weights": header.identity.weights.hex(),
        "model": header.model,
        "sizes": header.sizes,
        "level": None if header.level is None else header.level / 16,
        "tile": header.tile,
        "cube": header.cube,
        "parts": len(parts),
        "segments": segments,
        "head": len(stream) - sum(segments),
        "bytes": len(stream),
    }


def export_decoder(model: TransformCode, path: str | Path, size: tuple[int, int], level: float | None = None) -> None:
    """Write a TorchScript file that decodes what `compress` gives for images of `size` (height, width), without Python source, on a CPU.

    `torch.jit.load(path)` takes a stream as (n,) uint8 and gives x_hat (1, C, H, W). Images of other sizes that are padded to the same
    decode too; level: of a model of variable rate, the only one that does. UserError for mixtures and for networks without an exact form.
    """
    script.export_decoder(model, path, size, level)


def export_coder(path: str | Path) -> None:
    """Write the entropy coder as a TorchScript file; its methods are those of lc_bench/coding/scripted.py."""
    script.export_coder(path)


def label_of(model: TransformCode, metric: str = "mse") -> str:
    """Name in tables: metrics other than MSE and Chamfer are part of it, and weights that are neither published nor shipped."""
    measured = "" if metric in ("mse", "chamfer") else f" {metric}"
    own = "" if model.weights_note in ("published", "shipped") else f" ({model.weights_note})"
    return f"{model.name}{measured}{own}"


def benchmark(model: TransformCode, data: str | None = None, images: int | None = None, **keys: Any) -> pd.DataFrame:
    """Records of the model on a data set of conf/data (default: samples, or shapes): each to bytes, and decoded by a copy of it.

    keys: of the data set's YAML, such as path="photos" with data="folder". `records.to_csv` gives what run=report reads. bpp is in bits
    per pixel or point, psnr-rgb, d1-psnr and d2-psnr in dB, encode_s and decode_s in seconds.
    """
    of_clouds = isinstance(model, PointCode)
    data = data or ("shapes" if of_clouds else "samples")
    check_choice("data", data)
    if of_clouds and "points" not in keys and "points" in compose(f"data={data}").data:
        keys["points"] = model.points
    written = (f"data.{k}={quoted(str(v)) if k == 'path' else literal(v)}" for k, v in keys.items())
    source = make(compose(f"data={data}", *written).data)
    receiver = copy.deepcopy(model)
    level = model.level + 1 if model.variable else 0
    places = range(len(source))[:images]
    return pd.DataFrame(run_model(model, receiver, source, label_of(model), level, places))
