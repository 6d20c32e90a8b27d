"""Paths as people have them reach the run with the text that they have."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import call, refused
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image

from lc_bench.errors import UserError
from lc_bench.runs.arguments import in_grammar

NAMES = [
    *("été.png", "photo (1).png", "a=b.png", "it's.png", 'a"b.png', "a,b.png", "[a].png", "#1.png", "{b}", "$c", "100%", "a&b;c|d", "x\\y"),
    *(
        "2024",
        "001",
        "1e5",
        "0x10",
        "1_000",
        "NA",
        "null",
        "true",
        "None",
        "nan",
        "[set]",
        "-1",
        ".5",
        "blank ",
        " blank",
        "a\tb",
        "日本",
        "Mu\u0308",
    ),
    *(
        "choice(a,b)",
        "'quoted'",
        '"q"',
        "a:b",
        "${x}",
        "\\",
        "it's \\' \\",
        "a.png,b.png",
        "caf\udce9.png",
        "!x",
        "^",
        "`",
        "<>",
        "@",
        "x*?",
    ),
]
TINY = ["model=bmshj2018-factorized", "quality=1", "weights=none", "model.N=8", "model.M=8", "threads=1"]


def arrived(*arguments: str) -> object:
    """What the last argument's value is when a run reads it."""
    override = OverridesParser.create().parse_override(in_grammar(list(arguments))[-1])
    value = override.value()
    return OmegaConf.create({"key": str(value) if isinstance(value, str) else value, "x": "y"}).key


@pytest.mark.parametrize("name", NAMES)
def test_paths_keep_their_text(name: str, here: Path) -> None:
    Path(name).touch()
    for key in ("input", "output", "data.path", "run.resume", "weights", "+run.val_data.path", "hydra.run.dir"):
        assert arrived(f"{key}={name}") == name, key
        assert arrived("-m", f"{key}={name}") == name, "in a sweep"
    Path(name).unlink()
    if "${" not in name and name[0] not in "'\"" and not name.startswith("choice("):
        assert arrived(f"output={name}") == name, "where it is not there yet"
    assert in_grammar([*in_grammar([f"input={name}"])]) == in_grammar([f"input={name}"]), "read twice, as jobs of a sweep are"


def test_what_is_not_meant_as_text_stays(here: Path) -> None:
    plain = ["run.resume=null", "weights=none", "inputs=[outputs/a,outputs/b]", "inputs={old:outputs/a,new:outputs/b}", "quality=[1,2]"]
    plain += [
        "output=outputs/${now:%Y-%m-%d}",
        'input="été.png"',
        "input='a b'",
        "--cfg",
        "job",
        "-m",
        "weights=a,b",
        "data.path=choice(a,b)",
    ]
    plain += [
        "--config-dir",
        "été (1)",
        "+data.path=photos",
        "~data.path",
        "output=",
        "run.to=decoder.pt",
        "seed=3",
        "hydra/launcher=joblib",
    ]
    for argument in plain:
        before = plain[: plain.index(argument)]
        assert sorted(in_grammar([*before, argument])) == sorted([*before, argument])


def test_lists_and_sweeps_of_paths(here: Path) -> None:
    assert arrived("inputs=[été,2024,b c,'d,e']") == ["été", "2024", "b c", "d,e"]
    assert arrived("inputs={alt:été,neu:2024}") == {"alt": "été", "neu": "2024"}
    assert arrived("inputs=été") == "été"
    (swept,) = in_grammar(["-m", "data.path=2024,été,plain"])[1:]
    assert [str(v) for v in OverridesParser.create().parse_override(swept).sweep_string_iterator()] == ["'2024'", "'été'", "plain"]


def test_home_folders(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jo (2)")
    assert arrived("data.path=~/photos") == "/home/jo (2)/photos"
    assert arrived("run.resume=~") == "/home/jo (2)"
    assert arrived("inputs=[~/a,~/b]") == ["/home/jo (2)/a", "/home/jo (2)/b"]
    assert arrived("input=a~b") == "a~b"


def test_other_values_say_how_to_quote(here: Path) -> None:
    with pytest.raises(UserError, match=r"""cannot be read .* quote it: 'logger.name="Versuch für A"'"""):
        in_grammar(["logger.name=Versuch für A"])
    with pytest.raises(UserError, match="key=value"):
        in_grammar(["kodak"])


def test_files_of_any_name_go_through(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.full((20, 30, 3), 99, np.uint8)
    os.mkdir("[2024] #1")
    for name in ("été (1).png", "[2024] #1/it's.png", "caf\udce9.png"):
        with open(name, "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
        call(monkeypatch, "run=compress", f"input={name}", *TINY)
        assert Path(name).with_suffix(".lcb").is_file()
    call(monkeypatch, "run=compress", "input=[2024] #1/*.png", "output=coded", *TINY)
    assert Path("coded/it's.lcb").is_file()
    told = refused(monkeypatch, capsys, "run=compress", "input=a.png,b.png", "output=c.lcb", *TINY)
    assert "input=a.png,b.png: no such file or folder" in told[0]


@pytest.mark.parametrize(
    ("argument", "words"),
    [("=3", "without a key"), ("threads=99999999999", "from 1 to 4096"), ("input=", "has to be given"), ("output=a.png", "give a folder")],
)
def test_what_is_no_setting(
    argument: str, words: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing where a path is asked for, a file where several are written, more threads than there can be."""
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(here / name)
    (told,) = refused(monkeypatch, capsys, "run=compress", f"input={here}", argument)
    assert words in told


def test_options_may_stand_amid_overrides() -> None:
    given = ["run=train", "--config-dir", "my conf", "quality=1,2", "-m", "data=kodak"]
    assert in_grammar(given) == ["--config-dir", "my conf", "-m", "run=train", "quality=1,2", "data=kodak"]
    assert in_grammar(["a=b", "--config-dir=c", "d=e"]) == ["--config-dir=c", "a=b", "d=e"]
    assert in_grammar(["a=b", "--cfg", "job", "d=e"]) == ["--cfg", "job", "a=b", "d=e"]
    assert in_grammar(["--info", "a=b"]) == ["--info", "a=b"]
    assert in_grammar(["a=b", "--info", "defaults"]) == ["--info", "defaults", "a=b"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# @package _global_\nrun:\n  steps: 3\n bad: [\n", r"mine\.yaml: line 4, column 2: not YAML"),
        (b"# @package _global_\ndata:\n  path: !!python/object/apply:os.system [ls]\n", r"mine\.yaml: line 3, column 9: not YAML"),
        (b"seed: caf\xe9\n", r"mine\.yaml: not text in UTF-8"),
        (b"# @package _global_\nrun: 3\n", "^lc_bench: run=3: has to have keys"),
        (b"# @package _global_\nscheduler: 3\n", "^lc_bench: scheduler=3: has to have keys"),
    ],
)
def test_yaml_that_is_none(
    content: bytes, words: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's file with a slip is named, with the line."""
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "mine.yaml").write_bytes(content)
    monkeypatch.setenv("LC_BENCH_CONF", str(here / "conf"))
    (told,) = refused(monkeypatch, capsys, "run=models", "experiment=mine")
    assert re.search(words, told), told


@pytest.mark.parametrize("group", ["run", "model"])
def test_groups_that_every_run_has(group: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = refused(monkeypatch, capsys, f"~{group}", f"output={here / 'o'}")
    assert f"{group}: every run has one" in told


def test_one_published_curve_needs_no_list(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = refused(monkeypatch, capsys, "run.published=vtn", "run.anchors=false", f"output={here / 'o'}")
    assert "run.published=vtn: " in told
