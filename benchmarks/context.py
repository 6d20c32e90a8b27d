"""Whole autoregressive models on 768x512 photographs, to bytes and back, one thread, with equal weights on both sides.

    python benchmarks/context.py IMAGE... --peer-python PYTHON --peer-dir DIR [--model mbt2018] [--batch]

IMAGE: kodimNN.png. The peer's script `models_speed.py` makes a random model, calibrates it to a realistic load and measures it on the
first image; the same weights are then loaded here. --batch: all images in one batch as well, here only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lc_bench
from lc_bench.bench.clock import Clock
from lc_bench.data.images import read_image, to_unit
from lc_bench.models import TransformCode

REPEATS = 3
# Runs in the peer's Python: its script, with the weights written down once they are calibrated.
HOOK = """
import sys, torch, models_speed as m
inner, path = m.instrument, sys.argv.pop(1)
def instrument(net, clock):
    torch.save(net.state_dict(), path)
    inner(net, clock)
m.instrument = instrument
m.main()
"""


def peer(python: str, folder: Path, model: str, image: Path, state: Path) -> dict[str, Any]:
    command = [python, "-W", "ignore", "-c", HOOK, str(state), "--model", model, "--images", str(int(image.stem[-2:]))]
    command += ["--kodak", str(image.parent), "--reps", str(REPEATS)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout
    rows = json.loads(told[told.index("{") :])["rows"]
    out: dict[str, Any] = {"bytes": sum(rows[0]["bytes"])}
    for way, transform in (("compress", "g_a"), ("decompress", "g_s")):
        out[way] = statistics.median(row[way]["wall"] for row in rows)
        out[way + " rest"] = statistics.median(row[way]["wall"] - row[way]["split"][transform]["wall"] for row in rows)
    return out


def ours(model: TransformCode, x: Tensor) -> dict[str, Any]:
    """Seconds per image, and bytes of the first; the first round compiles and makes tables."""
    found: dict[str, list[float]] = {key: [] for key in ("compress", "compress rest", "decompress", "decompress rest")}
    size = 0
    for _ in range(REPEATS + 1):
        write, read = Clock(x.device), Clock(x.device)
        coded = model.encode(x, write)
        model.decode(coded.streams, read)
        size = len(coded.streams[0])
        for way, clock in (("compress", write), ("decompress", read)):
            found[way].append(clock.total / len(x))
            found[way + " rest"].append(clock.seconds["coding"] / len(x))
    return {"bytes": size, **{key: statistics.median(values[1:]) for key, values in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--model", default="mbt2018")
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--peer-dir", type=Path, required=True)
    parser.add_argument("--batch", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.pt"
        theirs = peer(arguments.peer_python, arguments.peer_dir, arguments.model, arguments.images[0], state)
        model = lc_bench.build(arguments.model, quality=3)
        lc_bench.load_reference_state(model, torch.load(state))
    xs = [to_unit(read_image(path)) for path in arguments.images]
    xs = [x if x.shape[1] < x.shape[2] else x.transpose(1, 2) for x in xs]
    rows = [("one image", ours(model, xs[0][None]))]
    if arguments.batch:
        rows.append((f"batch of {len(xs)}", ours(model, torch.stack(xs))))
    keys = [key for key in theirs if key != "bytes"]
    print(f"{arguments.model}: {'seconds per image':>20} " + " ".join(f"{key:>16}" for key in [*keys, "bytes"]))
    print(f"{'the reference':>30} " + " ".join(f"{theirs[key]:>16.3f}" for key in keys) + f" {theirs['bytes']:>16}")
    for name, row in rows:
        print(f"{name:>30} " + " ".join(f"{row[key]:>9.3f} {theirs[key] / row[key]:>5.1f}x" for key in keys) + f" {row['bytes']:>16}")


if __name__ == "__main__":
    main()
