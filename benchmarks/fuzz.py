"""Malformed streams of small models: every one has to end in a StreamError, or in the image or cloud that was written.

    python benchmarks/fuzz.py [--count 10000] [--seed 0] [--models mbt2018-mean lite]

Damage is done to the parts of a stream, and checksums are made anew (kinds that say "sealed again"), so that it reaches the
coder; or to its bytes, as they are. Prints outcomes by kind, the slowest streams and what memory grew by; exits with 1 if
one ended otherwise, took more than a second or left another image than was written.
"""

from __future__ import annotations

import argparse
import copy
import resource
import struct
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor

import lc_bench
from lc_bench.coding import varint
from lc_bench.coding.container import CRC, checksum, is_cubed, is_tiled, read_head, write_head
from lc_bench.coding.cubes import pack_cubes, unpack_cubes
from lc_bench.coding.tiles import tiles_of
from lc_bench.errors import StreamError
from lc_bench.models import PointCode, TransformCode, cubed

SECONDS = 1.0  # for a stream
MEBIBYTES = 512  # of growth, for all of them
SMALL = {"N": 16, "M": 24}
LITE = {"M": 24, "psi": 16, "z": 8, "groups": "[4,8,12]"}
# Model, its keys, side of tiles.
KINDS_OF_STREAM: list[tuple[str, dict[str, object], int]] = [
    ("bmshj2018-factorized", SMALL, 0),
    ("mbt2018-mean", SMALL, 0),
    ("mbt2018-mean", SMALL, 64),
    ("mbt2018", SMALL, 0),
    ("mbt2018-mean-gmm", SMALL, 0),
    ("mbt2018-mean-vbr", SMALL, 0),
    ("lite", LITE, 0),
    ("lite", LITE, 64),
]
# Model of clouds, its keys, side of cubes.
KINDS_OF_CLOUD: list[tuple[str, dict[str, object], float]] = [
    ("sfu2024-pcc-rec-pointnet2-ssg", {"num_points": 64}, 0.0),
    ("hrtzxf2022-pcc-rec", {"hidden": 8}, 0.0),
    ("hrtzxf2022-pcc-rec", {"hidden": 8}, 1.5),
]


@dataclass
class Parts:
    """head: up to the lengths; bodies: of a whole image its one, of tiles each, with lengths of segments but without checksums.

    A stream in cubes is one body, which starts with their table; what is said of its segments is the first cube's.
    """

    head: bytes
    lengths: list[int]  # of tiles, checksums included
    bodies: list[bytes]
    segments: int
    tiled: bool
    table: bytes = b""  # of cubes, before the segments
    lasting: bytes = b""  # segments of all cubes but the first

    @classmethod
    def of(cls, stream: bytes) -> Parts:
        header, count, position = read_head(stream)
        head = stream[:position]
        if is_cubed(stream):
            first, *others = unpack_cubes(stream)[1]
            lengths = b"".join(varint.write(len(s)) for s in first.segments[:-1])
            lasting = b"".join(s for cube in others for s in cube.segments)
            end = len(stream) - CRC - len(lasting)
            start = end - sum(map(len, first.segments))
            return cls(head, [], [lengths + stream[start:end]], count, False, stream[position:start], lasting)
        if not is_tiled(stream):
            return cls(head, [], [stream[position:-CRC]], count, False)
        rows, columns = tiles_of(header)
        lengths, bodies = [], []
        for _ in range(rows * columns):
            length, position = varint.read(stream, position)
            lengths.append(length)
        position += CRC
        for length in lengths:
            bodies.append(stream[position : position + length - CRC])
            position += length
        return cls(head, lengths, bodies, count, True)

    def sealed(self, lengths: bytes | None = None) -> bytes:
        """With checksums that match. lengths: of tiles, in place of what the bodies have."""
        if not self.tiled:
            whole = self.head + self._in_cubes() if self.table else self.head + self.bodies[0]
            return whole + checksum(whole)
        table = b"".join(varint.write(len(body) + CRC) for body in self.bodies) if lengths is None else lengths
        seal = checksum(self.head + table)
        sealed = (body + checksum(seal + number.to_bytes(4, "little") + body) for number, body in enumerate(self.bodies))
        return b"".join([self.head, table, seal, *sealed])

    def _in_cubes(self) -> bytes:
        """The table, with the lengths that the first cube has now where they can be read, and all segments."""
        try:
            segments = self.split(0)
            position, kept = 0, []
            for _ in range(5):  # number of cubes; place and points of the first
                value, position = varint.read(self.table, position)
                kept.append(varint.write(value))
            for _ in segments:
                _, position = varint.read(self.table, position)
        except StreamError:
            return self.table + self.bodies[0] + self.lasting
        lengths = (varint.write(len(s)) for s in segments)
        return b"".join([*kept, *lengths, self.table[position:], *segments, self.lasting])

    def split(self, tile: int) -> list[bytes]:
        body, position, lengths = self.bodies[tile], 0, []
        for _ in range(self.segments - 1):
            length, position = varint.read(body, position)
            lengths.append(length)
        segments = []
        for length in [*lengths, len(body) - position - sum(lengths)]:
            segments.append(body[position : position + length])
            position += length
        return segments

    def put(self, tile: int, segments: list[bytes]) -> bytes:
        self.bodies[tile] = b"".join(varint.write(len(s)) for s in segments[:-1]) + b"".join(segments)
        return self.sealed()


