"""No name leads out of the jail."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dbt.host.jail import FileJail

READ = os.O_RDONLY
CREATE = os.O_WRONLY | os.O_CREAT


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A jail with files, directories and links of every kind, and a secret outside."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "jail"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "inside").write_text("inside")
    (root / "sub" / "file").write_text("file")
    (root / "to-file").symlink_to("sub/file")
    (root / "sub" / "up").symlink_to("../inside")
    (root / "to-sub").symlink_to("sub")
    (root / "absolute").symlink_to(tmp_path / "secret")
    (root / "relative").symlink_to("../secret")
    (root / "sub" / "deep" / "chain").symlink_to("../../relative")
    (root / "out").symlink_to("..")
    (root / "to-slash").symlink_to("inside/")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("../created")
    os.mkfifo(root / "pipe")
    return root


def content(jail: FileJail, name: bytes) -> bytes:
    handle = jail.open(name, READ)
    try:
        return os.read(handle, 100)
    finally:
        os.close(handle)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"inside", b"inside"),
        (b"./inside", b"inside"),
        (b"sub//file", b"file"),
        (b"sub/../inside", b"inside"),
        (b"sub/deep/../../inside", b"inside"),
        (b"to-file", b"file"),
        (b"sub/up", b"inside"),
        (b"to-sub/file", b"file"),
        (b"to-sub/up", b"inside"),
    ],
)
def test_names_inside(root: Path, name: bytes, text: bytes) -> None:
    assert content(FileJail(str(root)), name) == text


@pytest.mark.parametrize("flags", [READ, CREATE])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"/etc/passwd", errno.EACCES),
        (b"..", errno.EACCES),
        (b"../secret", errno.EACCES),
        (b"sub/../../secret", errno.EACCES),
        (b"absolute", errno.EACCES),
        (b"relative", errno.EACCES),
        (b"sub/deep/chain", errno.EACCES),
        (b"out/secret", errno.EACCES),
        (b"dangling", errno.EACCES),
        (b"loop", errno.ELOOP),
        (b"loop/x", errno.ELOOP),
        (b"inside/x", errno.ENOTDIR),
        (b"none/x", errno.ENOENT),
        (b"", errno.ENOENT),
        (b"a\0b", errno.ENOENT),
        (b".", errno.EISDIR),
        (b"sub/", errno.EISDIR),
        (b"sub/.", errno.EISDIR),
        (b"inside/", errno.ENOTDIR),
        (b"inside/.", errno.ENOTDIR),
        (b"inside//./", errno.ENOTDIR),
        (b"to-file/", errno.ENOTDIR),
        (b"to-slash", errno.ENOTDIR),
        (b"new/", errno.ENOENT),
        (b"a" * 5000, errno.ENAMETOOLONG),
        (b"a" * 300, errno.ENAMETOOLONG),
    ],
)
def test_names_that_are_refused(root: Path, name: bytes, code: int, flags: int) -> None:
    with pytest.raises(OSError) as error:
        FileJail(str(root)).open(name, flags)
    assert error.value.errno == code
    assert sorted(path.name for path in root.parent.iterdir()) == ["jail", "secret"]


def test_only_regular_files_are_opened_and_none_is_waited_for(root: Path) -> None:
    jail = FileJail(str(root))
    for flags in (READ, os.O_RDWR, os.O_WRONLY):
        with pytest.raises(OSError):
            jail.open(b"pipe", flags)


def test_truncation(root: Path) -> None:
    jail = FileJail(str(root))
    os.close(jail.open(b"inside", CREATE))
    assert (root / "inside").read_text() == "inside"
    os.close(jail.open(b"inside", CREATE, truncate=True))
    assert (root / "inside").read_text() == ""


def test_removing_and_renaming_change_the_link_not_its_target(root: Path) -> None:
    jail = FileJail(str(root))
    jail.remove(b"absolute")
    jail.rename(b"relative", b"sub/moved")
    assert (root.parent / "secret").read_text() == "secret"
    assert not (root / "absolute").is_symlink()
    assert os.readlink(root / "sub" / "moved") == "../secret"


@pytest.mark.parametrize("name", [b"../secret", b"/etc/passwd", b"out/secret", b"none", b"sub", b"sub/deep"])
def test_removing_is_refused(root: Path, name: bytes) -> None:
    with pytest.raises(OSError):
        FileJail(str(root)).remove(name)
    assert (root.parent / "secret").exists() and (root / "sub").is_dir()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"sub", errno.EISDIR),
        (b"empty", errno.EISDIR),
        (b"pipe", errno.EACCES),
        (b"socket", errno.EACCES),
        (b"inside/", errno.ENOTDIR),
        (b"inside/.", errno.ENOTDIR),
        (b"to-file/", errno.ENOTDIR),
    ],
)
def test_only_files_and_links_are_removed_renamed_and_replaced(root: Path, name: bytes, code: int) -> None:
    (root / "empty").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    before = sorted(os.listdir(root))
    jail = FileJail(str(root))
    changes: list[Callable[[], None]] = [
        lambda: jail.remove(name),
        lambda: jail.rename(name, b"x"),
        lambda: jail.rename(b"sub/file", name),
    ]
    for change in changes:
        with pytest.raises(OSError) as error:
            change()
        assert error.value.errno == code
    assert sorted(os.listdir(root)) == before and (root / "sub" / "file").exists()


def test_a_file_replaces_a_file(root: Path) -> None:
    FileJail(str(root)).rename(b"inside", b"sub/file")
    assert (root / "sub" / "file").read_text() == "inside" and not (root / "inside").exists()


@pytest.mark.parametrize(("old", "new"), [(b"inside", b"../x"), (b"../secret", b"x"), (b"inside", b"/tmp/x")])
def test_renaming_is_refused(root: Path, old: bytes, new: bytes) -> None:
    with pytest.raises(OSError) as error:
        FileJail(str(root)).rename(old, new)
    assert error.value.errno == errno.EACCES


def test_no_descriptor_is_left_open(root: Path) -> None:
    jail = FileJail(str(root))
    before = len(os.listdir("/proc/self/fd"))
    for name in (b"to-sub/up", b"sub/deep/chain", b"loop", b"sub/deep/none", b"pipe", b"sub"):
        try:
            os.close(jail.open(name, READ))
        except OSError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before
