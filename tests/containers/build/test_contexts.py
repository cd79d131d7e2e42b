"""Contexts and archives from anybody: nothing of them leaves its place, and what means nothing ends the build."""

from __future__ import annotations

import asyncio
import http.server
import io
import lzma
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from dbt.containers.build.failures import BuildFailed
from dbt.containers.build.trees import Context, pattern
from dbt.containers.images.errors import ImageError
from dbt.containers.images.tar_reader import Limits
from dbt.containers.images.view import FilesView
from tests.containers.build.building import Build
from tests.containers.build.cases import Case
from tests.containers.build.transcript import context_of
from tests.containers.images.archives import archive, member


def context(*members: tuple[tarfile.TarInfo, bytes], limits: Limits = Limits()) -> Context:  # noqa: B008
    return Context(io.BytesIO(archive(members)), io.BytesIO(), limits)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", "a/..", "x" * 5000])
def test_names_that_lead_out(name: str) -> None:
    with pytest.raises(BuildFailed, match="Error processing tar file"):
        context(member(name, data=b"x"))


def test_links_lead_nowhere_else() -> None:
    found = context(
        member("file", data=b"here"),
        member("up", tarfile.SYMTYPE, linkname="../../../../file"),
        member("root", tarfile.SYMTYPE, linkname="/file"),
        member("dir/in", data=b"inner"),
        member("way", tarfile.SYMTYPE, linkname="dir"),
        member("loop", tarfile.SYMTYPE, linkname="loop"),
        member("hard", tarfile.LNKTYPE, linkname="file"),
    )
    for path in ("file", "up", "root", "hard", "dir/../file", "../../file"):
        assert found.read(path, 100) == b"here", path
    assert found.read("way/in", 100) == b"inner"
    assert found.read("loop", 100) is None and found.read("file/x", 100) is None
    assert found.read("file", 3) is None
    assert [path for path, _ in found.walk("dir")] == ["dir", "dir/in"]


