"""A user's own files: any size, any kind, tiles without seams, regions, and one line for whatever is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, refused
from PIL import Image
from torch import Tensor, nn

import lc_bench
from lc_bench.coding.container import LARGEST_AREA, Header, Identity, is_tiled, pack, read_head, unpack
from lc_bench.coding.tiles import TileFile, pack_tiles
from lc_bench.data.images import read_image, to_bytes, to_unit
from lc_bench.data.pixels import open_pixels
from lc_bench.errors import StreamError, UserError
from lc_bench.models import TransformCode, tiled
from lc_bench.models.reach import analysis_reach, synthesis_reach
from lc_bench.ops.shapes import pad_to_multiple

QUICK = ["threads=1"]
TINY = ["model=mbt2018-mean", "quality=1", "model.N=16", "model.M=24", "weights=none", *QUICK]


@pytest.fixture(scope="module")
def lite() -> TransformCode:
    return lc_bench.load("lite")


@pytest.fixture(scope="module")
def tiny() -> TransformCode:
    return lc_bench.build("mbt2018-mean", N=16, M=24)


def picture(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: ramps, waves and noise."""
    rows, columns = np.mgrid[:height, :width]
    waves = 40 * np.sin(rows / 9)[..., None] * np.cos(columns[..., None] / np.array([5, 8, 13]))
    noise = np.random.default_rng(height * width).normal(0, 4, (height, width, 3))
    return (110 + 60 * columns[..., None] / max(width, 2) + waves + noise).clip(0, 255).astype(np.uint8)


def reader(x: Tensor) -> tiled.Source:
    return lambda top, left, height, width: x[0, :, top : top + height, left : left + width]


def decoded_in_one(model: TransformCode, stream: bytes) -> Tensor:
    """x_hat of a stream in tiles: their latents side by side, one synthesis of it all."""
    file = TileFile(stream)
    grid = tiled.Grid.of(model, file.header)
    device = torch.device("cpu")
    rung = model.receiving_rung(file.header.level, model.frozen, device)
    with torch.no_grad():
        numbers = range(file.rows * file.columns)
        latents = {n: tiled._decode_tiles(model, file, model.frozen, rung, grid, [n], device)[0] for n in numbers}
        whole = tiled._gathered(latents, grid, (0, 0, grid.height, grid.width))
        return model.synthesise(whole[None], file.header.sizes, rung).clamp(0, 1)


def test_no_seams(lite: TransformCode) -> None:
    """Latents and pixels of an image in tiles are those of the whole; a region is its part of both."""
    x = to_unit(torch.from_numpy(picture(201, 270)).permute(2, 0, 1))[None]
    (stream,) = lc_bench.compress(lite, x, level=5, tile=128)
    x_hat = lc_bench.decompress(lite, [stream])
    assert x_hat.shape == x.shape
    whole = decoded_in_one(lite, stream)
    assert whole.diff(dim=-1).abs().max() > 0.02, "a flat picture shows no seams"
    assert torch.allclose(x_hat, whole, atol=1e-6)  # worst seen 6e-8, fp32 sums in other orders
    for region in [(200, 269, 1, 1), (100, 57, 80, 201), (64, 128, 64, 64)]:
        top, left, height, width = region
        part = lc_bench.decompress(lite, [stream], region=region)
        assert torch.allclose(part, x_hat[..., top : top + height, left : left + width], atol=1e-6)  # worst seen 6e-8


@pytest.mark.parametrize("name", ["lite", "mbt2018-mean", "cheng2020-anchor"])
def test_latents_in_tiles_are_those_of_the_whole_image(name: str) -> None:
    torch.manual_seed(0)
    model = lc_bench.load("lite") if name == "lite" else lc_bench.build(name, N=16)
    x = torch.rand(1, 3, 200, 330)
    grid = tiled.Grid.of(model, Header(model.frozen.identity, (200, 330), None, 64))
    reach = analysis_reach(model.g_a, 3, grid.stride)
    with torch.no_grad():
        y = model.g_a(pad_to_multiple(x, model.pad_to))
        for number in range(4 * 6):
            box = grid.box(number)
            part = tiled._analysed(model, reader(x), (200, 330), grid, box, grid.around(box, reach), torch.device("cpu"))
            assert torch.allclose(part, y[..., box[0] : box[2], box[1] : box[3]], atol=1e-5)  # worst seen 5e-7, fp32 sums


