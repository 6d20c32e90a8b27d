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

from lc_bench.coding import segment
from lc_bench.coding.layout import SHAPES, Lanes, choose_lanes, lay_out
from lc_bench.coding.tables import TOTAL, Tables, quantise_pmf
from lc_bench.entropy import FactorizedPrior, GaussianPrior
from lc_bench.errors import StreamError

TABLES = GaussianPrior().make_tables()


def scalar_decode(data: bytes, index: list[int], sizes: list[int], tables: Tables) -> list[int]:
    """One sample, one symbol at a time, straight from the description of the format."""
    lanes, escapes, exceptions, body, carries = segment._split(data)
    unusual = dict(exceptions)
    assert not carries
    frequency, start = tables.frequency.tolist(), tables.start.tolist()
    base, count, offset = tables.base.tolist(), tables.count.tolist(), tables.offset.tolist()
    chunks = lay_out(sizes, lanes)
    width = chunks[0].runs[0].width
    unpacked, used = segment._unpack_states(body, width)
    states = [int(s) for s in unpacked]
    stack = list(np.frombuffer(body[used:], "<u2").astype(int))
    symbols: list[int] = []
    position = 0
    for chunk in chunks:
        skip = chunk.padding
        for run in chunk.runs:
            while len(states) > run.width:
                ended = states[len(states) // 2 :]
                states = states[: len(states) // 2]
                for state in ended:
                    assert state >> 32 == 1
                    stack += [state >> 16 & 0xFFFF, state & 0xFFFF]
            for _ in range(run.rows):
                for lane in range(run.width):
                    if skip:
                        skip -= 1
                        continue
                    table, slot = index[position], states[lane] & 0xFFFF
                    if count[table] == 1:
                        symbols.append(unusual.pop(position, 0) + offset[table])
                        position += 1
                        continue
                    entries = range(base[table], base[table] + count[table])
                    entry = next(e for e in entries if start[e] <= slot < start[e] + frequency[e])
                    states[lane] = (states[lane] >> 16) * frequency[entry] + slot - start[entry]
                    if states[lane] < 1 << 24:
                        states[lane] = states[lane] << 16 | stack.pop()
                    within = entry - base[table]
                    symbols.append((escapes.pop(0) if within == count[table] - 1 else within) + offset[table])
                    position += 1
    while len(states) > lanes.first:
        ended, states = states[len(states) // 2 :], states[: len(states) // 2]
        for state in ended:
            stack += [state >> 16 & 0xFFFF, state & 0xFFFF]
    assert set(states) == {1 << 24}
    assert not any(stack)
    assert not unusual
    return symbols


def draw(count: int, batch: int, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, 50, (batch, count), generator=generator, dtype=torch.int32)
    scale = 0.11 * torch.exp(GaussianPrior().step * index.double())
    symbols = (spread * scale * torch.randn(batch, count, generator=generator, dtype=torch.float64)).round().to(torch.int32)
    return symbols, index


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (300, [300]), (5000, [5000]), (20000, [7, 13000, 1, 6992]), (4000, [40] * 100)])
def test_scalar_twin_reads_what_the_vectorised_coder_wrote(count: int, sizes: list[int]) -> None:
    symbols, index = draw(count, 1, count)
    (data,), _ = segment.encode(symbols, index, sizes, TABLES)
    assert scalar_decode(data, index[0].tolist(), sizes, TABLES) == symbols[0].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 30.0]))
def test_round_trip(sizes: list[int], batch: int, seed: int, spread: float) -> None:
    symbols, index = draw(sum(sizes), batch, seed, spread)
    data, _ = segment.encode(symbols, index, sizes, TABLES)
    decoder = segment.Decoder(data, sizes, TABLES)
    read = torch.cat([decoder.next(part) for part in index.split(sizes, 1)], 1)
    assert torch.equal(read, symbols)
    assert not any(decoder.carried)
    alone, _ = segment.encode(symbols[:1], index[:1], sizes, TABLES)
    assert alone == data[:1], "a sample's bytes depend on the samples beside it"


@pytest.mark.parametrize(
    "lanes", [Lanes(first, doublings, startup, quiet) for first, doublings in SHAPES[:8] for startup in (0, 3) for quiet in (0, 1)]
)
def test_every_shape_of_lanes(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "choose_lanes", lambda *_: lanes)
    symbols, index = draw(700, 2, 5)
    data, _ = segment.encode(symbols, index, [100, 600], TABLES)
    decoder = segment.Decoder(data, [100, 600], TABLES)
    assert torch.equal(torch.cat([decoder.next(index[:, :100]), decoder.next(index[:, 100:])], 1), symbols)


@pytest.mark.parametrize("table", [0, 1])
def test_symbols_far_outside_their_table_are_kept(table: int) -> None:
    """As exceptions from a table that is certain, as escapes from the others."""
    symbols = torch.tensor([[0, 2**31 - 1, -(2**31) + 1, 5, -70000]], dtype=torch.int32)
    index = torch.full_like(symbols, table)
    data, bits = segment.encode(symbols, index, [5], TABLES)
    decoder = segment.Decoder(data, [5], TABLES)
    assert torch.equal(decoder.next(index), symbols)
    assert len(data[0]) * 8 < float(bits[0]) + 80


