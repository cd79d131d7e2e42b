"""A monitor beside a debugger: each holds the guest for itself, and neither disturbs what the other one does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt import Machine, QmpMonitor, RunResult, read_snapshot
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.gdb.remote import RemoteClient
from tests.qmp.client import FOREVER, SHORT, QmpClient, machine_of
from tests.vm.programs import BASE
from tests.waiting import BOUND_S, wait_until

GENERIC = "GenericError"


class Served:
    """A machine that is run by a thread, for one debugger and for the clients of a monitor."""

    def __init__(self, machine: Machine, folder: Path, wait: bool = True, history: bool = False) -> None:
        self.machine = machine
        self._places = str(folder / "monitor"), str(folder / "gdb")
        self._results: list[RunResult] = []
        self._wait, self._history = wait, history
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        wait_until(lambda: Path(self._places[1]).exists() or not self._thread.is_alive(), "the server")

    def _serve(self) -> None:
        place, gdb = self._places
        with QmpMonitor(self.machine, f"unix:{place}") as monitor:
            result = self.machine.serve_gdb(f"unix:{gdb}", self._wait, history=self._history, monitor=monitor)
        self._results.append(result)

    @property
    def result(self) -> RunResult:
        self._thread.join(BOUND_S)
        return self._results[0]

    def gdb(self) -> RemoteClient:
        return RemoteClient(self._places[1])

    def client(self) -> QmpClient:
        return QmpClient(self._places[0])


@contextlib.contextmanager
def served(source: str, folder: Path, wait: bool = True, history: bool = False) -> Iterator[Served]:
    with machine_of(source) as machine:
        made = Served(machine, folder, wait, history)
        try:
            yield made
        finally:
            machine.interrupt()
            _ = made.result


def status_is(client: QmpClient, status: str) -> None:
    """Wait for a status."""
    wait_until(lambda: client.ask("query-status")["status"] == status, status)


def executes(machine: Machine) -> None:
    """Wait until the guest has executed something."""
    icount = machine.icount
    wait_until(lambda: machine.icount > icount, "instructions")


def test_clients_see_what_the_debugger_does(tmp_path: Path) -> None:
    with served(FOREVER, tmp_path) as here, here.client() as client, here.gdb() as gdb:
        assert client.ask("query-status") == {"status": "debug", "singlestep": False, "running": False}
        assert gdb.ask("?") == "T05thread:1;"
        gdb.send("c")
        status_is(client, "running")
        gdb.socket.sendall(b"\x03")
        assert gdb.packet() == "T02thread:1;"
        status_is(client, "debug")
        assert client.take_events() == ["RESUME", "STOP"]
        assert gdb.ask("s") == "T05thread:1;"
        assert client.ask("x-dbt-info")["icount"] == here.machine.icount and not client.take_events()
        assert gdb.ask("D") == "OK"
        status_is(client, "running")
        executes(here.machine)


def test_the_debugger_does_not_notice_what_clients_do(tmp_path: Path) -> None:
    """A breakpoint is hit at the same instruction, whoever pauses and saves the guest on the way, and it ends alike."""
    with machine_of(SHORT) as machine:
        machine.run()
        end = machine.icount, state_hash(machine)
    with served(SHORT, tmp_path) as here, here.client() as client, here.gdb() as gdb:
        assert gdb.ask("?") == "T05thread:1;"
        first = client.ask("x-dbt-save", path=str(tmp_path / "first"))
        assert first["icount"] == 0
        assert client.ask("stop") == {} == client.ask("stop")
        gdb.send("c")
        assert client.ask("query-status")["status"] == "paused" and here.machine.icount == 0
        assert client.ask("cont") == {}
        with contextlib.suppress(EOFError, OSError):  # when the guest has ended
            for _ in range(5):
                client.ask("x-dbt-save", path=str(tmp_path / "later"))
        assert gdb.packet() == "W05"
        assert here.result.exit_code == 5
        assert (here.machine.icount, state_hash(here.machine)) == end
    with read_snapshot(tmp_path / "first") as state, Machine.restore(state) as again:
        again.run()
        assert (again.icount, state_hash(again)) == end


def test_both_hold_the_guest(tmp_path: Path) -> None:
    with served(FOREVER, tmp_path) as here, here.client() as client, here.gdb() as gdb:
        gdb.send("c")
        status_is(client, "running")
        assert client.ask("stop") == {}
        icount = here.machine.icount
        gdb.socket.sendall(b"\x03")
        assert gdb.packet() == "T02thread:1;" and here.machine.icount == icount
        gdb.send("c")
        assert client.ask("query-status")["status"] == "paused" and here.machine.icount == icount
        assert client.ask("cont") == {}
        executes(here.machine)
        gdb.socket.sendall(b"\x03")
        assert gdb.packet() == "T02thread:1;"
        icount = here.machine.icount
        assert client.ask("cont") == {} and client.ask("query-status")["status"] == "debug"
        assert here.machine.icount == icount
        gdb.send("c")
        executes(here.machine)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_client_ends_the_run(tmp_path: Path, stopped: bool) -> None:
    with served(FOREVER, tmp_path) as here, here.client() as client, here.gdb() as gdb:
        assert gdb.ask("?") == "T05thread:1;"
        if not stopped:
            gdb.send("c")
            status_is(client, "running")
        client.take_events()
        assert client.ask("quit") == {}
        assert gdb.packet() == "X02" and client.receive() is None
        assert [event["data"]["reason"] for event in client.events] == ["host-qmp-quit"]
        assert here.result.reason is StopReason.INTERRUPTED and "client of the monitor" in here.result.message


def test_clients_hear_that_the_debugger_kills_the_guest(tmp_path: Path) -> None:
    with served(FOREVER, tmp_path) as here, here.client() as client, here.gdb() as gdb:
        assert gdb.ask("vKill;1") == "OK"
        assert client.receive() is None
        assert [event["data"]["reason"] for event in client.events] == ["host-signal"]
        assert "killed by the debugger" in here.result.message


def test_a_client_resets_what_is_debugged(tmp_path: Path) -> None:
    """While the guest runs, while it is stopped, and not in the past of a history."""
    with served(FOREVER, tmp_path, history=True) as here, here.client() as client, here.gdb() as gdb:
        gdb.send("c")
        wait_until(lambda: here.machine.icount > 1_000_000, "a million instructions")
        assert client.ask("system_reset") == {}
        gdb.socket.sendall(b"\x03")
        assert gdb.packet() == "T02thread:1;"
        assert client.ask("system_reset") == {}
        assert gdb.ask("pf") == BASE.to_bytes(4, "little").hex()
        assert [gdb.ask("s") for _ in range(5)] == ["T05thread:1;"] * 5
        assert here.machine.icount == 5
        assert gdb.ask("bs") == "T05thread:1;"
        kind, text = client.ask("system_reset")
        assert kind == GENERIC and "its past cannot be changed" in text
        assert here.machine.icount == 4
