"""The measures of a jail, each for itself, in processes that end with it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import mmap
import os
import re
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dbt.host.ninep import messages as m
from dbt.host.ninep.tree import DESCRIPTORS
from dbt.hypervisor.jail import filter, landlock, own_root
from dbt.hypervisor.jail.landlock import Folder
from dbt.hypervisor.jail.measures import (
    MEASURES,
    JailIncomplete,
    Policy,
    Strictness,
    enter,
    give_up_privileges,
    machine_policy,
    require,
    try_measures,
)
from dbt.hypervisor.jail.system_calls import BASE, COMPILER, FILES, MOST, MOST_WITH_FILES, SOCKETS
from dbt.hypervisor.process.compilers import RemoteCompiler
from tests.host.ninep.client import Client, text, words

_NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
ALL = {**BASE, **SOCKETS, **FILES, **COMPILER}


def status_of(work: Callable[[], object]) -> int:
    """Run something in a forked process. Return its exit status, 0 if it returned True, or a signal as negative."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fails(work: Callable[[], object]) -> bool:
    try:
        work()
    except PermissionError:
        return True
    return False


def test_a_process_has_at_most_fifty_system_calls_each_with_its_reason() -> None:
    assert len({**BASE, **SOCKETS}) <= MOST == 50
    assert len({**BASE, **SOCKETS, **FILES}) <= MOST_WITH_FILES == 60
    assert len(COMPILER) <= MOST
    assert all(len(call.reason) > 7 for call in ALL.values())
    assert len({call.number for call in ALL.values()}) == len(ALL)


@pytest.mark.skipif(not _NUMBERS.exists(), reason="the kernel's headers are not installed (apt install linux-libc-dev)")
def test_the_numbers_are_those_of_the_kernel() -> None:
    found = dict(re.findall(r"#define __NR_(\w+) (\d+)", _NUMBERS.read_text()))
    assert {name: call.number for name, call in ALL.items()} == {name: int(found[name]) for name in ALL}


@pytest.mark.skipif("seccomp filter" in try_measures(), reason="the host has no seccomp")
def test_the_filter_allows_what_it_says_and_nothing_else() -> None:
    def filtered() -> bool:
        give_up_privileges(Policy())
        filter.install([BASE[name] for name in ("getpid", "exit_group", "write", "mmap", "munmap", "futex")])
        mmap.mmap(-1, 4096).close()
        return (
            os.getpid() > 0
            and fails(lambda: os.listdir("/"))
            and fails(lambda: os.kill(1, 0))
            and fails(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))
        )

    assert status_of(filtered) == 0


@pytest.mark.skipif("seccomp filter" in try_measures(), reason="the host has no seccomp")
def test_a_machine_can_ask_for_a_compiler_in_its_jail() -> None:
    def asked() -> bool:
        ours, theirs = socket.socketpair()
        enter(machine_policy([], has_files=False, has_sockets=False))
        RemoteCompiler.start(ours)
        return len(socket.recv_fds(theirs, 1, 2)[1]) == 2

    assert status_of(asked) == 0


@pytest.mark.skipif("seccomp filter" in try_measures(), reason="the host has no seccomp")
def test_a_call_of_another_convention_is_the_end() -> None:
    def other() -> bool:
        give_up_privileges(Policy())
        filter.install(BASE.values())
        ctypes.CDLL(None).syscall(0x40000000 + 39)
        return True

    assert status_of(other) == -signal.SIGSYS


@pytest.mark.skipif("Landlock" in try_measures(), reason="the host has no Landlock")
def test_landlock_leaves_the_folders_that_are_given(tmp_path: Path) -> None:
    for name in ("read", "write", "none"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"1")

    def restricted() -> bool:
        give_up_privileges(Policy())
        landlock.restrict([Folder(str(tmp_path / "read")), Folder(str(tmp_path / "write"), True), Folder("/no/such")])
        (tmp_path / "write" / "file").write_bytes(b"2")
        (tmp_path / "write" / "new").write_bytes(b"3")
        return (
            (tmp_path / "read" / "file").read_bytes() == b"1"
            and fails(lambda: (tmp_path / "read" / "file").write_bytes(b"2"))
            and fails((tmp_path / "none" / "file").read_bytes)
            and fails(lambda: os.listdir(tmp_path))
        )

    assert status_of(restricted) == 0


def _with_own_root(folders: Sequence[Folder]) -> None:
    next(measure for measure in MEASURES if measure.name == "namespaces").take(Policy())
    own_root.leave_host_tree(folders)


def is_read_only(work: Callable[[], object]) -> bool:
    try:
        work()
    except OSError as error:
        return error.errno == errno.EROFS
    return False