@dataclass
class Victim:
    """A model, streams that it wrote, and their images or clouds; and the model with a weight changed after it was frozen."""

    name: str
    model: TransformCode
    streams: list[bytes]
    images: list[Tensor]
    altered: TransformCode


def lively(name: str, keys: dict[str, object], seed: int = 0) -> TransformCode:
    """An untrained model whose latents are not all zero."""
    model = lc_bench.build(name, seed=seed, **keys)
    with torch.no_grad():
        [p for p in model.g_a.parameters() if p.ndim > 1][-1].mul_(40)
        for parameter in model.codec.parameters():
            if parameter.ndim == 4:
                parameter.mul_(2)
    return model


def altered(model: TransformCode) -> TransformCode:
    """Streams of the old weights have to be refused."""
    model = copy.deepcopy(model)
    before = model.frozen
    with torch.no_grad():
        next(model.codec.parameters()).view(-1)[:1] += 0.5
    assert model.frozen is not before
    return model


def picture(height: int, width: int, seed: int) -> Tensor:
    """(1, 3, H, W): waves and noise."""
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 9, width), indexing="ij")
    waves = torch.stack([(row * f).sin() * (column * g).cos() for f, g in ((1, 2), (3, 1), (2, 5))])
    return (0.5 + 0.3 * waves + 0.1 * torch.randn(1, 3, height, width, generator=generator)).clamp(0, 1)


def body(count: int, seed: int) -> Tensor:
    """(N, 3): a ball, somewhere."""
    generator = torch.Generator().manual_seed(seed)
    ball = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    return ball + torch.tensor([3.0, -1.0, 0.5]) * (1 + seed)


def clouds(names: list[str] | None) -> list[Victim]:
    found = []
    for name, keys, side in KINDS_OF_CLOUD:
        if names and name not in names:
            continue
        model = lively(name, keys)
        assert isinstance(model, PointCode)
        bodies = [body(model.points if model.fixed else count, seed) for seed, count in enumerate((90, 200))]
        if side:
            streams = [cubed.encode_cubes(model, points, side).streams[0] for points in bodies]
        else:
            streams = [cubed.encode(model, points) for points in bodies]
        decoded = [lc_bench.decompress(model, [stream]) for stream in streams]
        found.append(Victim(name + (", cubes" if side else ""), model, streams, decoded, altered(model)))
    return found


def victims(names: list[str] | None = None) -> list[Victim]:
    found = clouds(names)
    for name, keys, tile in KINDS_OF_STREAM:
        if names and name not in names:
            continue
        model = lively(name, keys)
        sizes = [(72, 100), (60, 150)] if tile else [(72, 100), (64, 64), (130, 60)]
        streams = [lc_bench.compress(model, picture(*size, seed), tile=tile)[0] for seed, size in enumerate(sizes)]
        images = [lc_bench.decompress(model, [stream]) for stream in streams]
        found.append(Victim(name + (", tiles" if tile else ""), model, streams, images, altered(model)))
    return found


Damage = Callable[[Random, bytes, list[Victim]], bytes]


