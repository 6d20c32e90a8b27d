"""run=compress, run=decompress, run=inspect: a user's own images and clouds, one or many."""

from __future__ import annotations

import logging
import math
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..api import compress as compress_batch
from ..api import decompress as decompress_batch
from ..api import inspect as inspect_stream
from ..coding.container import Header, Stream, is_cubed, is_tiled, pack, read_head, unpack
from ..coding.cubes import unpack_cubes
from ..coding.tiles import TileFile, tiles_of
from ..data.images import to_bytes
from ..data.pixels import READABLE, WRITABLE, canvas, open_pixels
from ..errors import StreamError, UserError, unknown
from ..models import PointCode, TransformCode, tiled
from ..ops.device import pick_device
from ..ops.paths import printable
from ..ops.progress import progress
from ..ops.whole import written_whole
from . import clouds
from .folders import alone_in
from .origin import is_given, load_for, load_one, words_of
from .places import Job, jobs_of

log = logging.getLogger(__name__)

SUFFIX = ".lcb"
Tell = Callable[[int, int], None]  # so much is done of so much


def compress(cfg: DictConfig) -> None:
    """Images or clouds to streams that say which model wrote them."""
    of_clouds = clouds.takes_clouds(cfg)
    jobs, many = _jobs(cfg, clouds.READABLE if of_clouds else READABLE, lambda _: SUFFIX, (SUFFIX,))
    clouds.check_keys(cfg, of_clouds)
    words = words_of(cfg)
    model = load_one(cfg).to(pick_device(cfg.device))

    def one(job: Job, tell: Tell) -> str:
        began = time.perf_counter()
        if isinstance(model, PointCode):
            stream, points = clouds.write(model, job.source, cfg.points, cfg.cube, cfg.columns, words, tell)
            with written_whole(job.target) as part:
                part.write_bytes(stream)
            return f"{len(stream):,} bytes, {8 * len(stream) / points:.3f} bit/point of {points:,}, {time.perf_counter() - began:.1f} s"
        pixels = open_pixels(job.source)
        side = tiled.tile_for(pixels.size, cfg.tile)
        if side:
            stream = tiled.encode(model, pixels.read, pixels.size, tile=side, name=words, tell=tell)
        else:
            x = pixels.read(0, 0, *pixels.size)[None].to(next(model.parameters()).device)
            header, segments = unpack(compress_batch(model, x, tile=0)[0])
            stream = pack(replace(header, model=words), segments)
        with written_whole(job.target) as part:
            part.write_bytes(stream)
        bpp = 8 * len(stream) / (pixels.size[0] * pixels.size[1])
        return f"{len(stream):,} bytes, {bpp:.3f} bit/pixel, {time.perf_counter() - began:.1f} s"

    _run(cfg, jobs, many, one)


def decompress(cfg: DictConfig) -> None:
    """Streams to images and clouds; the model is the one that the file names, unless model= is given."""
    kinds = tuple(dict.fromkeys((*WRITABLE, *clouds.WRITABLE)))
    if cfg.format is not None and f".{cfg.format}" not in kinds:
        raise unknown("format", cfg.format, (s[1:] for s in kinds))
    region = _region(cfg)
    jobs, many = _jobs(cfg, (SUFFIX,), lambda path: f".{cfg.format}" if cfg.format else _usual(path), kinds)
    device = pick_device(cfg.device)
    models: dict[str, TransformCode] = {"": load_one(cfg).to(device)} if is_given("model") else {}

    def one(job: Job, tell: Tell) -> str:
        began = time.perf_counter()
        with _opened(job.source) as stream:
            # Its checksum before its model: a damaged name is not looked for.
            header = _checked(stream)
            key = "" if is_given("model") else header.model
            if key not in models:
                models[key] = load_for(header, cfg).to(device)
            model, allowed = models[key], clouds.WRITABLE if isinstance(models[key], PointCode) else WRITABLE
            if job.target.suffix.lower() not in allowed:
                kind = "a cloud" if isinstance(model, PointCode) else "an image"
                raise UserError(f"output={printable(job.target)}: {kind} is written as {', '.join(allowed)}")
            if isinstance(model, PointCode):
                if region is not None:
                    raise UserError("region: is one of images; of a cloud all is decoded")
                points = clouds.read(model, stream[:], job.target, tell)
                return f"{points:,} points, {time.perf_counter() - began:.1f} s"
            size = tiled.region_of(region, header.sizes)[2:]
            with canvas(job.target, size) as out:
                for top, left, part in _parts(model, stream, region):
                    out[top : top + part.shape[0], left : left + part.shape[1]] = part
                    tell(top * size[1] + left * part.shape[0] + part.shape[1] * part.shape[0], size[0] * size[1])
        return f"{size[1]} x {size[0]} pixels, {time.perf_counter() - began:.1f} s"

    _run(cfg, jobs, many, one)


