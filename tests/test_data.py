"""Images of every kind become 8-bit RGB or a clear error; training crops are a function of seed and position."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, call
from PIL import Image

from lc_bench import data
from lc_bench.config import choices, compose, make
from lc_bench.data import listing
from lc_bench.data.crops import Crops, Positions, collate, training_loader, validation_loader
from lc_bench.data.decoded import Decoded
from lc_bench.data.images import _converted, read_image, read_pixels, to_bytes, to_unit
from lc_bench.errors import UserError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def write(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    Image.fromarray(array, mode).save(path, **options)
    return path


def test_modes(tmp_path: Path) -> None:
    rgb = np.stack([GREY, GREY[::-1], 255 - GREY], 2)
    assert np.array_equal(read_image(write(tmp_path / "rgb.png", rgb)).permute(1, 2, 0).numpy(), rgb)
    grey = read_image(write(tmp_path / "grey.png", GREY))
    assert np.array_equal(grey.numpy(), np.repeat(GREY[None], 3, 0))
    deep = read_image(write(tmp_path / "deep.png", GREY.astype(np.uint16) * 257))
    assert np.array_equal(deep[0].numpy(), GREY)
    alpha = np.dstack([rgb, np.where(GREY > 100, 255, 0)]).astype(np.uint8)
    over = read_image(write(tmp_path / "alpha.png", alpha)).permute(1, 2, 0).numpy()
    assert np.array_equal(over[GREY > 100], rgb[GREY > 100])
    assert (over[GREY <= 100] == 255).all()
    Image.fromarray(rgb).convert("P").save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (3, 6, 8)
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert read_image(tmp_path / "cmyk.jpg").shape == (3, 6, 8)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.stack([GREY] * 3, 2)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png")[0].numpy(), np.rot90(GREY, -1))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n1234"])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"bad.png: {len(content)} bytes, not a readable image"):
        read_image(tmp_path / "bad.png")


def test_truncated_image_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="cut.png"):
        read_image(path)


def test_fast_decoders_give_what_pillow_gives(tmp_path: Path) -> None:
    """Every kind of file that may be decoded by imagecodecs, and those near to it that must not."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((117, 83), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    kinds: dict[str, tuple[Image.Image, dict[str, object]]] = {
        **{
            f"{s}{q}{p}.jpg": (smooth, {"subsampling": s, "quality": q, "progressive": p})
            for s in (0, 1, 2)
            for q in (30, 95)
            for p in (0, 1)
        },
        "grey.jpg": (smooth.convert("L"), {}),
        "cmyk.jpg": (smooth.convert("CMYK"), {}),
        "rgb.jpg": (smooth, {"keep_rgb": True}),
        "turned.jpg": (smooth, {"exif": exif}),
        "xmp.jpg": (smooth, {"xmp": xmp}),
        "plain.png": (smooth, {}),
        "turned.png": (smooth, {"exif": exif}),
        "palette.png": (smooth.convert("P"), {}),
        "grey.png": (smooth.convert("L"), {}),
        "key.png": (smooth, {"transparency": smooth.getpixel((3, 4))}),
        "moving.png": (smooth, {"save_all": True, "append_images": [smooth.rotate(90)], "default_image": True}),
    }
    for name, (image, options) in kinds.items():
        image.save(tmp_path / name, **options)  # type: ignore[arg-type]
        with Image.open(tmp_path / name) as opened:
            assert np.array_equal(read_pixels(tmp_path / name), _converted(opened)), name
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "0950.jpg").read_bytes()[:-600])
    with pytest.raises(UserError, match="truncated"):
        read_image(tmp_path / "cut.jpg")


def test_fast_decoders_on_photographs(shared: Path) -> None:
    paths = sorted((shared / "data").glob("bsds500/test/*.jpg"))[::8] + sorted((shared / "data").glob("kodak/*.png"))[::6]
    assert len(paths) == 29
    for path in paths:
        with Image.open(path) as opened:
            assert np.array_equal(read_pixels(path), _converted(opened)), path.name


