"""Published layouts of sets, on small ones made here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lc_bench.config import compose, make
from lc_bench.data import CloudSet
from lc_bench.errors import UserError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path))
    return tmp_path


def load(name: str, *keys: str) -> CloudSet:
    return make(compose(f"data={name}", *(f"data.{k}" for k in keys)).data)


def numbers(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-5, 5, (rows, columns)).astype(np.float32)


def write_rows(path: Path, table: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, table, fmt="%.6f")


def test_shapenet_part(root: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        load("shapenet-part")
    top = root / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    write_rows(top / "02691156" / "aa.txt", numbers(50, 7))
    write_rows(top / "03001627" / "bb.txt", numbers(40, 7, 1))
    (top / "synsetoffset2category.txt").write_text("Airplane\t02691156\nChair\t03001627\n")
    (top / "train_test_split").mkdir()
    listed = ["shape_data/03001627/bb", "shape_data/02691156/aa"]
    (top / "train_test_split" / "shuffled_test_file_list.json").write_text(json.dumps(listed))
    data = load("shapenet-part", "points=null", "normalise=none")
    assert data.names == ("02691156/aa", "03001627/bb")
    assert np.allclose(data.cloud(0).numpy(), numbers(50, 7)[:, :3], atol=1e-6)
    assert load("shapenet-part", "classes=[Chair]", "points=40").names == ("03001627/bb",)
    with pytest.raises(UserError, match="Airplane, Chair"):
        load("shapenet-part", "classes=[Car]")
    with pytest.raises(UserError, match="cannot be read"):
        load("shapenet-part", "split=val")
    with pytest.raises(UserError, match="train, val, test"):
        load("shapenet-part", "split=half")
    file = top / "02691156" / "aa.txt"
    for text, told in ((file.read_text()[:-30], "cut short"), ("1 2 3\n", "7 are wanted"), ("a b c d e f g\n", "not a cloud")):
        file.write_text(text)
        with pytest.raises(UserError, match=told):
            data.cloud(0)


def test_s3dis(root: Path) -> None:
    for area, room in ((1, "office_1"), (5, "hall_2"), (5, "hall_1")):
        top = root / "Stanford3dDataset_v1.2_Aligned_Version" / f"Area_{area}"
        write_rows(top / room / f"{room}.txt", numbers(30, 6, area))
        (top / ".DS_Store").touch()
    assert load("s3dis", "points=30").names == ("Area_5/hall_1", "Area_5/hall_2")
    train = load("s3dis", "split=train", "points=null", "normalise=none")
    assert train.names == ("Area_1/office_1",)
    assert np.allclose(train.cloud(0).numpy(), numbers(30, 6, 1)[:, :3], atol=1e-6)
    with pytest.raises(UserError, match="1, 5"):
        load("s3dis", "area=7")


def test_frames_of_one_number_in_two_folders(root: Path) -> None:
    for drive in ("00", "01"):
        path = root / "kitti" / drive / "000000.bin"
        path.parent.mkdir(parents=True)
        numbers(200, 4).tofile(path)
    assert load("kitti", "split=test").names == ("kitti/00/000000.bin", "kitti/01/000000.bin")


def test_semantickitti(root: Path) -> None:
    for sequence in (0, 8, 11):
        for frame in range(3):
            path = root / "semantickitti" / "sequences" / f"{sequence:02}" / "velodyne" / f"{frame:06}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            numbers(200, 4, 10 * sequence + frame).tofile(path)
    test = load("semantickitti", "every=2")
    assert (test.names, test.cube) == (("11/000000", "11/000002"), 12.0)
    assert np.array_equal(test.cloud(1).numpy(), numbers(200, 4, 112)[:, :3])
    assert len(load("semantickitti", "split=val", "every=1")) == 3
    train = load("semantickitti", "split=train", "every=1", "smallest=10")
    assert train.cube is None
    assert len(train) == 3 * 8  # ten metres about the origin: eight cubes of twelve
    assert all(x.abs().max() <= 1 for _, x in train)
    with pytest.raises(UserError, match="every=0"):
        load("semantickitti", "every=0")


def write_h5(path: Path, data: np.ndarray, label: np.ndarray) -> None:
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = data, label


def test_modelnet_h5(root: Path) -> None:
    top = root / "modelnet40_ply_hdf5_2048"
    clouds = numbers(3 * 20, 3).reshape(3, 20, 3)
    write_h5(top / "ply_data_test0.h5", clouds[:2], np.array([[1], [0]], np.uint8))
    write_h5(top / "ply_data_test1.h5", clouds[2:], np.array([[1]], np.uint8))
    (top / "shape_names.txt").write_text("chair\nlamp\n")
    data = load("modelnet40-h5", "points=20", "normalise=none")
    assert data.names == ("lamp/ply_data_test0/0", "chair/ply_data_test0/1", "lamp/ply_data_test1/0")
    assert np.array_equal(data.cloud(2).numpy(), clouds[2])
    assert len(load("modelnet40-h5", "classes=[lamp]", "points=20")) == 2
    with pytest.raises(UserError, match="no file ply_data_train"):
        load("modelnet40-h5", "split=train")
    write_h5(top / "ply_data_test1.h5", clouds[2:], np.array([[9]], np.uint8))
    with pytest.raises(UserError, match="2 names"):
        load("modelnet40-h5")
    (top / "ply_data_test1.h5").write_bytes(b"cut")
    with pytest.raises(UserError, match="not a readable set"):
        load("modelnet40-h5")


def test_h5py_is_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "modelnet40_ply_hdf5_2048").mkdir()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install lc_bench\[points\]"):
        load("modelnet40-h5")


def test_rows_of_s3dis_with_control_characters(root: Path) -> None:
    """One stands for a blank or for nothing; what neither makes six numbers of is refused, or skipped."""
    top = root / "Stanford3dDataset_v1.2_Aligned_Version" / "Area_5"
    rows = ["1 2 3 185\x10187 180", "4 5 6 18\x105 7 8", "7 8\x10 9 1 2 3", "1 1 1 2 2 2\r"]
    for room, text in (("hall_1", rows), ("hall_2", [*rows, "1 2\x10x 3 4 5 6"]), ("hall_3", ["1 2 3 4 5 6", "1 2 3"])):
        (top / room).mkdir(parents=True)
        (top / room / f"{room}.txt").write_text("\n".join(text) + "\n", newline="")
    data = load("s3dis", "points=null", "normalise=none", "on_error=skip")
    found = dict(data)
    assert list(found) == ["Area_5/hall_1"]
    assert found["Area_5/hall_1"].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 1, 1]]
    assert len(data.skipped) == 2
    with pytest.raises(UserError, match="hall_2.*on_error=skip"):
        list(load("s3dis", "points=null", "on_error=fail"))


def test_every_set_takes_on_error(root: Path) -> None:
    """A cut frame is left out of training on cubes, too."""
    for name in ("shapes", "modelnet10", "modelnet40", "kitti", "semantickitti", "modelnet40-h5", "shapenet-part", "s3dis", "clouds"):
        assert "on_error" in compose(f"data={name}", *(["data.path=."] if name == "clouds" else [])).data, name
    frame = numbers(2000, 4) * np.array([1, 1, 0.1, 0.0], np.float32)
    (root / "kitti").mkdir()
    frame.tofile(root / "kitti" / "a.bin")
    (root / "kitti" / "b.bin").write_bytes(frame.tobytes()[:-3])
    for split in ("train", "test"):
        data = load("kitti", f"split={split}", "on_error=skip")
        assert len(dict(data)) == (4 * 2 if split == "train" else 1)
        assert "b.bin" in data.skipped[0]
        with pytest.raises(UserError, match="b.bin"):
            list(load("kitti", f"split={split}"))
