"""Weights: published checkpoints over HTTP (whole, cut short, wrong), ours, and what is told when something does not fit."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL

import lc_bench
from lc_bench.api import load_reference_state
from lc_bench.errors import UserError
from lc_bench.models import weights

NAME = "bmshj2018-factorized"


def reference_state(old_names: bool = False) -> dict[str, torch.Tensor]:
    """A state as the reference writes it, with its derived entries."""
    model = lc_bench.build(NAME, seed=3, **SMALL)
    state = {}
    for key, value in model.state_dict().items():
        key = key.replace("codec.prior.", "entropy_bottleneck.")
        if key.endswith(".median"):
            key, value = key.replace("median", "quantiles"), torch.stack([value - 5, value, value + 5], 1)[:, None]
        if old_names:
            for ours, theirs in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
                key = key.replace(f"entropy_bottleneck.{ours}", f"entropy_bottleneck.{theirs}")
            key = f"module.{key}"
        state[key] = value
    state["entropy_bottleneck._quantized_cdf"] = torch.zeros(12, 3, dtype=torch.int32)
    state["g_a.1.beta_reparam.pedestal"] = torch.zeros(1)
    return state


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server on loopback whose file `cut.pth.tar` promises more bytes than it sends."""
    root = tmp_path / "www"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(root), **kwargs)  # type: ignore[arg-type]

        def do_GET(self) -> None:
            if "cut" not in self.path:
                return super().do_GET()
            data = (root / self.path.lstrip("/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.connection.close()
            return None

        def log_message(self, *args: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", root
        running.shutdown()


def publish(root: Path, stem: str, digest: str | None = None) -> str:
    path = root / "file"
    torch.save({"state_dict": reference_state(old_names=True)}, path)
    digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(root / f"{stem}-{digest}.pth.tar").name


def test_published_checkpoint_is_downloaded_once(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, root = server
    monkeypatch.setenv("LC_BENCH_WEIGHTS_URL", address)
    file = publish(root, "good")
    path = weights.fetch_published(file, tmp_path / "cache")
    model = lc_bench.build(NAME, **SMALL)
    weights.load_file(model, path)
    assert torch.equal(model.g_a[0].weight, reference_state()["g_a.0.weight"])
    (root / file).unlink()
    assert weights.fetch_published(file, tmp_path / "cache") == path


def test_wrong_hash_cut_and_missing_files_leave_no_weights(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, root = server
    monkeypatch.setenv("LC_BENCH_WEIGHTS_URL", address)
    monkeypatch.setattr("lc_bench.ops.fetch.PAUSES", (0, 0))
    for file, words in (
        (publish(root, "wrong", "00000000"), "SHA-256"),
        (publish(root, "cut"), "cut short"),
        ("none-0.pth.tar", "not found"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            weights.fetch_published(file, tmp_path / "cache")
        assert "weights=none" in str(caught.value), "the way out is not told"
        assert not list((tmp_path / "cache").glob("*.tar")), file


def test_offline_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_WEIGHTS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LC_BENCH_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="cannot be downloaded.*weights=none"):
        lc_bench.load(NAME, quality=1)


def test_damaged_file_in_the_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "x-12345678.pth.tar").write_bytes(b"half a file")
    with pytest.raises(UserError, match="Delete it"):
        weights.fetch_published("x-12345678.pth.tar", tmp_path)


@pytest.mark.parametrize("old_names", [False, True])
def test_reference_names_old_and_new(old_names: bool) -> None:
    model = lc_bench.build(NAME, **SMALL)
    load_reference_state(model, reference_state(old_names))
    expected = lc_bench.build(NAME, seed=3, **SMALL).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())


def test_states_that_do_not_fit_say_why() -> None:
    model = lc_bench.build(NAME, **SMALL)
    state = reference_state()
    missing = {k: v for k, v in state.items() if k != "g_a.0.bias"}
    with pytest.raises(UserError, match=r"missing \['g_a.0.bias'\]"):
        load_reference_state(model, missing)
    with pytest.raises(UserError, match="left over"):
        load_reference_state(model, {**state, "extra": torch.zeros(1)})
    with pytest.raises(UserError, match="other sizes"):
        load_reference_state(lc_bench.build(NAME, N=16, M=12), state)


def test_our_files_keep_weights_and_notes(tmp_path: Path) -> None:
    model = lc_bench.build(NAME, seed=4, **SMALL)
    weights.save(model, tmp_path / "own.safetensors", steps=7, data="x")
    loaded = lc_bench.load(NAME, weights=tmp_path / "own.safetensors", **SMALL)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True))
    assert weights.load_file(model, tmp_path / "own.safetensors")["steps"] == "7"
    with pytest.raises(UserError, match="another architecture"):
        lc_bench.load("mbt2018-mean", weights=tmp_path / "own.safetensors", **SMALL)


def test_files_belong_to_one_quality_and_metric(tmp_path: Path) -> None:
    from lc_bench.api import qualities_for
    from lc_bench.config import compose

    path = tmp_path / "own.safetensors"
    weights.save(lc_bench.build(NAME, **SMALL), path, model=NAME, quality=4, metric="ms-ssim")
    assert qualities_for(compose(f"model={NAME}", f"weights={path}")) == [4]
    with pytest.raises(UserError, match="trained for quality 4"):
        qualities_for(compose(f"model={NAME}", f"weights={path}", "quality=2"))
    with pytest.raises(UserError, match="trained for ms-ssim"):
        lc_bench.load(NAME, quality=4, weights=path, metric="mse", **SMALL)
    with pytest.raises(UserError, match="other layers"):
        lc_bench.load("bmshj2018-factorized-relu", quality=4, weights=path, **SMALL)


@pytest.mark.parametrize(("name", "content"), [("a.safetensors", b"no"), ("a.pth.tar", b"no"), ("a.ckpt", b"")])
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        lc_bench.load(NAME, weights=tmp_path / name, **SMALL)


def held(state: dict[str, torch.Tensor], how: str) -> object:
    """A state as checkpoints of others have it."""
    named = {f"{how}{key}": value for key, value in state.items()}
    itself: dict[str, object] = {
        "epoch": 3,
        "loss": np.float64(1.5),
        "history": np.zeros(3),
        "path": Path("x"),
        "when": datetime(2020, 1, 1),
    }
    itself["model"] = itself  # runs in circles
    return {"codec.": named, "compressor.": named, "netG": {"critic": {"c.weight": torch.zeros(1)}, "netG": state}}.get(
        how, {**itself, "params_ema": state}
    )


@pytest.mark.parametrize("how", ["codec.", "compressor.", "netG", "numbers beside it"])
def test_a_network_is_found_whatever_it_is_called(how: str, tmp_path: Path) -> None:
    state = reference_state()
    torch.save(held(state, how), tmp_path / "other.pth.tar")
    loaded = lc_bench.load(NAME, weights=tmp_path / "other.pth.tar", **SMALL)
    assert torch.equal(loaded.state_dict()["g_a.0.weight"], state["g_a.0.weight"])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("g_a.0.bias", torch.zeros(8).to_sparse(), "cannot be used"),
        ("g_a.0.bias", torch.zeros(8, dtype=torch.complex64), "cannot be used"),
        ("g_a.0.bias", torch.zeros(8, device="meta"), "cannot be used"),
        ("entropy_bottleneck.quantiles", torch.zeros(3), "left over.*quantiles"),
    ],
)
def test_tensors_that_are_no_weights_are_named(key: str, value: torch.Tensor, words: str, tmp_path: Path) -> None:
    torch.save({**reference_state(), key: value}, tmp_path / "other.pth.tar")
    with pytest.raises(UserError, match=words):
        lc_bench.load(NAME, weights=tmp_path / "other.pth.tar", **SMALL)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, ("__import__('pathlib').Path('pwned').touch()",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth.tar")
    with pytest.raises(UserError, match="without running code"):
        lc_bench.load(NAME, weights=tmp_path / "evil.pth.tar", **SMALL)


def test_every_published_name_has_its_sizes() -> None:
    """N and M of the models here are those of the published list, at every quality."""
    from conftest import MODELS

    from lc_bench.config import at_quality, compose

    for name in set(MODELS) & set(weights.published()["cfgs"]):
        listed = weights.published()["cfgs"][name]
        composed = compose(f"model={name}")
        for quality, sizes in listed.items() if isinstance(listed, dict) else [("1", listed)]:  # one file has all variable rates
            cfg = at_quality(composed, int(quality)).model
            assert sizes == [cfg[key] for key in ("N", "M") if key in cfg]
            published = weights.published_file(cfg.published, "mse", int(quality))
            assert (published is None) == (name == "bmshj2018-factorized-relu")
            assert published is None or published.endswith(".pth.tar")
