"""Numbers and words of a configuration: of the right type, in their range, and none under a key that nothing reads.

Hydra refuses an unknown key on the command line. One inside a user's YAML file (`run: {stepz: 3}`) it takes as it is; here it is told.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..config import compose, conf_dir, given_in, own_conf_dir
from ..errors import UserError, unknown
from .folders import kind_of


@dataclass(frozen=True)
class Number:
    """least: the lowest that is allowed, or with `above` the highest that is not; whole numbers may be written as 1e5."""

    least: float
    whole: bool = True
    above: bool = False
    null: bool = False
    most: float = math.inf

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.least == -math.inf:
            return kind + (", or null" if self.null else "")
        range_ = f"above {self.least:g}" if self.above else f"from {self.least:g} on"
        if self.most < math.inf:
            range_ = f"from {self.least:g} to {self.most:.12g}"
        return f"{kind} {range_}" + (", or null" if self.null else "")

    def taken(self, value: Any) -> Any:
        """The value as it is to be used; ValueError if it is not allowed."""
        if value is None and self.null:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError
        if self.whole and value != int(value):
            raise ValueError
        too_low = value <= self.least if self.above else value < self.least
        if too_low or value > self.most:
            raise ValueError
        return int(value) if self.whole else value


@dataclass(frozen=True)
class Word:
    allowed: tuple[Any, ...]

    def __str__(self) -> str:
        return ", ".join("null" if value is None else str(value).lower() for value in self.allowed)

    def taken(self, value: Any) -> Any:
        """The value, if it is one of those that are allowed: 1 is not true."""
        if not any(value == one and type(value) is type(one) for one in self.allowed):
            raise ValueError
        return value


# Groups and keys whose entries are checked where they are used.
FREE = ("hydra", "logger", "anchor", "callbacks", "trainer", "net", "reference_names")

COUNT = Number(1)
COUNT_OR_NULL = Number(1, null=True)
FROM_0 = Number(0)
ANY = Number(-math.inf, whole=False)
POSITIVE = Number(0, whole=False, above=True)
POSITIVE_OR_NULL = Number(0, whole=False, above=True, null=True)
COLUMNS = Number(3, most=64, null=True)  # float32 of a point
FLAG = Word((True, False))
HIGHEST_SEED = 2**32 - 1
HIGHEST_THREADS = 4096  # more than machines have cores; torch takes 32 bits, and ends the process where threads cannot be made

RULES: dict[str, Number | Word] = {
    "seed": Number(0, most=HIGHEST_SEED),
    "threads": Number(1, null=True, most=HIGHEST_THREADS),
    "overwrite": FLAG,
    "tile": Number(0, null=True),
    "cube": POSITIVE_OR_NULL,
    "points": COUNT_OR_NULL,
    "columns": COLUMNS,
    "run.steps": COUNT,
    "run.batch": COUNT,
    "run.crop": COUNT,
    "run.workers": FROM_0,
    "run.turn": Word(("none", "quarter", "z", "full")),
    "run.clip": POSITIVE_OR_NULL,
    "run.log_every": COUNT,
    "run.save_every": COUNT,
    "run.val_every": COUNT_OR_NULL,
    "run.quantiser": Word(("noise", "mixed", "round")),
    "run.round_from": Number(0, null=True),
    "run.compile": FLAG,
    "run.overfit": COUNT_OR_NULL,
    "run.images": COUNT_OR_NULL,
    "run.anchors": FLAG,
    "run.cache": FLAG,
    "run.trials": COUNT,
    "run.jobs": COUNT,
    "run.prune": Word((True, False, None)),
    "trainer.num_nodes": COUNT,
    "trainer.limit_val_batches": POSITIVE_OR_NULL,
    "trainer.deterministic": Word((True, False, "warn", None)),
    **dict.fromkeys(
        (f"trainer.{name}" for name in ("benchmark", "detect_anomaly", "sync_batchnorm", "enable_progress_bar", "enable_model_summary")),
        Word((True, False, None)),
    ),
    "trainer.accumulate_grad_batches": COUNT,
}
OF_DATA: dict[str, Number | Word] = {
    "points": COUNT_OR_NULL,
    "cube": POSITIVE_OR_NULL,
    "columns": COLUMNS,
    "smallest": COUNT,
    "every": COUNT,
    "area": COUNT,
    "seed": Number(0, most=HIGHEST_SEED),
    "recursive": FLAG,
    "cache": FLAG,
    "download": Word((True, False, None)),
    "on_error": Word(("fail", "skip")),
}
# Sizes of the models of ours, where they have them.
OF_MODELS: dict[str, Number | Word] = dict.fromkeys(
    ("N", "M", "psi", "channels", "z", "hidden", "features", "num_points", "k", "norm_groups"), COUNT
)
OF_TRAINING: dict[str, Number | Word] = {
    "optimizer.lr": POSITIVE,
    "scheduler.decay": FROM_0,
    "scheduler.warmup": FROM_0,
    "scheduler.steps": COUNT,
    "scheduler.T_max": COUNT,
    "scheduler.eta_min": Number(0, whole=False),
    "scheduler.gamma": POSITIVE,
}


# Names that Lightning, or projects with Lightning, have for keys of ours.
ALIASES = {
    "trainer.max_steps": "run.steps",
    "trainer.gradient_clip_val": "run.clip",
    "trainer.log_every_n_steps": "run.log_every",
    "trainer.val_check_interval": "run.val_every",
    "ckpt_path": "run.resume",
}


def check_groups(cfg: DictConfig) -> None:
    """UserError where the model or the run is left out, or where something else than keys stands for a group."""
    for group in ("run", "model"):
        if cfg.get(group) is None:
            raise UserError(f"{group}: every run has one; choose it as {group}=..., or leave ~{group} out")
    for group in ("run", "model", "data", "rate", "optimizer", "scheduler", "trainer"):
        value = cfg.get(group)
        if value is not None and not OmegaConf.is_dict(value):
            raise UserError(f"{group}={value}: has to have keys, as the files of conf/{group} do")


def take_aliases(cfg: DictConfig, given: Sequence[str] = ()) -> None:
    """Give our keys the values of their aliases, which become null. given: overrides of the command line, which come before files.

    UserError where it has both names.
    """
    commanded = given_in(given)
    trains = kind_of(cfg) in ("train", "search")
    for alias, key in ALIASES.items():
        value = OmegaConf.select(cfg, alias)
        if value is None:
            continue
        if not trains:
            raise UserError(f"{alias}={value}: of training, where it is {key}; this run has no such key")
        if alias in commanded and key in commanded:
            raise UserError(f"{alias}={value} and {key}={commanded[key]}: two names of one setting; give one of them")
        if alias in commanded or key not in commanded:
            OmegaConf.update(cfg, key, value)
        OmegaConf.update(cfg, alias, None)


def check_values(cfg: DictConfig, given: Sequence[str] = ()) -> None:
    """UserError for the first value that is not allowed. Whole numbers that were written as 1e5 become whole numbers.

    given: overrides of the command line; a split that only an experiment's file names is left alone by a set without splits.
    """
    apply(cfg, RULES)
    check_data(cfg)
    published = OmegaConf.select(cfg, "run.published")
    if isinstance(published, str):
        cfg.run.published = [published]
    elif "published" in cfg.run and not OmegaConf.is_list(published):
        raise UserError(f"run.published={'null' if published is None else published}: give a list of names, [] for none")
    usual = "train" if kind_of(cfg) in ("train", "search") else "test"
    split = given_in(given).get("run.split", usual)
    if split != usual and OmegaConf.is_dict(cfg.get("data")) and "split" not in cfg.data:
        raise UserError(f"run.split={split}: this data set has no splits; give the folder of that split, or leave run.split out")


def check_data(cfg: DictConfig, within: str = "data") -> None:
    """Of the data set at that key, if it is one of ours; others mean what they like by these names."""
    data = OmegaConf.select(cfg, within)
    if OmegaConf.is_dict(data) and str(data.get("_target_", "")).startswith("lc_bench."):
        apply(cfg, {f"{within}.{key}": rule for key, rule in OF_DATA.items()})


def check_training_values(cfg: DictConfig) -> None:
    """Those of the model, the loss, the optimiser and its schedule, at one quality."""
    apply(cfg, OF_TRAINING)
    is_ours = (conf_dir() / "model" / f"{cfg.model.name}.yaml").is_file()
    sizes = OF_MODELS if is_ours else {"N": COUNT, "M": COUNT}
    numbers = {key: rule for key, rule in sizes.items() if not OmegaConf.is_list(cfg.model.get(key))}  # lists are of stages
    apply(cfg, {f"model.{key}": rule for key, rule in numbers.items()})
    lmbda = OmegaConf.select(cfg, "rate.lmbda")
    if "rate" in cfg and "lmbda" in cfg.rate:
        listed = list(lmbda) if OmegaConf.is_list(lmbda) or isinstance(lmbda, list) else [lmbda]
        if not listed:
            raise UserError("rate.lmbda=[]: give a number above 0, or one for each level")
        for value in listed:
            _take("rate.lmbda", value, POSITIVE)
    for group in ("rate.loss", "optimizer", "scheduler"):
        check_arguments(cfg, group)


def check_arguments(cfg: DictConfig, group: str) -> None:
    """UserError for a word where what the node's `_target_` names has a number, or numbers, for its default: else found out late."""
    node = OmegaConf.select(cfg, group)
    if not OmegaConf.is_dict(node) or "_target_" not in node:
        return
    from hydra.utils import get_object

    try:
        parameters = inspect.signature(get_object(node._target_)).parameters
    except Exception:  # not there, or not written in Python: making it will tell
        return
    for name in map(str, node):
        default = parameters[name].default if name in parameters else None
        is_list = name == "milestones" or isinstance(default, tuple | list)
        if not is_list and (isinstance(default, bool) or not isinstance(default, int | float)):
            continue
        values = list(node[name]) if is_list and OmegaConf.is_list(node[name]) else [node[name]]
        for value in values:
            _take(f"{group}.{name}", value, ANY)