def flip(random: Random, data: bytes, most: int = 4) -> bytes:
    out = bytearray(data)
    for _ in range(random.randint(1, most)):
        if out:
            out[random.randrange(len(out))] ^= 1 << random.randrange(8)
    return bytes(out)


def absurd(random: Random) -> bytes:
    """A number that nobody would write; now and then not even the end of one."""
    return random.choice(
        [
            b"\xff" * random.randint(1, 12),
            varint.write(random.getrandbits(random.randint(1, 60))),
            varint.write(1 << random.randint(0, 41)),
            b"\0",
        ]
    )


def edited(random: Random, data: bytes) -> bytes:
    """Bytes put in, left out, doubled, or written over."""
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.randint(0, 8))
    return data[:start] + random.choice([b"", random.randbytes(random.randint(1, 8)), data[start:end] * 2]) + data[end:]


def cut(random: Random, stream: bytes, _: list[Victim]) -> bytes:
    return stream[: random.randrange(len(stream))]


def flipped(random: Random, stream: bytes, _: list[Victim]) -> bytes:
    return flip(random, stream, 8)


def in_body(change: Callable[[Random, bytes], bytes]) -> Damage:
    def damage(random: Random, stream: bytes, _: list[Victim]) -> bytes:
        parts = Parts.of(stream)
        tile = random.randrange(len(parts.bodies))
        parts.bodies[tile] = change(random, parts.bodies[tile])
        return parts.sealed()

    return damage


def in_head(change: Callable[[Random, bytes], bytes]) -> Damage:
    """Behind the digests, or all of it."""

    def damage(random: Random, stream: bytes, _: list[Victim]) -> bytes:
        parts = Parts.of(stream)
        start = random.choice([7, 7, 7, 0])
        parts.head = parts.head[:start] + change(random, parts.head[start:])
        return parts.sealed()

    return damage


def absurd_sizes(random: Random, stream: bytes, _: list[Victim]) -> bytes:
    """Sizes, level, side of tiles, each by chance; what remains is as it was."""
    parts = Parts.of(stream)
    header, _, _ = read_head(stream)
    numbers = [n for n in (header.level, *header.sizes, header.tile) if n is not None]
    plain = write_head(replace(header, scale=None, cube=None), parts.segments)
    end = len(plain)
    fixed, rest = parts.head[: end - sum(len(varint.write(n)) for n in numbers)], parts.head[end:]
    near = [varint.write(max(0, n + random.choice([-1, 1, 2, 16, 64, 1000]))) for n in numbers]
    far = [absurd(random) for _ in numbers]
    changed = b"".join(random.choice([varint.write(n), a, b]) for n, a, b in zip(numbers, near, far, strict=True))
    parts.head = fixed + changed + rest
    return parts.sealed()


def as_many_pixels_as_allowed(random: Random, stream: bytes, _: list[Victim]) -> bytes:
    """Sizes near the bounds of what a reader takes, with the bytes of a small image or cloud."""
    parts = Parts.of(stream)
    header, _, _ = read_head(stream)
    old = b"".join(map(varint.write, header.sizes))
    area = random.randint(20, 28)
    height = random.randint(6, area - 6)
    new = varint.write(1 << height) + varint.write(1 << area - height)
    if len(header.sizes) == 1:
        new = varint.write(random.choice([1 << random.randint(8, 24), (1 << 13) + 16 * len(stream) + random.randint(-300, 300)]))
    parts.head = new.join(parts.head.rsplit(old, 1))
    return parts.sealed()


def lengths(random: Random, stream: bytes, _: list[Victim]) -> bytes:
    parts = Parts.of(stream)
    if parts.tiled and random.random() < 0.5:
        table = [varint.write(n) for n in parts.lengths]
        table[random.randrange(len(table))] = absurd(random)
        return parts.sealed(b"".join(table))
    tile = random.randrange(len(parts.bodies))
    parts.bodies[tile] = absurd(random) + parts.bodies[tile][1:]
    return parts.sealed()


def lanes(random: Random, stream: bytes, _: list[Victim]) -> bytes:
    """The head of a segment: shape and flags, stage, full rows, lengths of lists."""
    parts = Parts.of(stream)
    tile = random.randrange(len(parts.bodies))
    segments = parts.split(tile)
    place = random.randrange(len(segments))
    code = bytes([random.choice([random.randrange(256), random.randrange(32)])])
    rest = b"".join(absurd(random) for _ in range(random.randint(0, 4)))
    segments[place] = random.choice([code + segments[place][1:], code + rest + segments[place][1 + len(rest) :], code + rest])
    return parts.put(tile, segments)


