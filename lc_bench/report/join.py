"""run=report: records of any runs, one report."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from .. import __version__
from ..errors import UserError, unknown
from .records import check_published
from .write import write_report

log = logging.getLogger(__name__)
NEEDED = ("codec", "kind", "level", "version", "data", "image", "bpp", "psnr-rgb", "ms-ssim-rgb", "encode_s", "decode_s")


def main(cfg: DictConfig) -> None:
    """Later inputs replace records of the same codec, level and image; all have to be of one data set."""
    if OmegaConf.is_missing(cfg.run, "inputs"):
        raise UserError("run.inputs: give the folders of earlier runs, such as run.inputs=[outputs/a,outputs/b]")
    inputs = [cfg.run.inputs] if isinstance(cfg.run.inputs, str) else list(cfg.run.inputs)
    records = pd.concat([read_records(Path(i).expanduser()) for i in inputs])
    records = records.drop_duplicates(["codec", "level", "image", "data"], keep="last")
    sets = list(records.data.unique())
    if len(sets) != 1:
        raise UserError(f"run.inputs: records of several data sets ({', '.join(sets)}); a report is about one")
    if cfg.run.bd_anchor not in set(records.codec):
        raise unknown("run.bd_anchor", cfg.run.bd_anchor, records.codec.unique())
    check_published(cfg.run.published, sets[0])
    output = Path(cfg.output)
    write_report(records, output, sets[0], cfg.run.bd_anchor, list(cfg.run.published), {"lc_bench": __version__}, [])
    log.info(f"report: {(output / 'index.html').resolve()}")


def read_records(path: Path) -> pd.DataFrame:
    file = path / "records.csv" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"run.inputs={path}: no records.csv there")
    try:
        table = pd.read_csv(file, keep_default_na=True)
    except ValueError as error:
        raise UserError(f"{file}: not a table of records ({error})") from None
    missing = [c for c in NEEDED if c not in table]
    if missing:
        raise UserError(f"{file}: columns are missing: {', '.join(missing)}")
    return table