def test_a_smaller_reach_would_show(lite: TransformCode) -> None:
    """The measured reach is not larger than needed: one cell less changes latents."""
    x = torch.rand(1, 3, 192, 192)
    grid = tiled.Grid.of(lite, Header(lite.frozen.identity, (192, 192), None, 64))
    reach = analysis_reach(lite.g_a, 3, grid.stride)
    box = grid.box(4)
    with torch.no_grad():
        y = lite.g_a(x)[..., 4:8, 4:8]
        parts = [tiled._analysed(lite, reader(x), (192, 192), grid, box, grid.around(box, r), x.device) for r in (reach, reach - 1)]
    assert (
        (parts[0] - y).abs().max() < 3e-5 < (parts[1] - y).abs().max()
    )  # worst seen 5.5e-6, of values up to 10: sums of g_a in another order


def test_reach_of_known_networks() -> None:
    """Four 5x5 convolutions of stride 2: two cells. A pooling over the whole image: none that could be had."""
    tiny = lc_bench.build("bmshj2018-factorized", N=8, M=12)
    assert analysis_reach(tiny.g_a, 3, 16) == 2
    assert synthesis_reach(tiny.g_s, 12, 16, lambda y: y) == 2
    assert analysis_reach(nn.Conv2d(3, 4, 16, stride=16), 3, 16) == 0

    class Normalised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x / x.mean((2, 3), keepdim=True))

    with pytest.raises(UserError, match="tile=0"):
        analysis_reach(Normalised(3, 4, 16, stride=16), 3, 16)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (17, 300), (64, 64), (65, 129)])
def test_odd_sizes_in_tiles_and_whole(tiny: TransformCode, size: tuple[int, int]) -> None:
    x = to_unit(torch.from_numpy(picture(*size)).permute(2, 0, 1))[None]
    for tile in (0, 64):
        (stream,) = lc_bench.compress(tiny, x, tile=tile)
        assert is_tiled(stream) == bool(tile)
        assert lc_bench.decompress(tiny, [stream]).shape == x.shape
    with pytest.raises(UserError, match="within the image"):
        lc_bench.decompress(tiny, [stream], region=(0, 0, size[0] + 1, 1))


def test_whole_below_four_megapixels_and_tiles_above() -> None:
    assert tiled.tile_for((2048, 2048), None) == 0
    assert tiled.tile_for((2048, 2049), None) == tiled.TILE
    assert tiled.tile_for((5000, 5000), 0) == 0


def test_only_the_tiles_of_a_region_are_read(tiny: TransformCode) -> None:
    """The others may be damaged."""
    x = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    (stream,) = lc_bench.compress(tiny, x, tile=64)
    broken = bytearray(stream)
    file = TileFile(stream)
    for number in range(64):
        row, column = divmod(number, 8)
        if row < 4 or column < 4:
            broken[file.starts[number]] ^= 1
    region = (384, 384, 64, 64)
    assert torch.equal(lc_bench.decompress(tiny, [bytes(broken)], region=region), lc_bench.decompress(tiny, [stream], region=region))
    with pytest.raises(StreamError, match="tile 0"):
        lc_bench.decompress(tiny, [bytes(broken)])


def test_a_batch_in_tiles(tiny: TransformCode, image: Tensor) -> None:
    streams = lc_bench.compress(tiny, image, tile=64)
    both = lc_bench.decompress(tiny, streams)
    for place, stream in enumerate(streams):
        assert torch.equal(both[place], lc_bench.decompress(tiny, [stream])[0])
    with pytest.raises(StreamError, match="in one batch"):
        lc_bench.decompress(tiny, [streams[0], lc_bench.compress(tiny, image)[0]])


def test_damage_is_found(tiny: TransformCode) -> None:
    """Every flipped bit, cut and swap of a small stream in tiles."""
    x = to_unit(torch.from_numpy(picture(130, 70)).permute(2, 0, 1))[None]
    (stream,) = lc_bench.compress(tiny, x, tile=64)
    damaged = [stream[:n] for n in range(0, len(stream), 5)] + [stream + b"\0"]
    damaged += [stream[:n] + bytes([stream[n] ^ 1 << n % 8]) + stream[n + 1 :] for n in range(len(stream))]
    file = TileFile(stream)
    a, b, c = file.starts[:3]
    assert c - b == b - a, "else the table tells"
    damaged.append(stream[:a] + stream[b:c] + stream[a:b] + stream[c:])
    for data in damaged:
        with pytest.raises(StreamError):
            if not is_tiled(data):
                unpack(data)
            damaged_file = TileFile(data)
            for number in range(6):
                damaged_file.segments(number)
    with pytest.raises(StreamError, match="tile 0"):
        lc_bench.decompress(tiny, [damaged[-1]])