def shuffled(random: Random, stream: bytes, all_: list[Victim]) -> bytes:
    """Segments swapped, doubled, left out, emptied, or another stream's."""
    parts = Parts.of(stream)
    tile = random.randrange(len(parts.bodies))
    segments = parts.split(tile)
    place = random.randrange(len(segments))
    what = random.randrange(5)
    if what == 0:
        segments.reverse()
    elif what == 1:
        segments.insert(place, segments[place])
        parts.segments += 1
    elif what == 2:
        segments.pop(place)
        parts.segments -= 1
    elif what == 3:
        segments[place] = b""
    else:
        other = Parts.of(random.choice(random.choice(all_).streams))
        segments[place] = random.choice(other.split(random.randrange(len(other.bodies))))
    if segments:
        parts.head = parts.head[:7] + bytes([parts.head[7] & 0xF0 | len(segments)]) + parts.head[8:]
        return parts.put(tile, segments)
    parts.bodies[tile] = b""
    return parts.sealed()


def tiles(random: Random, stream: bytes, all_: list[Victim]) -> bytes:
    """Tiles swapped, doubled, left out, emptied, another file's; sealed again or as they were."""
    parts = Parts.of(stream)
    bodies, place = parts.bodies, random.randrange(len(parts.bodies))
    what = random.randrange(5)
    if what == 0:
        random.shuffle(bodies)
    elif what == 1:
        bodies.insert(place, bodies[place])
    elif what == 2:
        bodies.pop(place)
    elif what == 3:
        bodies[place] = b""
    else:
        other = Parts.of(random.choice(random.choice(all_).streams))
        bodies[place] = random.choice(other.bodies)
    if not parts.tiled:
        parts.bodies = [b"".join(bodies)]
    return parts.sealed(None if random.random() < 0.5 else b"".join(map(varint.write, parts.lengths)))


def foreign(random: Random, stream: bytes, all_: list[Victim]) -> bytes:
    """Another model's stream, as it is or with the digests of this one."""
    others = [v for v in all_ if v.model.frozen.identity.weights != stream[4:7]]
    other = Parts.of(random.choice(random.choice(others or all_).streams))
    if random.random() < 0.7:
        other.head = other.head[:3] + stream[3:7] + other.head[7:]
    return other.sealed()


def places(random: Random, stream: bytes, _: list[Victim]) -> bytes:
    """Where a cloud or its cubes lie: edited, swapped, doubled, left out; flags of an older stream."""
    header, *_unused, position = read_head(stream)
    what = random.randrange(5)
    if header.cube is not None and what < 3:
        cubes = list(unpack_cubes(stream)[1])
        place = random.randrange(len(cubes))
        if what == 0:
            random.shuffle(cubes)
        elif what == 1:
            cubes[place] = random.choice(cubes)
        else:
            moved = [a + random.choice([-1, 0, 0, 1, 1 << 23]) for a in cubes[place].place]
            cubes[place] = replace(cubes[place], place=tuple(moved), count=max(0, cubes[place].count + random.choice([-1, 0, 0, 1])))
        try:
            return pack_cubes(header, cubes)
        except struct.error:  # of a place that no header holds
            return stream[:-1]
    parts = Parts.of(stream)
    if what == 3 and header.scale is None and header.cube is None:
        parts.head = parts.head[:7] + bytes([parts.head[7] | 0x40, random.randrange(256)]) + parts.head[8:]
    elif what == 3:
        parts.head = parts.head[:8] + bytes([parts.head[8] ^ (1 << random.randrange(8))]) + parts.head[9:]
    else:
        start = max(8, position - 20)
        parts.head = parts.head[:start] + flip(random, parts.head[start:])
    return parts.sealed()


def version(random: Random, stream: bytes, _: list[Victim]) -> bytes:
    parts = Parts.of(stream)
    parts.head = random.choice([random.randbytes(3), b"LC" + random.randbytes(1)]) + parts.head[3:]
    return parts.sealed()