NEEDS_ROOT = pytest.mark.skipif("own root" in try_measures(), reason="the host lets nobody have a root of his own")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Directories with a file each, and a link to one of them."""
    for name in ("read", "write", "none", "read/in", "real"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    return tmp_path


@NEEDS_ROOT
def test_an_own_root_has_the_folders_that_are_given_and_nothing_else(folders: Path) -> None:
    given = [Folder("read"), Folder(f"{folders}/write", True), Folder(f"{folders}/link"), Folder("/no/such")]
    given += [Folder(f"{folders}/read/in", True), Folder(f"{folders}/none/file")]

    def rooted() -> bool:
        os.chdir(folders)
        _with_own_root(given)
        (folders / "write" / "new").write_bytes(b"3")
        Path("read/in/file").write_bytes(b"2")
        return (
            Path("read/file").read_bytes() == b"1"
            and (folders / "link" / "file").read_bytes() == b"1"
            and os.listdir(folders / "none") == ["file"]
            and sorted(os.listdir(folders)) == ["link", "none", "read", "real", "write"]
            and os.listdir("/") == [folders.parts[1]]
            and all(
                is_read_only(lambda path=path: os.open(path, os.O_CREAT | os.O_WRONLY))  # type: ignore[misc]
                for path in ("/new", "read/new", f"{folders}/link/new", f"{folders}/none/file", f"{folders}/new")
            )
        )

    assert status_of(rooted) == 0
    assert (folders / "write" / "new").read_bytes() == b"3"
    assert (folders / "read" / "in" / "file").read_bytes() == b"2"


@NEEDS_ROOT
def test_no_open_directory_leads_out_of_an_own_root(folders: Path) -> None:
    def rooted() -> bool:
        inside = os.open(folders / "read" / "in", os.O_PATH | os.O_DIRECTORY)
        outside = os.open(folders / "none", os.O_RDONLY)
        _with_own_root([Folder(f"{folders}/read")])
        root = os.stat("/")
        return (
            os.path.samestat(os.stat("../" * 40, dir_fd=inside), root)
            and os.listdir(folders) == ["read"]
            and os.stat("file", dir_fd=inside).st_size == 1
            and os.path.samestat(os.fstat(outside), root)
        )

    assert status_of(rooted) == 0


@NEEDS_ROOT
def test_where_an_own_root_cannot_be_everything_is_as_it_was(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_root, "_PIVOT_ROOT", 100000)

    def refused() -> bool:
        os.chdir(folders)
        gc.collect()  # what other tests have left is not closed between the two lists then
        before = os.listdir("/proc/self/fd")
        with pytest.raises(OSError, match="a root of its own: Function not implemented"):
            _with_own_root([Folder(f"{folders}/read")])
        return (
            os.listdir("/proc/self/fd") == before
            and os.getcwd() == str(folders)
            and (folders / "none" / "file").read_bytes() == b"1"
        )

    assert status_of(refused) == 0


@pytest.mark.skipif("seccomp filter" in try_measures(), reason="the host has no seccomp")
def test_the_filter_looks_at_arguments() -> None:
    """Whatever else the host has that would refuse it."""

    def filtered() -> bool:
        read, _ = os.pipe()
        give_up_privileges(Policy())
        filter.install({**BASE, **SOCKETS}.values())
        fcntl.fcntl(read, fcntl.F_SETFL, fcntl.fcntl(read, fcntl.F_GETFL) | os.O_NONBLOCK)
        os.close(os.dup(read))
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()
        return all(
            fails(attempt)
            for attempt in (
                lambda: fcntl.fcntl(read, fcntl.F_SETOWN, os.getpid()),
                lambda: fcntl.fcntl(read, fcntl.F_SETSIG, signal.SIGKILL),
                lambda: fcntl.fcntl(read, fcntl.F_NOTIFY, 0),
                lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
                lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
            )
        )

    assert status_of(filtered) == 0


@pytest.mark.skipif(bool(try_measures()), reason="the host does not give all measures")
def test_directories_and_files_are_shared_in_a_jail(folders: Path) -> None:
    """Also those that were open before, whose mounts are not those of the jail."""

    def shared() -> bool:
        tree, one = Client(folders / "write"), Client(folders / "real" / "file", is_file=True)
        before = tree.open("file", os.O_RDWR)
        given = [Folder(f"{folders}/write", True), Folder(f"{folders}/real/file", True), Folder(DESCRIPTORS)]
        if enter(machine_policy(given, has_files=True, has_sockets=False)):
            return False
        tree.write(before, b"2")
        made = tree.create("", "made")
        tree.write(made, b"abc")
        tree.setattr(tree.walk("made"), 1, mode=0o600)
        tree.setattr(tree.walk("made"), 8, size=2)
        tree.call(m.TMKDIR, words(tree.walk("")) + text("folder") + words(0o700, 0))
        tree.call(m.TRENAMEAT, words(tree.walk("")) + text("made") + words(tree.walk("folder")) + text("moved"))
        tree.call(m.TLINK, words(tree.walk(""), tree.walk("file")) + text("linked"))
        changed = one.open("file", os.O_RDWR)
        one.write(changed, b"3")
        names = [name for name, _, _ in tree.list(tree.open(""))]
        return sorted(names) == [b".", b"..", b"file", b"folder", b"linked"] and one.read(changed) == b"3"

    assert status_of(shared) == 0
    assert (folders / "real" / "file").read_bytes() == b"3"
    assert (folders / "write" / "linked").read_bytes() == b"2"
    assert (folders / "write" / "folder" / "moved").read_bytes() == b"ab"
    assert (folders / "write" / "folder" / "moved").stat().st_mode == stat.S_IFREG | 0o600


def test_a_strict_jail_is_refused_if_something_is_missing() -> None:
    require(Strictness.ON, {"Landlock": "no"})
    require(Strictness.STRICT, {})
    with pytest.raises(JailIncomplete, match="does not give Landlock \\(no\\)"):
        require(Strictness.STRICT, {"Landlock": "no"})
