"""What a wrong name is told, what an editor sees of the package, and which values the keys at the top take."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, call, refused
from omegaconf import OmegaConf

import lc_bench
from lc_bench import config
from lc_bench.config import _compose, compose, conf_dir, literal, quoted
from lc_bench.errors import UserError, closest
from lc_bench.runs.arguments import in_grammar, text_of


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("mbt2018_mean", "mbt2018-mean"),
        ("MBT2018", "mbt2018"),
        ("mbt2018-maen", "mbt2018-mean"),
        ("lit", "lite"),
        ("vqgan", None),
        ("", None),
    ],
)
def test_the_name_that_was_meant(given: str, meant: str | None) -> None:
    assert closest(given, ["lite", "mbt2018-mean", "mbt2018"]) == meant


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=mbt2018_mean"], "Did you mean mbt2018-mean? There are: "),
        (["data=Kodac"], "Did you mean kodak?"),
        (["run=train", "run.step=5"], "Did you mean run.steps?"),
        (["images=5"], "Did you mean run.images?"),
        (["qualty=5"], "Did you mean quality?"),
        (["device=gpu", "run=models"], "device=gpu: not known. There are: auto"),
        (["model=null"], "model=null: not known. There are: bmshj2018"),
        (["data=[kodak]"], "data=[kodak]: takes one"),
        (["model="], "model=: not known"),
        (["weights=12", "run=check"], "weights=12: no such file. Allowed: auto, none"),
        (["weights=null", "run=check"], "weights=null: give auto"),
        (["weights={a:1}", "run=models"], "auto, none, or the path"),
        (["quality=null", "weights=none", "run=check"], "quality=null: give one of 1..8"),
        (["sweep=[a]", "run=models"], "sweep=['a']: give a folder"),
        (["level=8", "run=check"], "lite has levels 0 (the lowest rate) to 7"),
        (["level=2", "run=check", "model=mbt2018"], "mbt2018 has one rate; give a quality of 1..8"),
        (["level=2", "quality=3", "run=check"], "give one of them; level 0 is quality 1"),
        (["level=true", "run=check"], "level=true: give a number"),
        (["run._target_=os.system"], "os.system"),
        (["data._target_=subprocess.Popen", "weights=none"], "blocklisted"),
    ],
)
def test_wrong_names_and_values_are_one_line(
    arguments: list[str], words: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (told,) = refused(monkeypatch, capsys, *arguments)
    assert words in told


def test_groups_that_may_be_left_out(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "anchor=null", "logger=null", "scheduler=null", "experiment=null", "--cfg", "job")
    assert "anchor: {}" in capsys.readouterr().out or "anchor" not in capsys.readouterr().out


def test_one_rate_has_one_name_on_both_sides() -> None:
    small = {"M": 12, "psi": 8, "z": 8, "groups": [2, 4, 6]}
    assert lc_bench.build("lite", level=2.5, **small).level == 2.5
    assert lc_bench.build("lite", quality=3.5, **small).level == 2.5
    assert compose("model=lite", "level=2.5").quality == 3.5
    assert list(compose("model=lite", "level=[0,7]").quality) == [1, 8]
    with pytest.raises(UserError, match="give one of them"):
        lc_bench.build("lite", quality=3, level=2)
    with pytest.raises(UserError, match="one rate"):
        lc_bench.build("mbt2018", level=2)


def test_what_the_package_has() -> None:
    assert {"load", "list_models", "compress"} <= set(dir(lc_bench))
    assert lc_bench.list_models("mbt2018*") == ["mbt2018", "mbt2018-mean", "mbt2018-mean-gmm", "mbt2018-mean-vbr", "mbt2018-vbr"]
    with pytest.raises(AttributeError, match="Did you mean lc_bench.compress"):
        lc_bench.compres  # noqa: B018  # pyright: ignore
    with pytest.raises(UserError, match=r"qualty=3: not known. Did you mean quality\?"):
        lc_bench.build("mbt2018", qualty=3)


@pytest.mark.parametrize("value", ["it's", "a (1) = b, c", "[brackets", "back\\slash", "ends in \\", "${x}", "{a}", "'q'"])
def test_text_reaches_a_configuration_as_it_is(value: str, here: Path) -> None:
    for written in (quoted(value), literal(Path(value))):
        assert compose("data=folder", f"data.path={written}").data.path == value
    assert (literal(value) == value) == value.startswith(("[", "{", "${"))
    Path(value).touch()
    assert text_of(in_grammar([f"weights={value}"])[0].partition("=")[2]) == value


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=mbt2018-mean", "quality=3", "model.N=8", "weights='a b'"],
        ["run=train", "logger=[]", "optimizer.lr=1e-3", "run.split=train+val"],
        ["model=lite", "level=[0,7]", "model.groups=[2,4,6]", "anchor=[jpeg]"],
    ],
)
def test_values_set_later_are_as_hydra_sets_them(overrides: list[str]) -> None:
    """Files are composed once; a value set in what they gave makes the same configuration."""
    expected = _compose(*overrides, own=None)
    for _ in range(2):
        found = compose(*overrides)
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
        assert OmegaConf.is_struct(found) == OmegaConf.is_struct(expected)
        found.seed = 5  # of this copy alone


def test_an_edited_file_is_composed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "conf"
    shutil.copytree(conf_dir(), folder)
    monkeypatch.setattr(config, "conf_dir", lambda: folder)
    model = folder / "model" / "mbt2018-mean.yaml"
    before = compose("model=mbt2018-mean").model
    model.write_text(f"{model.read_text()}\nadded: 1\n")
    changed = compose("model=mbt2018-mean").model
    assert set(changed) - set(before) == {"added"}


def test_a_type_checker_sees_what_there_is(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    example = readme.partition("## From Python")[2].partition("```python\n")[2].partition("```")[0]
    assert "lc_bench.compress(model, x)" in example
    (tmp_path / "good.py").write_text(example)
    (tmp_path / "wrong.py").write_text("import lc_bench\n\nlc_bench.compres()\nlc_bench.load('lite', quality='high')\n")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)], "typeCheckingMode": "standard"}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    if not done.stdout.startswith("{"):
        pytest.skip(f"pyright does not start here: {done.stderr[-200:]}")
    found = {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in json.loads(done.stdout)["generalDiagnostics"]}
    assert found == {("wrong.py", 3), ("wrong.py", 4)}


def test_terms_of_the_shipped_weights_ship_with_them() -> None:
    folder = Path(lc_bench.__file__).parent
    notice = (folder / "weights" / "NOTICE").read_text()
    assert (folder / "py.typed").is_file()
    for file in (folder / "weights").glob("*.safetensors"):
        assert file.name in notice
