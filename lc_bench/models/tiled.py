"""Images of any size in bounded memory: the latents of the whole image, coded tile by tile.

g_a runs on crops that overlap by as much as it sees, so y is that of the whole image; y is cut into tiles, and the latent codec
codes each for itself, several of one shape in one call. The receiver runs g_s on crops with their neighbours' latents around
them, so x_hat is that of the whole image too: seams cannot be seen because there are none. A region needs the tiles under it,
and those next to them within the reach of g_s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..coding.container import LARGEST_TILE, SMALLEST_TILE, Header, Stream, check_claim, filled, least_bytes, seal_of
from ..coding.frozen import Frozen
from ..coding.tapes import DecodeTape, EncodeTape, Rung
from ..coding.tiles import TileFile, pack_tiles, tiles_of
from ..errors import StreamError, UserError
from ..ops.cudnn import repeatable
from ..ops.shapes import padded_size
from .reach import analysis_reach, synthesis_reach
from .transform_code import TransformCode, check_identity, in_type_of, tensors_on_cpu

TILE = 1024  # pixels on a side
WHOLE_AREA = 1 << 22  # pixels; larger images are coded in tiles where nothing else is asked for
TOGETHER, TOGETHER_AREA = 4, 1 << 22  # tiles of one shape in one call of the codec, and their pixels unless it is a single one

Region = tuple[int, int, int, int]  # top, left, height, width in pixels
Source = Callable[[int, int, int, int], Tensor]  # a region -> (C, height, width) in [0, 1]


def tile_for(size: tuple[int, int], tile: int | None) -> int:
    """0 for a whole image. tile: as a user says it, None for what the size calls for."""
    if tile is None:
        return TILE if size[0] * size[1] > WHOLE_AREA else 0
    return tile


@dataclass(frozen=True)
class Grid:
    """The tiles of an image in latent cells, of `stride` pixels; `side`: of a tile; channels: of the latent."""

    height: int
    width: int
    side: int
    stride: int
    channels: int

    @classmethod
    def of(cls, model: TransformCode, header: Header) -> Grid:
        """UserError for a side of tiles that the model cannot have."""
        tile = header.tile
        if tile is None or tile % model.pad_to or not SMALLEST_TILE <= tile <= LARGEST_TILE:
            allowed = f"a multiple of {model.pad_to} from {max(SMALLEST_TILE, model.pad_to)} to {LARGEST_TILE}"
            raise UserError(f"tile={tile}: tiles of this model have {allowed} pixels on a side; 0: no tiles")
        height, width = (padded_size(s, model.pad_to) for s in header.sizes)
        probe = torch.Size((1, model.channels, model.pad_to, model.pad_to))
        _, channels, _, cells = model.frozen.output_shape(model.g_a, probe)
        stride = model.pad_to // cells
        return cls(height // stride, width // stride, tile // stride, stride, channels)

    @property
    def columns(self) -> int:
        return -(-self.width // self.side)

    def box(self, number: int) -> tuple[int, int, int, int]:
        """top, left, bottom, right of a tile."""
        top, left = (place * self.side for place in divmod(number, self.columns))
        return top, left, min(top + self.side, self.height), min(left + self.side, self.width)

    def around(self, box: tuple[int, int, int, int], reach: int) -> tuple[int, int, int, int]:
        """The box and `reach` cells more on each side, as far as there are any."""
        top, left, bottom, right = box
        return max(top - reach, 0), max(left - reach, 0), min(bottom + reach, self.height), min(right + reach, self.width)

    def touched(self, box: tuple[int, int, int, int]) -> Iterator[int]:
        """Numbers of the tiles that lie under a box."""
        top, left, bottom, right = box
        for row in range(top // self.side, -(-bottom // self.side)):
            for column in range(left // self.side, -(-right // self.side)):
                yield row * self.columns + column


@torch.no_grad()
def encode(
    model: TransformCode,
    read: Source,
    size: tuple[int, int],
    level: float | None = None,
    tile: int = TILE,
    name: str = "",
    tell: Callable[[int, int], None] = lambda done, count: None,
) -> bytes:
    """The stream of an image that `read` hands out in parts. name: of the model, for the header; tell: called after each tile."""
    model.check_size(*size)
    with model.coding() as frozen:
        return _encode(model, frozen, read, size, level, tile, name, tell)


def _encode(
    model: TransformCode,
    frozen: Frozen,
    read: Source,
    size: tuple[int, int],
    level: float | None,
    tile: int,
    name: str,
    tell: Callable[[int, int], None],
) -> bytes:
    device = frozen.device
    rung, written = model.sending_rung(level, device, frozen)
    header = Header(frozen.identity, size, written, tile, name)
    grid = Grid.of(model, header)
    reach = analysis_reach(model.g_a, model.channels, grid.stride)
    rows, columns = tiles_of(header)
    tiles: list[list[bytes]] = [[]] * (rows * columns)
    waiting: dict[torch.Size, list[tuple[int, Tensor]]] = defaultdict(list)
    done = 0

    def code(batch: list[tuple[int, Tensor]]) -> None:
        nonlocal done
        tape = EncodeTape(frozen, rung)
        with repeatable(device):
            model.codec(tape, torch.cat([y for _, y in batch]))
            placed = replace(header, place=frozen.bound)
            seals = [seal_of(placed, len(tape.names), number) for number, _ in batch]
            top, left, bottom, right = grid.box(batch[0][0])
            least = least_bytes((bottom - top) * (right - left) * grid.stride**2)
            for (number, _), segments in zip(batch, tape.segments(seals, least), strict=True):
                tiles[number] = filled(segments, least)
        done += len(batch)
        tell(done, len(tiles))
        batch.clear()

    for number in range(len(tiles)):
        box = grid.box(number)
        y = _analysed(model, read, size, grid, box, grid.around(box, reach), device)
        batch = waiting[y.shape]
        batch.append((number, y))
        if len(batch) == _together(tile):
            code(batch)
    for batch in waiting.values():
        if batch:
            code(batch)
    return pack_tiles(replace(header, place=frozen.bound), tiles)


def _analysed(
    model: TransformCode,
    read: Source,
    size: tuple[int, int],
    grid: Grid,
    box: tuple[int, int, int, int],
    seen: tuple[int, int, int, int],
    device: torch.device,
) -> Tensor:
    """y (1, M, h, w) of a box of cells, from the pixels that it sees."""
    top, left, bottom, right = (edge * grid.stride for edge in seen)
    bottom_there, right_there = min(bottom, size[0]), min(right, size[1])
    x = read(top, left, bottom_there - top, right_there - left)[None].to(device)
    model.check_sendable(x)
    x = F.pad(x, (0, right - right_there, 0, bottom - bottom_there), mode="replicate")
    y = model.analyse(x)
    return y[..., box[0] - seen[0] : box[2] - seen[0], box[1] - seen[1] : box[3] - seen[1]].clone()


def region_of(region: Region | None, size: tuple[int, ...]) -> Region:
    """The region, or the whole image for None. UserError unless it lies within."""
    if len(size) != 2:
        raise StreamError(f"a stream of {len(size)} sizes: not of an image")
    top, left, height, width = region = region or (0, 0, *size)
    if min(region) < 0 or height < 1 or width < 1 or top + height > size[0] or left + width > size[1]:
        raise UserError(
            f"region=[{','.join(map(str, region))}]: give [top,left,height,width] within the image, which has {size[0]} x {size[1]} pixels"
        )
    return top, left, height, width


def decode(model: TransformCode, stream: Stream, region: Region | None = None) -> Iterator[tuple[int, int, Tensor]]:
    """Parts (top, left, x_hat (C, h, w)) that fill the region (None: the image), which they are placed in; from top to bottom."""
    with model.evaluating():
        parts = _decode(model, stream, region)
        while True:
            with tensors_on_cpu():  # not while the caller does something of its own with a part
                part = next(parts, None)
            if part is None:
                return
            yield part


@torch.no_grad()
def _decode(model: TransformCode, stream: Stream, region: Region | None) -> Iterator[tuple[int, int, Tensor]]:
    file = TileFile(stream)
    header = file.header
    frozen = model.frozen
    check_identity(header, frozen)
    device = frozen.device
    rung = model.receiving_rung(header.level, frozen, device)
    try:
        grid = Grid.of(model, header)
    except UserError as error:
        raise StreamError(f"damaged stream: {error}") from None
    top, left, height, width = region_of(region, header.sizes)
    stride, side = grid.stride, grid.side * grid.stride
    reach = synthesis_reach(model.g_s, grid.channels, stride, lambda y_hat: rung.tell(y_hat.to(device)).cpu())
    latents: dict[int, Tensor] = {}  # y_hat (M, h, w) of tiles, as long as they are needed
    columns = range(left // side, -(-(left + width) // side))
    for row in range(top // side, -(-(top + height) // side)):
        parts: list[tuple[Region, tuple[int, int, int, int]]] = []  # pixels, and the cells that they depend on
        for column in columns:
            y0, x0 = max(top, row * side), max(left, column * side)
            y1, x1 = min(top + height, (row + 1) * side), min(left + width, (column + 1) * side)
            cells = (y0 // stride, x0 // stride, -(-y1 // stride), -(-x1 // stride))
            parts.append(((y0, x0, y1 - y0, x1 - x0), grid.around(cells, reach)))
        needed = sorted({number for _, seen in parts for number in grid.touched(seen)})
        for number in [n for n in latents if n < needed[0]]:
            del latents[number]
        for batch in _batches(grid, _together(side), [n for n in needed if n not in latents]):
            latents.update(zip(batch, _decode_tiles(model, file, frozen, rung, grid, batch, device), strict=True))
        for (y0, x0, h, w), seen in parts:
            y_hat = _gathered(latents, grid, seen)
            whole = model.synthesise(y_hat[None], ((seen[2] - seen[0]) * stride, (seen[3] - seen[1]) * stride), rung)[0]
            inside = whole[:, y0 - seen[0] * stride :, x0 - seen[1] * stride :][:, :h, :w]
            yield y0 - top, x0 - left, inside.clamp(0, 1)


def _together(side: int) -> int:
    """How many tiles of so many pixels on a side."""
    return max(1, min(TOGETHER, TOGETHER_AREA // side**2))


def _batches(grid: Grid, most: int, numbers: list[int]) -> Iterator[list[int]]:
    """Tiles of one shape, `most` of them at a time."""
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number in numbers:
        top, left, bottom, right = grid.box(number)
        alike[bottom - top, right - left].append(number)
    for group in alike.values():
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _decode_tiles(
    model: TransformCode, file: TileFile, frozen: Frozen, rung: Rung, grid: Grid, numbers: list[int], device: torch.device
) -> Tensor:
    """Tiles of one shape -> y_hat (B, M, h, w) in the type of g_s."""
    top, left, bottom, right = grid.box(numbers[0])
    with repeatable(device):
        seals = [seal_of(file.header, file.segment_count, number) for number in numbers]
        segments = [file.segments(number) for number in numbers]
        for row in segments:
            check_claim(row, (bottom - top) * (right - left) * grid.stride**2)
        tape = DecodeTape(frozen, segments, seals, rung)
        x = torch.full((1,), torch.nan, device=device, dtype=torch.float32)
        shape = len(numbers), model.channels, (bottom - top) * grid.stride, (right - left) * grid.stride
        y_hat = model.codec(tape, tape.side(model.g_a, x.expand(shape)))
        tape.finish()
    return in_type_of(model.g_s, y_hat)


def _gathered(latents: dict[int, Tensor], grid: Grid, seen: tuple[int, int, int, int]) -> Tensor:
    """(M, h, w): the cells of a box, out of the tiles under it."""
    top, left, bottom, right = seen
    some = next(iter(latents.values()))
    out = some.new_empty(some.shape[0], bottom - top, right - left)
    for number in grid.touched(seen):
        y0, x0, y1, x1 = grid.box(number)
        a, b, c, d = max(y0, top), max(x0, left), min(y1, bottom), min(x1, right)
        out[:, a - top : c - top, b - left : d - left] = latents[number][:, a - y0 : c - y0, b - x0 : d - x0]
    return out
