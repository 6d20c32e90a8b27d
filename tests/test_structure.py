"""Who may import whom, and that nothing of the field's reference library is needed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "lc_bench"
# A part may import those listed before it in its line, and itself. errors and ops are open to all.
LAYERS = [
    "coding",
    "entropy",
    "codecs",
    "models",
    "task",
    "callbacks",
    "selection",
    "bench",
    "report",
    "trained",
    "api",
    "tracking",
    "runs",
    "__main__",
]
LEAVES = {"layers": set(), "metrics": set(), "data": set(), "losses": {"metrics"}}
OPEN = {"errors", "ops"}
EXTRA = {
    "models": {"layers"},  # to say how the reference implementation keeps them
    "task": {"data", "losses"},
    "bench": {"data", "metrics"},
    "report": {"metrics"},
    "trained": {"config", "layers"},
    "api": {"config"},
    "tracking": {"config", "data", "metrics"},
    "runs": {"config", "data"},
    "__main__": {"config"},
}


def imports(path: Path) -> set[str]:
    """Parts of lc_bench that a file imports."""
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = depth - node.level
            base = list(path.relative_to(PACKAGE).parts[:above]) + (node.module or "").split(".")
            named = [part for part in base if part]
            found |= {named[0]} if named else {alias.name for alias in node.names}
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_keep_their_order(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part in OPEN | {"config", "__init__"}:
        assert imports(path) <= OPEN | {part} | ({"api"} if part == "__init__" else set())
        return
    if part in LEAVES:
        assert imports(path) <= OPEN | LEAVES[part] | {part}
        return
    below = set(LAYERS[: LAYERS.index(part) + 1])
    assert imports(path) <= below | OPEN | EXTRA.get(part, set())


def test_no_file_is_long_and_every_file_opens_with_its_idea() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 400, path
        assert path.name == "__init__.py" or ast.get_docstring(ast.parse(text)), path


def test_the_reference_library_is_not_imported() -> None:
    for path in (*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not any(n.startswith("compressai") for n in names), path
