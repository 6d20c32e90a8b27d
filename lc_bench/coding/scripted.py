"""Reading a stream in TorchScript, to be saved: what `container.unpack` and `segment.Decoder` do, for one stream.

A reader of a segment is a list of five tensors, which a trace can hand on from chunk to chunk:

    window (bits + spare) int32 | states of the lanes (L,) int32 | numbers (10,) int64 | escapes (E,) int64 | exceptions (X, 2) int64

The numbers are those that `read_chunk` takes apart first. TorchScript knows neither globals nor classes of errors: constants
are written out, and whatever is wrong with a stream is a ValueError, which arrives as torch.jit.Error.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from .ans import _decode_rows, _drops, _encode_rows, _pack, _read, _take, _window, script
from .layout import SHAPES
from .tables import Tables


def _varint(data: list[int], position: int, end: int, most: int) -> tuple[int, int]:
    """-> (value, position after it)."""
    value = 0
    shift = 0
    more = True
    while more:
        if position >= end:
            raise ValueError("stream cut short: it ends inside a number")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if value > most or shift > 42:
            raise ValueError("damaged stream: a number out of bounds")
        more = byte >= 128
    return value, position


def _signed(value: int) -> int:
    return value >> 1 if value % 2 == 0 else -(value >> 1) - 1


def _crc32(data: list[int]) -> int:
    table: list[int] = []
    for byte in range(256):
        entry = byte
        for _ in range(8):
            entry = entry >> 1 ^ 0xEDB88320 if entry & 1 else entry >> 1
        table.append(entry)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def open_stream(stream: Tensor, identity: list[int], count: int, level: int, padded: list[int], pad_to: int) -> list[Tensor]:
    """stream (n,) uint8, whose head has to say what the others do -> [height, width and seal (3,) int64, first segment, second, ...].

    Segments are uint8. identity: the first 7 bytes; level: in sixteenths, -1 where there is none; padded: height and width in
    multiples of pad_to.
    """
    if stream.dtype != torch.uint8 or stream.dim() != 1:
        raise ValueError("a stream is a tensor of bytes: (n,) uint8")
    data: list[int] = stream.long().tolist()
    end = len(data) - 4
    if end < 9 or data[:2] != identity[:2]:
        raise ValueError("not an lc_bench stream, or cut short")
    if data[2] != identity[2]:
        raise ValueError("a stream of another format version than this decoder was exported for")
    if _crc32(data[:end]) != data[end] | data[end + 1] << 8 | data[end + 2] << 16 | data[end + 3] << 24:
        raise ValueError("damaged stream or cut short: its checksum does not match")
    if data[3:7] != identity[3:]:
        raise ValueError("the stream was written by another model, or with other weights, than this decoder was exported from")
    counts = data[7]
    position = 8
    flags = 0
    if counts & 64:
        flags = data[8]
        position = 9
    if flags != 2 and counts & 64:
        raise ValueError("a stream in tiles, or bound to a place, or of a newer lc_bench: an exported decoder reads whole images")
    found = -1
    if counts & 128:
        found, position = _varint(data, position, end, 34359738367)
    if found != level:
        raise ValueError("the stream has another level than this decoder was exported for")
    if (counts & 15) != count or (counts >> 4 & 3) != 2:
        raise ValueError("damaged stream: another number of segments or sizes than the model's")
    sizes: list[int] = []
    for side in padded:
        size, position = _varint(data, position, end, 16777216)
        if (size + pad_to - 1) // pad_to * pad_to != side:
            raise ValueError("the image has another size than this decoder was exported for")
        sizes.append(size)
    nameless = data[:7] + [counts & 191] + data[9 if counts & 64 else 8 : position]  # noqa: RUF005 (TorchScript unpacks none)
    if flags & 2:
        length, position = _varint(data, position, end, 200)
        position += length
    sizes.append(_crc32(nameless) & 268435455)
    lengths: list[int] = []
    for _ in range(count - 1):
        length, position = _varint(data, position, end, end)
        lengths.append(length)
    out = [torch.tensor(sizes)]
    for length in lengths:
        out.append(stream[position : position + length])
        position += length
    if position > end:
        raise ValueError("damaged stream: its segments are longer than its body")
    out.append(stream[position:end])
    return out


def open_segment(data: Tensor, shapes: Tensor) -> list[Tensor]:
    """data (n,) uint8, with what the segment before carried at its end; shapes of lanes (S, 2) -> a reader."""
    values: list[int] = data.long().tolist()
    size = len(values)
    if size == 0 or not 0 < (values[0] & 31) < len(shapes):
        raise ValueError("stream cut short or damaged: a segment without a head")
    code = values[0]
    first, doublings = int(shapes[code & 31, 0]), int(shapes[code & 31, 1])
    stage, full, position = 0, 0, 1
    if doublings > 0:
        stage, position = _varint(values, position, size, 31)
        full, position = _varint(values, position, size, 34359738367)
    escapes: list[int] = []
    exceptions: list[int] = []
    for flag in [0x20, 0x80]:
        end = position
        if code & flag:
            length, position = _varint(values, position, size, size)
            end = position + length
            if end > size:
                raise ValueError("stream cut short: it ends inside the escapes")
        place = 0
        while position < end:
            value, position = _varint(values, position, end, 34359738367)
            if flag == 0x80:
                place += value
                exceptions.append(place)
                value, position = _varint(values, position, end, 34359738367)
                exceptions.append(_signed(value))
            else:
                escapes.append(_signed(value))
    body = data[position:].long()
    bits = 8 * len(body)
    most = first << doublings
    width = most if full > 0 else most >> min(1, doublings)
    if bits < 14 * width:
        raise ValueError("stream cut short: it ends inside the coder's states")
    words = torch.nn.functional.pad(body, [0, len(body) % 2]).view(-1, 2)
    words = words[:, 0] << 8 | words[:, 1]
    # A damaged stream may ask for more bits than there are before that is noticed: as many as a block of symbols can.
    window = torch.nn.functional.pad(_window(words, bits), [0, 14 * 65536])
    states = _read(words, 0, width) + 16384
    carries = 1 if code & 0x40 else 0
    numbers = torch.tensor([14 * width, bits, width, first, doublings, stage, full, 0, carries, 0])
    return [window, states, numbers, torch.tensor(escapes).long(), torch.tensor(exceptions).long().view(-1, 2)]


def _retire(window: Tensor, states: Tensor, top: int, width: int, to: int) -> int:
    """Halve lanes until they are `to`: the states of those that end are the bits that come next, at the new top."""
    while width > to:
        half = width // 2
        ended = states[half:width] - 16384
        following = torch.cat([ended[1:], window[top : top + 1]])
        shifts = torch.arange(14, 0, -1, dtype=torch.int32)
        window[top - 14 * half : top] = (((ended << 14 | following)[:, None] >> shifts) & 16383).flatten()
        top -= 14 * half
        width = half
    return top


def read_chunk(index: Tensor, tables: list[Tensor], reader: list[Tensor]) -> list[Tensor]:
    """index (n,) int32 of tables -> [symbols (n,) int32, window, states, numbers, escapes, exceptions]. tables: of `tensors_of`."""
    rank, decoding, slot_symbol, sure, offset, escaped, usual, closed = tables
    window, states, numbers, escapes, exceptions = reader
    fields: list[int] = numbers.tolist()
    top, end, width, first, doublings, stage, full, row, carries, place = fields
    key, order = torch.sort(rank.index_select(0, index), stable=True)
    key = key.int()
    none = int((key < closed).sum())
    tokens = (key[none:] << 14) - 16384
    length = (2 + (stage & 1)) << (stage >> 1)
    most = first << doublings
    start = 0
    while start < len(tokens):
        left = len(tokens) - start
        wide = most if full > 0 else most >> min(1 + row // length, doublings)
        if wide == 0:
            raise ValueError("damaged stream: symbols without lanes")
        count = min(left, full) if full > 0 else left
        rows = min((count + wide - 1) // wide, 65536 // wide)
        if full == 0 and wide > first:
            rows = min(rows, length - row % length)
        count = min(count, rows * wide)
        if full > 0:
            full -= count
        else:
            row += rows
        top = _retire(window, states, top, width, wide)
        width = wide
        hits = torch.full([rows * wide], (len(sure) - 2) * 16384, dtype=torch.int32)
        hits[:count] = tokens[start : start + count]
        lanes, tops = _decode_rows(states[:wide].view(1, -1), hits.view(rows, 1, wide), decoding, window, torch.full([1, 1], top).int())
        states = lanes.view(-1)
        top = int(tops)
        if top > end:
            raise ValueError("stream cut short: the coder asked for more bits than there are")
        tokens[start : start + count] = hits[:count]
        start += count
    found = torch.cat([sure.index_select(0, key[:none]), slot_symbol.index_select(0, tokens)])
    symbols = torch.empty_like(found).scatter_(0, order, found)
    asking = (found == -2147483648).nonzero().flatten()
    if len(asking) > 0:
        if len(asking) > len(escapes):
            raise ValueError("damaged stream: more escapes than were written")
        where, in_order = order[asking].sort()
        written = escapes[: len(asking)] + offset[key[asking][in_order].long()]
        if int(written.abs().max()) > 2147483647:
            raise ValueError("damaged stream: a symbol beyond 31 bits")
        symbols[where] = written.int()
        escapes = escapes[len(asking) :]
    due = int((exceptions[:, 0] < place + len(index)).sum())
    if due > 0:
        where = exceptions[:due, 0] - place
        table = rank.index_select(0, index[where]).long()
        written = exceptions[:due, 1] + usual[table]
        if bool(escaped[table].any()) or int(written.abs().max()) > 2147483647:
            raise ValueError("damaged stream: an exception where none can be")
        symbols[where] = written.int()
        exceptions = exceptions[due:]
    numbers = torch.tensor([top, end, width, first, doublings, stage, full, row, carries, place + len(index)])
    return [symbols, window, states, numbers, escapes, exceptions]


def close_segment(reader: list[Tensor], seal: Tensor) -> Tensor:
    """After the last chunk: the bytes that the segment carries of the next one, uint8. seal: of the stream up to here, int64."""
    window, states, numbers, escapes, exceptions = reader
    fields: list[int] = numbers.tolist()
    top, end, width, first, doublings, _stage, _full, _row, carries, _place = fields
    if len(escapes) > 0 or len(exceptions) > 0:
        raise ValueError("damaged stream: escapes are left over")
    top = _retire(window, states, top, width, first)
    rest = states[:first].long() - 16384
    most = 8 + 14 * (first << doublings)
    if not carries:
        sealed = int(seal)
        lanes = [sealed & 16383, sealed >> 14 & 16383] + [0] * first
        rest = rest ^ torch.tensor(lanes[:first], dtype=torch.int64)
        most = end + 1
    bits = (rest[:, None] >> torch.arange(13, -1, -1)).bitwise_and(1).flatten()
    size = first * 14 // 8 if carries else 0
    # What remains of the lanes and of the bits when all that the encoder put there is taken away are zeros.
    if end < top or end >= top + most or bool(bits[8 * size :].any()) or bool((window[top:end] >> 13).any()):
        raise ValueError("damaged stream, or decoded with other probabilities than it was written with")
    return (bits[: 8 * size].view(-1, 8) << torch.arange(7, -1, -1)).sum(1).to(torch.uint8)


def finish(x_hat: Tensor, sizes: Tensor, carried: Tensor) -> Tensor:
    """x_hat (1, C, H', W') -> (1, C, H, W) in [0, 1]. carried: what the last segment did, which should be nothing."""
    if len(carried) > 0:
        raise ValueError("damaged stream: its last segment carries bytes of another one")
    return x_hat[:, :, : int(sizes[0]), : int(sizes[1])].clamp(0, 1)


@functools.cache
def compiled(function: Any) -> Any:
    return script(function)


def tensors_of(tables: Tables) -> list[Tensor]:
    """What `read_chunk` needs of them."""
    usual = tables.symbol[tables.usual.long()].long()
    rank = tables.rank.to(torch.int16)  # short numbers are sorted fast
    closed = torch.tensor(tables.closed)
    return [rank, tables.decoding, tables.slot_symbol, tables.sure, tables.offset, tables.escapes, usual, closed]


class Coder(nn.Module):
    """What `coder` compiles. Arguments and results are those of the functions in ans.py and above."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = torch.tensor(SHAPES)

    @torch.jit.export
    def encode_rows(self, state: Tensor, delta: Tensor, shift: Tensor, table: Tensor) -> Tensor:
        return _encode_rows(state, delta, shift, table)

    @torch.jit.export
    def decode_rows(self, state: Tensor, hits: Tensor, table: Tensor, window: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        return _decode_rows(state, hits, table, window, top)

    @torch.jit.export
    def drops(self, state: Tensor, delta: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        return _drops(state, delta, shift)

    @torch.jit.export
    def pack(self, values: Tensor, sizes: Tensor) -> tuple[Tensor, int]:
        return _pack(values, sizes)

    @torch.jit.export
    def window(self, words: Tensor, count: int) -> Tensor:
        return _window(words, count)

    @torch.jit.export
    def read(self, words: Tensor, start: int, count: int) -> Tensor:
        return _read(words, start, count)

    @torch.jit.export
    def take(self, values: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        return _take(values, sizes, count)

    @torch.jit.export
    def open_segment(self, data: Tensor) -> list[Tensor]:
        return open_segment(data, self.shapes)

    @torch.jit.export
    def read_chunk(self, index: Tensor, tables: list[Tensor], reader: list[Tensor]) -> list[Tensor]:
        return read_chunk(index, tables, reader)

    @torch.jit.export
    def close_segment(self, reader: list[Tensor], seal: int = 0) -> Tensor:
        return close_segment(reader, torch.tensor(seal))


def coder() -> torch.jit.ScriptModule:
    """The coder as a module for `torch.jit.save`, which needs no Python source: rows of symbols both ways, and whole segments to read."""
    return script(Coder())
