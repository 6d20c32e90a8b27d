"""Decoders as TorchScript files: they decode what the models write, in a process that cannot import lc_bench."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import small
from test_models import widen
from torch import Tensor, nn

import lc_bench
from lc_bench.__main__ import main
from lc_bench.coding import segment
from lc_bench.coding.container import Header, pack, unpack
from lc_bench.coding.scripted import coder, tensors_of
from lc_bench.coding.tables import Tables
from lc_bench.coding.tapes import Tape
from lc_bench.entropy import FactorizedPrior, GaussianPrior
from lc_bench.entropy.lookup import look_up_series, nearest_of_series
from lc_bench.errors import UserError
from lc_bench.models import TransformCode

NAMES = ["bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018", "cheng2020-anchor-checkerboard", "lite"]
SIZE = (60, 50)  # odd enough to be padded and cut again

ALONE = """
import sys, torch

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "lc_bench":
            raise ImportError("lc_bench is not here")

sys.meta_path.insert(0, Refuse())
try:
    import lc_bench
except ImportError:
    pass
else:
    sys.exit("lc_bench was imported")
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    decoder = torch.jit.load(folder + "/decoder.pt")
    streams = torch.load(folder + "/streams.pt")
    torch.save([decoder(stream) for stream in streams], folder + "/images.pt")
