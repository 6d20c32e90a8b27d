"""Configuration: where the YAML files are, what they may compute, and what a wrong choice says.

YAML wires, Python computes: besides Hydra's own interpolation there are five resolvers. `${by_quality:a,b,...}` picks the
entry of the chosen quality (1 is the first; of a model of variable rate the last), `${by_level:a,b,...}` does too, but gives
a model of variable rate one value for each of its levels, from the first to the last; `${scaled:n,a,b}` is n * a // b,
`${sum:a,b,...}` adds, `${split_of:train,test}` is that of the splits there are which the run asks for.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import math
import os
import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from .errors import UserError, closest, unknown
from .ops.composing import composed_once, files_and_values, with_values
from .ops.paths import disk_fault

DEFAULT_QUALITY = 3


def conf_dir() -> Path:
    """The installed copy of conf/, or the one beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def is_variable(cfg: DictConfig) -> bool:
    """Whether the model has levels, and is not in its first stage of training, which is of one rate."""
    return bool(cfg.model.get("levels")) and cfg.model.get("stage") != 1


def _by_quality(*values: Any, _root_: DictConfig) -> Any:
    quality, name = _root_.quality, _root_.model.name
    if is_variable(_root_):
        return values[-1]
    allowed = f"{name} has qualities 1..{len(values)}"
    if isinstance(quality, bool) or not isinstance(quality, int):
        raise UserError(f"quality={quality}: one is needed here; {allowed}")
    if not 1 <= quality <= len(values):
        raise UserError(f"quality={quality}: {allowed}. Each is one published operating point")
    return values[quality - 1]


def _by_level(*values: Any, _root_: DictConfig) -> Any:
    if not is_variable(_root_):
        return _by_quality(*values, _root_=_root_)
    levels = _root_.model.levels
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
        raise UserError(f"model.levels={levels}: a model of variable rate has 2 levels or more")
    return spread_over(values, levels)


def spread_over(values: Sequence[float], levels: int) -> list[float]:
    """So many values from the first to the last, between them interpolated in the logarithm; as many as there are: as they are."""
    if levels == len(values):
        return list(values)
    spread = [float(values[0])]
    for level in range(1, levels):
        place = level * (len(values) - 1) / (levels - 1)
        below = min(int(place), len(values) - 2)
        part = place - below
        spread.append(math.exp((1 - part) * math.log(values[below]) + part * math.log(values[below + 1])))
    return spread


def _from_level(otherwise: Any, *, _root_: DictConfig) -> Any:
    """The quality of the chosen level, or of each: one more. Without a level, what stands there."""
    level = _root_.get("level")
    if OmegaConf.is_list(level):
        return [_above(one) for one in level]
    return otherwise if level is None else _above(level)


def _above(level: Any) -> Any:
    if isinstance(level, bool) or not isinstance(level, int | float):
        raise UserError(f"level={typed(level)}: give a number from 0, the lowest rate, to the model's highest level, such as level=2.5")
    return level + 1


# What stands in for a split that a set has not: a run says `test` for what is measured, `train` for what is learned from.
STANDS_IN = {"test": ("val",), "train": ("test",), "held": ("val", "test")}


def _split_of(*names: str, _root_: DictConfig) -> str:
    """run.split, one of the names or several joined by +; for a role of which a set has no split of its own, the one that stands in."""
    wanted = str(OmegaConf.select(_root_, "run.split") or "test")
    if all(part in names for part in wanted.split("+")):
        return wanted
    for other in STANDS_IN.get(wanted, ()):
        if other in names:
            return other
    raise unknown("run.split", wanted, names, "Those are the splits of this data set.")


NAMED_FIRST = ("model", "data", "rate", "quality")  # a job's folder is named by these where they are given, swept or not


def given_in(overrides: Iterable[str]) -> dict[str, str]:
    """Values by key, as a command line has them."""
    parts = [word.lstrip("+~").partition("=") for word in overrides]
    return {key: value for key, _, value in parts}


