"""The monitor: a machine that is run for whoever is connected to a unix socket, by QEMU's machine protocol.

Everything happens in the thread that runs the machine. Between two slices the run loop asks the monitor, which answers
what can be answered at once. For the rest it lets the run end, does it, and begins another one, which the guest does
not notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dbt.abi.layout import PAGE_SIZE
from dbt.gdb.target import TargetError
from dbt.host.endpoint import Endpoint, WrongEndpoint
from dbt.memory.closing import Closing
from dbt.qmp.clients import Client, Clients
from dbt.qmp.commands import Request, execute, must_stop, negotiate, read_request
from dbt.qmp.errors import NOT_ACTIVE, QmpError
from dbt.qmp.messages import Malformed
from dbt.qmp.queries import version
from dbt.vm.input import PositionedInput
from dbt.vm.machine import Machine
from dbt.vm.options import check_limits
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.qmp.migration import MachineMove
    from dbt.vm.step_observer import StepObserver
    from isa.arm.vectors import ExceptionKind

#: While the guest runs, clients are looked after so often at most, in seconds; while it is paused, its user.
_INTERVAL_S, _PAUSE_S = 0.002, 0.1
#: The seconds that clients have at the end to take what waits for them.
_CLOSE_TIMEOUT_S = 1.0
#: The least seconds between two events of a kind that the guest causes.
_EVENT_INTERVAL_S = 1.0
#: The most commands of a client that are answered at one look.
_MOST_COMMANDS = 16
_GUEST_ENDS: Mapping[StopReason, str] = {
    StopReason.EXITED: "guest-shutdown",
    StopReason.FAULT: "guest-panic",
    StopReason.HALTED: "guest-panic",
}


class QmpMonitor(Closing):
    """A monitor of ``machine`` at ``endpoint``, which is ``unix:PATH``. :meth:`run` takes the place of the machine's,
    or the monitor is given to the machine's ``serve_gdb()``.

    The socket is open to this user alone. A socket that nobody listens at any more is replaced. With ``paused``, the
    guest does not start before a client says ``cont``. ``save`` writes the machine to a file of that name and returns
    the digest of the snapshot; the default is :func:`dbt.snapshot.snapshots.write_snapshot`. ``no_reset`` is why the
    machine must not be reset, or empty.

    Raise ValueError for an endpoint that is none, and OSError if the host refuses it. :meth:`close`, or the end of a
    ``with`` block, tells the clients of the end and removes the socket.
    """

    hears_exceptions = False

    def __init__(
        self,
        machine: Machine,
        endpoint: str,
        paused: bool = False,
        save: Callable[[str], str] | None = None,
        no_reset: str = "",
    ) -> None:
        if not endpoint.startswith("unix:"):
            raise WrongEndpoint(f"{endpoint}: a monitor is at a unix socket: write unix:PATH")
        place = Endpoint.parse(endpoint)
        self._machine = machine
        self._save = save or self._write_snapshot
        self._no_reset = no_reset
        self._clients = Clients(place.listen(), {"QMP": {"version": version(), "capabilities": []}})
        self._state = "prelaunch" if paused else "running"  # as far as the clients control it
        self._debugger_holds = False
        self._restart: Callable[[], None] = machine.restart
        self._must_stop = False  # a client waits for something that cannot be done while the machine runs
        self._quits = False
        #: See :class:`dbt.vm.run_watcher.RunWatcher`: clients stop the guest, but do not change it.
        self.goes_on = False
        self._next_look = 0.0
        self._told_given = machine.given_memory
        self._next_balloon = self._next_failure = 0.0
        self._before_resets = 0
        self._result: RunResult | None = None
        self._move: MachineMove | None = None

    def close(self) -> None:
        """Send SHUTDOWN, and close everything. Clients have a second to take what waits for them."""
        if self._move is not None:
            self._move.gate.close()
        if not self._quits:
            self._tell_end()
        self._clients.close(_CLOSE_TIMEOUT_S)

    @property
    def machine(self) -> Machine:
        """See :class:`dbt.qmp.commands.Control`."""
        return self._machine

    @property
    def status(self) -> str:
        """The state of the run, by QEMU's names."""
        if self._move is not None and self._move.state:
            return self._move.state
        return "debug" if self._debugger_holds and self._state == "running" else self._state

    @property
    def is_holding(self) -> bool:
        """Return True while a client has paused the guest, or has not let it start, or a migration has it."""
        return self._state != "running" or (self._move is not None and bool(self._move.state))

    @property
    def move(self) -> MachineMove:
        """See :class:`dbt.qmp.commands.Control`."""
        if self._move is None:
            from dbt.qmp.migration import MachineMove  # which few runs need

            self._move = MachineMove(lambda: self._machine, lambda: self._state != "running")
        return self._move

    @property
    def executed(self) -> int:
        """The instructions that have retired, including those before a client has reset the machine."""
        return self._before_resets + self._machine.icount

    # -- running -------------------------------------------------------------------------------

    def await_client(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Return when a client has connected, or when ``cancelled``, which is asked again and again, returns True."""
        while not len(self._clients) and not cancelled():
            self._clients.look(_PAUSE_S)

    def run(
        self, fuel: int | None = None, timeout: float | None = None, trace: StepObserver | None = None
    ) -> RunResult:
        """Run the guest as :meth:`dbt.vm.machine.Machine.run` does, and serve the clients.

        ``timeout`` counts the time that the guest is not paused. The run also ends when a client says ``quit``, as if
        it had been interrupted. If it ends otherwise, another call goes on, in the same state.
        """
        check_limits(fuel, timeout)
        if self._quits and self._result is not None:
            return self._result
        machine, self.goes_on = self._machine, False
        end = None if fuel is None else self.executed + fuel
        while True:
            if (result := self._hold()) is None:
                self._must_stop = False
                started = time.monotonic()
                left = None if end is None else max(0, end - self.executed)
                result = machine.run(left, timeout, trace, self)
                self.goes_on = True
                if timeout is not None:
                    timeout = max(0.0, timeout - (time.monotonic() - started))
                if result.reason is StopReason.INTERRUPTED and self._must_stop:
                    result = self._do_all()
            if result is not None:
                self._result = result
                return result

    def _hold(self) -> RunResult | None:
        """Serve the clients while the guest is paused. Return the result if the run ends meanwhile."""
        while self.is_holding:
            self._clients.look(_PAUSE_S)
            if (result := self._do_all()) is not None:
                return result
            self._machine.console.flush()  # which also looks for the keys that end a run
            if self._machine.is_interrupted:
                if self._move is not None and self._move.state:  # it must not run, not even no instruction
                    return self._interrupted("the run was interrupted")
                return self._machine.run(0)
        return None

    def _do_all(self) -> RunResult | None:
        """Answer what has come, while the machine does not run. Return the result if a client ends the run."""
        if self._move is not None:
            self._move.gate.let_in()
            self._tell_moves(self._move)
        self._serve(is_running=False)
        return self._interrupted("a client of the monitor has ended the run") if self._quits else None

    def _interrupted(self, what: str) -> RunResult:
        icount = self._machine.icount
        message = f"{what} after {icount} instructions"
        return RunResult(StopReason.INTERRUPTED, None, icount, self._machine.cpu.pc, message)

    def wants_stop(self) -> bool:
        """See :class:`dbt.vm.run_watcher.RunWatcher`."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _INTERVAL_S
            self._clients.look(0)
            self._tell_balloon()
            self._tell_failures()
            self._serve(is_running=True)
        if self._move is not None:
            self._must_stop |= self._move.gate.is_wanted
            self._tell_moves(self._move)
        return self._must_stop

    def stops_in_handler(self, kind: ExceptionKind) -> bool:
        """See :class:`dbt.vm.run_watcher.RunWatcher`."""
        return False

    # -- beside a debugger: implements dbt.vm.debugged_run.RunPartner -----------------------------------

    def attend(self, restart: Callable[[], None], seconds: float = 0.0) -> RunResult | None:
        """See :class:`dbt.vm.debugged_run.RunPartner`."""
        self._must_stop = False
        self._restart = restart
        self._clients.look(seconds)
        return self._do_all()

    def note_debugger(self, holds: bool) -> None:
        """See :class:`dbt.vm.debugged_run.RunPartner`. Clients hear of it, unless they hold the guest themselves."""
        if holds != self._debugger_holds:
            self._debugger_holds = holds
            if not self.is_holding:
                self._tell("STOP" if holds else "RESUME")

    def note_end(self, result: RunResult) -> None:
        """See :class:`dbt.vm.debugged_run.RunPartner`."""
        self._result = result

    # -- clients -------------------------------------------------------------------------------

    def _serve(self, is_running: bool) -> None:
        for client in self._clients:
            for _ in range(_MOST_COMMANDS):
                if not client.can_be_answered or self._quits:
                    break
                if not self._answer(client, is_running):
                    self._must_stop = True
                    break
        self._clients.remove_done()

    def _answer(self, client: Client, is_running: bool) -> bool:
        """Answer the client's next message. Return False if that cannot be done while the machine runs."""
        message = client.messages[0]
        answer: dict[str, Any]
        try:
            if isinstance(message, Malformed):
                raise QmpError(message.why)
            request = read_request(message)
            if is_running and client.is_ready and must_stop(request):
                return False
            answer = {"return": self._do(client, request)}
        except QmpError as error:
            answer = {"error": {"class": error.kind, "desc": str(error)}}
        client.messages.popleft()
        if isinstance(message, dict) and "id" in message:
            answer["id"] = message["id"]
        client.send(answer)
        return True

    def _do(self, client: Client, request: Request) -> object:
        if client.is_ready:
            return execute(request, self)
        negotiate(request)
        client.is_ready = True
        return {}

    def _tell(self, event: str, **data: object) -> None:
        now = time.time_ns() // 1000
        stamp = {"seconds": now // 1_000_000, "microseconds": now % 1_000_000}
        self._clients.tell({"timestamp": stamp, "event": event, **({"data": data} if data else {})})

    def _tell_moves(self, move: MachineMove) -> None:
        """Tell the clients what has become of migrations."""
        while move.ended:
            self._tell("MIGRATION", status=move.ended.popleft())

    def _check_here(self) -> None:
        """Raise QmpError if the machine may run elsewhere."""
        if self._move is not None and self._move.state:
            raise QmpError(self._move.doubts or "the machine is being migrated, or runs elsewhere")

    def _tell_end(self) -> None:
        result, self._next_failure = self._result, 0.0
        self._tell_failures()
        if result is None:
            self._tell("SHUTDOWN", guest=False, reason="host-error")
        elif result.reason in _GUEST_ENDS:
            reset = self._machine.vcpu.reset_requested
            self._tell("SHUTDOWN", guest=True, reason="guest-reset" if reset else _GUEST_ENDS[result.reason])
        else:
            self._tell("SHUTDOWN", guest=False, reason="host-signal")

    # -- what the commands do: also implements dbt.qmp.commands.Control -------------------------------

    def describe(self) -> Mapping[str, Any]:
        """See :class:`dbt.qmp.commands.Control`."""
        machine = self._machine
        pc = machine.cpu.pc
        return {
            "icount": machine.icount,
            "virtual-time-ns": machine.timeline.nanoseconds,
            "pc": pc,
            "location": machine.symbolize(pc),
            "waiting": machine.vcpu.is_waiting,
            "cpu": machine.cpu_model,
            "board": machine.options.board_model.name,
            "memory": machine.ram.size,
            "tier": machine.tier_name,
        }

    def pause(self) -> None:
        """See :class:`dbt.qmp.commands.Control`."""
        if not self.is_holding:
            self._state = "paused"
            if not self._debugger_holds:
                self._tell("STOP")

    def proceed(self) -> None:
        """See :class:`dbt.qmp.commands.Control`."""
        self._check_here()
        if self.is_holding:
            self._state = "running"
            if not self._debugger_holds:
                self._tell("RESUME")

    def quit(self) -> None:
        """See :class:`dbt.qmp.commands.Control`."""
        self._quits = True
        self._tell("SHUTDOWN", guest=False, reason="host-qmp-quit")

    def press_power_key(self) -> None:
        """See :class:`dbt.qmp.commands.Control`."""
        try:
            self._machine.press_power_key()
        except ValueError as error:
            raise QmpError(str(error)) from None
        self._tell("POWERDOWN")

    def inflate(self, size: int) -> None:
        """See :class:`dbt.qmp.commands.Control`."""
        machine = self._machine
        self._given()
        if size <= 0:
            raise QmpError("Parameter 'target' expects a size")
        machine.ask_for_memory(max(0, machine.ram.size - size) & -PAGE_SIZE)

    def balloon(self) -> Mapping[str, Any]:
        """See :class:`dbt.qmp.commands.Control`."""
        return {"actual": self._machine.ram.size - self._given()}

    def _given(self) -> int:
        """Return the bytes that the balloon has, of those that there are. Raise QmpError if there is no balloon."""
        given = self._machine.given_memory
        if given is None:
            raise QmpError("No balloon device has been activated", NOT_ACTIVE)
        return min(given, self._machine.ram.size)

    def _tell_balloon(self) -> None:
        """Tell the clients if the guest has changed its balloon, at most once a second."""
        given, now = self._machine.given_memory, time.monotonic()
        if given is not None and given != self._told_given and now >= self._next_balloon:
            self._told_given, self._next_balloon = given, now + _EVENT_INTERVAL_S
            self._tell("BALLOON_CHANGE", **self.balloon())

    def _tell_failures(self) -> None:
        """Tell the clients of disks that have failed, at most once a second."""
        now = time.monotonic()
        if now < self._next_failure:
            return
        for number, failure in self._machine.take_disk_failures().items():
            self._next_failure = now + _EVENT_INTERVAL_S
            name, operation = f"virtio{number}", "read" if failure.is_read else "write"
            whose = {"device": name, "node-name": name, "operation": operation, "action": "report"}
            self._tell("BLOCK_IO_ERROR", **whose, nospace=failure.is_full, reason=failure.why)

    def reset(self) -> None:
        """See :class:`dbt.qmp.commands.Control`."""
        from dbt.vm.logged_input import LoggedInput  # of a history, which few runs have

        self._check_here()
        machine = self._machine
        source = machine.input_source
        if isinstance(source.inner if isinstance(source, LoggedInput) else source, PositionedInput):
            raise QmpError("the input of this run is recorded or replayed, and no recording can have a reset in it")
        if self._no_reset:
            raise QmpError(self._no_reset)
        if machine.image is None or not machine.image.segments:
            raise QmpError("this machine was restored from a saved state, which has no program to begin again with")
        executed = machine.icount
        try:
            self._restart()
        except TargetError as error:
            raise QmpError(str(error)) from None
        self._before_resets += executed
        if self.is_holding:
            self._state = "prelaunch"  # as QEMU says
        self._tell("RESET", guest=False, reason="host-qmp-system-reset")

    def save(self, path: str) -> Mapping[str, Any]:
        """See :class:`dbt.qmp.commands.Control`."""
        from dbt.devices.state import StateError
        from dbt.snapshot.errors import SnapshotError

        try:
            digest = self._save(path)
        except (SnapshotError, StateError, OSError, ValueError) as error:
            raise QmpError(f"nothing was saved: {str(error).removesuffix('.')}") from None
        return {"path": path, "digest": digest, "icount": self._machine.icount}

    def _write_snapshot(self, path: str) -> str:
        from dbt.snapshot.snapshots import write_snapshot

        with self._machine.save() as state:
            return write_snapshot(state, path)