def apply(cfg: DictConfig, rules: Mapping[str, Number | Word]) -> None:
    """Check the keys that the configuration has."""
    for key, rule in rules.items():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if not OmegaConf.is_dict(node) or name not in node or OmegaConf.is_missing(node, name):
            continue
        value = _take(key, node[name], rule)
        if type(value) is not type(node[name]):
            node[name] = value


def _take(key: str, value: Any, rule: Number | Word) -> Any:
    try:
        return rule.taken(value)
    except ValueError:
        told = "null" if value is None else value
        raise UserError(f"{key}={told}: give {'one of ' if isinstance(rule, Word) else ''}{rule}") from None


def check_keys(cfg: DictConfig, chosen: Mapping[str, Any], given: Sequence[str]) -> None:
    """UserError for a key that only a user's YAML file has, and that nothing reads.

    chosen: of each group, as Hydra tells them; given: overrides of the command line, whose +key=value is meant.
    """
    if own_conf_dir() is None and not chosen.get("experiment"):
        return  # everything is from our own files and a command line that Hydra has checked
    groups = {group: choice for group, choice in chosen.items() if choice is not None and "/" not in group and "@" not in group}
    ours = [group for group, choice in groups.items() if group not in ("run", "experiment") and _is_ours(group, choice)]
    run = _run_like(cfg, chosen)
    if run is None:
        return
    known = compose(f"run={run}", *(f"{group}={_listed(groups[group])}" for group in ours), with_own=False)
    free = {*FREE, *(set(groups) - set(ours) - {"run"}), *(key.partition("@")[2] for key in chosen if "@" in key and "/base@" not in key)}
    meant = [word.lstrip("+").partition("=")[0] for word in given if word.startswith("+")]
    text = OmegaConf.to_yaml(cfg, resolve=False)
    for key, value, there in strange(cfg, known, free):
        is_meant = any(f"{key}.".startswith(f"{one}.") or one.startswith(f"{key}.") for one in meant)
        if not is_meant and not is_read(key, text):
            shown = "..." if OmegaConf.is_config(value) else value
            raise unknown(key, shown, there, "It is in a YAML file; +KEY=VALUE on the command line adds what nothing else knows.")


