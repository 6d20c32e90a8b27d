"""The vectorised coder against a scalar one that a reader can check by eye, and against words that fix the format."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from lc_bench.coding import seal, segment
from lc_bench.coding.ans import LOG, SLOTS
from lc_bench.coding.layout import SHAPES, Lanes, Walk, choose_lanes
from lc_bench.coding.tables import STEP, Tables, quantise_pmf
from lc_bench.entropy import FactorizedPrior, GaussianPrior
from lc_bench.errors import StreamError

TABLES = GaussianPrior().make_tables()


def scalar_decode(data: bytes, index: list[int], sizes: list[int], tables: Tables) -> list[int]:
    """One sample, one symbol at a time, straight from the description of the format."""
    head = segment.split(data)
    assert not head.carries
    bits = "".join(f"{byte:08b}" for byte in head.body)
    rank, base, count, offset = (t.tolist() for t in (tables.rank, tables.base, tables.count, tables.offset))
    frequency, escapes = tables.frequency.tolist(), tables.escapes.tolist()
    walk = Walk(head.lanes)
    states: list[int] = []

    def take(size: int) -> int:
        nonlocal bits
        value, bits = bits[:size], bits[size:]
        return int(value.ljust(size, "0") or "0", 2)

    def owners(table: int) -> list[int]:
        """The entry, in its table, of each slot."""
        slots = [0] * SLOTS
        place = 0
        for entry in range(count[table]):
            for _ in range(frequency[base[table] + entry]):
                slots[place * STEP % SLOTS] = entry
                place += 1
        return slots

    def counts(slots: list[int]) -> list[int]:
        """How many slots of the same entry come before each."""
        seen: dict[int, int] = {}
        found = []
        for entry in slots:
            found.append(seen.get(entry, 0))
            seen[entry] = found[-1] + 1
        return found

    known = {t: owners(t) for t in {rank[i] for i in index}}
    before = {t: counts(slots) for t, slots in known.items()}
    if head.lanes.first:
        states = [SLOTS + take(LOG) for _ in range(walk.width)]
    symbols: list[int] = []
    unusual = dict(head.exceptions.take(len(index)))
    for size, chunk in zip(sizes, np.split(np.array(index), np.cumsum(sizes)[:-1]), strict=True):
        keys = [rank[i] for i in chunk]
        order = sorted(range(size), key=lambda i, keys=keys: keys[i])
        coded = [i for i in order if count[keys[i]] > 1]
        found = [offset[k] if count[k] == 1 else 0 for k in keys]
        escaped: list[int] = []
        for number, rows, width in walk.take(len(coded)):
            while len(states) > width:
                ended, states = states[len(states) // 2 :], states[: len(states) // 2]
                bits = "".join(f"{x - SLOTS:014b}" for x in ended) + bits
            some, coded = coded[:number], coded[number:]
            assert (rows - 1) * width < number <= rows * width
            for turn, place in enumerate(some):
                lane, table = turn % width, keys[place]
                slot = states[lane] - SLOTS
                entry = known[table][slot]
                left = frequency[base[table] + entry] + before[table][slot]
                drop = LOG - left.bit_length() + 1
                states[lane] = left << drop | take(drop)
                found[place] = entry + offset[table]
                if escapes[table] and entry == count[table] - 1:
                    escaped.append(place)
        for place in sorted(escaped):
            found[place] = head.escapes.take(1)[0] + offset[keys[place]]
        for place in range(size):
            if len(symbols) + place in unusual:
                likeliest = np.argmax([frequency[base[keys[place]] + e] for e in range(count[keys[place]])])
                found[place] = unusual[len(symbols) + place] + int(likeliest) + offset[keys[place]]
        symbols += found
    while len(states) > head.lanes.first:
        ended, states = states[len(states) // 2 :], states[: len(states) // 2]
        bits = "".join(f"{x - SLOTS:014b}" for x in ended) + bits
    assert set(states) <= {SLOTS}
    assert "1" not in bits
    assert not head.escapes
    return symbols


def coded(symbols: torch.Tensor, index: torch.Tensor, sizes: list[int]) -> tuple[list[bytes], torch.Tensor]:
    return segment.encode(list(symbols.split(sizes, 1)), list(index.split(sizes, 1)), TABLES)


def read(data: list[bytes], index: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    decoder = segment.Decoder(data, TABLES)
    symbols = torch.cat([decoder.next(part) for part in index.split(sizes, 1)], 1)
    assert not any(decoder.finish())
    return symbols


def draw(count: int, batch: int, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, 100, (batch, count), generator=generator, dtype=torch.int32)
    scale = 0.11 * torch.exp(GaussianPrior().step * index.double())
    symbols = (spread * scale * torch.randn(batch, count, generator=generator, dtype=torch.float64)).round().to(torch.int32)
    return symbols, index


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (300, [300]), (5000, [5000]), (20000, [7, 13000, 1, 6992]), (4000, [40] * 100)])
def test_scalar_twin_reads_what_the_vectorised_coder_wrote(count: int, sizes: list[int]) -> None:
    symbols, index = draw(count, 1, count)
    (data,), _ = coded(symbols, index, sizes)
    assert scalar_decode(data, index[0].tolist(), sizes, TABLES) == symbols[0].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 30.0]))
def test_round_trip(sizes: list[int], batch: int, seed: int, spread: float) -> None:
    symbols, index = draw(sum(sizes), batch, seed, spread)
    data, _ = coded(symbols, index, sizes)
    assert torch.equal(read(data, index, sizes), symbols)
    assert torch.equal(read(data[-1:], index[-1:], sizes), symbols[-1:]), "a sample needs the samples beside it"
    assert coded(symbols[:1], index[:1], sizes)[0] == data[:1], "a sample's bytes depend on the samples beside it"


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("stage", [0, 3])
def test_every_shape_of_lanes(shape: tuple[int, int], stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the first lanes find no bits to start from."""
    symbols, index = draw(700, 2, 5)
    for full in (0, 300, 5000):
        monkeypatch.setattr(segment, "choose_lanes", lambda *_, full=full: Lanes(*shape, stage if shape[1] else 0, full if shape[1] else 0))
        data, _ = coded(symbols, index, [100, 600])
        assert torch.equal(read(data, index, [100, 600]), symbols)