def test_absurd_headers_are_refused_before_anything_is_made() -> None:
    identity = Identity(b"a", b"www")
    for header, words in [
        (Header(identity, (1 << 20, 1 << 20), None, 64), "not decoded"),
        (Header(identity, (1 << 14, 1 << 14), None, 64), "65536 tiles"),
        (Header(identity, (64, 64), None, 63), "tiles of 63"),
        (Header(identity, (64, 64), None, 8192), "above 4096"),
        (Header(identity, (64, 64, 64), None, 64), "3 dimensions"),
    ]:
        with pytest.raises(StreamError, match=words):
            TileFile(pack_tiles(header, [[b"", b""]]))
    with pytest.raises(StreamError, match="no text"):
        unpack(pack(Header(identity, (64, 64), model="a\nb"), [b""]))
    with pytest.raises(StreamError, match="in tiles"):
        unpack(pack_tiles(Header(identity, (64, 64), None, 64), [[b""]]))
    with pytest.raises(StreamError, match="newer"):
        read_head(b"LC\x01awww\x61\x80\x40\x40" + bytes(8))


def test_a_name_is_in_the_file_alone(tiny: TransformCode) -> None:
    """Streams from Python stay as short as they were."""
    header, segments = unpack(lc_bench.compress(tiny, torch.rand(1, 3, 64, 64))[0])
    assert header.model == ""
    bare = pack(header, segments)
    named = pack(Header(header.identity, header.sizes, model="lite"), segments)
    assert len(named) - len(bare) == 1 + 1 + 4
    assert unpack(named)[0].model == "lite"


