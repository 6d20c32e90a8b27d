"""The tables of recipes.md, made from what the package holds: python docs/tables.py writes them into the page.

Each stands between <!-- NAME --> and <!-- end -->.
"""

from __future__ import annotations

import re
from pathlib import Path

from lc_bench.api import build_from
from lc_bench.bench.complexity import complexity
from lc_bench.config import at_quality, compose, qualities_of
from lc_bench.report.records import ms_ssim_db, published_curves

PAGE = Path(__file__).parent / "recipes.md"
ZOO = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018", "cheng2020-anchor", "cheng2020-attn")
PAPERS = {
    "cheng2020-anchor-checkerboard": "paper-cheng2020-checkerboard-6M_mse",
    "elic2022-official": "paper-elic2022_mse",
    "mbt2018-mean-vbr": "mbt2018-mean-vbr-ans",
    "mbt2018-vbr": "mbt2018-vbr-ans",
    "bmshj2018-hyperprior-vbr": "bmshj2018-hyperprior-vbr-ans",
}
CROP, BATCH, STEPS = 256, 16, 4_000_000
SUSTAINED = 10e12  # operations a second


def rows(head: list[str], body: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))


def point(rate: float, value: float) -> str:
    """With a space that no line breaks at."""
    return f"{rate:.3f},\u00a0{value:.2f}"


def points_of_zoo(metric: str) -> str:
    """Rate and distortion on Kodak by quality; of 8-bit images for PSNR, as the benchmark measures, MS-SSIM in dB as published."""
    sets = {"mse": ("kodak-8bit", "_mse_ans_cuda", "psnr-rgb"), "ms-ssim": ("kodak", "_ms-ssim_cuda", "ms-ssim-rgb")}
    data, suffix, column = sets[metric]
    curves = {model: published_curves()[data][f"compressai-{model}{suffix}"] for model in ZOO}
    body, composed = [], compose("model=mbt2018-mean", f"rate={metric}")
    for quality in range(1, 9):
        lmbda = at_quality(composed, quality).rate.lmbda
        cells = [str(quality), f"{lmbda:g}"]
        for curve in curves.values():
            if quality > len(curve["bpp"]):
                cells.append("")
                continue
            rate, value = curve["bpp"][quality - 1], curve[column][quality - 1]
            cells.append(point(rate, value if metric == "mse" else ms_ssim_db(value)))
        body.append(cells)
    return rows(["quality", "lambda", *ZOO], body)


def points_of_papers() -> str:
    """Lowest, a middle and the highest point of other published curves."""
    body = []
    for model, name in PAPERS.items():
        curve = published_curves()["kodak"][name]
        points = sorted(zip(curve["bpp"], curve["psnr-rgb"], strict=True))
        picked = [points[0], points[len(points) // 2], points[-1]]
        body.append([model, f"`{name}`", str(len(points)), *(point(*each) for each in picked)])
    return rows(["model", "run.published=", "points", "lowest rate", "a middle one", "highest"], body)


def hours() -> str:
    """Arithmetic of training alone: forward, and twice as much backward, at a sustained rate."""
    body = []
    for model in (*ZOO, "elic2022-official", "mbt2018-mean-vbr"):
        own = compose(f"model={model}")
        ends = [own] if own.model.get("levels") else [at_quality(own, q) for q in (qualities_of(own)[0], qualities_of(own)[-1])]
        costs = [complexity(build_from(at_quality(cfg, 1) if cfg.quality == "all" else cfg)) for cfg in ends]
        kmacs = [c["encoder_kmacs_px"] + c["decoder_kmacs_px"] for c in costs]
        time = [3 * 2 * 1e3 * k * CROP**2 * BATCH * STEPS / SUSTAINED / 3600 for k in kmacs]
        body.append([model, *(" to ".join(dict.fromkeys(f"{v:.0f}" for v in values)) for values in (kmacs, time))])
    return rows(["model", "kMACs/pixel, both ways", "hours"], body)


TABLES = {"mse": lambda: points_of_zoo("mse"), "ms-ssim": lambda: points_of_zoo("ms-ssim"), "papers": points_of_papers, "hours": hours}


def filled(page: str) -> str:
    """The page with every table made anew."""
    for name, make in TABLES.items():
        page, count = re.subn(
            rf"(<!-- {name} -->\n)(.*?)(<!-- end -->)", lambda m, t=make: f"{m[1]}\n{t()}\n\n{m[3]}", page, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"recipes.md: {count} places for the table {name}, one is needed")
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
