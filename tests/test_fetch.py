"""Downloads over loopback: whole or not there, continued where they were cut, one process at a time, nothing taken on trust."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from forked import wait_until
from PIL import Image

from lc_bench.config import compose, make
from lc_bench.errors import UserError
from lc_bench.ops import fetch
from lc_bench.ops.unpack import unpack

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
SHA = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """Files by name, and how the server behaves; it counts the bytes that it sent and keeps what was asked for."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True  # whether it serves parts
    cut: int | None = None  # bytes after which each answer breaks off
    pause: float = 0  # seconds after each 64 KiB
    refuse: int = 0  # answers of 503 before the first other
    etag: str = '"1"'
    sent: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Range


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range") or ""
            state.asked.append((self.path, wanted))
            content = state.files.get(self.path.lstrip("/"))
            if state.refuse:
                state.refuse -= 1
                return self.send_error(503)
            if content is None:
                return self.send_error(404)
            start = int(re.sub(r"\D", "", wanted) or 0)
            same = self.headers.get("If-Range") in (None, state.etag)
            part = bool(wanted) and state.ranges and same
            if part and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                return self.end_headers()
            self.send_response(206 if part else 200)
            body = content[start:] if part else content
            if part:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(body)))
            if state.etag:
                self.send_header("ETag", state.etag)
            self.end_headers()
            for place in range(0, min(len(body), state.cut or len(body)), 1 << 16):
                piece = body[place : min(place + (1 << 16), state.cut or len(body))]
                self.wfile.write(piece)
                state.sent += len(piece)
                time.sleep(state.pause)
            if state.cut is not None:
                self.connection.close()
            return None

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True  # the client was killed, or the answer was cut

        def finish(self) -> None:
            if self.connection.fileno() >= 0:
                super().finish()

        def log_message(self, *args: object) -> None:
            """Quiet."""

    monkeypatch.setattr(fetch, "PAUSES", (0, 0, 0))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        state.address = f"http://127.0.0.1:{running.server_port}"
        yield state
        running.shutdown()


def get(server: Server, path: Path, expected: str = SHA, name: str = "file") -> Path:
    return fetch.fetch(f"{server.address}/{name}", path, expected, "or give up")


def parts(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("*") if p.name != ".lock")


def test_dropped_connections_are_continued(server: Server, tmp_path: Path) -> None:
    server.files["file"], server.cut = CONTENT, 700_000
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.sent == len(CONTENT), "bytes came twice"
    assert [wanted for _, wanted in server.asked] == ["", *(f"bytes={n}-" for n in (700_000, 1_400_000, 2_100_000, 2_800_000))]
    assert parts(tmp_path) == ["file"]
    get(server, tmp_path / "file")
    assert len(server.asked) == 5, "what is there was asked for again"


def test_killed_download_goes_on(server: Server, tmp_path: Path) -> None:
    """kill -9 in the middle; the next process asks for the rest alone."""
    server.files["file"], server.pause = CONTENT, 0.05
    code = f"from lc_bench.ops.fetch import fetch; from pathlib import Path; fetch('{server.address}/file', Path('file'), '{SHA}', '')"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(Path(fetch.__file__).parents[2])}
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    wait_until(lambda: any(p.stat().st_size > 1 << 20 for p in tmp_path.glob("*.part")), running, 120)
    running.send_signal(signal.SIGKILL)
    running.wait()
    server.pause = 0
    (part,) = tmp_path.glob("*.part")
    have = part.stat().st_size
    assert have > 1 << 20
    assert not (tmp_path / "file").exists()
    server.asked.clear()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert server.asked == [("/file", f"bytes={have}-")]
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert parts(tmp_path) == ["file"]


def test_servers_without_ranges_and_with_hiccups(server: Server, tmp_path: Path) -> None:
    server.files["file"], server.ranges, server.cut = CONTENT, False, 2_000_000
    with pytest.raises(UserError, match=r"cut short, 2,000,000 bytes came. Run again to go on from there; or give up"):
        get(server, tmp_path / "file")
    server.cut, server.refuse = None, 2
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert parts(tmp_path) == ["file"]


def test_another_version_starts_anew(server: Server, tmp_path: Path) -> None:
    """The rest of one file is not put to the beginning of another: by the server's tag, and by the hash where it has none."""
    other = CONTENT[::-1]
    for tag in ('"2"', ""):
        server.files["file"], server.ranges, server.cut, server.etag = CONTENT, False, 1_000_000, '"1"' if tag else ""
        expected = hashlib.sha256(other).hexdigest()
        with pytest.raises(UserError, match="cut short"):
            get(server, tmp_path / "file", expected)
        server.files["file"], server.ranges, server.cut, server.etag = other, True, None, tag
        assert get(server, tmp_path / "file", expected).read_bytes() == other
        assert parts(tmp_path) == ["file"]
        (tmp_path / "file").unlink()