def is_read(key: str, text: str) -> bool:
    """Whether an interpolation of the configuration refers to the key, by its whole name or from beside it."""
    whole, own = re.escape(key), re.escape(key.rpartition(".")[2])
    return re.search(rf"\$\{{[^}}]*(?<![\w.]){whole}(?!\w)|\$\{{\.+{own}(?!\w)", text) is not None


def strange(cfg: DictConfig, known: DictConfig, free: Collection[str], prefix: str = "") -> Iterator[tuple[str, Any, list[str]]]:
    """(key, value, what there is) of the keys that are not known. What a node hands to its `_target_` is left to that, and what is
    under a name in `free` to who reads it.
    """
    names = set(map(str, known))  # `in` would leave out those that have to be given
    for name in map(str, cfg):
        if not prefix and name in free:
            continue
        key, value = f"{prefix}{name}", cfg._get_node(name)
        if name not in names:
            yield key, value, sorted(map(str, known))
            continue
        inner, within = _mapping(value), _mapping(known._get_node(name))
        if name in free or inner is None or within is None:
            continue
        if name == "run" or "_target_" not in within:
            yield from strange(inner, within, free, f"{key}.")


def _mapping(node: Any) -> DictConfig | None:
    """The node, if it is one with keys."""
    has_keys = isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation())
    return node if has_keys else None


def _run_like(cfg: DictConfig, chosen: Mapping[str, Any]) -> str | None:
    """The file of ours that does what this run does: itself, or the one that a user's own file of conf/run goes back to."""
    named = str(chosen.get("run"))
    files = sorted((conf_dir() / "run").glob("*.yaml"))
    if named in [path.stem for path in files]:
        return named
    target = re.compile(rf"^\s*_target_: {re.escape(str(cfg.run._target_))}\s*$", re.MULTILINE)
    return next((path.stem for path in files if target.search(path.read_text())), None)


def _is_ours(group: str, choice: Any) -> bool:
    names = [choice] if isinstance(choice, str) else list(choice or [])
    return all((conf_dir() / group / f"{name}.yaml").is_file() for name in names)


def _listed(choice: Any) -> str:
    return choice if isinstance(choice, str) else f"[{','.join(choice)}]"
