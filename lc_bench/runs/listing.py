"""run=models: a table of all models. Costs of ours ship with the package; those of a user's own are kept when first counted.

`python -m lc_bench.runs.listing` counts ours anew into the package, after a change of conf/model.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import __version__
from ..config import at_quality, choices, compose, conf_dir, own_conf_dir, qualities_of
from ..ops.paths import cache_dir
from ..ops.whole import written_whole

SHIPPED = Path(__file__).parent / "models.json"
WIDE = 160  # characters, where output is no terminal
METRICS = ("mse", "ms-ssim", "chamfer")


class Row(TypedDict):
    """What is told of a model: its number of qualities, cells of costs, and for which metrics there are weights."""

    qualities: int
    costs: list[str]
    weights: list[str]


def main(cfg: DictConfig) -> None:
    """A table of all models: parameters and kMACs per pixel of the first and the last quality, and what has weights."""
    table = Table(
        title="models: number of qualities, cost (per pixel or point) of the first and the last, published weights", header_style="bold"
    )
    for column in ("model", "q", "params (M)", "enc kMACs", "dec kMACs", "weights"):
        # In a narrow terminal figures go on in a second line; cut, they would be wrong ones.
        justify = "left" if column in ("model", "weights") else "right"
        table.add_column(column, justify=justify, no_wrap=column in ("model", "q"), overflow="fold")
    rows, broken = rows_of(choices("model"))
    for name, row in rows.items():
        table.add_row(escape(name), str(row["qualities"]), *row["costs"], ", ".join(row["weights"]) or "-")
    wide_console().print(table)
    for name, why in broken.items():
        print(f"lc_bench: model={name} is left out: {why}", file=sys.stderr)


def wide_console() -> Console:
    """Of the terminal's width; in a file or a pipe, wide enough for one line each."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=WIDE)


def rows_of(names: Iterable[str]) -> tuple[dict[str, Row], dict[str, str]]:
    """A row for each model, and why there is none."""
    own = own_conf_dir()
    ours = {path.stem for path in (conf_dir() / "model").glob("*.yaml")}
    stamp = digest([conf_dir() / "model"])
    own_stamp = digest([conf_dir() / "model", own / "model", *own.parent.glob("*.py")]) if own else stamp
    kept_file = cache_dir() / "models" / f"{own_stamp}.json"
    kept: dict[str, Row] = json.loads(SHIPPED.read_text()).get(stamp, {}) if SHIPPED.is_file() else {}
    kept = {name: row for name, row in kept.items() if name in ours} | _read(kept_file)
    rows, broken, counted = {}, {}, False
    for name in names:
        if name not in kept:
            try:
                kept[name] = count(name)
            except Exception as error:  # of a layer of a user's, anything
                broken[name] = " ".join(str(error).split()) or type(error).__name__
                continue
            counted = True
        rows[name] = kept[name]
    if counted:
        _keep(kept_file, kept)
    return rows, broken


def digest(places: Iterable[Path]) -> str:
    """Of the version and of all files below these places."""
    whole = hashlib.sha256(__version__.encode())
    for place in places:
        for file in sorted(place.rglob("*.yaml")) if place.is_dir() else [place]:
            whole.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return whole.hexdigest()[:16]


def _read(file: Path) -> dict[str, Row]:
    """What was kept; nothing if it cannot be read."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def _keep(file: Path, rows: dict[str, Row]) -> None:
    try:
        with written_whole(file) as part:
            part.write_text(json.dumps(rows))
    except OSError as error:
        print(f"lc_bench: {file.parent}: costs are counted anew next time ({error.strerror})", file=sys.stderr)


def count(name: str) -> Row:
    """Build the model at its first and last quality, and count."""
    from ..api import build_from  # torch, which the table does without
    from ..bench.complexity import cost_of

    own = compose(f"model={name}")
    qualities = qualities_of(own)
    costs = [cost_of(build_from(at_quality(own, q))) for q in sorted({qualities[0], qualities[-1]})]
    cells = [
        "-".join(dict.fromkeys(f"{value / scale:.1f}" for cost in costs for key, value in cost.items() if key.startswith(part)))
        for part, scale in (("parameters", 1e6), ("encoder_", 1), ("decoder_", 1))
    ]
    return {"qualities": len(qualities), "costs": cells, "weights": with_weights(own)}


def with_weights(cfg: DictConfig) -> list[str]:
    """For which metrics weights are shipped or published, of any quality."""
    from ..models import weights

    found = []
    for metric in METRICS:
        if any(weights.SHIPPED.glob(f"{cfg.model.name}-{metric}*.safetensors")):
            found.append(f"{metric} shipped")
        elif any(weights.published_file(cfg.model.get("published"), metric, q) for q in qualities_of(cfg)):
            found.append(metric)
    return found


def ship() -> None:
    """Count all models of conf/model into the package."""
    names = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
    rows = {name: count(name) for name in names}
    SHIPPED.write_text(json.dumps({digest([conf_dir() / "model"]): rows}, indent=1) + "\n")


if __name__ == "__main__":
    ship()
