"""Where a run comes from: its configuration, the versions, and the state of the user's own repository. Never the environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .. import __version__

PATIENCE = 10  # seconds for git, on a slow network drive


def told_of(cfg: DictConfig, folder: Path | None = None) -> dict[str, Any]:
    """The resolved configuration, with `versions` and, if `folder` (the working folder) is in a repository, `git` beside it.

    Of several qualities, groups that depend on the quality are told as they are written.
    """
    told = {str(group): _resolved(cfg, str(group)) for group in cfg}
    state = git_state(folder or Path.cwd())
    return {**told, "versions": {"lc_bench": __version__, "torch": str(torch.__version__)}, **({"git": state} if state else {})}


def _resolved(cfg: DictConfig, group: str) -> Any:
    try:
        value = cfg[group]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:
        whole = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(whole, dict)
        return whole[group]


def git_state(folder: Path) -> dict[str, Any]:
    """commit, branch, and dirty: whether a file that git knows was changed since. Empty outside of repositories and without git.

    Files that git does not know do not count: the outputs of runs would make every second run dirty.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if not commit or changed is None:
        return {}
    return {"commit": commit, "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"), "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, None if it fails or is not there."""
    own = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # looks on, and never makes a user's own git command wait
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=PATIENCE, env=own)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
