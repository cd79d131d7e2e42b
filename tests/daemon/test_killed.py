"""Machines outlive their daemon, even one that is killed, and a new daemon takes over. A lost machine is one crash."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from uuid import uuid4

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
        daemon.ok("clone", "stands", "clone")
        before = _processes(daemon)
        assert before.keys() == {"one", "stands", "short", "passing", "clone"}
        _kill_daemon(daemon, how)
        assert _processes(daemon) == before
        os.kill(before["short"], signal.SIGKILL)  # what happens while nobody is there
        wait_until(lambda: "short" not in _processes(daemon), "the end of a machine")

        assert daemon.state_of("stands") == daemon.state_of("clone") == "paused"
        assert daemon.state_of("short") == "defined"
        assert daemon.type("one") == "B"
        daemon.ok("resume", "stands")
        assert daemon.type("stands") == "B"
        assert daemon.type("passing") == "A"
        assert not daemon.json("dominfo", "passing")["persistent"]
        assert {name: pid for name, pid in before.items() if name != "short"} == _processes(daemon)
        daemon.ok("destroy", "one", "passing", "clone")
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


def _change(daemon: TestDaemon, statement: str, *values: object) -> None:
    """Change what a daemon that has been killed remembers, as if it had been killed before it was written."""
    with sqlite3.connect(daemon.state / "vm.sqlite") as database:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute(statement, values)
    database.close()


def test_what_a_killed_daemon_has_left_of_states_is_removed(tmp_path: Path) -> None:
    with daemon_in(tmp_path) as daemon:
        daemon.define("one", "letters")
        daemon.ok("start", "one")
        daemon.ok("snapshot-create", "one", "kept")
        daemon.define("two", "letters")
        daemon.ok("start", "two")
        daemon.ok("managedsave", "two")
        states, own = daemon.state / "states", daemon.json("dominfo", "one")["uuid"]
        kept = sorted(path for path in states.rglob("*"))
        _kill_daemon(daemon, signal.SIGKILL)
        other = str(uuid4())
        left = [
            f".{own}.dbt.part",
            f".{own}.dbt.json.part",
            f"{own}.dbt",
            f"{other}.dbt",
            f"{own}/.kept.dbt.part",
            f"{own}/x.dbt",
            f"{other}/a.dbt",
        ]
        for name in left:
            (states / name).parent.mkdir(exist_ok=True)
            (states / name).write_bytes(b"a part of RAM")
        (states / "notes").write_bytes(b"of a person")
        assert daemon.state_of("two") == "defined"
        assert daemon.type("one") == "A"
        assert sorted(states.rglob("*")) == sorted([*kept, states / "notes"])
        daemon.ok("start", "two")
        daemon.ok("snapshot-revert", "one", "kept")


def test_a_machine_that_runs_is_not_saved_any_more(tmp_path: Path) -> None:
    """A daemon that was killed while it saved or resumed one: another start from there would be a second past."""
    with daemon_in(tmp_path) as daemon:
        daemon.define("one", "letters")
        daemon.ok("start", "one")
        uuid = daemon.json("dominfo", "one")["uuid"]
        _kill_daemon(daemon, signal.SIGKILL)
        saved = daemon.state / "states" / f"{uuid}.dbt"
        saved.write_bytes(b"RAM")
        _change(daemon, "UPDATE domains SET managed_save = ?", str(saved))
        assert not daemon.json("dominfo", "one")["managed_save"]
        assert daemon.type("one") == "A"
        assert not saved.exists()
        daemon.ok("destroy", "one")
        daemon.ok("start", "one")


def test_a_machine_of_no_domain_is_ended(tmp_path: Path) -> None:
    """As of a clone that was made, and not remembered yet."""
    with daemon_in(tmp_path) as daemon:
        for name in ("one", "two"):
            daemon.define(name, "letters")
            daemon.ok("start", name)
        _kill_daemon(daemon, signal.SIGKILL)
        _change(daemon, "DELETE FROM domains WHERE name = 'two'")
        assert [one["name"] for one in daemon.json("list", "--all")] == ["one"]
        assert daemon.type("one") == "A"
        assert _processes(daemon).keys() == {"one"}
        assert "the machine of two is ended" in (daemon.state / "log").read_text()


def test_the_log_says_which_machines_have_gone_without_a_daemon(tmp_path: Path) -> None:
    """As when the whole host was switched off."""
    with daemon_in(tmp_path) as daemon:
        daemon.ok("create", daemon.definition("passing", "letters"))
        daemon.define("one", "letters")
        daemon.ok("start", "one")
        before = _processes(daemon)
        _kill_daemon(daemon, signal.SIGKILL)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _processes_that_live(before), "the end of all machines")
        assert [one["name"] for one in daemon.json("list", "--all")] == ["one"]
        log = (daemon.state / "log").read_text()
        for name in before:
            assert f"the machine of the domain {name} has ended while no host was there" in log
        assert "the domain passing is forgotten" in log


def _processes_that_live(before: dict[str, int]) -> list[int]:
    return [pid for pid in before.values() if not has_ended(pid)]


def test_the_log_says_which_domain_has_crashed(daemon: TestDaemon) -> None:
    daemon.define("one", "letters")
    daemon.ok("start", "one")
    os.kill(_processes(daemon)["one"], signal.SIGKILL)
    wait_until(lambda: daemon.state_of("one") == "crashed", "a crash")
    assert "the domain one has crashed: the process of the machine is lost" in (daemon.state / "log").read_text()


def test_a_machine_that_was_ended_for_another_one_is_started_again(tmp_path: Path) -> None:
    """A daemon that is killed in the middle of a revert or a reset. One that was not ended goes on."""
    with daemon_in(tmp_path) as daemon:
        for name in ("reverts", "stands", "resets", "stays", "fails"):
            daemon.define(name, "letters")
            daemon.ok("start", name)
            assert daemon.type(name) == "A"
        daemon.ok("suspend", "stands")
        for name in ("reverts", "stands", "stays"):
            daemon.ok("snapshot-create", name, "kept")
        daemon.ok("resume", "stands")
        for name in ("reverts", "stands", "resets", "stays"):
            assert daemon.type(name) == "B"
        daemon.ok("create", daemon.definition("passing", "letters"))
        uuids = {name: daemon.json("dominfo", name)["uuid"] for name in _processes(daemon)}
        _kill_daemon(daemon, signal.SIGKILL)
        for name, pid in _processes(daemon).items():
            if name != "stays":
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: _processes(daemon).keys() == {"stays"}, "the end of the other machines")
        states = daemon.state / "states"
        goes_on = {name: str(states / uuids[name] / "kept.dbt") for name in ("reverts", "stands", "stays", "fails")}
        for name, path in [*goes_on.items(), ("resets", ""), ("passing", "")]:
            _change(daemon, "UPDATE domains SET restarts = ? WHERE name = ?", path, name)

        assert daemon.state_of("stands") == "paused"
        daemon.ok("resume", "stands")
        assert daemon.type("reverts") == daemon.type("stands") == "B"
        assert daemon.type("resets") == daemon.type("passing") == "A"
        assert daemon.type("stays") == "C"
        assert daemon.state_of("fails") == "defined"
        _kill_daemon(daemon, signal.SIGKILL)
        assert daemon.state_of("fails") == "defined"
        assert daemon.type("reverts") == "C"


def test_the_database_of_an_older_daemon_is_used(tmp_path: Path) -> None:
    with daemon_in(tmp_path) as daemon:
        daemon.define("one", "letters")
        _kill_daemon(daemon, signal.SIGTERM)
        _change(daemon, "ALTER TABLE domains DROP COLUMN restarts")
        _change(daemon, "PRAGMA user_version = 2")
        daemon.ok("start", "one")
        assert daemon.type("one") == "A"