@pytest.mark.parametrize("kind", ["png", "ppm", "npy"])
def test_round_trip_of_a_file(kind: str, here: Path, lite: TransformCode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file says which model and level it is; what comes out is what Python gives."""
    pixels = picture(100, 131)
    np.save("in.npy", pixels) if kind == "npy" else Image.fromarray(pixels).save(f"in.{kind}")
    call(monkeypatch, "run=compress", f"input=in.{kind}", "output=out.lcb", "quality=4.5", *QUICK)
    call(monkeypatch, "run=decompress", "input=out.lcb", f"output=back.{kind}", *QUICK)
    x = to_unit(torch.from_numpy(pixels).permute(2, 0, 1))[None]
    expected = to_bytes(lc_bench.decompress(lite, lc_bench.compress(lite, x, level=3.5))[0])
    back = torch.from_numpy(np.load("back.npy")).permute(2, 0, 1) if kind == "npy" else read_image(Path(f"back.{kind}"))
    assert torch.equal(back, expected)
    assert sorted(p.name for p in here.iterdir()) == sorted([f"in.{kind}", "out.lcb", f"back.{kind}"])


def test_tiles_and_regions_of_files(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(picture(150, 200)).save("in.png")
    call(monkeypatch, "run=compress", "input=in.png", "tile=64", *TINY)
    call(monkeypatch, "run=decompress", "input=in.lcb", "output=whole.npy", *TINY)
    call(monkeypatch, "run=decompress", "input=in.lcb", "output=part.ppm", "region=[30,70,90,65]", *TINY)
    part = np.asarray(Image.open("part.ppm"))
    assert np.abs(part.astype(int) - np.load("whole.npy")[30:120, 70:135]).max() <= 1  # a rounding of 8 bits
    capsys.readouterr()
    call(monkeypatch, "run=inspect", "input=in.lcb")
    shown = capsys.readouterr().out
    size = (here / "in.lcb").stat().st_size
    for words in ("mbt2018-mean quality=1 weights=none", "150 x 200", "3 x 4 of 64", "one rate", "segment 2 of 2", f"{size:,} bytes"):
        assert words in shown
    told = refused(monkeypatch, capsys, "run=decompress", "input=in.lcb", "output=no.png", "region=[0,0,151,9]", *TINY)
    assert "within the image" in told[0]
    assert not (here / "no.png").exists()


def test_the_file_says_its_model_quality_and_weights(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture(50, 60)).save("in.png")
    call(monkeypatch, "run=compress", "input=in.png", "model=bmshj2018-factorized", "quality=2", "weights=none", *QUICK)
    assert read_head(Path("in.lcb").read_bytes())[0].model == "bmshj2018-factorized quality=2 weights=none"
    call(monkeypatch, "run=decompress", "input=in.lcb", "output=back.png", *QUICK)
    assert read_image(Path("back.png")).shape == (3, 50, 60)


def test_folders_and_patterns(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Names are kept, what is there is skipped, a bad file does not stop the others."""
    (here / "photos" / "more").mkdir(parents=True)
    for name in ("a.png", "a.bmp", "more/b.jpg", "c.png"):
        Image.fromarray(picture(40, 50)).save(here / "photos" / name)
    (here / "photos" / "notes.txt").write_text("no image")
    call(monkeypatch, "run=compress", "input=photos", "output=coded", *TINY)
    coded = sorted(p.relative_to("coded").as_posix() for p in Path("coded").rglob("*.lcb"))
    assert coded == ["a.bmp.lcb", "a.png.lcb", "c.lcb", "more/b.lcb"]
    before = {p: p.stat().st_mtime_ns for p in Path("coded").rglob("*.lcb")}
    (here / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    told = refused(monkeypatch, capsys, "run=compress", "input=photos", "output=coded", *TINY)
    assert "broken.png" in told[0]
    assert "1 of 5" in told[1]
    assert {p: p.stat().st_mtime_ns for p in before} == before, "what is there was written again"
    (here / "photos" / "broken.png").unlink()
    call(monkeypatch, "run=compress", "input=photos", "output=coded", "overwrite=true", *TINY)
    assert all(p.stat().st_mtime_ns > time for p, time in before.items())
    call(monkeypatch, "run=decompress", "input=coded/**/*.lcb", "output=back", "format=ppm", *TINY)
    assert sorted(p.relative_to("back").as_posix() for p in Path("back").rglob("*.*")) == ["a.bmp.ppm", "a.png.ppm", "c.ppm", "more/b.ppm"]
    assert not list(here.rglob("*.part"))


def test_kinds_of_pixels(tmp_path: Path) -> None:
    """Grey, alpha and 16 bits as data/images.py reads them; arrays of whatever can be pixels."""
    values = picture(9, 11)
    for name, array, white in [
        ("a", values, 255),
        ("b", values[..., 0], 255),
        ("c", values[..., :1].astype(np.uint16) * 257, 65535),
        ("d", values / 255, 1),
    ]:
        np.save(tmp_path / name, array)
        pixels = open_pixels(tmp_path / f"{name}.npy")
        assert pixels.size == (9, 11)
        expected = np.broadcast_to((array if array.ndim == 3 else array[..., None]) / white, (9, 11, 3))
        assert np.allclose(pixels.read(2, 3, 5, 6).permute(1, 2, 0), expected[2:7, 3:9], atol=1e-6)  # fp32
    grey = Image.fromarray(values[..., 0])
    grey.save(tmp_path / "grey.png")
    assert torch.equal(open_pixels(tmp_path / "grey.png").read(0, 0, 9, 11)[0], to_unit(torch.from_numpy(values[..., 0])))
    clear = np.zeros((4, 5, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert bool((open_pixels(tmp_path / "clear.png").read(0, 0, 4, 5) == 1).all()), "alpha is laid over white"


NO_IMAGES = {
    "nan": (np.full((8, 8, 3), np.nan), "NaN"),
    "range": (np.full((8, 8, 3), 3.0), "0 to 1"),
    "empty": (np.zeros((0, 8, 3), np.uint8), "nothing empty"),
    "channels": (np.zeros((8, 8, 4), np.uint8), "(H, W, 3)"),
    "type": (np.zeros((8, 8, 3), np.int64), "int64"),
    "object": (np.array([{}], dtype=object), "not a readable array"),
}


def test_arrays_that_are_no_images(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One command has a line for each, and leaves nothing; one file alone is told alike."""
    for name, (array, _) in NO_IMAGES.items():
        np.save(f"{name}.npy", array, allow_pickle=True)
    told = refused(monkeypatch, capsys, "run=compress", "input=*.npy", "output=coded", *TINY)
    assert len(told) == len(NO_IMAGES) + 1
    for name, (_, words) in NO_IMAGES.items():
        assert [line for line in told if f"{name}.npy" in line and words in line], (name, told)
    (alone,) = refused(monkeypatch, capsys, "run=compress", "input=nan.npy", "output=o.lcb", *TINY)
    assert "NaN" in alone
    assert {p.name for p in here.rglob("*") if p.is_file()} == {f"{name}.npy" for name in NO_IMAGES}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run=compress"], "input: has to be given"),
        (["run=compress", "input=nothing.png"], "no such file"),
        (["run=compress", "input=no*.png"], "no file in it"),
        (["run=compress", "input=in.png", "output=there.lcb"], "overwrite=true"),
        (["run=compress", "input=in.png", "output=o.zip"], "ends in .lcb"),
        (["run=compress", "input=*.png", "output=o.lcb"], "give a folder"),
        (["run=compress", "input=text.png"], "not a readable image"),
        (["run=compress", "input=in.png", "tile=65"], "multiple of 64"),
        (["run=compress", "input=in.png", "tile=-1"], "tile=-1"),
        (["run=compress", "input=in.png", "quality=[1,2]"], "quality=3"),
        (["run=decompress", "input=there.lcb", "output=o.png"], "not an lc_bench stream"),
        (["run=decompress", "input=empty.lcb", "output=o.png"], "empty file"),
        (["run=decompress", "input=there.lcb", "output=o.jpg"], ".png, .ppm, .npy"),
        (["run=decompress", "input=there.lcb", "format=gif"], "png, ppm, npy"),
        (["run=decompress", "input=there.lcb", "region=[1,2,3]"], "top,left,height,width"),
        (["run=decompress", "input=strange.lcb"], "not known here"),
        (["run=decompress", "input=own.lcb"], "weights=PATH"),
        (["run=decompress", "input=bare.lcb"], "give model="),
        (["run=decompress", "input=bare.lcb", *TINY], "other weights|another architecture"),
        (["run=inspect", "input=there.lcb"], "not an lc_bench stream"),
        (["run=inspect", "input=in.png", "region=3"], "region"),
    ],
)
def test_wrong_choices_are_one_line(
    arguments: list[str], words: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(picture(20, 30)).save("in.png")
    Path("text.png").write_text("no image")
    Path("there.lcb").write_text("no stream")
    Path("empty.lcb").write_bytes(b"")
    identity = Identity(b"a", b"www")
    Path("strange.lcb").write_bytes(pack(Header(identity, (8, 8), model="lite run=train"), [b"x", b"y"]))
    Path("own.lcb").write_bytes(pack(Header(identity, (8, 8), model="lite weights=own"), [b"x", b"y"]))
    Path("bare.lcb").write_bytes(pack(Header(identity, (8, 8)), [b"x", b"y"]))
    before = sorted(here.iterdir())
    (told,) = refused(monkeypatch, capsys, *arguments)
    assert re.search(words, told), told
    assert sorted(here.iterdir()) == before, "something was written"


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "mbt2018-mean", "mbt2018", "mbt2018-mean-gmm"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_latents_that_cannot_be_coded_are_refused(name: str, value: float) -> None:
    model = lc_bench.build(name, N=8, M=12)
    with torch.no_grad():
        model.g_a[-1].bias[3] = value  # type: ignore[index,operator,union-attr]
    for tile in (0, 64):
        with pytest.raises(UserError):
            lc_bench.compress(model, torch.rand(1, 3, 64, 64), tile=tile)


def test_pixels_that_cannot_be_coded_are_refused(tiny: TransformCode) -> None:
    for x in (torch.full((1, 3, 64, 80), torch.nan), torch.full((1, 3, 64, 80), torch.inf), torch.rand(1, 3, 0, 80), torch.rand(3, 64, 80)):
        for tile in (0, 64):
            with pytest.raises(UserError):
                lc_bench.compress(tiny, x, tile=tile)
    with pytest.raises(UserError, match="255"):
        lc_bench.compress(tiny, torch.zeros(1, 3, 64, 80, dtype=torch.uint8))
    with pytest.raises(UserError, match=str(LARGEST_AREA)):
        tiled.encode(tiny, reader(torch.rand(1, 3, 8, 8)), (1 << 15, 1 << 14))
