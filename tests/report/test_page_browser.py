"""The leaderboard page in a real browser: it draws, toggles, sorts, compares and saves, without a word on the console or to the network."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lc_bench.data.shapes import shapes
from lc_bench.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CODECS = {"mine": 0.6, "avif": 0.8, "jpeg": 1.0, 'o"dd, <b>': 1.4}  # rate against jpeg's
PICTURE = (96, 160)
# WebGL by software tells how slow reading back is, which is not the page's doing.
SLOW = re.compile("GPU stall|willReadFrequently")


def image_records() -> pd.DataFrame:
    """Of two images; one value of each kind that a table may hold."""
    rows = [
        {"codec": codec, "kind": "learned" if codec == "mine" else "anchor", "level": level, "version": "1", "data": "two", "image": image,
         "width": 160, "height": 96,
         "bytes": 1000 * level, "bpp": factor * (0.1 + harder) * 1.7**level, "psnr-rgb": 26 + 2 * level + 1 / 3,
         "ms-ssim-rgb": 1 - 0.1 * 0.6**level, "encode_s": factor / 7, "decode_s": 1e-7 * level,
         "machine": "CPU a" if codec == "mine" else "CPU b",
         "torch": "2", "decoder_kmacs_px": 11.5 if codec == "mine" else np.nan, "parameters": 2.5e6 if codec == "mine" else np.nan}
        for codec, factor in CODECS.items() for harder, image in enumerate(("a.png", "sub/b.png")) for level in range(1, 7)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of images, with pictures of the first one."""
    output = tmp_path_factory.mktemp("report")
    original = torch.arange(3 * 96 * 160).reshape(3, *PICTURE).remainder(251).to(torch.uint8)
    decoded = {("mine", 3.0, "a.png"): original // 2, ("jpeg", 4.0, "a.png"): 255 - original}
    write_report(image_records(), output, "two", "jpeg", [], {"lc_bench": "1"}, ["said <here>"], decoded, {"a.png": original}, [30, 36])
    return output


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    with sync_api.sync_playwright() as playwright:
        if found is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium: apt install chromium, or playwright install chromium")
        # Software drawing of WebGL: 3D views without a GPU.
        arguments = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        launched = playwright.chromium.launch(executable_path=found, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """A function that opens a page file; at the end nothing may have been complained of or asked from the network."""
    said: list[str] = []
    contexts = []

    def open_page(file: Path, width: int = 1280, scheme: str = "light", touch: bool = False) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=touch)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)
        page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") and not SLOW.search(m.text) else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else said.append(f"asked for {r.url}"))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def curves(page: Any, plot: str) -> int:
    """Lines that are drawn, without hulls: those have no points."""
    return page.locator(f"#{plot} .scatterlayer .trace:has(.points path)").count()


def test_every_curve_is_drawn_and_toggles_act_on_all_plots(folder: Path, opened: Any) -> None:
    page = opened(folder / "index.html")
    plots = ["plot-psnr-rgb", "plot-ms-ssim-rgb", "plot-encode", "plot-decode", "sample-plot"]
    assert [curves(page, p) for p in plots] == [4] * 5
    assert curves(page, "plot-complexity") == 1
    page.locator(".chip", has_text="mine").click()
    assert [curves(page, p) for p in plots] == [3] * 5
    assert curves(page, "plot-complexity") == 0
    box = page.get_by_role("checkbox", name="mine")
    assert not box.is_checked()
    box.check()
    assert [curves(page, p) for p in plots] == [4] * 5
    page.get_by_role("checkbox", name="mine").focus()
    page.keyboard.press("Space")
    assert curves(page, "plot-encode") == 3
    assert page.get_by_role("checkbox", name="mine").evaluate("box => box === document.activeElement")
    page.click("#none")
    assert curves(page, "plot-psnr-rgb") == 0
    page.click("#all")
    page.check("#hull")
    assert page.locator("#plot-psnr-rgb .scatterlayer .trace").count() == 8
    assert page.evaluate("document.getElementById('plot-psnr-rgb').layout.xaxis.type") != "log"
    page.check("#log-rate")
    assert page.evaluate("document.getElementById('plot-psnr-rgb').layout.xaxis.type") == "log"
    page.select_option("#speed-against", "bd")
    page.select_option("#speed-as", "many")
    assert "megapixels" in page.locator("#plot-encode .ytitle").text_content()


def test_ranking_is_sorted_by_click_and_says_its_intervals(folder: Path, opened: Any) -> None:
    page = opened(folder / "index.html")
    names = lambda: page.locator("#ranking tbody .name").all_inner_texts()  # noqa: E731
    assert names() == list(CODECS)
    page.get_by_role("button", name="codec", exact=True).click()
    assert names() == sorted(CODECS)
    page.get_by_role("button", name="codec", exact=True).click()
    assert names() == sorted(CODECS, reverse=True)
    page.get_by_role("button", name="encode (s)").click()
    assert names() == list(CODECS)
    row = page.locator("#ranking tbody tr", has_text="mine").inner_text()
    assert "−40.0 %" in row
    assert "30.00 .. 36.00" in row
    assert "PSNR: 30 to 36 dB" in page.locator("section", has=page.locator("#ranking")).inner_text()
    assert "different machines" in page.locator("#machines").inner_text()
    assert "CPU a" in page.locator("#made").inner_text()
    assert "said <here>" in page.locator("header").inner_text()