def test_samples_of_other_layouts_advance_together() -> None:
    """A batch of a sure, an ordinary and a wild sample, twice as many as advance together."""
    symbols, index = draw(9000, 6, 1)
    index[0], symbols[0] = 0, 0
    index[1], symbols[1] = 1, 0
    index[2] = 90
    data, _ = coded(symbols, index, [4000, 5000])
    assert torch.equal(read(data, index, [4000, 5000]), symbols)


def test_a_segment_carries_the_end_of_the_next() -> None:
    symbols, index = draw(60_000, 2, 3)
    following = [bytes(range(100)), b"ab"]
    data, _ = segment.encode([symbols], [index], TABLES, following)
    decoder = segment.Decoder(data, TABLES)
    assert torch.equal(decoder.next(index), symbols)
    carried = decoder.finish()
    assert following[0] + carried[0] == bytes(range(100))
    assert len(carried[0]) == segment.split(data[0]).lanes.first * LOG // 8
    assert (following[1], carried[1]) == (b"ab", b"")


@pytest.mark.parametrize("table", [0, 1, 60])
def test_symbols_far_outside_their_table_are_kept(table: int) -> None:
    """As exceptions from a table that is certain or has no escape, as escapes from the others."""
    symbols = torch.tensor([[0, 2**31 - 1, -(2**31) + 1, 5, -70000]], dtype=torch.int32)
    index = torch.full_like(symbols, table)
    data, bits = coded(symbols, index, [5])
    assert torch.equal(read(data, index, [5]), symbols)
    assert len(data[0]) * 8 < float(bits[0]) + 80
    assert scalar_decode(data[0], index[0].tolist(), [5], TABLES) == symbols[0].tolist()