def arithmetic(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Symbols and tables that no random generator can change; some symbols are escapes."""
    i = torch.arange(count, dtype=torch.int64)
    return (i * 7919 % 11 - 5).to(torch.int32)[None], (20 + i * 7 % 30).to(torch.int32)[None]


def test_certain_symbols_cost_nothing_and_exceptions_are_kept() -> None:
    symbols, index = torch.zeros(2, 400_000, dtype=torch.int32), torch.zeros(2, 400_000, dtype=torch.int32)
    symbols[1, [0, 77, 399_999]] = torch.tensor([3, -1, 1], dtype=torch.int32)
    index[1, 100:200] = 30
    symbols[1, 100:200] = 2
    data, _ = segment.encode(symbols, index, [100_000, 300_000], TABLES)
    assert len(data[0]) <= 5
    decoder = segment.Decoder(data, [100_000, 300_000], TABLES)
    assert torch.equal(torch.cat([decoder.next(part) for part in index.split([100_000, 300_000], 1)], 1), symbols)
    assert scalar_decode(data[1], index[1].tolist(), [100_000, 300_000], TABLES) == symbols[1].tolist()


def test_golden_words_fix_the_format() -> None:
    """These bytes were written by version 1 and have to be read for ever."""
    symbols, index = arithmetic(12)
    data, _ = segment.encode(symbols, index, [12], TABLES)
    assert data[0].hex() == GOLDEN_SHORT
    assert scalar_decode(bytes.fromhex(GOLDEN_SHORT), index[0].tolist(), [12], TABLES) == symbols[0].tolist()
    symbols, index = arithmetic(5000)
    data, _ = segment.encode(symbols, index, [3000, 2000], TABLES)
    assert hashlib.sha256(data[0]).hexdigest() == GOLDEN_LONG


GOLDEN_SHORT = "0004d000105d136cb900b26cf4"
GOLDEN_LONG = "5e56fb119066214c030f73f758930a1a84e9fe801c4db0a228c368ae081d8669"


@pytest.mark.parametrize("rate_index", [4, 20, 40])
def test_size_is_within_one_percent_of_the_ideal(rate_index: int) -> None:
    symbols, index = draw(200_000, 1, 3)
    index = torch.full_like(index, rate_index)
    scale = 0.11 * np.exp(GaussianPrior().step * rate_index)
    generator = torch.Generator().manual_seed(0)
    symbols = (scale * torch.randn(symbols.shape, generator=generator, dtype=torch.float64)).round().to(torch.int32)
    data, bits = segment.encode(symbols, index, [200_000], TABLES)
    assert len(data[0]) <= 1.01 * float(bits[0]) / 8 + 8


def test_eager_and_compiled_give_the_same_bytes() -> None:
    script = (
        "import torch, hashlib; from lc_bench.coding import segment; from lc_bench.entropy import GaussianPrior;"
        "i = torch.arange(3000, dtype=torch.int32).remainder(50)[None]; s = (i * 7919 % 11 - 5).to(torch.int32);"
        "print(hashlib.sha256(segment.encode(s, i, [3000], GaussianPrior().make_tables())[0][0]).hexdigest())"
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
    assert (frequency.sum(1) == TOTAL).all()
    assert (frequency >= 1).all()


def test_quantised_tables_cost_little() -> None:
    """Kullback-Leibler distance of every Gaussian table from its density, in bits per symbol."""
    pmf = np.exp(-0.5 * (np.arange(-40, 41) / 8.0) ** 2)[None]
    pmf /= pmf.sum()
    frequency = quantise_pmf(pmf) / TOTAL
    assert (pmf * np.log2(pmf / frequency)).sum() < 5e-4  # seen 2.3e-4: tails of one count each


def test_factorized_tables_follow_the_density() -> None:
    torch.manual_seed(0)
    prior = FactorizedPrior(5).eval()
    tables = prior.make_tables()
    values = prior.median[None, :, None] + torch.arange(-8, 9)[None, None]
    bits = prior.bits(values)[0]
    for channel in range(5):
        entry = int(tables.base[channel]) + torch.arange(-8, 9) - int(tables.offset[channel])
        assert torch.allclose(tables.cost[entry].float(), bits[channel], atol=0.02)  # 16-bit counts of some 3 %: seen 0.004


def test_layout_covers_every_symbol_once() -> None:
    for sizes in ([1], [1000], [3, 0, 900, 17], [64] * 50):
        for lanes in (Lanes(1, 0, 0), Lanes(1, 3, 2), Lanes(3, 4, 5), Lanes(2, 5, 0, 1), Lanes(2, 5, 1, 15)):
            for chunk, size in zip(lay_out(sizes, lanes), sizes, strict=True):
                assert sum(run.width * run.rows for run in chunk.runs) == size + chunk.padding


def test_lanes_are_paid_for() -> None:
    for symbols in (100, 10_000, 300_000):
        for rate in (0.01, 0.1, 1.0, 8.0):
            lanes = choose_lanes(lambda k, rate=rate: rate * k, [symbols])
            assert lanes.first << lanes.doublings <= max(1, rate * symbols / 560)


def test_quiet_chunks_leave_the_lanes_to_the_others() -> None:
    """A last chunk almost without bits does not hold the start-up of the rest back."""
    sizes = [20_000, 100_000]
    lanes = choose_lanes(lambda k: 0.0 if k <= 100_000 else 3.0 * (k - 100_000), sizes)
    alone = choose_lanes(lambda k: 3.0 * k, sizes[:1])
    assert lanes == Lanes(alone.first, alone.doublings, alone.startup, 1)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_segments_are_errors(data: st.DataObject) -> None:
    symbols, index = draw(3000, 1, 9)
    (good,), _ = segment.encode(symbols, index, [3000], TABLES)
    damaged = bytearray(good)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(good) - 1))]
    else:
        place = data.draw(st.integers(0, len(good) - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StreamError):
        decoder = segment.Decoder([bytes(damaged)], [3000], TABLES)
        decoder.next(index)