def noise(random: Random, stream: bytes, _: list[Victim]) -> bytes:
    """Random bytes, none at all, or a good head before random bytes."""
    size = random.choice([0, 1, 12, 13, 100, 5000])
    if random.random() < 0.4:
        return random.randbytes(size)
    parts = Parts.of(stream)
    parts.bodies = [random.randbytes(random.randrange(1 + size)) for _ in parts.bodies]
    return parts.sealed()


DAMAGES: dict[str, Damage] = {
    "cut short": cut,
    "1 to 8 bits flipped": flipped,
    "bits of the body flipped, sealed again": in_body(flip),
    "one bit of the body flipped, sealed again": in_body(lambda random, data: flip(random, data, 1)),
    "bytes of the body edited, sealed again": in_body(edited),
    "body cut short, sealed again": in_body(lambda random, data: data[: random.randrange(1 + len(data))]),
    "bits of the header flipped, sealed again": in_head(flip),
    "bytes of the header edited, sealed again": in_head(edited),
    "absurd numbers in the header, sealed again": absurd_sizes,
    "as many pixels as are allowed, sealed again": as_many_pixels_as_allowed,
    "absurd lengths, sealed again": lengths,
    "absurd lanes and lists of a segment, sealed again": lanes,
    "segments swapped, doubled, left out, foreign": shuffled,
    "tiles swapped, doubled, left out, foreign": tiles,
    "places of clouds and cubes, sealed again": places,
    "another model's stream, digests forged or not": foreign,
    "another version, no stream": version,
    "random or no bytes": noise,
}
STALE = "weights changed since"


def outcome(model: TransformCode, stream: bytes, image: Tensor) -> str:
    """refused | the image | another image | name of what was raised instead of a StreamError."""
    try:
        x_hat = lc_bench.decompress(model, [stream])
    except StreamError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "the image" if x_hat.shape == image.shape and torch.equal(x_hat, image) else "another image"


def one(random: Random, all_: list[Victim]) -> tuple[str, str, str, bytes, float]:
    """-> victim, kind of damage, outcome, stream, seconds of the processor."""
    victim, kind = random.choice(all_), random.choice([*DAMAGES, STALE])
    place = random.randrange(len(victim.streams))
    stream = victim.streams[place]
    if kind != STALE:
        stream = DAMAGES[kind](random, stream, all_)
    start = time.process_time()
    found = outcome(victim.altered if kind == STALE else victim.model, stream, victim.images[place])
    return victim.name, kind, found, stream, time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--keep", type=Path, help="folder for streams that ended in neither an error nor their image")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    all_ = victims(arguments.models)
    for victim in all_:  # compiled and warm
        outcome(victim.model, victim.streams[0], victim.images[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    slowest: dict[str, float] = defaultdict(float)
    bad = []
    for number in range(arguments.count):
        name, kind, found, stream, seconds = one(Random(f"{arguments.seed} {number}"), all_)
        outcomes[kind]["other" if found not in ("refused", "the image", "another image") else found] += 1
        slowest[kind] = max(slowest[kind], seconds)
        if found not in ("refused", "the image") or seconds > SECONDS:
            bad.append(f"{number}: {name}: {kind}: {found}, {seconds:.2f} s")
            print(bad[-1], flush=True)
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                (arguments.keep / f"{number}.lcb").write_bytes(stream)
        if number % 1000 == 999:
            print(f"{number + 1} done, {dict(sum(outcomes.values(), Counter()))}", flush=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    columns = ["refused", "the image", "another image", "other"]
    print("| damage | " + " | ".join(columns) + " | slowest |\n|---|" + "---|" * 5)
    for kind in [*DAMAGES, STALE]:
        print(f"| {kind} | " + " | ".join(str(outcomes[kind][c]) for c in columns) + f" | {1000 * slowest[kind]:.0f} ms |")
    total = sum(outcomes.values(), Counter())
    print("| all | " + " | ".join(str(total[c]) for c in columns) + f" | {1000 * max(slowest.values()):.0f} ms |")
    print(
        f"{arguments.count} streams, seed {arguments.seed}; memory at its peak {before + grown:.0f} MiB, {grown:.0f} MiB more than before"
    )
    return 1 if bad or grown > MEBIBYTES else 0


if __name__ == "__main__":
    sys.exit(main())