def job_folder(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """A job's folder in a sweep, such as `model-mbt2018+quality-3`: by what was chosen, so that a wider sweep finds it again.

    Its characters stand for themselves in shells and in Hydra's grammar; a name that is cut or altered ends in a hash.
    """
    given = given_in(overrides)
    keys = [k for k in NAMED_FIRST if k in given] + sorted(k for k in swept if k in given and k not in NAMED_FIRST)
    whole = "+".join(f"{key}-{given[key]}" for key in keys) or "job"
    name = re.sub(r"[^\w.+-]+", "_", whole, flags=re.ASCII)[:100]
    return name if name == whole else f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _job_folder(*, _root_: DictConfig) -> str:
    """In a launcher's worker, where LC_BENCH_SWEEP lists what is swept."""
    hydra = _root_.hydra
    return job_folder(hydra.overrides.task, str(hydra.job.env_set.get("LC_BENCH_SWEEP", "")).split(","))


OmegaConf.register_new_resolver("job_folder", _job_folder, replace=True)
OmegaConf.register_new_resolver("by_quality", _by_quality, replace=True)
OmegaConf.register_new_resolver("by_level", _by_level, replace=True)
OmegaConf.register_new_resolver("from_level", _from_level, replace=True)
OmegaConf.register_new_resolver("split_of", _split_of, replace=True)
OmegaConf.register_new_resolver("sum", lambda *terms: sum(map(int, terms)), replace=True)
OmegaConf.register_new_resolver("scaled", lambda n, times, over: int(n) * int(times) // int(over), replace=True)


def own_conf_dir() -> Path | None:
    """A user's folder of configurations beside ours: LC_BENCH_CONF, which the command's --config-dir sets."""
    given = os.environ.get("LC_BENCH_CONF")
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UserError(f"LC_BENCH_CONF={given}: no such folder. Give one with groups as in {conf_dir()}, such as model/mine.yaml")
    return folder.resolve()


def conf_dirs() -> list[Path]:
    own = own_conf_dir()
    return [conf_dir(), *([own] if own else [])]


def groups() -> list[str]:
    """Names of what can be chosen: model, data, ..."""
    return sorted({p.name for folder in conf_dirs() for p in folder.iterdir() if p.is_dir()})


def choices(group: str) -> list[str]:
    """Names in conf/GROUP, ours and the user's."""
    return sorted({p.stem for folder in conf_dirs() for p in (folder / group).glob("*.yaml")})


_composing = threading.RLock()  # Hydra keeps what it composes with in the process


def compose(*overrides: str, with_own: bool = True) -> DictConfig:
    """The configuration that `python -m lc_bench OVERRIDES` would run with; UserError for what does not exist.

    with_own: look into a user's folder of configurations too.
    """
    with _composing:
        own = own_conf_dir() if with_own else None
        # A user's files may take others from anywhere.
        parted = None if own else files_and_values(overrides, conf_dir())
        if parted is not None:
            files, values = parted
            with contextlib.suppress(Exception):  # composing all of it says what is wrong
                once = composed_once(files, conf_dir(), lambda: _compose(*files, own=None))
                return with_values(once, values)
        return _compose(*overrides, own=own)


def _compose(*overrides: str, own: Path | None) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton

    state = Singleton.get_state()  # this may run inside a job of Hydra's, ours or the user's
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            return hydra_compose("config", [*overrides, *([f"hydra.searchpath=[file://{own}]"] if own else [])])
    except Exception as error:
        raise explain(error, overrides) from None
    finally:
        Singleton.set_state(state)


def make(node: Any, **arguments: Any) -> Any:
    """Build what a node's `_target_` names; a UserError inside comes out as it is."""
    from hydra.utils import instantiate

    try:
        return instantiate(node, **arguments)
    except Exception as error:
        raise explain(error) from None


def check_choice(group: str, name: str) -> None:
    if name not in choices(group):
        raise unknown(group, name, choices(group))


def explain(error: BaseException, arguments: Sequence[str] = ()) -> BaseException:
    """A UserError with one line for what libraries report about a user's choice; any other error as it is.

    arguments: of the command line, whose choices of groups tell which keys there are.
    """
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return _without_traceback(cause)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    absent = re.search(r"[Mm]issing mandatory value: (\S+)", text)
    if absent:
        return UserError(f"{absent[1]}: has to be given, as {absent[1]}=...")
    if isinstance(error, MissingConfigException) or "Could not find" in text:
        found = re.search(r"Could not find '([^'/]+)/([^']+)'", text)
        if found and found[1] == "hydra":
            group, _, choice = found[2].rpartition("/")
            return UserError(f"hydra/{group}={choice}: not here. basic always is, the others come with pip install 'lc_bench[sweep]'")
        if found:
            return unknown(found[1], found[2], choices(found[1]))
    if isinstance(error, ConfigCompositionException | HydraException):
        found = re.search(r"Could not override '([^']+)'", text)
        return (
            _unknown_key(found[1], arguments)
            if found
            else UserError(text + (f" ({' '.join(str(error.__cause__).split())})" if error.__cause__ else ""))
        )
    if isinstance(error, YAMLError | UnicodeDecodeError):
        return _not_yaml(error)
    if isinstance(error, OmegaConfBaseException) or type(error).__name__ == "MisconfigurationException":
        return UserError(text)
    return disk_fault(error) or error


def _not_yaml(error: YAMLError | UnicodeDecodeError) -> BaseException:
    """The YAML file that cannot be read, and where; the error as it is if there is none."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return UserError(f"{mark.name}: line {mark.line + 1}, column {mark.column + 1}: not YAML ({error.problem})")
    if isinstance(error, YAMLError):
        return UserError(f"a configuration is not YAML ({' '.join(str(error).split())})")
    for folder in conf_dirs():
        for path in sorted(folder.rglob("*.yaml")):
            if error.object[:64] in path.read_bytes():
                return UserError(f"{path}: not text in UTF-8 ({error.reason}, byte {error.start})")
    return error


def _without_traceback(error: UserError) -> UserError:
    """A data loader's worker hands an error on with its traceback as text: keep what it said."""
    text = str(error)
    if "Original Traceback" not in text:
        return error
    return UserError(text.strip().rpartition("UserError: ")[2].replace("\n", " "))


def _unknown_key(key: str, arguments: Sequence[str]) -> UserError:
    """A key that no file has: list those beside it, in the configuration that the other choices give."""
    # of a sweep over models the first; "(": Hydra's choice(...)
    chosen = [a if "[" in a else a.partition(",")[0] for a in arguments if a.partition("=")[0] in groups() and "(" not in a]
    return unknown_key(key, compose(*chosen))


def unknown_key(key: str, config: DictConfig) -> UserError:
    """Of a key such as run.stepz: which are beside it, and which key, here or elsewhere, is meant."""
    parent, _, name = key.rpartition(".")
    inside = OmegaConf.select(config, parent) if parent else config
    beside = {str(k) for k in inside} if OmegaConf.is_dict(inside) else set()
    listed: list[str] = sorted(beside | set(() if parent else groups()))
    if not listed:
        return UserError(f"{key}=...: not known; {parent} has no keys. {_meant(key, _keys_of(config))}".rstrip())
    near = closest(name, listed)
    told = _meant(key, _keys_of(config))
    if near and not told:
        told = f"Did you mean {f'{parent}.{near}' if parent else near}?"
    return UserError(" ".join(filter(None, [f"{key}=...: not known.", told, f"There are: {', '.join(listed)}."])))


def _meant(key: str, paths: Sequence[str]) -> str:
    """The question whether the key of that name in another place is meant; nothing where there is none."""
    by_name = {path.rpartition(".")[2]: path for path in reversed(paths)}
    found = by_name.get(key.rpartition(".")[2])
    return f"Did you mean {found}?" if found else ""


def _keys_of(config: DictConfig) -> list[str]:
    """Keys of the configuration and of its groups, such as seed and run.steps; what lies deeper is left out."""
    paths = [str(key) for key in config]
    for name in list(paths):
        inside = None if OmegaConf.is_missing(config, name) or OmegaConf.is_interpolation(config, name) else config[name]
        if OmegaConf.is_dict(inside):
            paths += [f"{name}.{key}" for key in inside or ()]
    return paths


def qualities_of(cfg: DictConfig) -> list[float]:
    """The qualities to run: `quality` is a number, a list, or `all`. A model of variable rate also has those between."""
    check_level(cfg)
    quality = cfg.quality
    count = cfg.model.qualities
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        key = "levels" if "levels" in cfg.model else "qualities"
        raise UserError(f"model.{key}={typed(count)}: give a whole number, of levels 2 or more")
    listed = list(range(1, count + 1)) if quality == "all" else quality
    listed = [listed] if isinstance(listed, int | float) else listed
    if (not OmegaConf.is_list(listed) and not isinstance(listed, list)) or not listed:
        raise UserError(f"quality={typed(quality)}: give one of 1..{count}, a list such as quality=[1,3], or all")
    between = is_variable(cfg)
    for q in listed:
        if between and isinstance(q, float) and 1 <= q <= count:
            continue
        if isinstance(q, bool) or not isinstance(q, int) or not 1 <= q <= count:
            raise UserError(f"quality={typed(q)}: {cfg.model.name} has qualities 1..{count}. Each is one published operating point")
    return list(dict.fromkeys(listed))


def check_level(cfg: DictConfig) -> None:
    """UserError for a level of a model that has none, one out of bounds, or one beside a quality."""
    level = cfg.get("level")
    if level is None:
        return
    if not OmegaConf.is_interpolation(cfg, "quality"):
        raise UserError(f"level={level} and quality={cfg.quality}: give one of them; level 0 is quality 1")
    if not is_variable(cfg):
        raise UserError(f"level={level}: {cfg.model.name} has one rate; give a quality of 1..{cfg.model.qualities}")
    highest = cfg.model.qualities - 1
    for one in level if OmegaConf.is_list(level) else [level]:
        _above(one)
        if not 0 <= one <= highest:
            raise UserError(f"level={one}: {cfg.model.name} has levels 0 (the lowest rate) to {highest}, and all between")


def quoted(text: str) -> str:
    """As an override has a text that stands for itself, whatever characters it is of."""
    plain = text.replace("${", "\\${")
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), plain)
    return f"'{escaped}'"


def literal(value: Any) -> str:
    """A value of Python's as an override has it: text in quotes, but a list or mapping in brackets as it is; None as null."""
    if isinstance(value, str | Path):
        text = str(value)
        return text if text.startswith(("[", "{", "${")) and not isinstance(value, Path) else quoted(text)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(literal, value))}]"
    return str(typed(value))


def typed(value: Any) -> Any:
    """None, True and False as they are typed on a command line; others as they are."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else value


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models of conf/model, ours and a user's, that fit the pattern, such as "mbt2018*"."""
    return [name for name in choices("model") if fnmatch.fnmatchcase(name, pattern)]


def plain(value: Any) -> Any:
    """A list or mapping of the configuration as Python's own."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def at_quality(cfg: DictConfig, quality: float) -> DictConfig:
    """A copy of the configuration in which `quality` is that number."""
    copy = cfg.copy()
    copy.quality = quality
    copy.level = None  # which said the same
    return copy