def test_without_hash_and_tag_nothing_is_continued(server: Server, tmp_path: Path) -> None:
    server.files["file"], server.ranges, server.cut, server.etag = CONTENT, False, 1_000_000, ""
    with pytest.raises(UserError, match="cut short"):
        get(server, tmp_path / "file", "")
    server.ranges, server.cut = True, None
    server.asked.clear()
    assert get(server, tmp_path / "file", "").read_bytes() == CONTENT
    assert server.asked == [("/file", "")]


def test_part_that_was_whole_is_asked_for_no_more(server: Server, tmp_path: Path) -> None:
    server.files["file"], server.cut = CONTENT, len(CONTENT) - 1
    server.ranges = False
    with pytest.raises(UserError, match="cut short"):
        get(server, tmp_path / "file")
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(CONTENT)
    server.ranges, server.cut, server.sent = True, None, 0
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.sent == 0


def test_wrong_hashes_and_missing_files(server: Server, tmp_path: Path) -> None:
    server.files["file"] = CONTENT[1:]
    with pytest.raises(UserError, match="not the file that was published"):
        get(server, tmp_path / "file")
    assert parts(tmp_path) == []
    with pytest.raises(fetch.AbsentError, match="404"):
        get(server, tmp_path / "none", name="none")
    with pytest.raises(UserError, match=r"cannot be downloaded.*or give up"):
        fetch.fetch("http://127.0.0.1:9/file", tmp_path / "file", SHA, "or give up")
    md5 = hashlib.md5(CONTENT[1:]).hexdigest()
    assert get(server, tmp_path / "file", f"md5:{md5}").is_file()
    with pytest.raises(UserError, match="Delete it"):
        get(server, tmp_path / "file")


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    server.files["file"], server.pause = CONTENT, 0.02
    code = f"from lc_bench.ops.fetch import fetch; from pathlib import Path; fetch('{server.address}/file', Path('file'), '{SHA}', '')"
    environment = {**os.environ, "PYTHONPATH": str(Path(fetch.__file__).parents[2])}
    running = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert server.sent == len(CONTENT)
    assert parts(tmp_path) == ["file"]