def test_folder_fails_or_skips_as_asked(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GREY)
    (tmp_path / "b.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"b.png.*on_error=skip"):
        list(data.folder(str(tmp_path)))
    images = data.folder(str(tmp_path), on_error="skip")
    assert [name for name, _ in images] == ["a.png"]
    assert "b.png" in images.skipped[0]
    with pytest.raises(UserError, match="no such folder"):
        data.folder(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in it"):
        data.folder(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="fail, skip"):
        data.folder(str(tmp_path), on_error="maybe")


def test_samples_come_with_the_installation() -> None:
    images = dict(data.samples())
    assert len(images) == 6
    assert all(x.dtype == torch.uint8 and min(x.shape[1:]) >= 176 for x in images.values())


def test_kodak_is_checked(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_DATA", str(shared / "data"))
    assert len(make(compose("data=kodak").data)) == 24
    assert len(make(compose("data=bsds500", "data.split=train+val+test").data)) == 500
    assert len(make(compose("data=bsds500", "data.split=val").data)) == 100
    with pytest.raises(UserError, match="train, val, test"):
        make(compose("data=bsds500", "data.split=dev").data)
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path))
    (tmp_path / "kodak").mkdir()
    (tmp_path / "kodak" / "kodim01.png").write_bytes(b"other")
    with pytest.raises(UserError, match="Delete it"):
        make(compose("data=kodak").data)


def test_sets_that_are_not_there_say_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path))
    for name in ("bsds500", "vimeo90k"):
        with pytest.raises(UserError, match="LC_BENCH_DATA"):
            make(compose(f"data={name}", "data.download=false").data)
    (tmp_path / "vimeo90k" / "sequences" / "00001" / "0001").mkdir(parents=True)
    write(tmp_path / "vimeo90k" / "sequences" / "00001" / "0001" / "im1.png", GREY)
    (tmp_path / "vimeo90k" / "sep_trainlist.txt").write_text("00001/0001\n")
    assert len(make(compose("data=vimeo90k", "run=train").data)) == 1


NEEDS = {"folder": "data.path=none", "clouds": "data.path=none", "openimages": "data.list=none"}


@pytest.mark.parametrize("name", choices("data"))
def test_every_set_is_there_or_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path))
    overrides = [f"data={name}", *([NEEDS[name]] if name in NEEDS else [])]
    node = compose(*overrides).data
    if name in NEEDS:
        with pytest.raises(UserError, match="has to be given"):
            make(compose(f"data={name}").data)
    if "download" in node:
        node.download = False
    if name in ("samples", "shapes"):
        assert len(make(node)) > 0
        return
    with pytest.raises(UserError, match=r"no such|Set LC_BENCH_DATA|set LC_BENCH_DATA|h5py") as told:
        make(node)
    if "licence" in node and name not in NEEDS:
        assert f"licence: {node.licence}" in str(told.value)
        assert node.source in str(told.value)


def test_sets_are_listed(shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LC_BENCH_DATA", str(shared / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    call(monkeypatch, "run=data")
    rows = {
        cells[1].strip(): [c.strip() for c in cells] for line in capsys.readouterr().out.splitlines() if len(cells := line.split("│")) > 3
    }
    assert set(choices("data")) <= set(rows)
    assert rows["kodak"][2:5] == ["24", "15 MB", "24"]
    assert rows["clic2020-professional"][2:5] == ["876", "3.0 GB", "no"]
    assert rows["vimeo90k"][2:5] == ["507,052", "82.0 GB", "no"]
    assert rows["folder"][4] == "data.path=..."


def test_long_lists_are_kept_until_a_folder_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path))
    monkeypatch.setattr(listing, "LONG", 4)
    for i in range(6):
        folder = tmp_path / "imagenet" / "train" / f"n{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{i}.JPEG", GREY, format="JPEG")
    (tmp_path / "imagenet" / "train" / "n0" / "notes.txt").touch()
    wanted = compose("data=imagenet", "run=train").data
    first = make(wanted)
    names = [first.label(p) for p in first.paths]
    assert names == [f"train/n{k}/{i}.JPEG" for k in (0, 1) for i in range(k, 6, 2)]
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", lambda _: pytest.fail("listed again"))
        assert make(wanted).paths == first.paths
    (tmp_path / "imagenet" / "train" / "n1" / "5.JPEG").unlink()
    os.utime(tmp_path / "imagenet" / "train" / "n1", ns=(1, 1))
    assert len(make(wanted)) == 5


def test_bytes_and_units() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_unit(pixels)), pixels)
    assert torch.equal(to_unit(pixels), pixels.float() / 255)


def test_deep_colour_is_rounded_not_cut(tmp_path: Path) -> None:
    import imagecodecs

    deep = np.arange(0, 65536, 700, dtype=np.uint16)[:90].reshape(5, 6, 3)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    assert np.array_equal(read_image(tmp_path / "deep.png").permute(1, 2, 0).numpy(), np.round(deep / 257.0).astype(np.uint8))