def test_a_sample_has_its_own_curves_pictures_and_a_slider(folder: Path, opened: Any) -> None:
    page = opened(folder / "index.html")
    highest = lambda: page.evaluate("Math.max(...document.getElementById('sample-plot').data.flatMap(t => t.x))")  # noqa: E731
    records = image_records()
    assert highest() == records[records.image == "a.png"].bpp.max()
    captions = page.locator("#left option").all_inner_texts()
    assert [c.split(",")[0] for c in captions] == ["original", "mine", "jpeg"]
    page.select_option("#right", index=2)
    assert page.locator("#captions span").all_inner_texts() == ["original", captions[2]]
    page.wait_for_function("[...document.querySelectorAll('.pair img')].every(i => i.naturalWidth === 160)")
    cut = lambda: float(page.locator(".pair").evaluate("p => p.style.getPropertyValue('--cut')").rstrip("%"))  # noqa: E731
    page.locator(".pair").scroll_into_view_if_needed()
    box = page.locator(".pair").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50)
    page.mouse.down()
    assert cut() == pytest.approx(25, abs=0.2)
    page.mouse.move(box["x"] + 3 * box["width"] / 4, box["y"] + 60)
    page.mouse.up()
    assert cut() == pytest.approx(75, abs=0.2)
    clip = page.locator(".pair img").nth(1).evaluate("i => getComputedStyle(i).clipPath")
    assert clip.startswith("inset(0px 0px 0px 7")
    page.focus("#cut")
    page.keyboard.press("Home")
    assert cut() == 0
    page.check("#real")
    assert page.locator(".pair").bounding_box()["width"] == 160
    page.select_option("#sample", "sub/b.png")
    assert highest() == records[records.image == "sub/b.png"].bpp.max()
    assert page.locator("#no-picture").is_visible()
    assert page.locator("#comparison").is_hidden()
    page.select_option("#codec", "jpeg")
    page.select_option("#level", "5")
    assert page.locator("#images tbody tr").count() == 2


def test_downloads_are_the_records_and_the_ranking(folder: Path, opened: Any) -> None:
    page = opened(folder / "index.html")
    with page.expect_download() as got:
        page.click("#save-records")
    saved = pd.read_csv(io.StringIO(Path(got.value.path()).read_text()))
    pd.testing.assert_frame_equal(saved, pd.read_csv(folder / "records.csv"), check_exact=True, check_dtype=False)
    with page.expect_download() as got:
        page.click("#save-ranking")
    ranking = pd.read_csv(io.StringIO(Path(got.value.path()).read_text()))
    assert list(ranking.codec) == list(CODECS)
    assert ranking["BD-rate, PSNR"][0] == pytest.approx(-40, abs=1e-6)  # a factor of 0.6 at every level
    assert ranking["BD-rate, PSNR, interval"][0] == "30.00 .. 36.00"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(scheme: str, folder: Path, opened: Any) -> None:
    page = opened(folder / "index.html", 390, scheme, touch=True)
    assert curves(page, "plot-psnr-rgb") == 4
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    widths = page.locator(".plot").evaluate_all("plots => plots.map(p => p.getBoundingClientRect().right)")
    assert max(widths) <= 390
    assert (
        page.evaluate("getComputedStyle(document.body).backgroundColor")
        == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 27)"}[scheme]
    )
    ink = page.evaluate("document.getElementById('plot-psnr-rgb').layout.font.color")
    assert ink == {"light": "#1b1f24", "dark": "#e6e9ed"}[scheme]
    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    page.wait_for_function(f"document.getElementById('plot-psnr-rgb').layout.font.color !== '{ink}'")
    page.locator(".pair").scroll_into_view_if_needed()
    box = page.locator(".pair").bounding_box()
    page.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 20)
    assert page.locator("#cut").evaluate("c => Number(c.value)") == pytest.approx(90, abs=0.5)


def test_clouds_turn(tmp_path: Path, opened: Any) -> None:
    originals = dict(list(shapes(points=200))[:2])
    rows = [
        {"codec": codec, "kind": "learned", "level": level, "version": "1", "data": "shapes", "image": name, "points": 200,
         "bpp": factor * level, "encode_s": 1.0, "decode_s": 1.0, "d1-psnr": 20.0 + level, "d2-psnr": 22.0 + level, "chamfer": 0.1 / level}
        for codec, factor in (("codec", 0.5), ("draco", 1.0)) for name in originals for level in range(1, 6)
    ]  # fmt: skip
    decoded = {("codec", 3.0, name): x[x[:, 2] > 0] for name, x in originals.items()}
    write_report(pd.DataFrame(rows), tmp_path, "shapes", "draco", [], {}, [], decoded, originals)
    page = opened(tmp_path / "index.html")
    assert [curves(page, f"plot-{m}") for m in ("d1-psnr", "d2-psnr", "chamfer", "encode")] == [2] * 4
    page.click("#solids summary")
    page.wait_for_function("['left', 'right'].every(s => document.getElementById(s + '-view').querySelector('canvas'))")
    counts = page.evaluate("['left', 'right'].map(s => document.getElementById(s + '-view').data[0].x.length)")
    assert counts == [200, int((next(iter(originals.values()))[:, 2] > 0).sum())]
    assert "thousand points" in page.locator("#speed-as").inner_text()
