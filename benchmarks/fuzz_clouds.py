"""Damaged files of clouds: every one is read, or refused in one line, in little time and memory.

    python benchmarks/fuzz_clouds.py [--count 2000] [--seed 0] [--kinds ply pcd]

Small files of each kind are damaged: bits, runs of bytes, words and lines of headers. Prints for each kind how many were read and how
many refused, the slowest and what memory grew by; exits with 1 if one ended otherwise, took more than a second or memory grew by a
gibibyte.
"""

from __future__ import annotations

import argparse
import io
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import imagecodecs
import numpy as np

from lc_bench.data.cloud_files import read_cloud
from lc_bench.errors import UserError

SECONDS = 1.0  # for a file
MEBIBYTES = 1024  # of growth, for all of them
WORDS = b"0 1 -1 3 4 7 255 2147483648 4294967296 999999999999 1e400 nan x O F list uchar double int8 element face vertex ascii".split()


def examples() -> dict[str, list[bytes]]:
    """Sound files by kind: a body of 24 points, 4 triangles where there are any, in the dialects of the kind."""
    points = np.random.default_rng(0).uniform(-1, 1, (24, 3)).astype("<f4")
    rows = [" ".join(map(str, row)) for row in points.tolist()]
    faces = [(0, 1, 2), (2, 3, 4), (4, 5, 6), (6, 7, 8)]
    text = "\n".join(rows) + "\n"
    triangles = "".join(f"3 {a} {b} {c}\n" for a, b, c in faces)
    return {
        "ply": _ply(points, text, triangles, faces),
        "pcd": _pcd(points, text),
        "off": [
            f"OFF\n24 4 0\n{text}{triangles}".encode(),
            f"OFF24 4\n{text}{triangles}".encode(),
            ("COFF\n24 4 0\n" + "".join(f"{r} 255 0 0 255\n" for r in rows) + triangles).encode(),
            ("# a body\nNOFF\n24 4 0\n" + "".join(f"{r} 0 0 1\n" for r in rows) + triangles.replace("\n", " 9 9 9\n")).encode(),
        ],
        "obj": [
            ("".join(f"v {r}\n" for r in rows) + "".join(f"f {a + 1}/1 {b + 1} \\\n {c + 1}\n" for a, b, c in faces)).encode(),
            ("# é\n" + "".join(f"v {r} 1 0 0\n" for r in rows) + "vn 0 0 1\nf -1//1 -2//1 -3//1 -4//1\n").encode("latin-1"),
        ],
        "xyz": [
            text.encode(),
            f"24\n{text}".encode("utf-16"),
            ("//X,Y,Z,R\n" + "".join(f"{r.replace(' ', ',')},7\n" for r in rows)).encode(),
            ("y x z\r\n" + text.replace("e", "D").replace("\n", "\r\n")).encode("utf-8-sig"),
        ],
        "bin": [np.concatenate([points, np.abs(points[:, :1])], 1).tobytes(), _nuscenes(points)],
        "npy": [
            _npy(points),
            _npy(np.asfortranarray(points.astype(">f8"))),
            _npy(points.view([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])[:, 0]),
        ],
    }


def _ply(points: np.ndarray, text: str, triangles: str, faces: list[tuple[int, int, int]]) -> list[bytes]:
    vertex = "element vertex 24\nproperty float x\nproperty float y\nproperty float z\n"
    face = "element face 4\nproperty list uchar int vertex_indices\n"
    flagged = "element face 4\nproperty uchar flag\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\n"
    ascii_head = f"ply\nformat ascii 1.0\ncomment a body\n{vertex}{face}end_header\n"
    little, big = "ply\nformat binary_little_endian 1.0\n", "ply\nformat binary_big_endian 1.0\n"
    corners = b"".join(struct.pack("<BB3iB2f", 9, 3, *f, 2, 0.5, 0.5) for f in faces)
    strip = struct.pack("<i9i", 9, 0, 1, 2, 3, -1, 4, 5, 6, 7)
    strips = "element tristrips 1\nproperty list int int vertex_indices\n"
    return [
        (ascii_head + text + triangles).encode(),
        f"{little}{vertex}{flagged}end_header\n".encode() + points.tobytes() + corners,
        f"{little}{strips}{vertex}end_header\n".replace("\n", "\r").encode() + strip + points.tobytes(),
        f"{big}{face}{vertex}end_header\n".encode() + b"".join(struct.pack(">B3i", 3, *f) for f in faces) + points.astype(">f4").tobytes(),
        (f"{little}{face}{vertex}end_header\n").encode()
        + b"".join(struct.pack(f"<B{3 + i % 2}i", 3 + i % 2, *range(3 + i % 2)) for i in range(4))
        + points.tobytes(),
    ]


