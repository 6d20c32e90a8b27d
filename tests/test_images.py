"""Kinds of image files that are easily misread: each is checked against the values that it was made of."""

from __future__ import annotations

import importlib
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from conftest import ROOT, refused
from PIL import Image

from lc_bench.data import deep, folder
from lc_bench.data.images import DECODERS, read_pixels
from lc_bench.data.pixels import READABLE, open_pixels
from lc_bench.errors import UserError
from lc_bench.ops.paths import printable
from lc_bench.runs.places import jobs_of

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (7, 9, 3), dtype=np.uint16)
TINY = ["model=bmshj2018-factorized", "quality=1", "weights=none", "model.N=8", "model.M=8", "threads=1"]


def rounded(values: np.ndarray, white: float) -> np.ndarray:
    """(H, W, 1 or 3) -> (H, W, 3) uint8."""
    return np.broadcast_to(np.round(values / white * 255), (*values.shape[:2], 3)).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: np.ndarray, colour: int, *extra: bytes, size: tuple[int, int] | None = None) -> bytes:
    """A PNG of 16 bits; extra: chunks before the pixels; size: height and width that the header says."""
    height, width = size or values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[deep.ORIENTATION] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


def as_seen(values: np.ndarray, orientation: int) -> np.ndarray:
    """By the words of the EXIF standard: where the first row and the first column of the stored values are."""
    return {
        1: values,
        2: values[:, ::-1],
        3: np.rot90(values, 2),
        4: values[::-1],
        5: values.swapaxes(0, 1),
        6: np.rot90(values, -1),
        7: np.rot90(values, 2).swapaxes(0, 1),
        8: np.rot90(values),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_files_are_turned(tmp_path: Path, orientation: int) -> None:
    """Of 16 bits as of 8: in PNG, and in TIFF by either reader."""
    expected = as_seen(rounded(DEEP, 65535), orientation)
    (tmp_path / "a.png").write_bytes(png(DEEP, 2, chunk(b"eXIf", exif_of(orientation))))
    tags = [(deep.ORIENTATION, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb", extratags=tags)
    shallow = rounded(DEEP, 65535)
    tifffile.imwrite(tmp_path / "b.tif", shallow, photometric="rgb", extratags=tags)
    exif = Image.Exif()
    exif[deep.ORIENTATION] = orientation
    for name, options in {"c.png": {}, "d.webp": {"lossless": True}}.items():
        Image.fromarray(shallow).save(tmp_path / name, exif=exif, **options)
    for name in ("a.png", "a.tif", "b.tif", "c.png", "d.webp"):
        assert np.array_equal(read_pixels(tmp_path / name), expected), name
    Image.fromarray(np.repeat(shallow, 8, 0)).save(tmp_path / "e.jpg", exif=exif)
    Image.fromarray(np.repeat(shallow, 8, 0)).save(tmp_path / "f.avif", exif=exif)
    for name in ("e.jpg", "f.avif"):
        assert read_pixels(tmp_path / name).shape == as_seen(np.repeat(shallow, 8, 0), orientation).shape, name


def test_png_of_16_bits(tmp_path: Path) -> None:
    """Grey, alpha and a transparent colour."""
    path = tmp_path / "a.png"
    cases = [
        (DEEP[..., :1], 0, [], rounded(DEEP[..., :1], 65535)),
        (DEEP, 2, [], rounded(DEEP, 65535)),
        (DEEP[..., :2], 4, [], rounded(DEEP[..., :1] / 65535 * (DEEP[..., 1:2] / 65535) + 1 - DEEP[..., 1:2] / 65535, 1)),
    ]
    for values, colour, extra, expected in cases:
        path.write_bytes(png(values, colour, *extra))
        assert np.array_equal(read_pixels(path), expected)
    path.write_bytes(png(DEEP, 2, chunk(b"tRNS", struct.pack(">HHH", *DEEP[2, 3]))))
    expected = rounded(DEEP, 65535)
    expected[2, 3] = 255
    assert np.array_equal(read_pixels(path), expected)
    path.write_bytes(png(DEEP[..., 0], 0, chunk(b"tRNS", struct.pack(">H", DEEP[2, 3, 0]))))
    assert (read_pixels(path)[2, 3] == 255).all()


@pytest.mark.parametrize("damage", [b"MM\0*", b"", b"II*\0\xff\xff\xff\xff", exif_of(6)[:-9]])
def test_damaged_exif_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    """The pixels beside it are whole."""
    (tmp_path / "deep.png").write_bytes(png(DEEP, 2, chunk(b"eXIf", damage)))
    assert np.array_equal(np.sort(read_pixels(tmp_path / "deep.png"), None), np.sort(rounded(DEEP, 65535), None))
    for name in ("a.png", "a.jpg", "a.webp"):
        Image.fromarray(rounded(DEEP, 65535)).save(tmp_path / name, exif=b"Exif\0\0" + damage)
        assert read_pixels(tmp_path / name).size == DEEP.size


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_jpeg2000_of_more_than_8_bits(tmp_path: Path, bits: int) -> None:
    """Grey as well as colour, in a box or bare, by the white of its depth."""
    white = (1 << bits) - 1
    values = RNG.integers(0, white + 1, (40, 50, 3), dtype=np.uint16)
    for kind in ("jp2", "j2k"):
        path = tmp_path / f"a.{kind}"
        for given in (values[..., 0], values):
            path.write_bytes(imagecodecs.jpeg2k_encode(given, level=0, reversible=True, bitspersample=bits, codecformat=kind, mct=False))
            assert np.array_equal(read_pixels(path), rounded(given.reshape(40, 50, -1), white)), (kind, given.shape)


def test_pillows_lower_limit_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses WebP and TIFF of 179 megapixels and more; afterwards it is as it was."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    small = rounded(DEEP, 65535)
    for name, options in {"a.webp": {"lossless": True}, "a.tif": {}, "b.tif": {"compression": "tiff_lzw"}}.items():
        Image.fromarray(small).save(tmp_path / name, **options)
        with ThreadPoolExecutor(4) as pool:
            for pixels in pool.map(read_pixels, [tmp_path / name] * 8):
                assert np.array_equal(pixels, small), name
    assert Image.MAX_IMAGE_PIXELS == 10


def test_tiff_of_images_of_any_size_is_refused(tmp_path: Path) -> None:
    """A strip of JPEG 2000 may decode to gigabytes, whatever the size that the directory tells."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint16), photometric="rgb", compression="jpeg2000")
    with pytest.raises(UserError, match=r"^a\.tif: .*compressed as 3\d+, .*JPEG.*2000.*read are"):
        read_pixels(tmp_path / "a.tif")


def test_sizes_are_looked_at_before_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bound for every kind; and no more than the bytes of the file can hold."""
    for name, content, words in [
        ("wide.png", png(DEEP, 2, size=(60000, 60000)), "268435456 at most"),
        ("deep.png", png(DEEP, 2, size=(14000, 14000)), "805306368 bytes at most"),
        ("hollow.png", png(DEEP, 2, size=(9000, 9000)), "more than its bytes can hold"),
        ("none.png", png(DEEP, 2, size=(0, 7)), "0 pixels|7 x 0"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"^{name}: .*({words})"):
            read_pixels(tmp_path / name)
    monkeypatch.setattr(deep, "LARGEST", 62)
    small = rounded(DEEP, 65535)
    for suffix in ("png", "jpg", "webp", "ppm", "bmp", "tif", "jp2", "avif"):
        Image.fromarray(small).save(tmp_path / f"a.{suffix}")
        with pytest.raises(UserError, match=f"a.{suffix}: .*9 x 7 pixels; 62 at most"):
            read_pixels(tmp_path / f"a.{suffix}")
    np.save(tmp_path / "a.npy", small)
    with pytest.raises(UserError, match=r"a.npy: .*9 x 7 pixels; 62 at most"):
        open_pixels(tmp_path / "a.npy")


def tiff(path: Path, values: np.ndarray, photometric: str, **options: object) -> np.ndarray:
    tifffile.imwrite(path, values, photometric=photometric, **options)  # type: ignore[arg-type]
    return read_pixels(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_larger_than_an_image_may_be_are_refused(dtype: type, tmp_path: Path) -> None:
    """A tile is decoded whole, however little of it lies within the image."""
    path = tmp_path / "a.tif"
    values = np.zeros((32, 32, 3), dtype)
    tifffile.imwrite(path, values, photometric="rgb", tile=(16, 16), compression="deflate")
    assert read_pixels(path).shape == (32, 32, 3)
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in ("TileWidth", "TileLength"):
            file.pages.first.tags[tag].overwrite(1 << 20, dtype="I")  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"a\.tif: .*1048576"):
        read_pixels(path)


def test_tiff_of_every_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for bits in (1, 2, 4, 8, 10, 12, 14, 16):
        white = (1 << bits) - 1
        values = (DEEP[..., 0] >> (16 - bits)).astype(np.uint8 if bits <= 8 else np.uint16)
        values[0, :2] = 0, white
        packed = {"bitspersample": bits} if bits not in (8, 16) else {}
        for photometric, seen in (("minisblack", values), ("miniswhite", white - values)):
            if bits in (2, 4):  # which the library does not write
                path.write_bytes(packed_tiff(values, bits, photometric == "miniswhite"))
                found = read_pixels(path)
            else:
                found = tiff(path, values.astype(bool) if bits == 1 else values, photometric, **packed if bits != 1 else {})
            assert np.array_equal(found, rounded(seen[..., None].astype(float), white)), (bits, photometric)
    colours = DEEP >> 4
    assert np.array_equal(tiff(path, colours, "rgb", bitspersample=12), rounded(colours, 4095))


def packed_tiff(values: np.ndarray, bits: int, inverted: bool) -> bytes:
    """(H, W) of 2 or 4 bits a sample, rows padded to bytes."""
    height, width = values.shape
    shifts = np.arange(bits - 1, -1, -1)
    rows = [np.packbits((row[:, None] >> shifts) & 1).tobytes() for row in values]
    data = b"".join(rows)
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, 0 if inverted else 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(data)),
    ]
    data += b"\0" * (len(data) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_every_kind_of_colour(tmp_path: Path, dtype: type) -> None:
    path, white = tmp_path / "a.tif", np.iinfo(dtype).max
    values = (DEEP >> (16 - 8 * np.dtype(dtype).itemsize)).astype(dtype)
    opaque = rounded(values, white)
    alpha = values[..., :1] // 2 + white // 2
    over = rounded(values / white * (alpha / white) + 1 - alpha / white, 1)
    planes = values.transpose(2, 0, 1)
    for compression in (None, "deflate", "lzw", "packbits"):
        assert np.array_equal(tiff(path, values, "rgb", compression=compression), opaque)
        assert np.array_equal(tiff(path, np.ascontiguousarray(planes), "rgb", planarconfig="separate", compression=compression), opaque)
    assert np.array_equal(tiff(path, values, "rgb", compression="deflate", predictor=True), opaque)
    assert np.array_equal(tiff(path, values, "rgb", tile=(16, 16)), opaque)
    assert np.array_equal(tiff(path, values, "rgb", byteorder=">"), opaque)
    assert np.array_equal(tiff(path, np.stack([values, values[::-1]]), "rgb"), opaque), "the first of several pages"
    found = tiff(path, np.concatenate([values, alpha], 2), "rgb", extrasamples=["unassalpha"])
    assert np.abs(found.astype(int) - over).max() <= (1 if dtype == np.uint8 else 0)  # Pillow blends 8 bits in whole numbers
    multiplied = (values * (alpha / white)).astype(dtype)
    found = tiff(path, np.concatenate([multiplied, alpha], 2), "rgb", extrasamples=["assocalpha"])
    assert np.abs(found.astype(int) - rounded(multiplied / white + 1 - alpha / white, 1)).max() <= (2 if dtype == np.uint8 else 0)
    inks = np.concatenate([values, alpha], 2)
    expected = np.round(255 * (1 - values / white) * (1 - alpha / white))
    assert np.abs(tiff(path, inks, "separated").astype(int) - expected).max() <= 1  # Pillow rounds 8 bits twice
    table = RNG.integers(0, 65536, (3, 1 << (8 * np.dtype(dtype).itemsize)), dtype=np.uint16)
    found = tiff(path, values[..., 0], "palette", colormap=table)
    assert np.abs(found - np.moveaxis(table[:, values[..., 0]], 0, 2) / 257).max() <= 1  # Pillow cuts the table's entries


@pytest.mark.parametrize("dtype", [np.uint32, np.int8, np.int16, np.int32, np.float16, np.float32, np.float64, np.uint64, np.complex64])
def test_tiff_whose_white_nobody_knows_is_refused(tmp_path: Path, dtype: type) -> None:
    for photometric, values in (("minisblack", DEEP[..., 0]), ("rgb", DEEP)):
        tifffile.imwrite(tmp_path / "a.tif", (values >> 9).astype(dtype), photometric=photometric)
        with pytest.raises(UserError, match=r"a.tif: .*up to 16 bits a channel can be read"):
            read_pixels(tmp_path / "a.tif")


def test_tiff_cut_short_is_refused(tmp_path: Path) -> None:
    """Missing strips are not black."""
    for dtype in (np.uint8, np.uint16):
        tifffile.imwrite(tmp_path / "a.tif", np.resize(DEEP, (64, 64, 3)).astype(dtype), photometric="rgb", rowsperstrip=8)
        whole = (tmp_path / "a.tif").read_bytes()
        (tmp_path / "a.tif").write_bytes(whole[:-2000])
        with pytest.raises(UserError, match="a.tif"):
            read_pixels(tmp_path / "a.tif")


def test_jpeg2000_of_more_than_8_bits_is_rounded(tmp_path: Path) -> None:
    for bits in (10, 12, 16):
        values = DEEP >> (16 - bits)
        (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, reversible=True, bitspersample=bits, mct=False))
        assert np.array_equal(read_pixels(tmp_path / "a.jp2"), rounded(values, (1 << bits) - 1)), bits


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a\1\0\1\0\0\0\0;", b"DDS " + bytes(200), b"8BPS", b"<svg/>"]
)
def test_content_decides_which_decoder_is_called(tmp_path: Path, content: bytes) -> None:
    """No program is started for a PostScript file, whatever its name."""
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(UserError, match=f"photo.png: .*none of {', '.join(DECODERS)}"):
        read_pixels(tmp_path / "photo.png")
    Image.fromarray(rounded(DEEP, 65535)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "named.jpg")
    assert np.array_equal(read_pixels(tmp_path / "named.jpg"), rounded(DEEP, 65535))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY\1\0v\0{'descr': '|u1', 'fortran_order': False, 'shape': (8, 8, 3), ".ljust(128) + bytes(192),
        b"\x93NUMPY\1\0\x08\0{'descr'",
        b"PK\3\4" + bytes(40),
        b"\x93NUMPY\1\0v\0{'descr': '|u1', 'fortran_order': False, 'shape': (900000000, 800000, 3)}".ljust(128) + bytes(9),
        b"\x93NUMPY\1\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (8, 8, 3)}".ljust(128) + bytes(9),
    ],
)
def test_damaged_arrays_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.npy").write_bytes(content)
    with pytest.raises(UserError, match="b.npy: .*not a readable array"):
        open_pixels(tmp_path / "b.npy")


