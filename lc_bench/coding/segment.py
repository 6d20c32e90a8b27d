"""A segment: the bytes of one latent of one sample.

    shape of the lanes | 0x20 if there are escapes | 0x40 if it carries | 0x80 if there are exceptions (1 byte) |
    startup (1 byte, if lanes double) | length (varint) and escapes, if any | the same of exceptions | states | words

States: a 4-bit exponent e per lane, then 24 + e bits per lane below its leading one. Words: 16 bits, little endian,
the one that is read first stands last. The lanes that do not start from words of their own segment start from a
constant, or carry: then they hold the last bytes of the segment that is decoded next. A whole batch is coded in one
call; what a sample's bytes are does not depend on the samples beside it.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from ..errors import StreamError
from . import varint
from .layout import MAX_QUIET, MAX_STARTUP, SHAPES, Chunk, Lanes, choose_lanes, lay_out
from .rans import LOWER, STATE_BITS, decode_rows, encode_rows
from .tables import ESCAPE, Tables

LARGEST_SYMBOL = (1 << 31) - 1
# A lane that starts inside the stream holds two words below bit 32: 2^32 <= state < 2^33.
START_BITS = 32
HAS_ESCAPES, CARRIES, HAS_EXCEPTIONS = 0x20, 0x40, 0x80
TALLY = 16  # symbols whose bits are added up together when lanes are chosen
# Symbols coded at once: enough to amortise a call, few enough to stay in the cache.
BLOCK = 1 << 16


def encode(
    symbols: Tensor, index: Tensor, sizes: list[int], tables: Tables, following: list[bytes] | None = None
) -> tuple[list[bytes], Tensor]:
    """symbols (B, n) and index (B, n) of tables, int32; sizes of the chunks -> B segments, their ideal bits (B,) float64.

    following: the segments that are decoded next; they lose (in place) the bytes that these ones carry.
    """
    entries = torch.empty_like(symbols)
    bits = torch.empty(len(symbols), dtype=torch.float64)
    outside: list[tuple[bytes, bytes]] = []
    groups: dict[Lanes, list[int]] = defaultdict(list)
    for sample in range(len(symbols)):
        tail, *lists = _find_entries(symbols[sample], index[sample], tables, entries[sample])
        outside.append((lists[0], lists[1]))
        bits[sample] = tail[-1] + 8 * sum(map(len, lists))
        groups[choose_lanes(lambda k, tail=tail: float(tail[-1 if k == len(symbols[0]) else k // TALLY]), sizes)].append(sample)
    segments = [b""] * len(symbols)
    for lanes, members in groups.items():
        chosen = entries if len(members) == len(entries) else entries[members]
        start = np.full((len(members), lanes.first), LOWER)
        carries = [following is not None and len(following[m]) > 4 * lanes.first for m in members]
        for row, (sample, carry) in enumerate(zip(members, carries, strict=True)):
            if following is not None and carry:
                start[row] = (1 << START_BITS) + np.frombuffer(following[sample][-4 * lanes.first :], "<u4").astype(np.int64)
                following[sample] = following[sample][: -4 * lanes.first]
        bodies = _encode_group(chosen, sizes, lanes, tables, torch.from_numpy(start).to(symbols.device))
        for sample, carry, body in zip(members, carries, bodies, strict=True):
            segments[sample] = _head(lanes, *outside[sample], carry) + body
    return segments, bits


def _head(lanes: Lanes, escapes: bytes, exceptions: bytes, carry: bool) -> bytes:
    code = SHAPES.index((lanes.first, lanes.doublings)) | (CARRIES if carry else 0)
    head = bytes([code | (HAS_ESCAPES if escapes else 0) | (HAS_EXCEPTIONS if exceptions else 0)])
    if lanes.doublings:
        head += varint.write(lanes.startup | lanes.quiet << 5)
    return head + b"".join(varint.write(len(part)) + part for part in (escapes, exceptions) if part)


def _find_entries(symbols: Tensor, index: Tensor, tables: Tables, out: Tensor) -> tuple[np.ndarray, bytes, bytes]:
    """Where one sample's symbols (n,) stand in the tables -> `out`.

    Returns the ideal bits of the last TALLY * k symbols by k (the last entry: of all), and the bytes of
    escapes and exceptions.
    """
    shift, first, last = (table.index_select(0, index) for table in tables.span)
    torch.add(symbols, shift, out=out)
    # A symbol near 2^31 may wrap around; it then lands outside its table all the same, or did lie within.
    inside = out.ge(first).logical_and_(out.lt(last))
    escapes = exceptions = b""
    if not bool(inside.all()):
        place = (~inside).nonzero().flatten()
        choice = tables.open.index_select(0, index[place])
        values = symbols[place].long() - tables.offset.index_select(0, index[place])
        escapes = b"".join(map(varint.write_signed, values[choice].tolist()))
        exceptions = _write_exceptions(place[~choice].tolist(), values[~choice].tolist())
        out[place] = torch.where(choice, last[place], first[place])
    cost = tables.cost.index_select(0, out)
    whole = len(cost) // TALLY * TALLY
    blocks = cost[len(cost) - whole :].view(-1, TALLY).sum(1).flip(0).double()
    rest = cost[: len(cost) - whole].sum().double().view(1)
    tail = torch.cat([torch.zeros_like(rest), blocks, rest]).cumsum(0).cpu().numpy()
    return tail, escapes, exceptions


def _write_exceptions(places: list[int], values: list[int]) -> bytes:
    """Pairs of the distance to the one before and the value."""
    gaps = (b - a for a, b in itertools.pairwise([0, *places]))
    return b"".join(varint.write(gap) + varint.write_signed(value) for gap, value in zip(gaps, values, strict=True))


def _read_exceptions(data: bytes) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    place = position = 0
    while position < len(data):
        gap, position = varint.read(data, position)
        value, position = varint.read(data, position)
        place += gap
        found.append((place, varint.signed(value)))
    return found


class _Pieces:
    """Tensors (B, n_i) end to end, of which blocks are read without ever joining them all."""

    def __init__(self, pieces: list[Tensor]) -> None:
        self.pieces = [p for p in pieces if p.shape[1]]
        self.starts = [0, *itertools.accumulate(p.shape[1] for p in self.pieces)]

    def read(self, start: int, end: int) -> Tensor:
        first = bisect.bisect_right(self.starts, start) - 1
        last = bisect.bisect_left(self.starts, end)
        span = range(first, last)
        parts = [self.pieces[i][:, max(0, start - self.starts[i]) : end - self.starts[i]] for i in span]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _encode_group(entries: Tensor, sizes: list[int], lanes: Lanes, tables: Tables, state: Tensor) -> list[bytes]:
    """States and words of samples that share a layout; state (B, first lanes) is what the coder starts from."""
    batch, device = len(entries), entries.device
    padded: list[Tensor] = []
    stages: list[tuple[int, int]] = []  # (width, rows) over all chunks, in decoding order, neighbours joined
    certain = int(tables.base[-1])
    for chunk, part in zip(lay_out(sizes, lanes), entries.split(sizes, 1), strict=True):
        padded += [torch.full((batch, chunk.padding), certain, dtype=entries.dtype, device=device), part]
        for run in chunk.runs:
            if stages and stages[-1][0] == run.width:
                stages[-1] = (run.width, stages[-1][1] + run.rows)
            else:
                stages.append((run.width, run.rows))
    pieces = _Pieces(padded)
    place = pieces.starts[-1]
    state = state.flip(1)  # the encoder keeps its lanes in reverse
    stacks: list[list[np.ndarray]] = [[] for _ in range(batch)]
    for width, rows in reversed(stages):
        while state.shape[1] < width:
            state = torch.cat([_start_lanes(stacks, state.shape[1]).to(device), state], 1)
        while rows > 0:
            count = min(rows, max(1, BLOCK // (width * batch)))
            block = pieces.read(place - count * width, place).reshape(batch, count, width)
            rows -= count
            place -= count * width
            block = _with_choice(block, tables.open_entry)[0]
            if block.shape[1] == 0:
                continue
            state, before, emits = encode_rows(state, block, tables.frequency, tables.start)
            emits = emits.bool()
            for sample, stack in enumerate(stacks):
                stack.append((before[:, sample][emits[:, sample]] & 65535).cpu().numpy().astype("<u2"))
    states = state.flip(1).cpu().numpy()
    return [_pack_states(s) + b"".join(p.tobytes() for p in stack) for s, stack in zip(states, stacks, strict=True)]


def _with_choice(block: Tensor, is_open: Tensor) -> tuple[Tensor, Tensor | None]:
    """The rows of a block (B, R, L) in which there is anything to code, and which they are (None: all)."""
    rows = is_open[block[:, :, 0].long()].any(0)  # lane 0 tells most; the others are asked where it is closed
    closed = (~rows).nonzero().flatten()
    rows[closed] = is_open[block[:, closed].long()].any(2).any(0)
    if bool(rows.all()):
        return block, None
    return block[:, rows], rows


def _start_lanes(stacks: list[list[np.ndarray]], count: int) -> Tensor:
    """Take two words for each of `count` new lanes from the stacks (in place); zeros where there are too few."""
    states = []
    for stack in stacks:
        words = np.concatenate([np.zeros(0, "<u2"), *stack])
        have = min(2 * count, len(words))
        taken = np.zeros(2 * count, np.int64)
        taken[2 * count - have :] = words[len(words) - have :]
        stack[:] = [words[: len(words) - have]]
        states.append((1 << START_BITS) + (taken[0::2] << 16) + taken[1::2])
    return torch.from_numpy(np.stack(states)).flip(1)


def _pack_states(states: np.ndarray) -> bytes:
    exponents = np.array([int(s).bit_length() - 1 - STATE_BITS for s in states])
    bits = [np.unpackbits(np.array([e], np.uint8))[4:] for e in exponents]
    for s, e in zip(states, exponents, strict=True):
        low = int(s) - (1 << (STATE_BITS + int(e)))
        bits.append(np.unpackbits(np.frombuffer(low.to_bytes(5, "big"), np.uint8))[40 - STATE_BITS - int(e) :])
    return np.packbits(np.concatenate(bits)).tobytes()


def _unpack_states(data: bytes, lanes: int) -> tuple[np.ndarray, int]:
    """-> states (lanes,) and the number of bytes they took."""
    bits = np.unpackbits(np.frombuffer(data[: lanes * 6], np.uint8))
    if len(bits) < 4 * lanes:
        raise StreamError("stream cut short: it ends inside the coder's states")
    exponents = bits[: 4 * lanes].reshape(lanes, 4) @ np.array([8, 4, 2, 1])
    ends = 4 * lanes + np.cumsum(STATE_BITS + exponents)
    if len(bits) < ends[-1]:
        raise StreamError("stream cut short: it ends inside the coder's states")
    states = np.empty(lanes, np.int64)
    for lane, (end, e) in enumerate(zip(ends, exponents, strict=True)):
        size = STATE_BITS + int(e)
        value = int.from_bytes(np.packbits(np.concatenate([np.zeros(40 - size, np.uint8), bits[end - size : end]])).tobytes(), "big")
        states[lane] = value + (1 << size)
    return states, -(-int(ends[-1]) // 8)


class Decoder:
    """Reads the segments of a batch chunk by chunk.

    StreamError when a segment is inconsistent. After the last chunk it checks that the coder has come to rest where
    every encoder starts, which a stream decoded with the wrong probabilities practically never does; then `carried` has
    the bytes of each sample that belong to the next segment (None before).
    """

    def __init__(self, segments: list[bytes], sizes: list[int], tables: Tables) -> None:
        self.device = tables.base.device
        self.tables = tables
        self.batch = len(segments)
        self.left = len(sizes)
        self.carried: list[bytes] | None = None
        self.escapes: list[list[int]] = []
        self.exceptions: list[list[tuple[int, int]]] = []
        self.place = 0  # symbols of a sample so far
        bodies: dict[Lanes, list[tuple[int, bytes, bool]]] = defaultdict(list)
        for sample, data in enumerate(segments):
            lanes, escapes, exceptions, body, carries = _split(data)
            self.escapes.append(escapes)
            self.exceptions.append(exceptions)
            bodies[lanes].append((sample, body, carries))
        self.groups = [_Group(members, sizes, lanes, tables) for lanes, members in bodies.items()]

    def next(self, index: Tensor) -> Tensor:
        """index (B, n) int32: tables of the next chunk -> its symbols (B, n) int32."""
        symbols = torch.empty_like(index)
        for group in self.groups:
            group.next(index, symbols)
        for sample in range(self.batch):
            escaped = symbols[sample] == ESCAPE
            count = int(escaped.sum())
            if count > len(self.escapes[sample]):
                raise StreamError("damaged stream: more escapes than were written")
            if count:
                values, self.escapes[sample] = self.escapes[sample][:count], self.escapes[sample][count:]
                within = torch.tensor(values, device=index.device)
                found = within + self.tables.offset.index_select(0, index[sample][escaped])
                if int(found.abs().max()) > LARGEST_SYMBOL:
                    raise StreamError("damaged stream: a symbol beyond 31 bits")
                symbols[sample, escaped] = found.to(symbols.dtype)
            self._except(symbols[sample], index[sample], self.exceptions[sample])
        self.place += index.shape[1]
        self.left -= 1
        if self.left == 0:
            self.carried = self._finish()
        return symbols

    def _except(self, symbols: Tensor, index: Tensor, exceptions: list[tuple[int, int]]) -> None:
        """Put the exceptions that fall into this chunk in their places, and take them off the list."""
        count = bisect.bisect_left(exceptions, (self.place + len(symbols),))
        if count:
            place, value = torch.tensor(exceptions[:count], device=index.device).unbind(1)
            del exceptions[:count]
            tables = index[place - self.place]
            found = value + self.tables.offset[tables]
            if bool(self.tables.open[tables].any()) or int(found.abs().max()) > LARGEST_SYMBOL:
                raise StreamError("damaged stream: an exception where none can be")
            symbols[place - self.place] = found.to(symbols.dtype)

    def _finish(self) -> list[bytes]:
        if any(self.escapes) or any(self.exceptions):
            raise StreamError("damaged stream: escapes are left over")
        carried = [b""] * self.batch
        for group in self.groups:
            for sample, data in zip(group.rows.tolist(), group.finish(), strict=True):
                carried[sample] = data
        return carried


def _split(data: bytes) -> tuple[Lanes, list[int], list[tuple[int, int]], bytes, bool]:
    """-> lanes, escapes, exceptions, the rest, and whether the segment carries."""
    if not data:
        raise StreamError("stream cut short: an empty segment")
    code, position = data[0], 1
    if code & 31 >= len(SHAPES):
        raise StreamError(f"damaged stream: a segment that starts with {code}")
    first, doublings = SHAPES[code & 31]
    stages = 0
    if doublings:
        stages, position = varint.read(data, position, MAX_QUIET << 5 | MAX_STARTUP)
    lists = []
    for flag in (HAS_ESCAPES, HAS_EXCEPTIONS):
        size = 0
        if code & flag:
            size, position = varint.read(data, position, len(data))
            if position + size > len(data):
                raise StreamError("stream cut short: it ends inside the escapes")
        lists.append(data[position : position + size])
        position += size
    lanes = Lanes(first, doublings, stages & MAX_STARTUP, stages >> 5)
    return lanes, varint.read_all_signed(lists[0]), _read_exceptions(lists[1]), data[position:], bool(code & CARRIES)


class _Group:
    """Samples that share a layout: their states, stacks and place in the sequence of chunks."""

    def __init__(self, members: list[tuple[int, bytes, bool]], sizes: list[int], lanes: Lanes, tables: Tables) -> None:
        device = tables.base.device
        self.tables, self.lanes = tables, lanes
        self.rows = torch.tensor([sample for sample, _, _ in members], device=device)
        self.carries = [carries for _, _, carries in members]
        chunks = lay_out(sizes, lanes)
        self.chunks = iter(chunks)
        width = next((c.runs[0].width for c in chunks if c.runs), lanes.first)
        states, stacks = [], []
        for _, body, _ in members:
            state, used = _unpack_states(body, width)
            if (len(body) - used) % 2:
                raise StreamError("damaged stream: half a word is left over")
            states.append(state)
            stacks.append(np.frombuffer(body[used:], "<u2").astype(np.int64))
        self.state = torch.from_numpy(np.stack(states)).to(device)
        # A damaged stream may ask for words below its floor before that is noticed, one per symbol of a block at
        # most; the margin keeps such reads inside the array. Above each stack there is room for the words that
        # retiring lanes hand back: two for each.
        margin = max(BLOCK // len(stacks), width) + 1
        height = max(map(len, stacks)) + 2 * width
        words = np.zeros(margin + len(stacks) * height, np.int64)
        for row, stack in enumerate(stacks):
            words[margin + row * height :][: len(stack)] = stack
        self.words = torch.from_numpy(words).to(device)
        self.floor = margin + torch.arange(len(stacks), device=device)[:, None] * height
        self.top = self.floor + torch.tensor([len(s) for s in stacks], device=device)[:, None]

    def next(self, index: Tensor, out: Tensor) -> None:
        """Decode this group's rows of a chunk: index (B, n) -> symbols into out (B, n)."""
        chunk: Chunk = next(self.chunks)
        own = index if len(self.rows) == len(index) else index[self.rows]
        filler = torch.full((len(own), chunk.padding), self.tables.certain, dtype=index.dtype, device=index.device)
        pieces = _Pieces([filler, own])
        place = 0
        for run in chunk.runs:
            self._retire(run.width)
            rows = run.rows
            while rows > 0:
                count = min(rows, max(1, BLOCK // (run.width * len(own))))
                end = place + count * run.width
                block = pieces.read(place, end).reshape(len(own), count, run.width)
                coded, chosen = _with_choice(block, self.tables.open)
                found = self.tables.offset.index_select(0, block.reshape(-1)).to(out.dtype) if chosen is not None else block
                if coded.shape[1]:
                    self.state, hits, self.top = decode_rows(self.state, coded, self.tables.packed, self.words, self.top)
                    if bool((self.top < self.floor).any()):
                        raise StreamError("stream cut short: the coder asked for more words than there are")
                    read = self.tables.owner.index_select(0, hits.view(-1))
                    if chosen is None:
                        found = read
                    else:
                        found.view(block.shape)[:, chosen] = read.view(coded.shape)
                found = found.view(len(own), -1)
                skip = max(0, chunk.padding - place)
                if own is index:
                    out[:, max(0, place - chunk.padding) : end - chunk.padding] = found[:, skip:]
                else:
                    out[self.rows, max(0, place - chunk.padding) : end - chunk.padding] = found[:, skip:]
                rows -= count
                place = end

    def _retire(self, width: int) -> None:
        """Halve the lanes down to `width`: the states of those that end are words for those that go on."""
        while self.state.shape[1] > width:
            half = self.state.shape[1] // 2
            ended = self.state[:, half:]
            if bool((ended >> START_BITS != 1).any()):
                raise StreamError("damaged stream: a lane did not end where it started")
            handed = torch.stack([ended >> 16 & 65535, ended & 65535], 2).flatten(1)
            place = self.top + torch.arange(2 * half, device=self.top.device)
            self.words[place] = handed
            self.top = self.top + 2 * half
            self.state = self.state[:, :half]

    def finish(self) -> list[bytes]:
        self._retire(self.lanes.first)
        left = [self.words[a:b] for a, b in zip(self.floor.flatten().tolist(), self.top.flatten().tolist(), strict=True)]
        states = self.state.cpu().numpy()
        carries = np.array(self.carries)[:, None]
        at_rest = np.where(carries, states >> START_BITS == 1, states == LOWER)
        if not at_rest.all() or any(bool(words.any()) for words in left):
            raise StreamError("damaged stream, or decoded with other probabilities than it was written with")
        return [state.astype("<u4").tobytes() if c else b"" for state, c in zip(states & 0xFFFFFFFF, self.carries, strict=True)]
