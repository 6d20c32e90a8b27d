"""Images of every kind become 8-bit RGB or a clear error; training crops are a function of seed and position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from lc_bench import data
from lc_bench.config import compose, make
from lc_bench.data.crops import Crops, Positions, collate, training_loader
from lc_bench.data.images import read_image, to_bytes, to_unit
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
    assert len(make(compose("data=bsds500").data)) == 500
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
    assert len(make(compose("data=vimeo90k").data)) == 1


def test_bytes_and_units() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_unit(pixels)), pixels)


def test_deep_colour_is_rounded_not_cut(tmp_path: Path) -> None:
    import imagecodecs

    deep = np.arange(0, 65536, 700, dtype=np.uint16)[:90].reshape(5, 6, 3)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    assert np.array_equal(read_image(tmp_path / "deep.png").permute(1, 2, 0).numpy(), np.round(deep / 257.0).astype(np.uint8))


def test_too_large_to_be_trusted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match="DecompressionBomb"):
        read_image(write(tmp_path / "huge.png", np.zeros((64, 64, 3), np.uint8)))


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


def test_processes_share_positions_without_overlap() -> None:
    parts = [iter(Positions(8, rank, 2)) for rank in (0, 1)]
    assert [next(parts[k % 2]) for k in range(6)] == list(range(8, 14))
    assert collate([("a", torch.zeros(3, 4, 6))]).units == 24


def test_no_data_is_in_the_repository() -> None:
    assert not [p for p in (ROOT / "lc_bench").rglob("*") if p.suffix in (".png", ".jpg", ".npz")]