def inspect(cfg: DictConfig) -> None:
    """Tables of what streams say of themselves; no model is needed."""
    jobs, many = _jobs(cfg, (SUFFIX,), lambda _: SUFFIX, (SUFFIX,))

    def one(job: Job, tell: Tell) -> str:
        with _opened(job.source) as stream:
            Console().print(table_of(printable(job.source.name), stream))
        return ""

    _run(cfg, jobs, many, one)


def table_of(name: str, stream: Stream) -> Table:
    """Header and bytes by segment. All checksums are looked at."""
    told, header = inspect_stream(stream), read_head(stream)[0]
    table = Table(title=escape(name), show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    area = math.prod(told["sizes"])
    of_cloud = len(told["sizes"]) == 1
    extent = {"points": f"{area:,}"} if of_cloud else {"height x width": " x ".join(map(str, told["sizes"]))}
    parts = "none" if header.tile is None else " x ".join(map(str, tiles_of(header))) + f" of {header.tile} pixels"
    cubes = "none" if header.cube is None else f"{told['parts']} of side {header.cube:g}"
    scale = "none" if header.scale is None else " ".join(f"{v:g}" for v in header.scale)
    rows = {
        "format version": told["version"],
        "model": told["model"] or "not named",
        "identity: architecture, weights": f"{told['architecture']} {told['weights']}",
        **extent,
        "level": "one rate" if told["level"] is None else f"{told['level']:g}",
        **({"centre and scale": scale, "cubes": cubes} if of_cloud else {"tiles": parts}),
        **{f"segment {i} of {len(told['segments'])}": f"{size:,} bytes" for i, size in enumerate(told["segments"], 1)},
        "header, lengths, checksums": f"{told['head']:,} bytes",
        "all": f"{told['bytes']:,} bytes, {8 * told['bytes'] / area:.4f} bit/{'point' if of_cloud else 'pixel'}",
    }
    for what, value in rows.items():
        table.add_row(what, escape(str(value)))  # a stream's words are its writer's
    return table


def _run(cfg: DictConfig, jobs: list[Job], many: bool, one: Callable[[Job, Tell], str]) -> None:
    """Every job; a bad file is told and the others go on. UserError at the end if there was one."""
    folder = Path(os.path.commonpath([job.target.parent.resolve() for job in jobs]))
    with alone_in(folder) if many and cfg.run.writes else nullcontext():
        _run_all(cfg, jobs, many, one)


def _run_all(cfg: DictConfig, jobs: list[Job], many: bool, one: Callable[[Job, Tell], str]) -> None:
    failed = skipped = 0
    written: list[Path] = []
    columns = (TextColumn("{task.description:<34}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with progress(*columns, unit="files") as bars:
        task = bars.add_task("", total=len(jobs))
        for place, job in enumerate(jobs):
            bars.update(task, description=printable(job.source.name), completed=place)
            try:
                if cfg.run.writes and _is_there(job, written) and not cfg.overwrite:
                    if not many:
                        raise UserError(f"output={printable(job.target)}: is there already; overwrite=true replaces it")
                    skipped += 1
                    continue
                told = one(job, lambda done, of, place=place: bars.update(task, completed=place + done / of))
                written.append(job.target)
            except (UserError, OSError) as error:
                fault = _fault(job, error)
                if not many:
                    raise fault from None
                failed += 1
                print(f"lc_bench: {fault}", file=sys.stderr)
                continue
            if told:
                log.info(f"{printable(job.target)}: {told}")
    if skipped:
        log.info(f"{skipped} of {len(jobs)} are there already and were skipped; overwrite=true replaces them")
    if failed:
        raise UserError(f"{failed} of {len(jobs)} files failed, as told above")


def _is_there(job: Job, written: list[Path]) -> bool:
    """UserError where what is there was written for another input just now: a disk that does not tell upper from lower case."""
    if not job.target.exists():
        return False
    same = [path for path in written if path.name.casefold() == job.target.name.casefold()]
    if any(path.samefile(job.target) for path in same):
        raise UserError(f"{printable(job.target.name)} is a name that another input has on this disk; give it another name")
    return True


def _fault(job: Job, error: UserError | OSError) -> UserError:
    """The file that it is about, and what is wrong, in one line."""
    if isinstance(error, OSError):
        about = error.filename if isinstance(error.filename, str | bytes) else None
        where = os.fsdecode(about) if about else str(job.target)
        return UserError(f"{printable(job.source)}: {error.strerror or error} ({printable(where)})")
    told, name = str(error), printable(job.source.name)
    if told.startswith((name, printable(job.source), "output=")):
        return UserError(told.replace(name, printable(job.source), 1) if told.startswith(name) else told)
    return UserError(f"{printable(job.source)}: {told}")


def _jobs(cfg: DictConfig, wanted: tuple[str, ...], suffix: Callable[[Path], str], allowed: tuple[str, ...]) -> tuple[list[Job], bool]:
    """As `jobs_of`, of input= and output=."""
    if OmegaConf.is_missing(cfg, "input") or not str(cfg.input):
        raise UserError("input: has to be given: a file, a folder, or a pattern such as input=photos/*.png")
    output = str(cfg.output) if is_given("output") else None
    return jobs_of(str(cfg.input), output, wanted, suffix, allowed, bool(cfg.run.writes))


def _region(cfg: DictConfig) -> tiled.Region | None:
    if cfg.region is None:
        return None
    numbers = list(cfg.region) if OmegaConf.is_list(cfg.region) else []
    if len(numbers) != 4 or not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise UserError(f"region={cfg.region}: give [top,left,height,width] in pixels, such as region=[0,0,256,256]")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _checked(stream: Stream) -> Header:
    """The header of a stream whose checksums match."""
    if is_cubed(stream):
        return unpack_cubes(stream[:])[0]
    return TileFile(stream).header if is_tiled(stream) else unpack(stream)[0]


def _usual(path: Path) -> str:
    """.ply for a cloud, else .png; what is no stream is told when it is read."""
    try:
        with _opened(path) as stream:
            return ".ply" if len(read_head(stream)[0].sizes) == 1 else ".png"
    except StreamError:
        return ".png"


@contextmanager
def _opened(path: Path) -> Iterator[Stream]:
    """The file, mapped: only what is looked at is read."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise StreamError("an empty file, not an lc_bench stream")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped


def _parts(model: TransformCode, stream: Stream, region: tiled.Region | None) -> Iterator[tuple[int, int, np.ndarray]]:
    """(top, left, pixels (h, w, 3) uint8) that fill the region."""
    in_one = () if is_tiled(stream) else [(0, 0, decompress_batch(model, [stream[:]], region)[0])]
    for top, left, part in in_one or tiled.decode(model, stream, region):
        yield top, left, to_bytes(part).permute(1, 2, 0).cpu().numpy()