@pytest.mark.parametrize(
    "members",
    [
        [member("a", tarfile.LNKTYPE, linkname="nothing")],
        [member("a", tarfile.DIRTYPE), member("b", tarfile.LNKTYPE, linkname="a")],
        [member(f"f{number}") for number in range(11)],
        [member("f", data=bytes(200000))],
    ],
)
def test_what_is_wrong_or_too_much(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(BuildFailed, match="Error processing tar file"):
        context(*members, limits=Limits(bytes=100000, entries=10))


def test_the_last_of_a_name_counts() -> None:
    found = context(
        member("a/b", data=b"1"), member("a", data=b"file"), member("c", data=b"x"), member("c/d", data=b"2")
    )
    assert found.read("a", 9) == b"file" and found.read("a/b", 9) is None
    assert found.read("c/d", 9) == b"2"


def test_wildcards() -> None:
    assert pattern("a*[b-d]?").fullmatch("axxc!") and not pattern("a*").fullmatch("a/b")
    assert pattern(r"a\*").fullmatch("a*") and not pattern(r"a\*").fullmatch("ab")
    assert pattern("[").fullmatch("[") and pattern("[^a]").fullmatch("b") and not pattern("[^a]").fullmatch("a")


def built(tmp_path: Path, dockerfile: str, *members: tuple[tarfile.TarInfo, bytes]) -> Any:
    build = Build(tmp_path)
    messages = asyncio.run(
        build.messages(archive([member("Dockerfile", data=dockerfile.encode()), *members]), {"version": "1"})
    )
    assert "error" not in messages[-1], messages[-1]
    image = build.image_of(messages)
    assert image is not None
    return FilesView(image.layers)


def test_an_archive_is_unpacked_with_all_that_is_in_it(tmp_path: Path) -> None:
    inner = archive([
        member("in/file", data=b"data", mode=0o4750, uid=3, gid=4, mtime=5),
        member("in/link", tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("in/hard", tarfile.LNKTYPE, linkname="in/file"),
        member("in/device", tarfile.CHRTYPE, devmajor=1, devminor=3),
    ])  # fmt: skip
    packed = lzma.compress(inner)
    with built(tmp_path, "FROM busybox\nADD a.txz /to\nADD plain /to/\n", member("a.txz", data=packed),
               member("plain", data=b"no archive")) as files:  # fmt: skip
        status = files.stat("/to/in/file")
        assert (status.mode & 0o7777, status.uid, status.gid, status.mtime) == (0o4750, 3, 4, (5, 0))
        assert files.stat("/to/in/hard").identity == status.identity
        assert files.readlink("/to/in/link") == "/etc/passwd"
        assert files.stat("/to/in/device").device == (1, 3)
        assert files.read("/to/plain", 99) == b"no archive"


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../x"])
def test_an_archive_that_leads_out_of_its_place(tmp_path: Path, name: str) -> None:
    build = Build(tmp_path)
    inner = archive([member("fine"), member(name, data=b"evil")])
    outer = archive([member("Dockerfile", data=b"FROM busybox\nADD a.tar /to\n"), member("a.tar", data=inner)])
    messages = asyncio.run(build.messages(outer, {"version": "1"}))
    assert "leads out of the archive" in messages[-1]["error"]


def test_files_go_through_links_of_the_image(tmp_path: Path) -> None:
    dockerfile = "FROM busybox\nCOPY links /etc/\nCOPY f /lib/made\nCOPY f /etc/link/\nCOPY dir /\nCOPY f /lib\n"
    with built(tmp_path, dockerfile, member("links/link", tarfile.SYMTYPE, linkname="/tmp"), member("f", data=b"f"),
               member("dir/tmp", tarfile.DIRTYPE, mode=0o700)) as files:  # fmt: skip
        assert files.read("/usr/lib/made", 9) == b"f" and files.readlink("/lib") == "usr/lib"
        assert files.read("/usr/lib/f", 9) == b"f"
        assert files.stat("/tmp").mode & 0o7777 == 0o700


def test_names_of_whiteouts_are_refused(tmp_path: Path) -> None:
    build = Build(tmp_path)
    outer = archive([member("Dockerfile", data=b"FROM busybox\nCOPY d /d\n"), member("d/.wh.x")])
    messages = asyncio.run(build.messages(outer, {"version": "1"}))
    assert "stands for a file that is gone" in messages[-1]["error"]


def test_a_context_that_is_none(tmp_path: Path) -> None:
    build = Build(tmp_path)
    for data in (b"", b"hello", b"\x1f\x8b" + bytes(20), context_of(Case("FROM busybox\n"))[:700]):
        with pytest.raises(ImageError):
            asyncio.run(build.messages(data, {"version": "1"}))
    assert len(build.store.images()) == 1 and not list(build.folder.iterdir())


class _Web(http.server.BaseHTTPRequestHandler):
    """Has one file, and leads elsewhere."""

    def do_GET(self) -> None:
        if self.path == "/file%20name":
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.send_header("Last-Modified", "Thu, 01 Jan 1970 00:01:00 GMT")
            self.end_headers()
            self.wfile.write(b"content")
        else:
            self.send_response(302 if self.path == "/away" else 404)
            self.send_header("Location", "ftp://127.0.0.1/x")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_file_from_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    build = Build(tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"

        def said(target: str) -> list[dict[str, Any]]:
            outer = archive([member("Dockerfile", data=f"FROM busybox\nADD {url}{target} /d/\n".encode())])
            return asyncio.run(build.messages(outer, {"version": "1"}))

        image = build.image_of(said("/file%20name"))
        assert image is not None
        with FilesView(image.layers) as files:
            assert files.read("/d/file name", 9) == b"content"
            status = files.stat("/d/file name")
            assert (status.mode & 0o7777, status.mtime) == (0o600, (60, 0))
        assert f"failed to GET {url}/none with status 404" in said("/none")[-1]["error"]
        assert "ftp://127.0.0.1/x" in said("/away")[-1]["error"]
        assert "cannot determine filename" in said("/")[-1]["error"]
        server.shutdown()
