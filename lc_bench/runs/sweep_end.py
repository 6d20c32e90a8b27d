"""How a sweep ends: one report over all its benchmarks, one table of its trainings, and which jobs ended how."""

from __future__ import annotations

import math
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..config import NAMED_FIRST, given_in
from ..errors import UserError
from ..ops import stopping
from .curves import read_curves
from .sweep import STOP, UNRELATED, Plan, Status

LAST_STEPS = 10  # logged training steps that a run's figures are the mean of


def finish(plan: Plan, arguments: Sequence[str], interrupted: bool) -> int:
    """Write and print what the sweep has; returns the exit code: of Ctrl-C or the signal that ended it, 2 a job failed, 0 all are done."""
    interrupted = interrupted or (plan.folder / STOP).exists()
    statuses = plan.statuses
    whole = {**plan.earlier, **statuses}
    try:
        reports = report_benchmarks(plan.folder, whole)
    except UserError as error:
        reports = []
        print(f"lc_bench: no report: {error}", file=sys.stderr)
    if any(s.run == "train" for s in whole.values()):
        table_of_trainings(plan.folder, whole)
    print_jobs(statuses)
    for name, status in statuses.items():
        if status.state == "failed":
            print(f"lc_bench: {name}: {status.cause}{failure_file(plan.folder / name)}", file=sys.stderr)
    for path in reports:
        print(f"report: {path.resolve()}")
    failed = [s for s in statuses.values() if s.state == "failed"]
    if interrupted or any(s.state != "ok" for s in statuses.values()):
        how = "interrupted" if interrupted else f"{len(failed)} of {len(statuses)} jobs failed" if failed else "some jobs have not ended"
        print(f"lc_bench: {how}; what is left is done by\n  {plan.to_go_on(arguments)}", file=sys.stderr)
    if interrupted:
        return stopping.exit_code(stopping.asked() or signal.SIGINT)
    return 2 if any(s.state != "ok" for s in statuses.values()) else 0


def failure_file(folder: Path) -> str:
    """Where a traceback is to be read, if there is one."""
    from .apart import FAILURE

    file = folder / FAILURE
    return f" (traceback in {file})" if file.is_file() and "Traceback" in file.read_text() else ""


