"""A single file that is shared: nothing else of the host can be reached or made."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbt.host.ninep import messages as m
from dbt.host.ninep.server import Server
from tests.host.ninep.client import ROOT, Client, Refused, text, words


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "inner").mkdir()
    (tmp_path / "config").write_text("hello")
    return tmp_path / "config"


@pytest.fixture
def client(path: Path) -> Iterator[Client]:
    made = Client(path, is_file=True)
    yield made
    made.server.close()


def test_the_file_is_read_and_written(client: Client, path: Path) -> None:
    fid = client.open("file", os.O_RDWR)
    assert client.read(fid) == b"hello"
    client.write(fid, b"H")
    assert path.read_text() == "Hello"
    assert client.getattr(client.walk("file"))[5] == 5
    client.setattr(client.walk("file"), 8, 0, 0, 0, 2)  # its size
    assert path.read_text() == "He"


def test_it_stays_the_same_file(client: Client, path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.write_text("another one")
    assert client.read(client.open("file")) == b"hello"
    path.unlink()
    path.symlink_to("secret")
    assert client.read(client.open("file")) == b"hello"


@pytest.mark.parametrize("name", ["secret", "config", "inner", "file/x", "../secret", "file/../secret", "x" * 300])
def test_nothing_else_is_found(client: Client, name: str) -> None:
    with pytest.raises(Refused):
        client.walk(name)


def test_the_directory_has_nothing_to_show(client: Client) -> None:
    with pytest.raises(Refused) as refused:
        client.open("")
    assert refused.value.errno == errno.EACCES
    assert client.walk("..") and client.getattr(client.walk(""))[0] == 0o040555


def _rename_at(old: str, new: str) -> bytes:
    return words(ROOT) + text(old) + words(ROOT) + text(new)


@pytest.mark.parametrize(
    "change",
    [
        lambda client: client.create("", "new"),
        lambda client: client.create("", "secret", os.O_RDWR | os.O_TRUNC),
        lambda client: client.create("", "file", os.O_RDWR | os.O_EXCL),
        lambda client: client.call(m.TMKDIR, words(ROOT) + text("new") + words(0o755, 0)),
        lambda client: client.call(m.TSYMLINK, words(ROOT) + text("new") + text("secret") + words(0)),
        lambda client: client.call(m.TLINK, words(ROOT, client.walk("file")) + text("new")),
        lambda client: client.call(m.TRENAMEAT, _rename_at("file", "new")),
        lambda client: client.call(m.TRENAMEAT, _rename_at("secret", "file")),
        lambda client: client.call(m.TUNLINKAT, words(ROOT) + text("file") + words(0)),
        lambda client: client.call(m.TUNLINKAT, words(ROOT) + text("inner") + words(0x200)),
        lambda client: client.call(m.TREMOVE, words(client.walk("file"))),
        lambda client: client.call(m.TREADLINK, words(client.walk("file"))),
        lambda client: client.setattr(ROOT, 1, 0o777),
        lambda client: client.call(m.TMKNOD, words(ROOT) + text("new") + struct.pack("<4I", 0o100644, 0, 0, 0)),
    ],
)
def test_nothing_can_be_changed_besides(client: Client, path: Path, change: Callable[[Client], object]) -> None:
    with pytest.raises(Refused):
        change(client)
    assert sorted(os.listdir(path.parent)) == ["config", "inner", "secret"]
    assert (path.read_text(), path.with_name("secret").read_text()) == ("hello", "secret")


def test_a_file_that_can_only_be_read(path: Path) -> None:
    client = Client(path, read_only=True, is_file=True)
    assert client.read(client.open("file")) == b"hello"
    with pytest.raises(Refused) as refused:
        client.open("file", os.O_RDWR)
    assert refused.value.errno == errno.EROFS
    client.server.close()


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for name in ("fifo", "link", ".", "nothing"):
        with pytest.raises(OSError, match=r"."):
            Server(str(tmp_path / name), is_file=True)