def test_full_disks_are_told_before(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["file"] = CONTENT
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="3,000,000 bytes are to come, 1,000 are free"):
        get(server, tmp_path / "file")


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(members: dict[str, bytes], link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:bz2") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("a/link.png")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_unpacking_takes_what_is_wanted(pack, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    members = {
        "a/b/1.png": b"one",
        "a/b/2.png": b"two",
        "a/c/3.png": b"three",
        "__MACOSX/a/b/1.png": b"x",
        "a/b/.2.png": b"x",
        "a/r.txt": b"x",
    }
    (tmp_path / "archive").write_bytes(pack(members))
    for take, strip, expected in (
        ("*/b/*.png", -1, ["1.png", "2.png"]),
        ("*.png", -2, ["b/1.png", "b/2.png", "c/3.png"]),
        ("a/*", 1, ["b/1.png", "b/2.png", "c/3.png", "r.txt"]),
    ):
        folder = tmp_path / f"out{strip}"
        assert unpack(tmp_path / "archive", folder, take, strip, 100) == len(expected)
        assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == expected


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_hostile_archives(pack, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    archive = tmp_path / "archive"
    for members, words in (
        ({"../../evil.png": b"x"}, "leads out"),
        ({"/etc/evil.png": b"x"}, "leads out"),
        ({"a\\..\\..\\evil.png": b"x"}, "leads out"),
        ({"C:\\evil.png": b"x"}, "leads out"),
        ({"a/1.png": b"x", "b/1.png": b"x"}, "two files 1.png"),
        ({"bomb.png": bytes(200_000)}, "more than 1,000 bytes"),
    ):
        archive.write_bytes(pack(members))
        with pytest.raises(UserError, match=words):
            unpack(archive, tmp_path / "deep" / "out" / words, "*.png", -1, 1000)
        assert not list(tmp_path.rglob("evil.png")), members
    archive.write_bytes(tarred({}, link="/etc/passwd"))
    assert unpack(archive, tmp_path / "out", "*.png", -1, 1000) == 0
    for damaged in (b"", b"no archive", zipped({"1.png": CONTENT[:5000]})[:3000], tarred({"1.png": CONTENT[:50_000]})[:20_000]):
        archive.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be unpacked"):
            unpack(archive, tmp_path / f"out{len(damaged)}", "*.png", -1, 10**6)


def pictures(count: int, folder: str = "pictures") -> dict[str, bytes]:
    out = {}
    for i in range(count):
        file = io.BytesIO()
        Image.fromarray(np.full((40, 50, 3), 20 * i, np.uint8)).save(file, "PNG")
        out[f"{folder}/{i}.png"] = file.getvalue()
    return out


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def clic(server: Server, archive: bytes, *more: str) -> list[str]:
    """Overrides for a published set whose archive the server has."""
    server.files["a/test.zip"] = archive
    fields = {"address": f"{server.address}/a/test.zip", "size": len(archive), "sha256": hashlib.sha256(archive).hexdigest(), "count": 3}
    return ["data=clic2020-mobile", *(f"data.splits.test.{key}={value}" for key, value in fields.items()), *more]


def test_archived_sets(server: Server, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = clic(server, zipped({**pictures(3), "__MACOSX/pictures/._0.png": b"x"}))
    caplog.set_level("INFO")
    images = make(compose(*wanted).data)
    assert "licence: none is named; released by the Computer Vision Lab" in caplog.text
    assert (images.name, [name for name, _ in images]) == ("clic2020-mobile-test", ["test/0.png", "test/1.png", "test/2.png"])
    assert parts(data / "downloads" / "clic2020-mobile") == [], "the archive is still there"
    make(compose(*wanted).data)
    assert len(server.asked) == 1
    (data / "clic2020-mobile" / "test" / "2.png").unlink()
    with pytest.raises(UserError, match="2 images, clic2020-mobile has 3. Remove the folder"):
        make(compose(*wanted).data)
    with pytest.raises(UserError, match="clic2020-mobile has test, val, train"):
        make(compose("data=clic2020-mobile", "data.split=dev").data)


def test_archives_put_there_by_hand(server: Server, data: Path) -> None:
    store = data / "downloads" / "clic2020-mobile"
    store.mkdir(parents=True)
    archive = zipped(pictures(3))
    wanted = clic(server, archive)
    (store / "test.zip").write_bytes(b"half")
    with pytest.raises(UserError, match="another SHA-256"):
        make(compose(*wanted).data)
    (store / "test.zip").write_bytes(archive)
    assert len(make(compose(*wanted).data)) == 3
    assert not server.asked
    assert (store / "test.zip").exists(), "what a user put there was removed"


def test_wrong_counts_leave_nothing(server: Server, data: Path) -> None:
    with pytest.raises(UserError, match="2 files of .* in it, 3 were expected"):
        make(compose(*clic(server, zipped(pictures(2)))).data)
    assert not (data / "clic2020-mobile" / "test").exists()


def test_large_sets_are_asked_for(server: Server, data: Path) -> None:
    wanted = clic(server, zipped(pictures(3)), "data.splits.test.size=3530603713")
    with pytest.raises(UserError, match=r"data.download=true gets 3.5 GB from http.*licence: .*Challenge") as told:
        make(compose(*wanted).data)
    assert str(data) in str(told.value), "where to put it by hand"
    assert not server.asked
    assert len(make(compose(*wanted, "data.download=true").data)) == 3
    for name in ("div2k", "vimeo90k"):
        with pytest.raises(UserError, match="data.download=true gets"):
            make(compose(f"data={name}", "run.split=train").data)
    with pytest.raises(UserError, match="give true, false, or null"):
        make(compose("data=div2k", "data.download=maybe").data)


def tecnick(server: Server, archive: bytes) -> list[str]:
    server.files["testimages.zip"] = archive
    fields = {"address": f"{server.address}/testimages.zip", "size": len(archive), "count": 3}
    return ["data=tecnick", *(f"data.splits.test.{key}={value}" for key, value in fields.items())]


def test_first_hash_is_kept(server: Server, data: Path) -> None:
    """Of a set without a published hash, which is why its size is checked as well."""
    archive = zipped(pictures(3, "TESTIMAGES/RGB/RGB_OR_1200x1200") | pictures(2, "TESTIMAGES/RGB/RGB_R02_0600x0600"))
    wanted = tecnick(server, archive)
    with pytest.raises(UserError, match="not the file that was published"):
        make(compose(*wanted, f"data.splits.test.size={2 * len(archive)}").data)
    assert not (data / "downloads" / "tecnick" / "testimages.zip").exists()
    assert len(make(compose(*wanted).data)) == 3
    notes = data / "downloads" / "tecnick" / "SHA256SUMS"
    assert notes.read_text() == f"{hashlib.sha256(archive).hexdigest()}  testimages.zip\n"
    for image in (data / "tecnick" / "test").iterdir():
        image.unlink()
    (data / "tecnick" / "test").rmdir()
    with pytest.raises(UserError, match="not the file that was published"):
        make(compose(*tecnick(server, archive + b" ")).data)
    assert len(make(compose(*tecnick(server, archive)).data)) == 3


def test_a_damaged_first_download_poisons_nothing(server: Server, data: Path) -> None:
    """Of a set without a published hash: neither its file nor its hash is kept."""
    archive = zipped(pictures(3, "TESTIMAGES/RGB/RGB_OR_1200x1200"))
    place = archive.index(b"IDAT") + 8
    altered = archive[:place] + bytes([archive[place] ^ 1]) + archive[place + 1 :]
    cut = archive[: len(archive) - 20]
    page = b"<html>please sign in</html>".ljust(len(archive))
    store = data / "downloads" / "tecnick"
    for damaged in (altered, cut, page, zipped(pictures(2, "TESTIMAGES/RGB/RGB_OR_1200x1200")).ljust(len(archive), b" ")):
        wanted = tecnick(server, damaged)
        with pytest.raises(UserError, match="came damaged .* run again"):
            make(compose(*wanted, f"data.splits.test.size={len(archive)}").data)
        assert [file.name for file in store.iterdir() if file.name != ".lock"] == []
    assert len(make(compose(*tecnick(server, archive)).data)) == 3


def test_folders_of_their_own_shape(server: Server, data: Path) -> None:
    members = pictures(2, "vimeo_septuplet/sequences/00001/0001") | {"vimeo_septuplet/sep_trainlist.txt": b"00001/0001\n"}
    archive = server.files["v.zip"] = zipped(members)
    published = [f"data.archive.address={server.address}/v.zip", f"data.archive.size={len(archive)}"]
    images = make(compose("data=vimeo90k", "run.split=train", *published).data)
    assert [name for name, _ in images] == ["sequences/00001/0001/0.png", "sequences/00001/0001/1.png"]


def test_images_in_archives_of_their_own(server: Server, data: Path) -> None:
    images = pictures(2, "x")
    config = compose("data=jpeg-ai", f"data.address={server.address}", "data.count=2").data
    config.md5 = {Path(name).name: hashlib.md5(content).hexdigest() for name, content in images.items()}
    for name, content in images.items():
        server.files[f"{Path(name).name}.zip"] = zipped({Path(name).name: content})
    assert [name for name, _ in make(config)] == ["0.png", "1.png"]
    make(config)
    assert len(server.asked) == 2
    assert parts(data / "downloads" / "jpeg-ai") == []
    (data / "jpeg-ai" / "1.png").unlink()
    server.files["1.png.zip"] = zipped({"1.png": images["x/0.png"]})
    with pytest.raises(UserError, match="another hash than md5:"):
        make(config)


def test_subsets_by_a_list(server: Server, data: Path, tmp_path: Path) -> None:
    contents = list(pictures(3).values())
    names = ["train/0000000000000001", "validation/0000000000000002", "train/0000000000000003"]
    for name, content in zip(names, contents, strict=True):
        server.files[f"{name}.jpg"] = content
    listing = tmp_path / "some.txt"
    listing.write_text("0000000000000001\nvalidation/0000000000000002.jpg\ntrain/0000000000000003\ntrain/00000000000000ff\n")
    wanted = ["data=openimages", f"data.list={listing}", f"data.address={server.address}"]
    images = make(compose(*wanted).data)
    assert (images.name, [name for name, _ in images]) == ("openimages-some", [f"{name}.jpg" for name in names])
    assert (data / "openimages" / "missing.txt").read_text() == "train/00000000000000ff\n"
    server.asked.clear()
    (data / "openimages" / f"{names[0]}.jpg").unlink()
    assert len(make(compose(*wanted).data)) == 3
    assert server.asked == [(f"/{names[0]}.jpg", "")]
    (data / "openimages" / f"{names[0]}.jpg").unlink()
    server.files[f"{names[0]}.jpg"] = contents[0][:-20]  # damaged on its way: left out this time, and asked for again
    assert [name for name, _ in make(compose(*wanted).data)] == [f"{name}.jpg" for name in names[1:]]
    server.files[f"{names[0]}.jpg"] = contents[0]
    assert len(make(compose(*wanted).data)) == 3
    listing.write_text("../../etc/passwd\n")
    with pytest.raises(UserError, match="is no image"):
        make(compose(*wanted).data)
    listing.write_text("".join(f"{i:016x}\n" for i in range(10_000)))
    with pytest.raises(UserError, match="data.download=true gets 2.9 GB"):
        make(compose(*wanted).data)


def test_full_disks_while_unpacking(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(zipped({"1.png": b"x"}))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        unpack(tmp_path / "archive", tmp_path / "file" / "out", "*.png", -1, 100)
