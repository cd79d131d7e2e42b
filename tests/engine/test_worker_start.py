"""A compiler that cannot start is said once, with the reason, and the guest runs on without it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from dbt.backend.compiled import CompiledRegion, Refused
from dbt.engine import compiler_process, worker
from dbt.engine.compiler_process import CompilerProcess
from dbt.engine.messages import CompileRequest
from dbt.engine.mirror import CodeMirror
from dbt.engine.worker import CompileWorker
from dbt.engine.worker_process import Compile
from tests.regions.compilers import check_run, connect, loop_machine, make_compile, region, request, wait_for_all


def missing() -> NoReturn:
    raise ModuleNotFoundError("No module named 'llvmlite'", name="llvmlite")


def crashing() -> NoReturn:
    os.abort()


def leaving() -> NoReturn:
    os._exit(3)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (missing, "ModuleNotFoundError: No module named 'llvmlite'"),
        (crashing, "its process ends at its start, by signal 6"),
        (leaving, "its process ends at its start, with status 3"),
    ],
)
def test_a_guest_is_told_once_and_runs_on(
    make: Callable[[], Compile], reason: str, only_handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = CompileWorker(make)
    monkeypatch.setattr("dbt.engine.worker.shared_worker", lambda: broken)
    for _ in range(2):  # each of the machines of a process is told
        notices: list[str] = []
        with loop_machine(notices) as machine:
            check_run(machine)
            machine.reset()
            machine.run()
            assert machine.retired["region"] == 0
        assert notices == [
            f"cannot start the compiler ({reason}); the guest continues more slowly, without new regions"
        ]
    assert broken._child is None


def test_the_compiler_keeps_nothing_open_of_its_parent() -> None:
    """Whoever has the other end of a socket sees that the parent has closed it."""
    mine, other = socket.socketpair()
    mine.set_inheritable(True)
    process = CompilerProcess.start(lambda: lambda mirror, request: Refused("no"))
    try:
        assert process.has_answers(10_000)
        mine.close()
        other.settimeout(10)
        assert other.recv(1) == b""
        folder = Path(f"/proc/{process.pid}/fd")
        targets = [os.readlink(folder / name) for name in os.listdir(folder)]
        assert sorted(target.partition(":")[0] for target in targets if target != os.devnull) == ["pipe", "pipe"]
    finally:
        process.end()
        other.close()


def test_requests_in_work_are_lost_once_each() -> None:
    client = connect(CompileWorker(missing))
    for entry in (4, 8, 12):
        client.submit(request(entry))
    lost = Refused("the compiler was lost over it")
    assert wait_for_all(client, 3) == [(4, lost), (8, lost), (12, lost)]
    assert client.unavailable and client.counts.lost == 3 and client.counts.restarts == 0
    assert client.pending == 0 and client.poll() == []


def test_one_crash_at_the_start_is_forgiven(tmp_path: Path) -> None:
    def make() -> Compile:
        if not (tmp_path / "crashed").exists():
            (tmp_path / "crashed").touch()
            os.abort()
        return make_compile()

    client = connect(CompileWorker(make))
    client.submit(request(4))
    client.submit(request(8))
    assert wait_for_all(client, 2) == [(4, region(4)), (8, region(8))]
    assert not client.unavailable and client.counts.lost == 0 and client.counts.restarts == 1
    client.close()


def test_a_compiler_without_a_processor_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts how long it could not run. Here that is played."""
    monkeypatch.setattr(worker, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(worker, "PATIENCE_S", 1000)
    begun = time.monotonic()
    monkeypatch.setattr(compiler_process, "seconds_without_processor", lambda pid: time.monotonic() - begun - 0.1)

    def compile_(mirror: CodeMirror, wanted: CompileRequest) -> CompiledRegion | Refused:
        time.sleep(1.0)
        return region(wanted.gpa)

    client = connect(CompileWorker(lambda: compile_))
    client.submit(request(4))
    assert wait_for_all(client, 1) == [(4, region(4))]
    monkeypatch.setattr(compiler_process, "seconds_without_processor", lambda pid: 0.0)
    client.submit(request(8))
    assert wait_for_all(client, 1) == [(8, Refused("the compiler was lost over it"))]
    client.close()
