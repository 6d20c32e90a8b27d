"""What a search leaves: trials.csv, a picture, a table with each failure's cause, and the command that repeats the best trial."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..config import given_in
from ..errors import UserError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def finish(study: Study, objectives: Sequence[str], output: Path, words: Sequence[str]) -> float:
    """Write and print; returns the best value of the first objective. UserError if no trial has a result.

    words: the command line that all trials share.
    """
    import pandas as pd

    trials = study.get_trials(deepcopy=False)
    if not trials:
        raise UserError("the search was interrupted before its first trial")
    results = [t for t in trials if t.state.name == "COMPLETE"]
    best = {t.number for t in study.best_trials} if results else set()
    rows = [row_of(t, objectives, t.number in best, output) for t in trials]
    pd.DataFrame(rows).to_csv(output / "trials.csv", index=False)
    print_trials(rows, objectives)
    if not results:
        causes = [f"trial {row['trial']}: {row['cause']}" for row in rows if row["cause"]]
        raise UserError(f"no trial has a result yet{'; ' + causes[-1] if causes else ''}")
    draw(results, objectives, best, output / "trials.png")
    print(f"trials: {(output / 'trials.csv').resolve()}")
    for trial in [t for t in results if t.number in best]:
        found = ", ".join(f"{name} {value:.4g}" for name, value in zip(objectives, trial.values, strict=True))
        print(f"trial {trial.number} ({found}), weights in {output / f'trial-{trial.number}' / 'model.safetensors'}; again:")
        print(f"  {shlex.join(['python', '-m', 'lc_bench', *words, *trial.user_attrs['overrides']])}")
    return results[0].values[0] if len(objectives) > 1 else study.best_value


def row_of(trial: FrozenTrial, objectives: Sequence[str], best: bool, output: Path) -> dict[str, Any]:
    values = trial.values or [math.nan] * len(objectives)
    state = {"COMPLETE": "ok", "FAIL": "failed", "PRUNED": "pruned", "RUNNING": "unfinished"}.get(trial.state.name, trial.state.name)
    chosen = given_in(trial.user_attrs.get("overrides", []))
    return {
        "trial": trial.number,
        "ended": state,
        **dict(zip(objectives, values if state == "ok" else [math.nan] * len(objectives), strict=True)),
        "best": best,
        **chosen,
        "seconds": trial.user_attrs.get("seconds", math.nan),
        "cause": trial.user_attrs.get("cause", ""),
        "folder": str(output / f"trial-{trial.number}"),
    }


def print_trials(rows: Sequence[dict[str, Any]], objectives: Sequence[str]) -> None:
    chosen = [k for k in dict.fromkeys(k for row in rows for k in row) if k not in (*objectives, "best", "seconds", "cause", "folder")]
    table = Table(title="trials" if len(objectives) == 1 else "trials; bold: the Pareto front", title_justify="left")
    for heading in (*chosen, *objectives):
        table.add_column(escape(heading), overflow="fold", justify="right" if heading in objectives else "left")
    for row in rows:
        cells = [str(row.get(key, "")) for key in chosen]
        cells += ["" if math.isnan(row[name]) else f"{row[name]:.4g}" for name in objectives]
        table.add_row(*map(escape, cells), style="bold" if row["best"] else "red" if row["ended"] == "failed" else "")
    Console().print(table)
    for row in rows:
        if row["cause"]:
            print(f"trial {row['trial']} failed: {row['cause']} ({row['folder']})")


def draw(results: Sequence[FrozenTrial], objectives: Sequence[str], best: set[int], path: Path) -> None:
    """One objective: its value against each of the settings. Several: the first two, and the Pareto front."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys = list(dict.fromkeys(key for t in results for key in t.params)) if len(objectives) == 1 else [objectives[0]]
    figure = Figure(figsize=(4.2 * len(keys), 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    shown = objectives[-1] if len(objectives) == 1 else objectives[1]
    for place, key in enumerate(keys):
        axes = figure.add_subplot(1, len(keys), place + 1)
        several = len(objectives) > 1
        points = [
            (t.values[0] if several else t.params[key], t.values[1 if several else 0], t) for t in results if several or key in t.params
        ]
        axes.scatter([p[0] for p in points], [p[1] for p in points], color="tab:gray")
        front = sorted([p for p in points if p[2].number in best], key=lambda p: p[0])
        axes.plot([p[0] for p in front], [p[1] for p in front], "o-", color="tab:red", label="Pareto front" if several else "best")
        numbers = [p[0] for p in points if isinstance(p[0], float)]
        if not several and len(numbers) == len(points) and min(numbers) > 0 and max(numbers) / min(numbers) > 20:
            axes.set_xscale("log")
        axes.set_xlabel(key)
        axes.set_ylabel(f"{shown} (validation)")
        axes.legend()
    figure.savefig(path)