"""


def built(name: str) -> TransformCode:
    model = lc_bench.build(name, **small(name))
    widen(model)
    return model


def as_tensor(stream: bytes) -> Tensor:
    return torch.frombuffer(bytearray(stream), dtype=torch.uint8)


def test_decodes_where_lc_bench_cannot_be_imported(image: Tensor, tmp_path: Path) -> None:
    expected = {}
    for name in NAMES:
        model, folder = built(name), tmp_path / name
        lc_bench.export_decoder(model, folder / "decoder.pt", SIZE)
        images = [image[:1, :, : SIZE[0], : SIZE[1]], image[1:, :, 8:, 36:]]  # sizes with the same padding
        streams = [lc_bench.compress(model, x)[0] for x in images]
        torch.save([as_tensor(s) for s in streams], folder / "streams.pt")
        expected[name] = [lc_bench.decompress(model, [s]) for s in streams]
    folders = [str(tmp_path / name) for name in NAMES]
    done = subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", ALONE, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        for found, x_hat in zip(torch.load(tmp_path / name / "images.pt"), expected[name], strict=True):
            assert found.shape == x_hat.shape
            assert torch.allclose(found, x_hat, rtol=0, atol=1e-6), name  # none seen; g_s runs in fp32


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[TransformCode, torch.jit.ScriptModule]:
    model, path = built("mbt2018-mean"), tmp_path_factory.mktemp("script") / "decoder.pt"
    lc_bench.export_decoder(model, path, SIZE)
    return model, torch.jit.load(path)


def test_damaged_and_foreign_streams_are_refused(exported: tuple[TransformCode, torch.jit.ScriptModule], image: Tensor) -> None:
    model, decoder = exported
    x = image[:1, :, : SIZE[0], : SIZE[1]]
    (stream,) = lc_bench.compress(model, x)
    header, segments = unpack(stream)
    other = lc_bench.build("mbt2018-mean", seed=1, **small("mbt2018-mean"))
    swapped = pack(header, segments[::-1])
    stripped = pack(header, [segments[0], segments[1][:-9]])
    larger = lc_bench.compress(model, image[:1])[0]
    levelled = pack(Header(header.identity, header.sizes, level=3), segments)
    tiled = lc_bench.compress(model, image[:1], tile=64)[0]
    flipped = bytearray(stream)
    flipped[len(stream) // 2] ^= 4
    for bad, words in [
        (stream[:-1], "checksum"),
        (bytes(flipped), "checksum"),
        (stream[:10], "cut short"),
        (b"", "cut short"),
        (lc_bench.compress(other, x)[0], "other weights"),
        (larger, "another size"),
        (levelled, "another level"),
        (tiled, "tiles|checksum"),
        (pack(header, [*segments, b""]), "number of segments"),
        (swapped, "damaged|cut short"),
        (stripped, "damaged|cut short"),
    ]:
        with pytest.raises(torch.jit.Error, match=words):
            decoder(as_tensor(bad) if bad else torch.zeros(0, dtype=torch.uint8))
    assert torch.allclose(decoder(as_tensor(stream)), lc_bench.decompress(model, [stream]), rtol=0, atol=1e-6)


def test_a_stream_that_names_its_model_decodes(exported: tuple[TransformCode, torch.jit.ScriptModule], image: Tensor) -> None:
    model, decoder = exported
    (stream,) = lc_bench.compress(model, image[:1, :, :64, :64])
    header, segments = unpack(stream)
    named = pack(Header(header.identity, header.sizes, model="mbt2018-mean quality=3"), segments)
    assert torch.equal(decoder(as_tensor(named)), decoder(as_tensor(stream)))


def test_a_level_is_baked_in(tmp_path: Path, image: Tensor) -> None:
    model = built("lite")
    lc_bench.export_decoder(model, tmp_path / "decoder.pt", SIZE, level=2.5)
    decoder = torch.jit.load(tmp_path / "decoder.pt")
    x = image[:1, :, : SIZE[0], : SIZE[1]]
    streams = lc_bench.compress(model, x, level=2.5)
    assert torch.allclose(decoder(as_tensor(streams[0])), lc_bench.decompress(model, streams), rtol=0, atol=1e-6)
    with pytest.raises(torch.jit.Error, match="another level"):
        decoder(as_tensor(lc_bench.compress(model, x, level=3)[0]))


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mixtures"):
        lc_bench.export_decoder(built("mbt2018-mean-gmm"), tmp_path / "decoder.pt", SIZE)
    model = built("mbt2018-mean")
    model.codec.h_s[1] = torch.nn.Tanh()  # type: ignore[index,union-attr,operator]
    with pytest.raises(UserError, match="Tanh has no exact form"):
        lc_bench.export_decoder(model, tmp_path / "decoder.pt", SIZE)
    model = built("mbt2018-mean")
    model.codec = Deciding(model.codec)
    with pytest.raises(UserError, match="decides by the image"):
        lc_bench.export_decoder(model, tmp_path / "decoder.pt", SIZE)
    assert not list(tmp_path.iterdir())


class Deciding(nn.Module):
    """A codec in which Python uses a number of the image."""

    def __init__(self, codec: nn.Module) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, tape: Tape, y: Tensor) -> Tensor:
        y_hat = self.codec(tape, y)
        return y_hat * float(y_hat.std())


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "decoder.pt"
    choice = ["run=script", "model=bmshj2018-factorized", "model.N=8", "model.M=12", "weights=none", f"hydra.run.dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["lc_bench", *choice, "run.size=[16,32]", f"run.to={target}"])
    main()
    model = lc_bench.build("bmshj2018-factorized", N=8, M=12)
    streams = lc_bench.compress(model, torch.rand(1, 3, 16, 32))
    assert torch.allclose(torch.jit.load(target)(as_tensor(streams[0])), lc_bench.decompress(model, streams), rtol=0, atol=1e-6)
    for size, path, words in (("[16,32]", target, "is there already"), ("7", tmp_path / "new.pt", "run.size=7")):
        monkeypatch.setattr(sys, "argv", ["lc_bench", *choice, f"run.size={size}", f"run.to={path}"])
        with pytest.raises(SystemExit):
            main()
        assert words in capsys.readouterr().err


def wide_tables() -> Tables:
    torch.manual_seed(3)
    return FactorizedPrior(40, init_scale=30.0).make_tables()


@pytest.mark.parametrize("tables", [GaussianPrior().make_tables(), wide_tables()], ids=["gaussian", "factorized"])
def test_scripted_reader_agrees_with_the_decoder(tables: Tables, tmp_path: Path) -> None:
    """Segments of all kinds: empty, few lanes, many, with escapes and exceptions, carried bytes, in many chunks."""
    lc_bench.export_coder(tmp_path / "coder.pt")
    saved = torch.jit.load(tmp_path / "coder.pt")
    generator = torch.Generator().manual_seed(0)
    shapes = set()
    for size, chunks in ((0, 1), (1, 1), (40, 3), (3000, 4), (70000, 1), (300, 30)):
        index = [torch.randint(0, len(tables.rank), (size,), generator=generator).int() for _ in range(chunks)]
        symbols = [torch.randint(-3, 4, (size,), generator=generator).int() for _ in range(chunks)]
        if size > 9:
            symbols[0][3], symbols[-1][9] = segment.LARGEST_SYMBOL, -100_000
        following = [bytes(range(1, 251))]
        ((data,), _) = segment.encode([s[None] for s in symbols], [i[None] for i in index], tables, following)
        head = segment.split(data)
        shapes.add((head.lanes.first, head.carries, bool(head.escapes), bool(head.exceptions)))
        reader = saved.open_segment(as_tensor(data))
        for want, own in zip(symbols, index, strict=True):
            found, *reader = saved.read_chunk(own, tensors_of(tables), reader)
            assert torch.equal(found, want)
        assert following[0] + bytes(saved.close_segment(reader).tolist()) == bytes(range(1, 251))
        obvious = segment.Decoder([data], tables)
        for want, own in zip(symbols, index, strict=True):
            assert torch.equal(obvious.next(own[None])[0], want)
    assert len(shapes) >= 4, shapes


def test_scripted_reader_refuses_what_the_decoder_refuses() -> None:
    """Of damaged segments, either both readers give the same symbols or both refuse."""
    tables, saved = GaussianPrior().make_tables(), coder()
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(0, 128, (2000,), generator=generator).int()
    symbols = torch.randint(-2, 3, (2000,), generator=generator).int()
    ((data,), _) = segment.encode([symbols[None]], [index[None]], tables)
    refused = 0
    for trial in range(60):
        place, bit = (int(torch.randint(0, n, (1,), generator=generator)) for n in (12 if trial % 2 else len(data), 8))
        bad = bytearray(data)
        bad[place] ^= 1 << bit
        try:
            decoder = segment.Decoder([bytes(bad)], tables)
            expected = decoder.next(index[None])[0]
            carried = decoder.finish()[0]
        except UserError:
            refused += 1
            with pytest.raises((torch.jit.Error, RuntimeError)):
                _, *reader = saved.read_chunk(index, tensors_of(tables), saved.open_segment(as_tensor(bytes(bad))))
                saved.close_segment(reader)
            continue
        found, *reader = saved.read_chunk(index, tensors_of(tables), saved.open_segment(as_tensor(bytes(bad))))
        assert torch.equal(found, expected)
        assert bytes(saved.close_segment(reader).tolist()) == carried
    assert refused > 40


def test_saved_coder_codes_rows_both_ways() -> None:
    """As segments do: encode rows, gather what they dropped, read them back."""
    stored = io.BytesIO()
    torch.jit.save(coder(), stored)
    stored.seek(0)
    saved = torch.jit.load(stored)
    tables = GaussianPrior().make_tables()
    delta, shift, encoding = tables.encoding
    table = torch.full((50, 4), 90)
    entry = (tables.base[table] + torch.randint(60, 90, table.shape, generator=torch.Generator().manual_seed(2))).int()
    drop, step = delta[entry], shift[entry]
    start = torch.full((4,), 1 << 14, dtype=torch.int32)
    state = saved.encode_rows(start, drop, step, encoding)
    words, total = saved.pack(*(part.flatten() for part in saved.drops(start, drop, step)))
    hits = ((table.int() << 14) - (1 << 14)).view(50, 1, 4)
    window = torch.nn.functional.pad(saved.window(words, total), (0, 14 * 4))
    end, top = saved.decode_rows(state.view(1, 4), hits, tables.decoding, window, torch.zeros(1, 1, dtype=torch.int32))
    assert torch.equal(tables.slots[0][hits.view(50, 4)], entry)
    assert torch.equal(end.flatten(), start)
    assert int(top) == total
    values, rest, sizes = saved.take(torch.arange(4).int(), torch.full((4,), 14).int(), 3)
    assert values.tolist() == [0, 1, 2]
    assert rest[sizes > 0].tolist() == [3]


def test_scales_find_their_tables_under_a_trace() -> None:
    """By other operations than otherwise; at every edge, and one float beside it."""
    table = nearest_of_series(0.11, 0.06, 128)
    edges = (torch.arange(0, 0x7F80, 7, dtype=torch.int32) << 16).view(torch.float32)
    values = torch.cat([edges, torch.nextafter(edges, torch.tensor(0.0)), -edges, torch.tensor([torch.inf])]).double()
    traced = torch.jit.trace(lambda v: look_up_series(table, v), (values[:5],), check_trace=False)
    assert torch.equal(traced(values), look_up_series(table, values))
    assert traced(torch.tensor([torch.nan])).item() == -1
