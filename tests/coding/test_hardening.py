"""Whatever is done to a stream, decoding ends in a StreamError or in the image that was written; `make fuzz` does it 10,000 times."""

from __future__ import annotations

import functools
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lc_bench
from benchmarks.fuzz import DAMAGES, Parts, Victim, outcome, victims
from lc_bench.coding import container, segment
from lc_bench.coding.container import AREA_PER_BYTE, FREE_AREA, Header, least_bytes, pack, unpack
from lc_bench.coding.tables import Tables
from lc_bench.entropy import GaussianPrior
from lc_bench.errors import StreamError

TABLES = GaussianPrior().make_tables()


@functools.cache
def some() -> list[Victim]:
    return victims(["bmshj2018-factorized", "mbt2018-mean"])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(DAMAGES)), st.integers(0, 2**31), st.integers(0, 2), st.integers(0, 1))
def test_damaged_streams(kind: str, seed: int, which: int, place: int) -> None:
    victim = some()[which]
    stream = DAMAGES[kind](Random(seed), victim.streams[place], some())
    assert outcome(victim.model, stream, victim.images[place]) in ("refused", "the image")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2), st.integers(0, 1), st.data())
def test_every_flipped_bit_that_a_checksum_hides_is_found(which: int, place: int, data: st.DataObject) -> None:
    """In the segments, where all bits say something."""
    victim = some()[which]
    parts = Parts.of(victim.streams[place])
    tile = data.draw(st.integers(0, len(parts.bodies) - 1))
    body = bytearray(parts.bodies[tile])
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    parts.bodies[tile] = bytes(body)
    assert outcome(victim.model, parts.sealed(), victim.images[place]) == "refused"


def test_sizes_are_bound_to_what_was_coded() -> None:
    """Another size of the same number of latents, with a checksum that matches."""
    victim = some()[1]
    header, segments = unpack(victim.streams[0])
    for sizes in ((73, 100), (72, 101), (100, 72), (128, 128)):
        with pytest.raises(StreamError):
            lc_bench.decompress(victim.model, [pack(Header(header.identity, sizes), segments)])


def test_old_streams_after_a_change_of_weights() -> None:
    for victim in some():
        for stream, image in zip(victim.streams, victim.images, strict=True):
            assert outcome(victim.altered, stream, image) == "refused"


def test_few_bytes_claim_few_pixels() -> None:
    victim = some()[0]
    header, segments = unpack(victim.streams[1])
    assert FREE_AREA + AREA_PER_BYTE * sum(map(len, segments)) < 1 << 24
    for sizes in ((4096, 4096), (1 << 24, 1), (1 << 14, 1 << 14)):
        with pytest.raises(StreamError, match="not decoded"):
            lc_bench.decompress(victim.model, [pack(Header(header.identity, sizes), segments)])


def test_streams_that_say_almost_nothing_are_filled_up() -> None:
    """One has a byte for every 8,192 pixels beyond the first 2^20; zeros after the last segment change nothing."""
    area = 1024 * 4096
    victim = some()[1]
    header, _ = unpack(victim.streams[0])
    assert len(pack(header, [b"x", b"y"], area)) >= least_bytes(area) == 384
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "FREE_AREA", -(1 << 26))  # so that small images count as large ones
        (stream,) = lc_bench.compress(victim.model, victim.images[0])
        assert len(stream) > 8192
        padded = lc_bench.decompress(victim.model, [stream])
    assert torch.equal(padded, lc_bench.decompress(victim.model, lc_bench.compress(victim.model, victim.images[0])))


@pytest.mark.parametrize("lanes", [0, 1, 7, 31])
@pytest.mark.parametrize("rest", [b"", bytes(9), b"\xff" * 40, b"\x1f" + b"\xff\xff\xff\xff\x7f" + bytes(100), b"\xff\xff\xff\x03" * 30])
@pytest.mark.parametrize("flags", [0, 0x20, 0x40, 0x80, 0xE0])
def test_segments_that_nobody_wrote(lanes: int, flags: int, rest: bytes) -> None:
    index = torch.full((1, 500), 60, dtype=torch.int32)
    with pytest.raises(StreamError):
        read([bytes([lanes | flags]) + rest], index, TABLES)


def test_lists_of_symbols_are_bounded() -> None:
    """Exceptions twice for one symbol, beyond the last one, and values beyond 31 bits."""
    index = torch.zeros(1, 50, dtype=torch.int32)
    good = torch.zeros(1, 50, dtype=torch.int32)
    good[0, [3, 7]] = torch.tensor([5, -2], dtype=torch.int32)
    (data,), _ = segment.encode([good], [index], TABLES)
    assert torch.equal(read([data], index, TABLES), good)
    assert data[:6] == bytes([0x81, 4, 3, 10, 4, 3])
    for wrong in ([3, 10, 0, 3], [3, 10, 60, 3], [3, 10, 4], [3, 10, 255, 255, 255, 255, 255, 255, 255, 3]):
        with pytest.raises(StreamError):
            read([bytes([0x81, len(wrong), *wrong]) + data[6:]], index, TABLES)


def test_symbols_in_full_are_sealed() -> None:
    """Neither escapes nor exceptions touch the coder; its rest tells all the same."""
    index = torch.tensor([[0, 60, 60, 0]], dtype=torch.int32)
    symbols = torch.tensor([[3, 2**31 - 1, 0, 0]], dtype=torch.int32)
    seals = [(77 + int(segment.seal.of_symbols(symbols, 0))) & segment.seal.MASK]
    (data,), _ = segment.encode([symbols], [index], TABLES, seals=seals)
    decoder = segment.Decoder([data], TABLES)
    found = decoder.next(index)
    assert torch.equal(found, symbols)
    assert not any(decoder.finish(seals))
    found[0, 0] += 1
    with pytest.raises(StreamError, match="other probabilities"):
        decoder.finish([(77 + int(segment.seal.of_symbols(found, 0))) & segment.seal.MASK])


def read(data: list[bytes], index: torch.Tensor, tables: Tables) -> torch.Tensor:
    decoder = segment.Decoder(data, tables)
    symbols = decoder.next(index)
    decoder.finish()
    return symbols