def test_an_archive_named_as_an_array_is_told(tmp_path: Path) -> None:
    with (tmp_path / "b.npy").open("wb") as file:
        np.savez(file, image=DEEP)
    with pytest.raises(UserError, match=r"b.npy: .*archive of several"):
        open_pixels(tmp_path / "b.npy")


def test_names_are_printable() -> None:
    assert printable("été (1).png") == "été (1).png"
    assert printable("caf\udce9.png") == "caf\\xe9.png"
    assert printable("a\nb\x1b[31m.png") == "a\\nb\\x1b[31m.png"
    printable("\udcff\udc80").encode()


@pytest.mark.parametrize("name", ["png", "jpeg", "avif", "tiff", "npy"])
def test_mutated_files_are_read_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of what `make fuzz` runs."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    fuzz_files = importlib.import_module("fuzz_files")
    outcomes, bad, _, grown = fuzz_files.run(name, 60, 1, tmp_path)
    assert not bad
    assert min(outcomes["read"], outcomes["refused"]) > 0
    assert grown < fuzz_files.MEBIBYTES


def test_a_bad_file_of_a_folder_is_told_or_skipped(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a decoder raises: the others go on, with data.on_error=skip as well."""
    (here / "set").mkdir()
    for name in ("a.png", "b.avif", "c.png"):
        Image.fromarray(np.repeat(rounded(DEEP, 65535), 9, 0)).save(here / "set" / name)
    whole = (here / "set" / "b.avif").read_bytes()
    (here / "set" / "b.avif").write_bytes(whole[: len(whole) // 2])
    (here / "set" / "d.npy").write_bytes(b"\x93NUMPY\1\0v\0{'descr': '|u1', 'shape': (8, 8, 3), ".ljust(128))
    (here / "set" / "e.png").symlink_to("nowhere")
    told = refused(monkeypatch, capsys, "run=compress", "input=set", "output=coded", *TINY)
    assert [line.split(":")[1].strip() for line in told[:-1]] == ["set/b.avif", "set/d.npy", "set/e.png"]
    assert "3 of 5 files failed" in told[-1]
    assert sorted(p.name for p in (here / "coded").iterdir()) == ["a.lcb", "c.lcb"]
    images = folder("set", on_error="skip")
    assert [name for name, _ in images] == ["a.png", "c.png"]
    assert [line.split(":")[0] for line in images.skipped] == ["b.avif", "set/e.png"]


def test_links_and_hidden_files(here: Path) -> None:
    """Linked folders are followed, loops are not, and what macOS leaves beside a file is none."""
    for name in ("real/deep/a.png", "set/b.png", "set/._b.png", "set/.hidden/c.png", "set/__MACOSX/._b.png"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rounded(DEEP, 65535)).save(here / name)
    (here / "set" / "train").symlink_to("../real")
    (here / "set" / "test").symlink_to("../real/deep")
    (here / "real" / "again").symlink_to(".")
    (here / "real" / "deep" / "up").symlink_to(here / "set")
    assert folder("set").names == ("b.png", "test/a.png", "train/deep/a.png")
    assert folder("set", recursive=False).names == ("b.png",)


@pytest.mark.parametrize(
    ("present", "asked", "expected"),
    [
        (["a.png", "a.jpg", "b.png"], "set", ["a.jpg.lcb", "a.png.lcb", "b.lcb"]),
        (["a.png", "a.jpg", "b.png"], "set/*.png", ["a.png.lcb", "b.lcb"]),
        (["A.png", "a.jpg"], "set", ["A.png.lcb", "a.jpg.lcb"]),
        (["a.png", "a.jpg", "a.png.bmp"], "set", ["a.jpg.lcb", "a.png.bmp.lcb", "a.png.lcb"]),
        (["x/a.png", "y/a.png"], "set/**/*.png", ["x/a.lcb", "y/a.lcb"]),
        ([f"{'n' * 251}.png", f"{'n' * 251}.bmp"], "set", []),
    ],
)
def test_files_of_one_name_stay_apart(present: list[str], asked: str, expected: list[str], here: Path) -> None:
    for name in present:
        (here / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "set" / name).touch()
    jobs, many = jobs_of(asked, "coded", READABLE, lambda _: ".lcb", (".lcb",), writes=True)
    targets = sorted(job.target.relative_to("coded").as_posix() for job in jobs)
    assert many
    assert len(set(targets)) == len(jobs)
    if len(present[0]) < 200:
        assert targets == expected
    else:
        assert all(len(target) == 255 and target.endswith(".lcb") for target in targets)