def arithmetic(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Symbols and tables that no random generator can change; some symbols are escapes."""
    i = torch.arange(count, dtype=torch.int64)
    return (i * 7919 % 11 - 5).to(torch.int32)[None], (30 + i * 7 % 60).to(torch.int32)[None]


def test_certain_symbols_cost_nothing_and_exceptions_are_kept() -> None:
    symbols, index = torch.zeros(2, 400_000, dtype=torch.int32), torch.zeros(2, 400_000, dtype=torch.int32)
    symbols[1, [0, 77, 399_999]] = torch.tensor([3, -1, 1], dtype=torch.int32)
    index[1, 100:200] = 60
    symbols[1, 100:200] = 2
    data, _ = coded(symbols, index, [100_000, 300_000])
    assert len(data[0]) == 3  # one lane, for the seal
    assert torch.equal(read(data, index, [100_000, 300_000]), symbols)
    assert scalar_decode(data[1], index[1].tolist(), [100_000, 300_000], TABLES) == symbols[1].tolist()


def test_golden_words_fix_the_format() -> None:
    """These bytes were written by version 1 and have to be read for ever."""
    symbols, index = arithmetic(12)
    data, _ = coded(symbols, index, [12])
    assert data[0].hex() == GOLDEN_SHORT
    assert scalar_decode(bytes.fromhex(GOLDEN_SHORT), index[0].tolist(), [12], TABLES) == symbols[0].tolist()
    symbols, index = arithmetic(5000)
    data, _ = coded(symbols, index, [3000, 2000])
    assert hashlib.sha256(data[0]).hexdigest() == GOLDEN_LONG


GOLDEN_SHORT = "01000083ffd085759fc116957c00"
GOLDEN_LONG = "9e4a1f7c08ef6cc6f4135c67753fade34e74fa38bd3139db30322c85f1941291"


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("rate_index", [5, 12, 40, 90])
def test_size_is_close_to_the_ideal(rate_index: int, batch: int) -> None:
    """Within 0.3 % and 16 bytes, from 0.02 to 5 bit/symbol; and of the distribution itself, not of its table."""
    scale = float(GaussianPrior().table_scales()[rate_index])
    generator = torch.Generator().manual_seed(0)
    values = torch.round(scale * torch.randn(batch, 200_000, generator=generator, dtype=torch.float64))
    symbols, index = values.to(torch.int32), torch.full((batch, 200_000), rate_index, dtype=torch.int32)
    data, bits = coded(symbols, index, [200_000])
    mass = ndtr((0.5 - values.abs().numpy()) / scale) - ndtr((-0.5 - values.abs().numpy()) / scale)
    for sample in range(batch):
        assert len(data[sample]) <= 1.003 * float(bits[sample]) / 8 + 16
        assert len(data[sample]) <= 1.003 * float(-np.log2(mass[sample]).sum()) / 8 + 16


def test_eager_and_compiled_give_the_same_bytes() -> None:
    script = (
        "import torch, hashlib; from lc_bench.coding import segment; from lc_bench.entropy import GaussianPrior;"
        "i = torch.arange(3000, dtype=torch.int32).remainder(50)[None]; s = (i * 7919 % 11 - 5).to(torch.int32);"
        "print(hashlib.sha256(segment.encode([s], [i], GaussianPrior().make_tables())[0][0]).hexdigest())"
    )
    outputs = [
        subprocess.run([sys.executable, "-W", "ignore", "-c", script], env=env, capture_output=True, text=True, check=True).stdout
        for env in ({"LC_BENCH_EAGER": "1", "PATH": ""}, {"PATH": ""})
    ]
    assert outputs[0] == outputs[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 300))
def test_quantised_tables_sum_and_leave_nothing_out(seed: int, width: int) -> None:
    pmf = np.random.default_rng(seed).dirichlet(np.full(width, 0.05), size=3) + 1e-30
    frequency = quantise_pmf(pmf)
    assert (frequency.sum(1) == SLOTS).all()
    assert (frequency >= 1).all()


def test_quantised_tables_cost_little() -> None:
    """Kullback-Leibler distance of every Gaussian table from its density, in bits per symbol."""
    pmf = np.exp(-0.5 * (np.arange(-40, 41) / 8.0) ** 2)[None]
    pmf /= pmf.sum()
    frequency = quantise_pmf(pmf) / SLOTS
    assert (pmf * np.log2(pmf / frequency)).sum() < 2e-3  # seen 1.4e-3: tails of one count each, to five standard deviations


def test_factorized_tables_follow_the_density() -> None:
    torch.manual_seed(0)
    prior = FactorizedPrior(5).eval()
    tables = prior.make_tables()
    values = prior.median[None, :, None] + torch.arange(-8, 9)[None, None]
    bits = prior.bits(values)[0]
    for channel in range(5):
        entry = int(tables.base[channel]) + torch.arange(-8, 9) - int(tables.offset[channel])
        assert torch.allclose(tables.cost[entry].float(), bits[channel], atol=0.02)  # 16-bit counts of some 3 %: seen 0.016


def test_layout_covers_every_symbol_once() -> None:
    for sizes in ([1], [1000], [3, 0, 900, 17], [64] * 50):
        for lanes in (Lanes(1, 0), Lanes(1, 3, 2, 40), Lanes(4, 4, 5, 0), Lanes(16, 5, 0, 900)):
            walk = Walk(lanes)
            for size in sizes:
                runs = walk.take(size)
                assert sum(count for count, _, _ in runs) == size
                assert all((rows - 1) * width < count <= rows * width for count, rows, width in runs)


def test_lanes_are_paid_for() -> None:
    for symbols in (100, 10_000, 300_000):
        for rate in (0.01, 0.1, 1.0, 8.0):
            lanes = choose_lanes(lambda k, rate=rate: rate * k, [symbols])
            assert lanes.first * LOG <= max(LOG, 0.001 * rate * symbols)
            assert lanes.most * LOG <= max(LOG, 0.3 * rate * symbols)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_segments_are_errors(data: st.DataObject) -> None:
    """Lanes find their way back after damage, so that the seal has to tell."""
    symbols, index = draw(3000, 1, 9)
    (good,), _ = segment.encode([symbols], [index], TABLES, seals=(seal.of_symbols(symbols, 0) & seal.MASK).tolist())
    damaged = bytearray(good)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(good) - 1))]
    else:
        place = data.draw(st.integers(0, len(good) - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StreamError):
        decoder = segment.Decoder([bytes(damaged)], TABLES)
        found = decoder.next(index)
        decoder.finish((seal.of_symbols(found, 0) & seal.MASK).tolist())
