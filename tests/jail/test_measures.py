"""The measures of a jail, each for itself, in processes that end with it."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dbt.hypervisor.jail import filter, landlock
from dbt.hypervisor.jail.landlock import Folder
from dbt.hypervisor.jail.measures import (
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
        filter.install([BASE[name].number for name in ("getpid", "exit_group", "write", "mmap", "munmap", "futex")])
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
        filter.install([call.number for call in BASE.values()])
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


def test_a_strict_jail_is_refused_if_something_is_missing() -> None:
    require(Strictness.ON, {"Landlock": "no"})
    require(Strictness.STRICT, {})
    with pytest.raises(JailIncomplete, match="does not give Landlock \\(no\\)"):
        require(Strictness.STRICT, {"Landlock": "no"})
