"""Dialects of files of clouds: each gives the points and triangles that its writer meant, or is refused in one line."""

from __future__ import annotations

import importlib.util
import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from lc_bench.data.cloud_files import read_cloud
from lc_bench.errors import UserError

ROOT = Path(__file__).parents[2]
POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0.5, 0.25, -3]], dtype="<f4")
ROWS = [" ".join(map(str, row)) for row in POINTS.tolist()]
TEXT = "\n".join(ROWS) + "\n"
QUAD = [[0, 1, 2], [0, 2, 3]]
VERTEX = "element vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
FACE = "element face 1\nproperty list uchar int vertex_indices\n"
EDGE = "element edge 2\nproperty int vertex1\nproperty int vertex2\n"
LITTLE, ASCII = "ply\nformat binary_little_endian 1.0\n", "ply\nformat ascii 1.0\n"
END = "end_header\n"
BODY = POINTS.tobytes()
CORNERS = struct.pack("<B4i", 4, 0, 1, 2, 3)
SAME = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 4\nHEIGHT 1\nPOINTS 4\n"


def packed(data: bytes) -> bytes:
    found = imagecodecs.lzf_encode(data, header=False)
    assert isinstance(found, bytes)
    return struct.pack("<II", len(found), len(data)) + found


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy_of(header: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(96)


def mesh(*extra: str) -> str:
    """A header of four vertices and one face with these properties."""
    return LITTLE + VERTEX + "element face 1\n" + "".join(f"property {e}\n" for e in extra) + END


LIST = "list uchar int vertex_indices"
MESHES = {
    "colour after.ply": mesh(LIST, "uchar red").encode() + BODY + CORNERS + b"\xff",
    "texture after.ply": mesh(LIST, "list uchar float texcoord").encode() + BODY + CORNERS + struct.pack("<B2f", 2, 0.5, 0.25),
    "flag before.ply": mesh("uchar flag", "short material", LIST).encode() + BODY + b"\1\3\0" + CORNERS,
    "edges between.ply": (LITTLE + VERTEX + EDGE + FACE + END).encode() + BODY + bytes(16) + CORNERS,
    "faces first.ply": (LITTLE + FACE + VERTEX + END).encode() + CORNERS + BODY,
    "lists of vertices.ply": (LITTLE + VERTEX + "property list uchar short near\n" + FACE + END).encode()
    + b"".join(row.tobytes() + struct.pack(f"<B{i}h", i, *range(i)) for i, row in enumerate(POINTS))
    + CORNERS,
    "carriage returns.ply": (LITTLE + VERTEX + FACE + END).replace("\n", "\r").encode() + BODY + CORNERS,
    "both ends.ply": (LITTLE + VERTEX + FACE + END).replace("\n", "\r\n").encode() + BODY + CORNERS,
    "big.ply": (LITTLE.replace("little", "big") + VERTEX + FACE + END).encode()
    + POINTS.astype(">f4").tobytes()
    + struct.pack(">B4i", 4, 0, 1, 2, 3),
    "comments.ply": (ASCII + "comment an end_header, format é\nobj_info x\n" + VERTEX + FACE + END + "\n" + TEXT + "4 0 1 2 3\n").encode(
        "latin-1"
    ),
    "scalar first.ply": (
        ASCII + VERTEX + "element face 1\nproperty int flags\nproperty " + LIST + "\n" + END + TEXT + "3 4 0 1 2 3\n"
    ).encode(),
    "other first.ply": (
        ASCII + "element camera 1\nproperty float f\n" + VERTEX + EDGE + FACE + END + "7\n" + TEXT + "0 1\n1 2\n4 0 1 2 3\n"
    ).encode(),
    "comment first.off": f"# from a scanner\n\nOFF # here\n4 1\n{TEXT}4 0 1 2 3\n".encode(),
    "marked.off": b"\xef\xbb\xbf" + f"OFF\r\n4 1 0\r\n{TEXT}4 0 1 2 3 0.5 0.5 0.5\r\n".encode(),
    "colours.off": ("COFF\n4 1 0\n" + "".join(f"{r} 9 9 9 255\n" for r in ROWS) + "4 0 1 2 3\n").encode(),
    "normals.off": ("NOFF 4 1 0\n" + "".join(f"{r} 0 0 1\n" for r in ROWS) + "4 0 1 2 3\n").encode(),
    "textures.off": ("STOFF\n4 1 0\n" + "".join(f"{r} 0 1\n" for r in ROWS) + "4 0 1 2 3\n").encode(),
    "colours unsaid.off": ("OFF\n4 1 0\n" + "".join(f"{r} 9 9 9\n" for r in ROWS) + "4 0 1 2 3\n").encode(),
    "one line.off": f"OFF 4 2 0\n{TEXT}3 0 1 2 3 0 2 3\n".encode(),
    "continued.obj": ("".join(f"v {r[:3]} \\\n{r[3:]}\n" for r in ROWS) + "f 1 2 \\\n 3 4 # the only one\n").encode(),
    "backwards.obj": ("# müde\n" + "".join(f"v {r}\n" for r in ROWS) + "f -4//1 -3//1 -2//1 -1//1\n").encode("latin-1"),
    "weights.obj": ("".join(f"v {r} 1.0\n" for r in ROWS) + "f 1/1/1 2/1/1 3 4\n").encode(),
    "utf16.obj": ("".join(f"v {r} 1 0 0\n" for r in ROWS) + "f 1 2 3 4\n").encode("utf-16"),
}
CLOUDS = {
    "compressed.pcd": (SAME + "DATA binary_compressed\n").encode() + packed(POINTS.T.tobytes()),
    "padded.pcd": b"# .PCD\r\nVERSION 0.7\r\nCOLUMNS _ x _ y z\r\nSIZE 1 4 2 8 4\r\nTYPE U F I F F\r\nCOUNT 3 1 2 1 1\r\n"
    b"WIDTH 2\r\nHEIGHT 2\r\nDATA binary\r\n" + b"".join(struct.pack("<3xf4xdf", *row) for row in POINTS.tolist()),
    "whole.pcd": (SAME.replace("F F F", "I I I").replace("4 4 4", "2 2 2").replace("4\n", "2\n") + "DATA binary\n").encode()
    + struct.pack("<6h", 0, 0, 0, 1, 0, 0),
    "blank lines.pcd": (SAME + f"DATA ascii\n\n{TEXT}\n").encode(),
    "mark.xyz": b"\xef\xbb\xbf" + TEXT.encode(),
    "utf16.xyz": TEXT.encode("utf-16"),
    "counted.xyz": f"4\n{TEXT}".encode(),
    "named.xyz": ("Intensity Z,Y,X\n".replace(",", " ") + "".join(f"7 {' '.join(reversed(r.split()))}\n" for r in ROWS)).encode(),
    "slashes.xyz": ("//X Y Z R G B\n" + "".join(f"{r}\t1\t2\t3\r\n" for r in ROWS)).encode(),
    "semicolons.xyz": ("x;y;z\n" + TEXT.replace(" ", ";")).encode(),
    "fortran.xyz": "".join(" ".join(f"{v:.8E}".replace("E", "D") for v in row) + "\n" for row in POINTS.tolist()).encode(),
    "remarks.xyz": f"# one\n{ROWS[0]} # the first\n\n// two\n" .encode() + "\n".join(ROWS[1:]).encode(),
    "fields.npy": npy(np.array([(9, *row) for row in POINTS.tolist()], [("i", "i4"), ("x", "<f8"), ("y", ">f4"), ("z", "<f2")])),
    "columns.npy": npy(np.asfortranarray(np.concatenate([POINTS, POINTS], 1).astype(">f2")[:, :4])),
}  # fmt: skip


@pytest.mark.parametrize("name", [*MESHES, *CLOUDS])
def test_dialects_are_read(name: str, tmp_path: Path) -> None:
    content = {**MESHES, **CLOUDS}[name]
    (tmp_path / name).write_bytes(content)
    cloud = read_cloud(tmp_path / name)
    assert np.array_equal(cloud.points.numpy(), POINTS[:2] if name == "whole.pcd" else POINTS)
    assert (None if cloud.triangles is None else cloud.triangles.tolist()) == (QUAD if name in MESHES else None)


def test_strips_and_mixed_faces(tmp_path: Path) -> None:
    """Strips turn every other triangle; polygons of several sizes keep their order."""
    head = LITTLE + VERTEX + "element tristrips 1\nproperty list int int vertex_indices\n" + END
    (tmp_path / "a.ply").write_bytes(head.encode() + BODY + struct.pack("<9i", 8, 0, 1, 2, 3, -1, 3, 2, 1))
    found = read_cloud(tmp_path / "a.ply").triangles
    assert found is not None
    assert found.tolist() == [[0, 1, 2], [2, 1, 3], [3, 2, 1]]
    faces = struct.pack("<B3iB2iB4i", 3, 3, 2, 1, 2, 0, 1, 4, 0, 1, 2, 3)
    (tmp_path / "b.ply").write_bytes((LITTLE + VERTEX + FACE.replace(" 1", " 3") + END).encode() + BODY + faces)
    found = read_cloud(tmp_path / "b.ply").triangles
    assert found is not None
    assert found.tolist() == [[3, 2, 1], *QUAD]


REFUSED = [
    ("x.ply", (ASCII + VERTEX + FACE + END + TEXT).encode(), "1 of face are promised, 0"),
    ("x.ply", (ASCII + VERTEX + FACE + END + TEXT + "4 0 1 2\n").encode(), "cut short"),
    ("x.ply", (ASCII + VERTEX + END + TEXT + "4 0 1 2\n").encode(), "1 lines follow"),
    ("x.ply", (LITTLE + VERTEX + END).encode() + BODY + b"more", "4 bytes follow"),
    ("x.ply", (LITTLE + VERTEX + FACE + END).encode() + BODY + CORNERS[:-1], "cut short"),
    ("x.ply", (LITTLE + VERTEX + FACE.replace("vertex_indices", "corner") + END).encode() + BODY + CORNERS, "no list vertex_indices"),
    ("x.ply", (LITTLE + VERTEX.replace("float x", "half x") + END).encode() + BODY, "'half' are not known"),
    ("x.ply", (LITTLE + VERTEX.replace("4", "99999999999") + "property list uint int n\n" + END).encode() + BODY, "cut short"),
    ("x.ply", (ASCII + VERTEX.replace("4", "0") + END).encode(), "no points"),
    ("x.pcd", (SAME.replace("4 4 4", "3 3 3") + "DATA binary\n").encode() + BODY, "SIZE 3"),
    ("x.pcd", (SAME.replace("F F F", "D D D") + "DATA binary\n").encode() + BODY, "TYPE D"),
    ("x.pcd", (SAME.replace("WIDTH 4", "WIDTH 3") + "DATA binary\n").encode() + BODY, "WIDTH times HEIGHT 3"),
    ("x.pcd", (SAME + "DATA binary_compressed\n").encode() + packed(BODY)[:-3], "cut short"),
    ("x.pcd", (SAME + "DATA binary_compressed\n").encode() + struct.pack("<II", 4, 48) + b"\xff\xff\xff\xff", "damaged"),
    (
        "x.pcd",
        (SAME.replace("WIDTH 4", "WIDTH 89478485").replace("POINTS 4", "POINTS 89478485") + "DATA binary_compressed\n").encode()
        + struct.pack("<II", 9, 1073741820),
        "cut short",
    ),
    ("x.off", f"4OFF\n4 0 0\n{TEXT}".encode(), "other than three coordinates"),
    ("x.off", b"OFF BINARY\n" + bytes(12), "binary OFF"),
    ("x.off", b"OFF\n999999999999 3 3\n1 2 3\n", "cut short"),
    ("x.off", f"OFF\n4 2 0\n{TEXT}3 0 1 2\n".encode(), "2 faces are promised, 1"),
    ("x.off", f"OFF\n4 1 0\n{TEXT}3 0 1 2\n3 0 1 2\n".encode(), "does not end after the 1 faces"),
    ("x.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "counts from 1"),
    ("x.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -4 1 2\n", "counts from 1"),
    ("x.obj", b"v 0 0 0 2\nv 1 0 0 2\n", "weights are not 1"),
    ("x.obj", b"V 0 0 0\n", "no points"),
    ("x.xyz", b"12,3456 7,8900 3,1000\n", "commas beside blanks"),
    ("x.xyz", b"1 2 3\n12,5\t7,8\t3,1\r\n", "line 2 has .*which is no number|commas beside blanks"),
    ("x.xyz", b"12,34;7,89;3,1\n", "between semicolons"),
    ("x.xyz", b"12,05,7,89,3,10\n4,5,7,01,3,12\n", "within them"),
    ("x.xyz", f"5\n{TEXT}".encode(), "promises 5 points, 4"),
    ("x.xyz", b"2\nwater\nO 0 0 0\nH 1 0 0\n", "molecule"),
    ("x.xyz", b"1 2 3 4\n1 2 3 4\n1 2 3\n", "line 3 has 3 numbers"),
    ("x.xyz", b"1 5 5 5\n2 6 6 6\n3 7 7 7\n", "counts the rows"),
    ("x.xyz", b"a b c\n1 2 3\n", "called a b c"),
    ("x.xyz", TEXT.encode("utf-16-le"), "UTF-16 without"),
    ("x.npy", npy(POINTS.T.repeat(3, 1)), "more columns than points"),
    ("x.npy", npy(POINTS[None]), r"shape \(1, 4, 3\)"),
    ("x.npy", npy(POINTS > 0), "type bool"),
    ("x.npy", npy(POINTS.astype(complex)), "type complex"),
    ("x.npy", npy(np.full((3, 3), 2**60 + 1)), "2\\^53"),
    ("x.npy", b"PK\3\4", "npz"),
    ("x.npy", npy_of("{'descr': '|O', 'fortran_order': False, 'shape': (4, 3)}"), "type object"),
    ("x.npy", npy_of("{'descr': '<f8', 'fortran_order': False, 'shape': (4, 2147483648)}"), "68719476736 bytes are promised"),
    ("x.npy", npy_of("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 3)}"), "shape"),
    ("x.npy", npy_of("{'descr': (, 'fortran_order': False, 'shape': (4, 3)}"), "not a readable"),
    ("x.npy", npy_of("{'descr': '<,8', 'fortran_order': False, 'shape': (4, 3)}"), "not a readable"),
    ("x.npy", npy_of("{'descr': '<f8', 'fortran_order': False, 5: (4, 3)}"), "not a readable"),
]


def test_what_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    for name, content, told in REFUSED:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=told) as refused:
            read_cloud(path)
        assert len(str(refused.value).splitlines()) == 1, content


def test_frames_are_told_by_their_numbers(tmp_path: Path) -> None:
    """KITTI and nuScenes by size and numbers; glTF buffers, doubles and what could be both are refused, and a key says what they are."""
    draw = np.random.default_rng(0)
    points = (draw.normal(size=(400, 3)) * [30, 30, 1]).astype("<f4")
    ring = (np.arange(400) % 32).astype("<f4")
    kitti = np.concatenate([points, draw.uniform(0, 1, (400, 1)).astype("<f4")], 1)
    nuscenes = np.concatenate([points, draw.integers(0, 255, (400, 1)).astype("<f4"), ring[:, None]], 1)
    box = draw.uniform(0, 1, (400, 3)).astype("<f4")
    gltf = box.tobytes() + draw.integers(0, 400, 1200).astype("<u2").tobytes()
    path = tmp_path / "a.bin"
    for content in (kitti, nuscenes):
        path.write_bytes(content.tobytes())
        assert np.array_equal(read_cloud(path).points.numpy(), points)
    for content in (gltf, box.tobytes(), points.astype("<f8").tobytes(), np.zeros((400, 5), "<f4").tobytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match="columns="):
            read_cloud(path)
    path.write_bytes(box.tobytes())
    assert np.array_equal(read_cloud(path, columns=3).points.numpy(), box)
    with pytest.raises(UserError, match="cut short"):
        read_cloud(path, columns=7)
    with pytest.raises(UserError, match="columns=2"):
        read_cloud(path, columns=2)


def test_damaged_files_of_every_kind(tmp_path: Path) -> None:
    """A small part of what benchmarks/fuzz_clouds.py tries."""
    spec = importlib.util.spec_from_file_location("fuzz_clouds", ROOT / "benchmarks" / "fuzz_clouds.py")
    assert spec is not None
    assert spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    for kind, sound in fuzz.examples().items():
        path = tmp_path / f"sound.{kind}"
        for content in sound:
            path.write_bytes(content)
            assert fuzz.outcome(path) == "read"
        found, _, wrong = fuzz.run(kind, 60, 1, tmp_path)
        assert not wrong
        assert found["read"]
        assert found["refused"] > 10
