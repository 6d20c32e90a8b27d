"""What the README and the pages of docs/ tell, runs; and the site is built without a warning."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from lc_bench.__main__ import check_overrides, main
from lc_bench.config import compose

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A block under a file's name in bold is that file; a block of `python` without one runs, one of `py` is an excerpt.
FILE = re.compile(r"^\*\*`([\w./-]+)`\*\*\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
SCRIPT = re.compile(r"(?<!`\*\*\n\n)^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"python -m lc_bench ([^\n`#]+)")
# What makes a command short enough for a test, by what it runs.
TINY = {
    "bench": ["run.images=1", "quality=3", "anchor=[jpeg]"],
    "train": ["run.steps=2", "run.batch=2", "run.crop=64", "run.workers=0", "device=cpu", "logger=[]"],
}
WIDTHS = ["model.N=8", "model.M=12"]
SMALL = {
    "groups3": ["model.N=8", "model.M=24", "model.groups=[8,8,8]"],
    **dict.fromkeys(("swish", "halves", "mbt2018-mean"), WIDTHS),
}


def commands(page: Path) -> list[list[str]]:
    return [shlex.split(line) for line in COMMAND.findall(page.read_text())]


def named(words: list[str], key: str, default: str = "") -> str:
    return next((w.partition("=")[2] for w in words if w.startswith(f"{key}=")), default)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to call from, with photographs in it; what a command sets of the environment is undone."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), np.uint8)
    for place in ("photos/{}.png", "data/textures/train/{}.png", "data/textures/test/{}.png", "data/bsds500/train/{}.jpg"):
        (tmp_path / place).parent.mkdir(parents=True)
        for i, image in enumerate(pixels):
            Image.fromarray(image).resize((200, 190)).save(tmp_path / place.format(i))
    Image.fromarray(pixels[0]).resize((200, 190)).save(tmp_path / "photo.png")
    np.save(tmp_path / "images.npy", pixels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LC_BENCH_CONF", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def save_files(page: Path, project: Path) -> list[str]:
    """The files that a page shows, in the project; names of the modules among them."""
    for name, text in FILE.findall(page.read_text()):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    return [path.stem for path in project.glob("*.py")]


@pytest.fixture
def forget() -> Iterator[list[str]]:
    """Modules that a test imported from its project."""
    names: list[str] = []
    yield names
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("page", [p for p in PAGES if SCRIPT.search(p.read_text()) and p.name != "adding.md"], ids=lambda p: p.name)
def test_python_runs(page: Path, project: Path) -> None:
    for block in SCRIPT.findall(page.read_text()):
        names: dict[str, object] = {}
        exec(block, names)
        if "x_hat" in names:
            assert names["x_hat"].shape == names["x"].shape  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_compose(page: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `python -m lc_bench` of a page names things that exist, its own files among them."""
    save_files(page, project)
    if (project / "conf").is_dir():
        monkeypatch.setenv("LC_BENCH_CONF", str(project / "conf"))
    for words in commands(page):
        overrides = [w for w in words if "=" in w and not w.startswith("-")]
        check_overrides(overrides)
        compose(*(first_of(w) if {"-m", "--multirun"} & set(words) else w for w in overrides))


def test_spaces_of_searches_name_keys_that_exist() -> None:
    from lc_bench.runs.space import parse_space

    searches = [words for words in commands(ROOT / "docs" / "sweeps.md") if named(words, "run") == "search"]
    assert searches
    own = {"run", "run.space", "run.trials", "run.name", "run.objective", "run.jobs"}
    for words in searches:
        given = [word for word in words if word.partition("=")[0] not in own]
        for key, values in parse_space(compose(*words).run.space).items():
            assert [compose("run=train", *given, f"{key}={value}") for value in values.samples]


def first_of(override: str) -> str:
    """The first of what a sweep goes over: `quality=1,2` -> `quality=1`."""
    return override if "[" in override or "(" in override else override.partition(",")[0]


def test_what_is_added_runs(project: Path, forget: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "adding.md"
    forget += save_files(page, project)
    for words in commands(page):
        run_command(monkeypatch, [w.replace("data=kodak", "data=textures") for w in words])
    monkeypatch.setenv("LC_BENCH_CONF", str(project / "conf"))
    for block in SCRIPT.findall(page.read_text()):
        exec(block, {})
    assert len(list(project.glob("outputs/**/index.html"))) == 4
    assert (project / "outputs/groups3/model.safetensors").is_file()


def test_guide_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the guide, one after the other; but for those that download, which compose, and sweeps, which have their tests."""
    for words in commands(ROOT / "docs" / "guide.md"):
        if words[0] not in ("--help", "--cfg", "-m") and not {"data=kodak", "run.val=kodak"} & set(words):
            run_command(monkeypatch, words)
    assert (project / "outputs/photos/index.html").is_file()
    assert (project / "mine.png").is_file()
    assert sorted(p.name for p in (project / "back").iterdir()) == sorted(p.name for p in (project / "photos").iterdir())


@pytest.mark.parametrize("experiment", sorted(p.stem for p in (ROOT / "conf" / "experiment").glob("*.yaml")))
def test_recipes_run(experiment: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of each, on other data; of one that leaves the model open, of mbt2018-mean."""
    settings = compose("run=train", f"experiment={experiment}", "quality=3")
    data = ["data=shapes"] if "num_points" in settings.model else ["data=folder", "data.path=photos"]
    model = ["model=mbt2018-mean"] if experiment == "zoo" else []
    run_command(monkeypatch, ["run=train", f"experiment={experiment}", "quality=3", *data, *model, "output=outputs/made"])
    assert (project / "outputs/made/model.safetensors").is_file()


def test_tables_of_recipes_are_as_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import tables

    assert tables.filled(tables.PAGE.read_text()) == tables.PAGE.read_text(), "python docs/tables.py writes them anew"


def run_command(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """As told, but short: `TINY` and `SMALL` say how. What a sweep goes over, and anchors that are named, stay."""
    extra = [*TINY.get(named(words, "run", "bench"), []), *SMALL.get(named(words, "model").partition(",")[0], [])]
    kept = {key for key in ("quality", "anchor") if first_of(named(words, key)) != named(words, key) or "[jpeg" in named(words, key)}
    extra = [w for w in extra if w.partition("=")[0] not in kept]
    replaced = {w.partition("=")[0] for w in extra}
    monkeypatch.setattr(sys, "argv", ["lc_bench", *(w for w in words if w.partition("=")[0] not in replaced), *extra])
    main()


def test_links_and_pictures_are_there() -> None:
    for page in (*PAGES, ROOT / "CHANGELOG.md", *(ROOT / "docs/api").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_help_lists_the_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):.*##", text, re.MULTILINE)
    assert {"setup", "bench", "test", "check", "docs"} <= set(targets)


def test_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo", reason="the site needs the extra `docs`")
    pytest.importorskip("myst_parser", reason="the site needs the extra `docs`")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-d", str(tmp_path / "kept")]
    done = subprocess.run([*command, "docs", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("index", "guide", "concepts", "adding", "recipes", "api/index", "api/coding"):
        assert (tmp_path / "site" / f"{name}.html").is_file()
    reference = (tmp_path / "site" / "api" / "index.html").read_text()
    for name in ("load", "build", "compress", "decompress", "benchmark", "load_reference_state", "export_decoder", "export_coder"):
        assert f'id="lc_bench.{name}"' in reference