def _pcd(points: np.ndarray, text: str) -> list[bytes]:
    head = "VERSION 0.7\nFIELDS x y z _\nSIZE 4 4 4 1\nTYPE F F F U\nCOUNT 1 1 1 4\nWIDTH 24\nHEIGHT 1\nPOINTS 24\nDATA "
    rows = b"".join(row.tobytes() + b"\0\0\0\0" for row in points)
    planes = points.T.tobytes() + bytes(96)
    packed = imagecodecs.lzf_encode(planes, header=False)
    assert isinstance(packed, bytes)
    return [
        (head + "ascii\n" + text.replace("\n", " 0 0 0 0\n")).encode(),
        (head + "binary\n").encode() + rows,
        (head + "binary_compressed\n").encode() + struct.pack("<II", len(packed), len(planes)) + packed,
    ]


def _nuscenes(points: np.ndarray) -> bytes:
    """Two hundred points of five columns."""
    positions = np.tile(points, (9, 1))[:200] * np.array([50, 50, 3], np.float32)
    rings = np.arange(200, dtype=np.float32) % 32
    return np.concatenate([positions, rings[:, None] * 7, rings[:, None]], 1).astype("<f4").tobytes()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def damaged(data: bytes, draw: Random) -> bytes:
    """One to three of: a bit, a byte, a cut, a run taken out or doubled or put elsewhere, a word or a line of the text changed."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        out = bytearray(data)
        at = draw.randrange(len(out)) if draw.random() < 0.5 else draw.randrange(min(len(out), 200))
        end = min(len(out), at + draw.choice((1, 2, 4, 8, 40)))
        kind = draw.randrange(8)
        if kind == 0:
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            out[at:end] = draw.randbytes(end - at)
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at:end]
        elif kind == 4:
            out[at:at] = out[at:end] * draw.choice((1, 3, 50))
        elif kind == 5:
            out[at:at] = draw.choice((b"\n", b"\r\n", b"\0", b" ", b",", b"#", b"\xff", b"\\\n", b"-", b"."))
        elif kind == 6:
            words = bytes(out).split(b" ")
            words[draw.randrange(len(words))] = draw.choice(WORDS)
            out = bytearray(b" ".join(words))
        else:
            lines = bytes(out).split(b"\n")
            lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
            out = bytearray(b"\n".join(lines))
        data = bytes(out)
        if not data:
            break
    return data


def outcome(path: Path) -> str:
    """`read`, `refused`, or what else happened to it."""
    try:
        cloud = read_cloud(path)
    except UserError as error:
        told = str(error)
        return "refused" if "\n" not in told and told.isprintable() and len(told) < 600 else f"told in no clear line: {told!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    sound = len(cloud.points) and cloud.points.shape[1] == 3
    if cloud.triangles is not None:
        sound = sound and int(cloud.triangles.min()) >= 0 and int(cloud.triangles.max()) < len(cloud.points)
    return "read" if sound else "read, but no cloud"


def run(kind: str, count: int, seed: int, folder: Path) -> tuple[Counter[str], float, dict[str, bytes]]:
    """-> how many ended how, seconds of the slowest, and files that ended as none may."""
    draw, found, slowest = Random(f"{kind} {seed}"), Counter[str](), 0.0
    sound, wrong, path = examples()[kind], {}, folder / f"damaged.{kind}"
    for _ in range(count):
        data = damaged(draw.choice(sound), draw)
        path.write_bytes(data)
        began = time.perf_counter()
        ended = outcome(path)
        slowest = max(slowest, time.perf_counter() - began)
        found[ended] += 1
        if ended not in ("read", "refused"):
            wrong.setdefault(ended, data)
    return found, slowest, wrong


def main() -> None:
    kinds = list(examples())
    parser = argparse.ArgumentParser(description="Damaged files of clouds")
    parser.add_argument("--count", type=int, default=2000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=kinds, choices=kinds)
    given = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for kind in given.kinds:
            found, slowest, wrong = run(kind, given.count, given.seed, Path(folder))
            print(f"{kind}: {found['read']} read, {found['refused']} refused, slowest {slowest:.3f} s", flush=True)
            for ended, data in wrong.items():
                print(f"  {found[ended]} ended otherwise: {ended}; the first of {len(data)} bytes: {data[:300]!r}")
            failed = failed or bool(wrong) or slowest > SECONDS
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"memory grew by {grown:.0f} MiB")
    sys.exit(1 if failed or grown > MEBIBYTES else 0)


if __name__ == "__main__":
    main()
