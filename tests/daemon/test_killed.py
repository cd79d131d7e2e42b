"""Machines outlive their daemon, even one that is killed, and a new daemon takes over. A lost machine is one crash."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dbt.hypervisor.process.lease import leases
from tests.daemon.daemons import TestDaemon, daemon_in
from tests.waiting import has_ended, wait_until


def _kill_daemon(daemon: TestDaemon, how: signal.Signals) -> None:
    pid = daemon.ask("GET", "/v1")["pid"]
    os.kill(pid, how)
    wait_until(lambda: has_ended(pid), "the end of the daemon")


def _processes(daemon: TestDaemon) -> dict[str, int]:
    return {lease.name: lease.pid for lease in leases(str(daemon.state / "machines"))}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_machine_is_lost_with_the_daemon(tmp_path: Path, how: signal.Signals) -> None:
    with daemon_in(tmp_path) as daemon:
        for name in ("one", "stands", "short"):
            daemon.define(name, "letters")
            daemon.ok("start", name)
            assert daemon.type(name) == "A"
        daemon.ok("create", daemon.definition("passing", "letters"))
        daemon.ok("suspend", "stands")
        before = _processes(daemon)
        assert before.keys() == {"one", "stands", "short", "passing"}
        _kill_daemon(daemon, how)
        assert _processes(daemon) == before
        os.kill(before["short"], signal.SIGKILL)  # what happens while nobody is there
        wait_until(lambda: "short" not in _processes(daemon), "the end of a machine")

        assert daemon.state_of("stands") == "paused"
        assert daemon.state_of("short") == "defined"
        assert daemon.type("one") == "B"
        daemon.ok("resume", "stands")
        assert daemon.type("stands") == "B"
        assert daemon.type("passing") == "A"
        assert not daemon.json("dominfo", "passing")["persistent"]
        assert {name: pid for name, pid in before.items() if name != "short"} == _processes(daemon)
        daemon.ok("destroy", "one", "passing")
        wait_until(lambda: _processes(daemon).keys() == {"stands"}, "the end of two machines")
        daemon.ok("start", "one")
        assert daemon.type("one") == "A"


def test_a_guest_goes_on_while_there_is_no_daemon(tmp_path: Path) -> None:
    """Its state is 'defined' as soon as the next daemon is there if its guest has ended meanwhile."""
    with daemon_in(tmp_path) as daemon:
        daemon.define("one", "ticker")
        daemon.ok("start", "one")
        wait_until(lambda: daemon.json("domstats", "one")[0]["instructions"] > 100, "instructions")
        pid = _processes(daemon)["one"]
        _kill_daemon(daemon, signal.SIGKILL)
        spent = _cpu_ticks(pid)
        wait_until(lambda: _cpu_ticks(pid) > spent, "a guest without a daemon")
        assert daemon.state_of("one") in ("running", "blocked")


def _cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_the_end_of_a_process_is_the_crash_of_one_domain(daemon: TestDaemon) -> None:
    daemon.define("one", "letters")
    daemon.define("two", "letters")
    daemon.ok("start", "one", "two")
    assert daemon.type("one") == daemon.type("two") == "A"
    os.kill(_processes(daemon)["one"], signal.SIGKILL)
    wait_until(lambda: daemon.state_of("one") == "crashed", "a crash")
    assert daemon.type("two") == "B"
    daemon.ok("destroy", "one")
    daemon.ok("start", "one")
    assert daemon.type("one") == "A"
