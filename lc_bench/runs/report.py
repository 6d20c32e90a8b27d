"""run=report: records of any runs, one report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from .. import __version__
from ..errors import UserError, unknown
from ..report import write_report
from ..report.records import check_published, read_records

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Later inputs replace records of the same codec, level and image; all have to be of one data set."""
    if OmegaConf.is_missing(cfg.run, "inputs"):
        raise UserError("run.inputs: give the folders of earlier runs, such as run.inputs=[outputs/a,outputs/b]")
    inputs = [cfg.run.inputs] if isinstance(cfg.run.inputs, str) else list(cfg.run.inputs)
    records = pd.concat([read_records(Path(i).expanduser()) for i in inputs])
    records = records.drop_duplicates(["codec", "level", "image", "data"], keep="last")
    if cfg.run.bd_anchor not in set(records.codec):
        raise unknown("run.bd_anchor", cfg.run.bd_anchor, records.codec.unique())
    output = Path(cfg.output)
    report_on(records, output, cfg.run.bd_anchor, list(cfg.run.published))
    log.info(f"report: {(output / 'index.html').resolve()}")


def report_on(records: pd.DataFrame, output: Path, bd_anchor: str, published: Sequence[str]) -> None:
    """One report over records of one data set, whatever runs they are of."""
    sets = list(records.data.unique())
    if len(sets) != 1:
        raise UserError(f"run.inputs: records of several data sets ({', '.join(sets)}); a report is about one")
    check_published(published, sets[0])
    write_report(records, output, sets[0], bd_anchor, list(published), {"lc_bench": __version__}, [])