def test_samples_of_one_file_name_stay_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "im1.png", GREY)
    assert [name for name, _ in data.folder(str(tmp_path))] == ["a/im1.png", "b/im1.png"]


def test_training_skips_what_it_is_allowed_to(tmp_path: Path) -> None:
    images = make_set(tmp_path, 3)
    (tmp_path / "0.png").write_bytes(b"broken")
    images = data.folder(str(tmp_path), on_error="skip")
    assert {Crops(images, 16, seed=0)[k][0] for k in range(9)} == {"1.png", "2.png"}
    with pytest.raises(UserError, match="none of its 3 images"):
        Crops(images, 45, seed=0)[0]


def make_set(folder: Path, count: int = 5) -> data.ImageSet:
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for i in range(count):
        write(folder / f"{i}.png", generator.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    return data.folder(str(folder))


def test_crops_depend_on_seed_and_position_alone(tmp_path: Path) -> None:
    images = make_set(tmp_path)
    crops, again = Crops(images, 16, seed=1), Crops(images, 16, seed=1)
    assert all(torch.equal(crops[k][1], again[k][1]) for k in (7, 3, 7))
    assert not torch.equal(crops[3][1], Crops(images, 16, seed=2)[3][1])
    assert sorted(crops[k][0] for k in range(5)) == [f"{i}.png" for i in range(5)], "an epoch sees every image once"
    with pytest.raises(UserError, match="under crops of 45"):
        Crops(images, 45, seed=1)[0]


def test_resumed_loader_goes_on_where_it_was(tmp_path: Path) -> None:
    images = make_set(tmp_path)
    whole = iter(training_loader(images, 16, batch=2, seed=0, step=0, workers=0))
    ahead = [next(whole).x for _ in range(6)]
    later = iter(training_loader(images, 16, batch=2, seed=0, step=4, workers=1))
    assert torch.equal(next(later).x, ahead[4])
    assert torch.equal(next(later).x, ahead[5])


def test_sets_decoded_once_give_the_same_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_CACHE", str(tmp_path / "cache"))
    make_set(tmp_path / "photos")
    (tmp_path / "photos" / "5.png").write_bytes(b"broken")
    images = data.folder(str(tmp_path / "photos"), on_error="skip")
    plain, cached = Crops(images, 16, seed=1), Crops(replace(images, cache=True), 16, seed=1)
    for k in range(12):
        (name, crop), (same, other) = plain[k], cached[k]
        assert name == same
        assert torch.equal(crop, other)
    for workers in (0, 2):
        with monkeypatch.context() as patched:
            patched.setattr("lc_bench.data.decoded.read_pixels", lambda *_: pytest.fail("decoded again"))
            source = iter(training_loader(replace(images, cache=True), 16, batch=3, seed=1, step=2, workers=workers))
            assert torch.equal(next(source).x, torch.stack([plain[k][1] for k in (6, 7, 8)]))
    write(tmp_path / "photos" / "0.png", np.zeros((40, 50, 3), np.uint8))
    decoded = Decoded(replace(images, cache=True))
    assert not decoded[0].any(), "an older decoding was taken"
    with pytest.raises(UserError, match="5.png: 6 bytes, not a readable image"):
        decoded[5]
    with pytest.raises(UserError, match="5.png"):
        Decoded(data.folder(str(tmp_path / "photos")))
    assert len(list((tmp_path / "cache" / "decoded").glob("*.u8"))) == 2, "a decoding that failed left its file"


def test_bytes_become_floats_on_the_device(tmp_path: Path) -> None:
    images = make_set(tmp_path)
    for loader in (training_loader(images, 16, batch=2, seed=0, step=0, workers=0), validation_loader(images)):
        batch = next(iter(loader))
        assert batch.x.dtype == torch.uint8
        there = batch.to(torch.device("cpu"))
        assert torch.equal(there.x, batch.x.float() / 255)
        assert torch.equal(there.to(torch.device("cpu")).x, there.x)
        assert there.units == batch.x.shape[-1] * batch.x.shape[-2]


def test_processes_share_positions_without_overlap() -> None:
    parts = [iter(Positions(8, rank, 2)) for rank in (0, 1)]
    assert [next(parts[k % 2]) for k in range(6)] == list(range(8, 14))
    assert collate([("a", torch.zeros(3, 4, 6))]).units == 24


def test_no_data_is_in_the_repository() -> None:
    assert not [p for p in (ROOT / "lc_bench").rglob("*") if p.suffix in (".png", ".jpg", ".npz")]
