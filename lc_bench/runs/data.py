"""run=data: all data sets, how large they are, under which terms, and whether they are on this machine. Nothing is downloaded."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf
from rich.markup import escape
from rich.table import Table

from ..config import choices, compose, conf_dirs, make
from ..data.obtain import gigabytes
from ..errors import UserError
from ..ops.paths import data_root
from .listing import wide_console


def main(cfg: DictConfig) -> None:
    """A table with a row for each YAML in conf/data."""
    # Where there is too little room for a line, the words at its end are cut, never a name or a figure.
    table = Table(title=escape(f"data sets; LC_BENCH_DATA is {data_root()}"), header_style="bold", expand=True)
    for column in ("data", "samples", "download", "here"):
        table.add_column(column, justify="left" if column == "data" else "right", no_wrap=True)
    table.add_column("what, licence", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in choices("data"):
        node = compose(f"data={name}").data
        count, size = total(node, "count"), total(node, "size")
        licence = f" Licence: {node.licence}." if "licence" in node else ""
        cells = (name, f"{count:,}" if count else "", gigabytes(size) if size else "", here(node), f"{about(name)}.{licence}")
        table.add_row(*map(escape, cells))
    wide_console().print(table)


def total(node: DictConfig, key: str) -> int:
    """Of the set as a whole, of its archive, or summed over its splits; 0 if not told."""
    told = OmegaConf.select(node, key) or OmegaConf.select(node, f"archive.{key}")
    if isinstance(told, int):
        return told
    parts = told.values() if told else [p[key] for p in node.get("splits", {}).values() if OmegaConf.is_dict(p)]
    return sum(parts)


def about(name: str) -> str:
    """The first line of the YAML, which is a comment."""
    file = next(path for folder in conf_dirs() if (path := folder / "data" / f"{name}.yaml").is_file())
    return file.read_text().partition("\n")[0].lstrip("# ").rstrip(".")


def here(node: DictConfig) -> str:
    """How many samples of the chosen split there are, or what has to be given."""
    absent = OmegaConf.missing_keys(node)
    if absent:
        return ", ".join(f"{key}=..." for key in sorted(absent))
    if "download" in node:
        node.download = False
    try:
        return f"{len(make(node)):,}"
    except UserError:
        return "no"
