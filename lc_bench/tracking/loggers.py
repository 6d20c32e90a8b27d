"""Lightning's loggers as conf/logger names them, and what they are told besides numbers: pictures and tables.

One folder is one run. Resumed in its folder, a run goes on under the same id of Weights & Biases and in the same folder of
TensorBoard.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ..config import make
from ..errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

log = logging.getLogger(__name__)

ID_FILE = "wandb-id"
OFFLINE = ("offline", "dryrun", "disabled")


def make_loggers(cfg: DictConfig, output: Path, name: str, step: int = 0) -> list[Logger]:
    """The loggers of `cfg.logger`. They write nothing before they are told something.

    name: of the run, for people; step: at which a resumed run goes on; what TensorBoard was told from there on is dropped.
    Of a benchmark there is no CSV logger: its records.csv is that.
    """
    job = _job(cfg)
    made = []
    for node in (cfg.get("logger") or {}).values():
        kind = str(node.get("_target_")).rpartition(".")[2]
        if kind == "WandbLogger":
            made.append(_wandb(node, _identity(node, output, name, job, bool(cfg.run.get("resume")))))
        elif kind == "TensorBoardLogger":
            if importlib.util.find_spec("tensorboard") is None:
                raise UserError("logger=tensorboard: the package is not installed. Run pip install 'lc_bench[tensorboard]'")
            made.append(make(node, **({"purge_step": step} if step else {})))
        elif kind != "CSVLogger" or job == "train":
            made.append(make(node))
    return made


def _wandb(node: DictConfig, identity: Mapping[str, Any]) -> WandbLogger:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # a crash of wandb's own does not look for the network
    import wandb
    from wandb.errors import Error

    wandb.setup(wandb.Settings(silent=True))  # where its files are is told once, at the end
    logger: WandbLogger = make(node, **identity)
    if node.get("mode") in OFFLINE:
        return logger
    try:
        _ = logger.experiment  # now, not after an hour of benchmarking
    except Error as error:
        raise UserError(f"logger.wandb.mode={node.get('mode')}: {error} Or leave it offline, and upload later with `wandb sync`") from None
    return logger


def _job(cfg: DictConfig) -> str:
    """train, bench, ...: the file in runs/ whose main this is."""
    return str(cfg.run._target_).split(".")[-2]


def _identity(node: DictConfig, output: Path, name: str, job: str, resumed: bool) -> dict[str, Any]:
    """Arguments of wandb.init that tell one run from others; what the user's YAML says goes first."""
    from lightning.pytorch.utilities import rank_zero_only

    file = output / ID_FILE
    run_id = node.get("id") or (file.read_text().strip() if resumed and file.is_file() else secrets.token_hex(4))
    if rank_zero_only.rank == 0:  # the others log nothing
        output.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{run_id}\n")
    return {"id": run_id, "name": node.get("name") or name, "job_type": node.get("job_type") or job}


def of_wandb(loggers: Sequence[Logger]) -> list[WandbLogger]:
    if not loggers:  # Lightning is not imported for nothing
        return []
    from lightning.pytorch.loggers import WandbLogger

    return [logger for logger in loggers if isinstance(logger, WandbLogger)]


def of_tensorboard(loggers: Sequence[Logger]) -> list[TensorBoardLogger]:
    if not loggers:
        return []
    from lightning.pytorch.loggers import TensorBoardLogger

    return [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]


def log_config(loggers: Sequence[Logger], told: Mapping[str, Any]) -> None:
    """What origin.told_of gives."""
    for logger in loggers:
        logger.log_hyperparams(dict(told))
    text = OmegaConf.to_yaml(OmegaConf.create(dict(told)))
    for logger in of_tensorboard(loggers):
        logger.experiment.add_text("config", "    " + text.replace("\n", "\n    "))  # indented: shown as it is


def log_pictures(loggers: Sequence[Logger], key: str, pictures: Mapping[str, Tensor], captions: Sequence[str], step: int = 0) -> None:
    """pictures (3, H, W) uint8 by name."""
    arrays = [p.permute(1, 2, 0).numpy() for p in pictures.values()]
    for logger in of_wandb(loggers):
        logger.log_image(key, arrays, step, caption=list(captions))
    for logger in of_tensorboard(loggers):
        for name, pixels in pictures.items():
            logger.experiment.add_image(f"{key}/{name}", pixels, step)


def log_table(loggers: Sequence[Logger], key: str, table: pd.DataFrame) -> None:
    """As a table, of TensorBoard as text."""
    for logger in of_wandb(loggers):
        logger.log_table(key, dataframe=table)
    for logger in of_tensorboard(loggers):
        logger.experiment.add_text(key, markdown(table))


def log_result(loggers: Sequence[Logger], told: Mapping[str, Any], result: Mapping[str, float]) -> None:
    """The numbers by which runs are compared: the summary of a wandb run, TensorBoard's table of hyperparameters."""
    for logger in of_wandb(loggers):
        logger.experiment.summary.update(dict(result))
    for logger in of_tensorboard(loggers):
        logger.log_hyperparams(
            {k: v for k, v in told.items() if k not in ("anchor", "logger", "trainer")} | {"model": told["model"]["name"]}, dict(result)
        )


def close(loggers: Sequence[Logger], failed: bool = False) -> None:
    """End the wandb run, so that the next job of a sweep, in the same process, has one of its own."""
    for logger in of_tensorboard(loggers):
        logger.finalize("failed" if failed else "success")
    for _ in of_wandb(loggers):
        import wandb

        run = wandb.run
        if run is not None:
            where = f"{Path(run.dir).parent}; `wandb sync` uploads it" if run.offline else run.url
            run.finish(exit_code=int(failed))
            if not run.disabled:
                log.info(f"wandb: {where}")


def markdown(table: pd.DataFrame) -> str:
    """Numbers with 5 digits."""

    def shown(value: Any) -> str:
        return f"{value:.5g}" if isinstance(value, float) else str(value).replace("|", "\\|")

    rows = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(shown, row)) + " |" for row in rows)
