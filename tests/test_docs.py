"""What the README tells, runs."""

from __future__ import annotations

import re

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


def test_links_and_pictures_are_there() -> None:
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_help_lists_the_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):.*##", text, re.MULTILINE)
    assert {"setup", "bench", "test", "check"} <= set(targets)
