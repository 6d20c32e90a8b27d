"""lc_bench.inspect: what a stream says of itself adds up, whole, in tiles and in cubes; a damaged one says nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lc_bench
from lc_bench.errors import StreamError
from lc_bench.models import cubed


def test_of_images(image: Tensor) -> None:
    model = lc_bench.build("mbt2018-mean", N=8, M=12)
    (whole,), (tiled,) = (lc_bench.compress(model, image[:1], tile=side) for side in (0, 64))
    told, of_tiles = lc_bench.inspect(whole), lc_bench.inspect(tiled)
    assert (told["sizes"], told["tile"], told["parts"], told["level"]) == ((72, 100), None, 1, None)
    assert (of_tiles["sizes"], of_tiles["tile"], of_tiles["parts"]) == ((72, 100), 64, 4)
    assert told["architecture"] + told["weights"] == whole[3:7].hex()
    for facts, stream in ((told, whole), (of_tiles, tiled)):
        assert len(facts["segments"]) == 2
        assert facts["head"] + sum(facts["segments"]) == facts["bytes"] == len(stream)
    with pytest.raises(StreamError, match="checksum"):
        lc_bench.inspect(whole[:-9] + b"?" + whole[-8:])


def test_of_levels_and_clouds(image: Tensor, cloud: Tensor) -> None:
    (stream,) = lc_bench.compress(lc_bench.load("lite"), image[:1], level=2.5)
    assert lc_bench.inspect(stream)["level"] == 2.5
    model = lc_bench.build("hrtzxf2022-pcc-rec", hidden=8)
    (stream,) = cubed.encode_cubes(model, cloud[0], 1.0).streams
    told = lc_bench.inspect(stream)
    assert (told["sizes"], told["cube"], told["parts"]) == ((700,), 1.0, 8)
    assert told["head"] + sum(told["segments"]) == len(stream)
    assert torch.equal(lc_bench.decompress(model, [stream])[0], cubed.decode(model, stream)[0])
