"""A segment: the bytes of one latent of one sample.

    shape of the lanes | 0x20 if there are escapes | 0x40 if it carries | 0x80 if there are exceptions (1 byte) |
    stage (1 byte) and full rows (varint), if lanes double | length (varint) and escapes, if any | the same of exceptions | bits

The bits, highest first: the states of the lanes of the first row, then what each row reads. The lanes that do not start from bits of
their own segment start from a seal (seal.py), or carry: then they hold the last bytes of the segment that is decoded next. A
whole batch is coded in one call; what a sample's bytes are does not depend on the samples beside it.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from ..errors import StreamError
from . import ans, seal, varint
from .ans import LOG, SLOTS
from .head import CARRIES, HAS_ESCAPES, HAS_EXCEPTIONS, Escapes, Exceptions, Head, split
from .layout import SHAPES, Walk, choose_lanes
from .rows import BLOCK, Section, sections, side_by_side, together
from .tables import ESCAPE, Tables

LARGEST_SYMBOL = (1 << 31) - 1
LARGEST_BITS = (1 << 31) - 1  # of segments that advance together: places are int32
TALLY = 16  # symbols whose bits are added up together when lanes are chosen


def by_table(index: Tensor, tables: Tables) -> tuple[Tensor, Tensor]:
    """index (n,) of tables -> places of the symbols in coding order, and their tables in that order.

    Sorted by table, the surest first: those without a choice need no coding at all, neighbours look up the same table, and the
    end, where the encoder starts, is rich in bits.
    """
    key = index.to(tables.key_type)
    if tables.key is not None:
        key = tables.key.index_select(0, key.int())
    key, order = torch.sort(key, stable=True)
    return order, key.to(torch.int32)


class _Message:
    """One sample to be coded: what its open symbols drop, chunk by chunk, and what is written beside."""

    def __init__(self, symbols: list[Tensor], index: list[Tensor], tables: Tables) -> None:
        entries: list[Tensor] = []
        escapes: list[tuple[int, int]] = []
        exceptions: list[tuple[int, int]] = []
        place = 0
        self.chunks: list[int] = []
        for part, its_index in zip(symbols, index, strict=True):
            order, key = by_table(its_index, tables)
            add, end = (table.index_select(0, key) for table in tables.span)
            ordered = part.index_select(0, order)
            found = ordered + add
            # A symbol near 2^31 may wrap around; it then lands outside its table all the same, or did lie within.
            outside = ((end - 1 - found) | (found - tables.base32.index_select(0, key))) < 0
            if bool(outside.any()):
                self._leave_out(outside.nonzero().flatten(), ordered, key, found, order + place, tables, escapes, exceptions)
            closed = int(torch.searchsorted(key, tables.closed))
            entries.append(found[closed:])
            self.chunks.append(len(part) - closed)
            place += len(part)
        self.escapes = b"".join(varint.write_signed(value) for _, value in sorted(escapes))
        self.exceptions = _write_exceptions(sorted(exceptions))
        self.entries = torch.cat(entries) if len(entries) > 1 else entries[0]
        cost = tables.cost.index_select(0, self.entries)
        whole = len(cost) // TALLY * TALLY
        blocks = cost[len(cost) - whole :].view(-1, TALLY).sum(1).flip(0).double()
        rest = cost[: len(cost) - whole].sum().double().view(1)
        tail = torch.cat([torch.zeros_like(rest), blocks, rest]).cpu().cumsum(0).numpy()  # on a GPU its order is not fixed
        self.bits = float(tail[-1]) + 8 * (len(self.escapes) + len(self.exceptions))
        self.lanes = choose_lanes(lambda k: float(tail[-1 if k == len(cost) else k // TALLY]), self.chunks)

    @staticmethod
    def _leave_out(
        where: Tensor,
        symbols: Tensor,
        key: Tensor,
        found: Tensor,
        places: Tensor,
        tables: Tables,
        escapes: list[tuple[int, int]],
        exceptions: list[tuple[int, int]],
    ) -> None:
        """Symbols outside their tables: note (place, value), and put an entry that exists into `found`."""
        table = key[where].long()
        escaped = tables.escapes[table]
        stand_in = torch.where(escaped, (tables.base + tables.count - 1)[table].int(), tables.usual[table])
        base = torch.where(escaped, tables.offset[table], tables.symbol[tables.usual[table].long()].long())
        found[where] = stand_in
        values = (symbols[where].long() - base).tolist()
        for place, value, is_escape in zip(places[where].tolist(), values, escaped.tolist(), strict=True):
            (escapes if is_escape else exceptions).append((place, value))


def encode(
    symbols: list[Tensor], index: list[Tensor], tables: Tables, following: list[bytes] | None = None, seals: list[int] | None = None
) -> tuple[list[bytes], Tensor]:
    """symbols (B, n) and index (B, n) of tables of each chunk, int32 -> B segments, their ideal bits (B,) float64.

    following: the segments that are decoded next; they lose (in place) the bytes that these ones carry. seals: of B streams
    up to the end of this segment.
    """
    batch = len(symbols[0])
    seals = seals or [0] * batch
    count = sum(part.numel() for part in symbols)
    messages = side_by_side(count, lambda b: _Message([s[b] for s in symbols], [i[b] for i in index], tables), range(batch))
    carried = [_carry(m.lanes.first, following, b) for b, m in enumerate(messages)]
    groups = together([m.lanes for m in messages], tables.base.device)
    coded = side_by_side(count, lambda some: _Encoder(messages[some], carried[some], seals[some], tables).run(), groups)
    bodies = [body for some in coded for body in some]
    segments = [_head(m, bool(c)) + body for m, c, body in zip(messages, carried, bodies, strict=True)]
    return segments, torch.tensor([m.bits for m in messages], dtype=torch.float64)


def _carry(first: int, following: list[bytes] | None, sample: int) -> bytes:
    """The bytes that so many first lanes hold in place of a seal."""
    size = first * LOG // 8
    if following is None or size == 0 or len(following[sample]) <= size:
        return b""
    taken, following[sample] = following[sample][-size:], following[sample][:-size]
    return taken


def _head(message: _Message, carries: bool) -> bytes:
    lanes, lists = message.lanes, (message.escapes, message.exceptions)
    code = SHAPES.index((lanes.first, lanes.doublings)) | (CARRIES if carries else 0)
    head = bytes([code | (HAS_ESCAPES if lists[0] else 0) | (HAS_EXCEPTIONS if lists[1] else 0)])
    if lanes.doublings:
        head += bytes([lanes.stage]) + varint.write(lanes.full)
    return head + b"".join(varint.write(len(part)) + part for part in lists if part)


def _write_exceptions(found: list[tuple[int, int]]) -> bytes:
    """Pairs of the distance to the one before and the value."""
    gaps = (b[0] - a[0] for a, b in itertools.pairwise([(0, 0), *found]))
    return b"".join(varint.write(gap) + varint.write_signed(value) for gap, (_, value) in zip(gaps, found, strict=True))


class _Encoder:
    """Codes a batch backwards. Every sample keeps its bits, the first one first: numbers of 14 bits at most and their sizes."""

    def __init__(self, messages: list[_Message], carried: list[bytes], seals: list[int], tables: Tables) -> None:
        self.tables = tables
        self.device = tables.base.device
        self.messages = messages
        self.lanes = [m.lanes for m in messages]
        most = max(1, *(m.lanes.most for m in messages))
        self.state = torch.full((len(messages), most), SLOTS, dtype=torch.int32, device=self.device)
        for row, (lanes, held, sealed) in enumerate(zip(self.lanes, carried, seals, strict=True)):
            if not held:
                self.state[row, : lanes.first] += seal.in_lanes(sealed, lanes.first, self.device)
                continue
            words = torch.from_numpy(np.frombuffer(held + bytes(4 - len(held) % 2), ">u2").astype(np.int64)).to(self.device)
            self.state[row, : lanes.first] += ans.read(words, 0, lanes.first)
        self.width = [lanes.first for lanes in self.lanes]
        self.bits: list[list[tuple[Tensor, Tensor]]] = [[] for _ in messages]

    def run(self) -> list[bytes]:
        plan = [(i, part) for i, chunk in enumerate(self._plan()) for part in chunk]
        ends = [list(itertools.accumulate(m.chunks, initial=0)) for m in self.messages]
        delta, shift, table = self.tables.encoding
        parts = [(delta.index_select(0, m.entries), shift.index_select(0, m.entries)) for m in self.messages]
        pad = delta[-1:], shift[-1:]
        for chunk, section in reversed(plan):
            self._grow(section)
            drop, step = (
                section.gather([p[kind][e[chunk] : e[chunk + 1]] for p, e in zip(parts, ends, strict=True)], pad[kind]) for kind in (0, 1)
            )
            before = self.state[:, : section.width].reshape(-1)
            after = ans.encode_rows(before, drop.view(section.rows, -1), step.view(section.rows, -1), table)
            values, sizes = ans.drops(before, drop.view(section.rows, -1), step.view(section.rows, -1))
            self.state[:, : section.width] = after.view(len(self.messages), -1)
            for sample, piece in enumerate(section.pieces):
                if piece is not None:
                    own = (t.view(drop.shape)[: piece.rows, sample, : piece.width].reshape(-1) for t in (values, sizes))
                    self.bits[sample].insert(0, tuple(own))  # type: ignore[arg-type]
        return [self._finish(sample) for sample in range(len(self.messages))]

    def _plan(self) -> list[list[Section]]:
        """Sections of every chunk."""
        walks = list(map(Walk, self.lanes))
        return [sections(walks, list(counts)) for counts in zip(*(m.chunks for m in self.messages), strict=True)]

    def _grow(self, section: Section) -> None:
        """Start the lanes that a section needs beyond those that run, from the bits written so far."""
        for sample, piece in enumerate(section.pieces):
            while piece is not None and self.width[sample] < piece.width:
                width = self.width[sample]
                states, *rest = ans.take(*self._joined(sample), width)
                self.state[sample, width : 2 * width] = SLOTS + states
                self.bits[sample] = [(rest[0], rest[1])]
                self.width[sample] = 2 * width

    def _joined(self, sample: int) -> tuple[Tensor, Tensor]:
        pieces = self.bits[sample]
        if not pieces:
            none = torch.zeros(0, dtype=torch.int32, device=self.device)
            return none, none
        if len(pieces) == 1:
            return pieces[0]
        return torch.cat([values for values, _ in pieces]), torch.cat([sizes for _, sizes in pieces])

    def _finish(self, sample: int) -> bytes:
        states = self.state[sample, : self.width[sample]] - SLOTS
        self.bits[sample].insert(0, (states, torch.full_like(states, LOG)))
        words, total = ans.pack(*self._joined(sample))
        return words.cpu().numpy().astype(">u2").tobytes()[: (total + 7) // 8]


class Decoder:
    """Reads the segments of a batch chunk by chunk.

    StreamError when a segment is inconsistent. `finish`, after the last chunk, checks that the coder has come to rest where
    the encoder started, which a stream decoded with the wrong probabilities practically never does, and returns
    the bytes of each sample that belong to the next segment.
    """

    def __init__(self, segments: list[bytes], tables: Tables) -> None:
        heads = [split(data) for data in segments]
        self.groups = together([head.lanes for head in heads], tables.base.device)
        self.readers = [_Reader(heads[some], tables) for some in self.groups]

    def next(self, index: Tensor) -> Tensor:
        """index (B, n) int32: tables of the next chunk -> its symbols (B, n) int32."""
        symbols = torch.empty_like(index)
        side_by_side(index.numel(), lambda some, reader: reader.next(index[some], symbols[some]), self.groups, self.readers)
        return symbols

    def finish(self, seals: list[int] | None = None) -> list[bytes]:
        """seals: of the streams up to here, as `encode` had them."""
        seals = seals or [0] * sum(len(reader.heads) for reader in self.readers)
        return [carried for some, reader in zip(self.groups, self.readers, strict=True) for carried in reader.finish(seals[some])]


class _Reader:
    """Samples that advance together."""

    def __init__(self, heads: list[Head], tables: Tables) -> None:
        self.device = tables.base.device
        self.tables = tables
        self.idle = torch.tensor([(len(tables.base) - 1 << LOG) - SLOTS], dtype=torch.int32, device=self.device)
        self.place = 0  # symbols of a sample so far
        self.heads = heads
        self.lanes = [head.lanes for head in heads]
        self.walks = list(map(Walk, self.lanes))
        self._load([head.body for head in heads])

    def _load(self, bodies: list[bytes]) -> None:
        """Lay out the bits of all samples in one array, by what follows each bit."""
        self.width = [walk.width for walk in self.walks]
        self.ends, starts, total = [], [], 0
        for body, width in zip(bodies, self.width, strict=True):
            if 8 * len(body) < LOG * width:
                raise StreamError("stream cut short: it ends inside the coder's states")
            starts.append(total)
            total += 8 * len(body)
            self.ends.append(total)
        most = max(1, *self.width)
        # A damaged stream may ask for more bits than there are before that is noticed: as many as a section of symbols can.
        more = LOG * max(BLOCK, most * len(bodies))
        if total + more > LARGEST_BITS:
            raise StreamError(
                f"segments of {total // 8} bytes: more than {LARGEST_BITS // 8} are not decoded together; decode fewer streams"
            )
        self.window = torch.zeros(total + more, dtype=torch.int32, device=self.device)
        self.state = torch.full((len(bodies), most), SLOTS, dtype=torch.int32, device=self.device)
        for sample, (body, start, width) in enumerate(zip(bodies, starts, self.width, strict=True)):
            words = torch.from_numpy(np.frombuffer(body + bytes(len(body) % 2), ">u2").astype(np.int64)).to(self.device)
            self.window[start : self.ends[sample]] = ans.window(words, 8 * len(body))
            self.state[sample, :width] += ans.read(words, 0, width)
        self.top = torch.tensor([[s + LOG * w] for s, w in zip(starts, self.width, strict=True)], dtype=torch.int32, device=self.device)

    def next(self, index: Tensor, symbols: Tensor) -> None:
        """index (B, n) -> into symbols (B, n)."""
        orders, keys, closed = [], [], []
        for own in index:
            order, key = by_table(own, self.tables)
            orders.append(order)
            closed.append(int(torch.searchsorted(key, self.tables.closed)))
            keys.append(key)
        tokens = [(key[none:] << LOG) - SLOTS for key, none in zip(keys, closed, strict=True)]
        for section in sections(self.walks, [len(t) for t in tokens]):
            self._retire([0 if piece is None else piece.width for piece in section.pieces])
            hits = section.gather(tokens, self.idle)
            after, self.top = ans.decode_rows(self.state[:, : section.width], hits, self.tables.decoding, self.window, self.top)
            self.state[:, : section.width] = after
            section.scatter(hits, tokens)
            if any(top > end for top, end in zip(self.top.flatten().tolist(), self.ends, strict=True)):
                raise StreamError("stream cut short: the coder asked for more bits than there are")
        for sample, (order, key, none, slots) in enumerate(zip(orders, keys, closed, tokens, strict=True)):
            found = torch.empty_like(key)
            found[:none] = self.tables.sure.index_select(0, key[:none])
            found[none:] = self.tables.slot_symbol.index_select(0, slots)
            symbols[sample].scatter_(0, order, found)
            if len(slots) and int(found.amin()) == ESCAPE:
                self._escape((found == ESCAPE).nonzero().flatten(), order, key, symbols[sample], self.heads[sample].escapes)
            self._except(symbols[sample], index[sample], self.heads[sample].exceptions)
        self.place += index.shape[1]

    def _retire(self, widths: list[int]) -> None:
        """Halve lanes down to `widths` by sample (0: leave it): the states of those that end are the bits that come next."""
        for sample, width in enumerate(widths):
            while width and self.width[sample] > width:
                half = self.width[sample] // 2
                top = int(self.top[sample, 0])
                ended = self.state[sample, half : 2 * half] - SLOTS
                following = torch.cat([ended[1:], self.window[top : top + 1]])
                shifts = torch.arange(LOG, 0, -1, dtype=torch.int32, device=self.device)
                self.window[top - LOG * half : top] = (((ended << LOG | following)[:, None] >> shifts) & (SLOTS - 1)).flatten()
                self.top[sample] -= LOG * half
                self.width[sample] = half

    def _escape(self, where: Tensor, order: Tensor, key: Tensor, symbols: Tensor, escapes: Escapes) -> None:
        """Put what was written in full where the coder found escapes, at `where` of the coding order."""
        place, in_order = order[where].sort()
        table = key[where][in_order].long()
        found = torch.tensor(escapes.take(len(where)), device=place.device) + self.tables.offset[table]
        if int(found.abs().max()) > LARGEST_SYMBOL:
            raise StreamError("damaged stream: a symbol beyond 31 bits")
        symbols[place] = found.to(symbols.dtype)

    def _except(self, symbols: Tensor, index: Tensor, exceptions: Exceptions) -> None:
        """Put the exceptions that fall into this chunk in their places, and take them off the list."""
        due = exceptions.take(self.place + len(symbols))
        if due:
            place, value = torch.tensor(due, device=index.device).unbind(1)
            place = place - self.place
            table = self.tables.rank.index_select(0, index[place].long())
            found = value + self.tables.symbol[self.tables.usual[table].long()]
            if bool(self.tables.escapes[table].any()) or int(found.abs().max()) > LARGEST_SYMBOL:
                raise StreamError("damaged stream: an exception where none can be")
            symbols[place] = found.to(symbols.dtype)

    def finish(self, seals: list[int]) -> list[bytes]:
        if any(head.escapes or head.exceptions for head in self.heads):
            raise StreamError("damaged stream: escapes are left over")
        self._retire([lanes.first for lanes in self.lanes])
        carried = []
        for sample, lanes in enumerate(self.lanes):
            top, end = int(self.top[sample, 0]), self.ends[sample]
            states = self.state[sample, : lanes.first] - SLOTS
            size = lanes.first * LOG // 8
            if not self.heads[sample].carries:
                size, states = 0, states ^ seal.in_lanes(seals[sample], lanes.first, self.device)
            words, _ = ans.pack(states, torch.full_like(states, LOG))
            held = words.cpu().numpy().astype(">u2").tobytes()
            # What remains of the lanes and of the bits when all that the encoder put there is taken away are zeros.
            # A segment that does not carry is the last one, and may be filled up with zeros.
            most = 8 + LOG * lanes.most if self.heads[sample].carries else end + 1
            if not 0 <= end - top < most or any(held[size:]) or bool((self.window[top:end] >> LOG - 1).any()):
                raise StreamError("damaged stream, or decoded with other probabilities than it was written with")
            carried.append(held[:size])
        return carried
