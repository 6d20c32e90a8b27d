"""What the README and the notebook tell, runs."""

from __future__ import annotations

import json
import re
import shlex

from conftest import ROOT


def test_readme_python_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)
    assert names["x_hat"].shape == names["x"].shape  # type: ignore[attr-defined]


def test_readme_commands_compose() -> None:
    """Every `python -m lc_bench` of the README names things that exist."""
    from lc_bench.__main__ import check_overrides
    from lc_bench.config import compose

    lines = re.findall(r"python -m lc_bench ([^\n`#]+)", (ROOT / "README.md").read_text())
    assert len(lines) >= 4
    for line in lines:
        check_overrides(line.split())
        compose(*line.split())


def test_commands_of_sweeps_compose() -> None:
    """Of a sweep, the first of each list of values; a search's space names keys that exist."""
    from lc_bench.config import compose
    from lc_bench.runs.space import parse_space

    lines = re.findall(r"^    python -m lc_bench (.+)$", (ROOT / "docs" / "sweeps.md").read_text(), re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)
        sweep = "-m" in words
        cfg = compose(*(word.partition(",")[0] if sweep else word for word in words if word != "-m"))
        for key, values in parse_space(cfg.run.space).items() if "space" in cfg.run else ():
            given = [
                word
                for word in words
                if word.partition("=")[0] not in ("run", "run.space", "run.trials", "run.name", "run.objective", "run.jobs")
            ]
            assert [compose("run=train", *given, f"{key}={value}") for value in values.samples]


def test_links_and_pictures_are_there() -> None:
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_notebooks_run() -> None:
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for notebook in notebooks:
        names: dict[str, object] = {}
        for cell in json.loads(notebook.read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)


def test_make_help_lists_the_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):.*##", text, re.MULTILINE)
    assert {"setup", "bench", "test", "check"} <= set(targets)
