"""The notebooks run from top to bottom, offline, and are kept without outputs."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
from conftest import ROOT
from forked import run_command
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"inside_a_bitstream": 2, "own_model": 2, "point_clouds": 2, "quickstart": 2}  # that a reader sees, at least
IN_KERNEL = "inside_a_bitstream"
# What Python does not show unless it is asked to.
HIDDEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def test_all_notebooks_are_here() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(PICTURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.metadata == {}, cell.id
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), cell.id


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (path.parent / target).exists(), target


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, without a network (downloads would fail at once) and without a display."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("DISPLAY", "LC_BENCH_SHARED", "LC_BENCH_DATA", "LC_BENCH_CONF"):
        monkeypatch.setenv(name, "")  # which also undoes what a notebook sets
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # the folders that notebooks make
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_notebook_runs_in_a_kernel(offline: Path) -> None:
    """One of them as a reader runs it; a kernel loads torch anew, so that the others run in this process."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{IN_KERNEL}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(offline)}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"], (
        "warnings are for a reader to see"
    )
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= PICTURES[IN_KERNEL]


@pytest.mark.parametrize("name", sorted(PICTURES.keys() - {IN_KERNEL}))
def test_notebooks_run(name: str, offline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Cell by cell, as a kernel does: what a cell ends with is shown, its figures are drawn, and nothing warns."""
    monkeypatch.setattr(subprocess, "run", partial(run_here, subprocess.run, offline / "told.txt"))
    names: dict[str, object] = {"__name__": "__main__"}
    pictures = 0
    plt.close("all")
    capsys.readouterr()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        for category in HIDDEN:
            warnings.simplefilter("ignore", category)
        for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                run_cell(cell.source, f"{name}, cell {cell.id}", names)
                for number in plt.get_fignums():
                    plt.figure(number).savefig(io.BytesIO())
                    pictures += 1
                plt.close("all")
    assert not warned, "warnings are for a reader to see"
    assert not capsys.readouterr().err
    assert pictures >= PICTURES[name]


def run_cell(source: str, place: str, names: dict[str, object]) -> None:
    """Run a cell. The value of an expression at its end is shown, in HTML if it can be."""
    tree = ast.parse(source, place)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, place, "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), place, "eval"), names)
        assert getattr(value, "_repr_html_", lambda: None)() or repr(value)


def run_here(real: Callable[..., Any], log: Path, command: list[str], **options: Any) -> Any:
    """subprocess.run, but for our own command, which a fork runs."""
    if "lc_bench" not in command:
        return real(command, **options)
    code, told = run_command(command[command.index("lc_bench") + 1 :], log)
    return subprocess.CompletedProcess(command, code, told, told)