def print_jobs(statuses: Mapping[str, Status]) -> None:
    table = Table(title="jobs", title_justify="left")
    for heading in ("job", "ended", "seconds"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left", overflow="fold")
    for name, status in statuses.items():
        state = "unfinished" if status.state in ("running", "interrupted") else status.state
        style = "red" if state == "failed" else "" if state == "ok" else "yellow"
        table.add_row(escape(name), state, f"{status.seconds:.0f}" if status.seconds else "", style=style)
    Console().print(table)


def report_benchmarks(folder: Path, statuses: Mapping[str, Status]) -> list[Path]:
    """A report over the records of all jobs; of several data sets one each, in folders of their names.

    Sets are told apart by the contents of their samples: of two that have one name, each folder's name ends in digits of its own.
    """
    found = {n: s for n, s in statuses.items() if s.run == "bench" and (Path(s.output) / "records.csv").is_file()}
    if not found:
        return []
    import pandas as pd

    from ..report.identity import by_settings, sets_of
    from ..report.names import file_name
    from ..report.records import read_records
    from .report import report_on

    # What an unfinished job was about to write when it was killed is not a record.
    tables = [read_records(Path(s.output)).dropna(subset=["bpp", "decode_s"]).assign(job=name) for name, s in found.items()]
    tables = by_settings(tables)
    sets = sets_of(tables)
    names = [samples.data for samples in sets]
    paths = []
    for samples in sets:
        own = pd.concat([tables[place] for place in samples.tables], ignore_index=True)
        own = joined_levels(own[own.data == samples.data])
        own = told_apart(own, differences({name: found[name].overrides for name in own.job.unique()}))
        settings = found[own.job.iloc[0]].settings
        anchor = str(settings.get("bd_anchor"))
        anchor = anchor if anchor in set(own.codec) else str(own.codec.iloc[0])  # run.anchors=false: the first model is
        notes = []
        output = folder
        if len(sets) > 1:
            twice = names.count(samples.data) > 1
            output = folder / file_name(samples.data, f"-{samples.digits}" if twice else "")
            notes += [f"several data sets are called {samples.data}; this report is about {samples.digits}"] if twice else []
        report_on(pd.DataFrame(own.drop(columns="job")), output, anchor, settings.get("published", []), notes=notes)
        paths.append(output / "index.html")
    return paths


def differences(overrides: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What sets each job apart from others on the same samples, besides what its records say themselves (codec, level, data)."""
    given = {name: given_in(words) for name, words in overrides.items()}
    keys = dict.fromkeys(k for words in given.values() for k in words if k not in (*NAMED_FIRST, *UNRELATED, "data.path"))
    apart = [k for k in keys if len({words.get(k) for words in given.values()}) > 1]
    return {name: ", ".join(f"{k}={words[k]}" for k in apart if k in words) for name, words in given.items()}


def joined_levels(records: Any) -> Any:
    """Files of weights that are one level each of a model become one curve; of several files at one level each stays its own."""
    own = (records.kind == "learned") & ~records.weights.isin(["published", "shipped", "untrained"])
    joint = records.codec.where(~own, records.codec.str.rpartition(" (")[0] + " (own weights)")
    levels = records.assign(codec=joint)[own].drop_duplicates(["codec", "level", "data", "weights"])
    several = set(levels[levels.duplicated(["codec", "level", "data"], keep=False)].codec)
    return records.assign(codec=joint.where(~joint.isin(several), records.codec))


def told_apart(records: Any, words: Mapping[str, str]) -> Any:
    """Records with a column `job`: where several jobs measured one codec at one level, what differs joins the codec's name."""
    key = ["codec", "level", "image", "data"]
    learned = records[records.kind == "learned"]
    shared = set(learned[learned.duplicated(key, keep=False)].codec)
    mine = (records.kind == "learned") & records.codec.isin(shared) & (records.job.map(words) != "")
    told = records.codec.where(~mine, records.codec + ", " + records.job.map(words).astype(str))
    return records.assign(codec=told).drop_duplicates(key, keep="last")


def table_of_trainings(sweep: Path, statuses: Mapping[str, Status]) -> None:
    """runs.csv and a table: the last figures of each run, on validation data where it had some; how to benchmark them."""
    import pandas as pd

    rows = []
    for name, status in statuses.items():
        folder = Path(status.output) if status.output else sweep / name
        weights = folder / "model.safetensors"
        row = {"job": name, "ended": status.state, **last_figures(folder), "weights": str(weights) if weights.is_file() else ""}
        rows.append(row)
    runs = pd.DataFrame(rows)
    runs.to_csv(sweep / "runs.csv", index=False)
    shown = [c for c in runs.columns if c != "weights"]
    table = Table(title="trainings", title_justify="left")
    for column in shown:
        table.add_column(column, overflow="fold", justify="left" if column in ("job", "ended") else "right")
    for row in runs[shown].itertuples(index=False):
        cells = ("" if isinstance(v, float) and math.isnan(v) else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row)
        table.add_row(*map(escape, cells))
    Console().print(table)
    trained = {name: statuses[name].overrides for name in statuses if (sweep / name / "model.safetensors").is_file()}
    if trained:
        print("benchmark them with")
        for line in benchmarks_of(sweep, trained):
            print(f"  {shlex.join(['python', '-m', 'lc_bench', *line, 'data=kodak'])}")


def benchmarks_of(sweep: Path, trained: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Command lines that measure trained models: one sweep where models and qualities alone tell the folders apart, else one each."""
    needed = [
        [w for w in words if w.lstrip("+").partition("=")[0].split(".")[0] in ("model", "rate", "quality")] for words in trained.values()
    ]
    given = [given_in(words) for words in needed]
    swept = {k: list(dict.fromkeys(g[k] for g in given)) for k in ("model", "quality") if all(k in g for g in given)}
    shared = [w for w in needed[0] if given_in([w]).keys().isdisjoint(swept)]
    pattern = next(iter(trained))
    for key, value in (("model", "${model.name}"), ("quality", "${quality}")):
        if key in swept:
            pattern = f"+{pattern}+".replace(f"+{key}-{given[0][key]}+", f"+{key}-{value}+").strip("+")
    names = {pattern.replace("${model.name}", g.get("model", "")).replace("${quality}", g.get("quality", "")) for g in given}
    if len(trained) > 1 and names == set(trained) and len(names) == math.prod(map(len, swept.values())):
        return [["-m", *(f"{k}={','.join(v)}" for k, v in swept.items()), *shared, f"weights={sweep}/{pattern}/model.safetensors"]]
    return [[*words, f"weights={sweep / name / 'model.safetensors'}"] for name, words in zip(trained, needed, strict=True)]


def last_figures(folder: Path) -> dict[str, float]:
    """step, loss, bpp, psnr of a run: the last validation, and the mean of the last logged training steps.

    What was not logged is absent.
    """
    logged = read_curves(folder)
    if not logged:
        return {}
    found: dict[str, float] = {"step": int(max(row["step"] for row in logged)) + 1}
    for key in ("loss", "bpp", "psnr"):
        for prefix, count in (("train", LAST_STEPS), ("val", 1)):
            values = [row[f"{prefix}/{key}"] for row in logged if f"{prefix}/{key}" in row][-count:]
            if values:
                found[f"{prefix}/{key}"] = sum(values) / len(values)
    return found
