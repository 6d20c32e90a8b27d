"""The documentation's site: pages in Markdown as they are on GitHub, and a reference that is read from docstrings.

Docstrings here are plain text: shapes such as (B, 3, H, W), formulas, names in backticks. `as_restructured` writes
them as what Sphinx reads, so that `**keys` or `y_hat` are not taken for markup.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from lc_bench import __version__  # noqa: E402 (found by the line above)

project = "lc_bench"
version = release = __version__
html_title = f"lc_bench {__version__}"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"font-stack": "system-ui, sans-serif", "font-stack--monospace": "ui-monospace, monospace"},
}
templates_path: list[str] = []
exclude_patterns = ["_build"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
smartquotes = False
myst_heading_anchors = 3  # links such as models.md#weights, as GitHub resolves them

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 100
add_module_names = False
# Nothing is fetched while the site is built, so names of other projects stay plain text.
nitpick_ignore_regex = [(r"py:.*", r"(?!lc_bench).*"), (r"py:.*", r".*\._\w+")]

MARKUP = re.compile(r"([\\*|]|_(?=\W|$))")


def as_restructured(lines: list[str]) -> list[str]:
    """Plain text -> reStructuredText: `code` becomes a literal, other marks are escaped, deeper lines become code."""
    out: list[str] = []
    for line in lines:
        indented = line[:1] == " "
        if indented and not out[-1]:
            out += ["::", ""] if out[-2:-1] != ["::"] else []
        code = indented and (out[-1] == "" or out[-1][:1] == " ")
        out.append(line if code else inline(line))
    return out


def inline(line: str) -> str:
    """One line of running text."""
    parts = re.split(r"`+([^`]*)`+", line)
    return "".join(f"``{part}``" if place % 2 else MARKUP.sub(r"\\\1", part) for place, part in enumerate(parts))


def on_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_restructured(lines)


def on_signature(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> tuple[str, str] | None:
    """A protocol is not called; fields that a dataclass makes anew show as `...`, and their types by their last names."""
    if what == "class" and getattr(obj, "_is_protocol", False):
        return "", returns
    if signature is not None and "<factory>" in signature:
        return re.sub(r"~(?:\w+\.)*", "", signature).replace("<factory>", "..."), returns
    return None


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("autodoc-process-signature", on_signature)
