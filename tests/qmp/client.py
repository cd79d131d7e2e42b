"""A client of a monitor, dbt's or QEMU's, and machines in the background."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dbt import CaptureConsole, Machine, QmpMonitor, RunResult
from tests.assembler import assemble
from tests.vm.programs import BASE, EXIT
from tests.waiting import wait_until

#: Seconds in which a run ends, and an answer comes.
_BOUND_S = 30.0

FOREVER = "mov r0, #0\nloop: add r0, r0, #1 ; b loop"
#: Counts for some time, and exits with 5.
SHORT = f"ldr r0, =3000000\nloop: subs r0, r0, #1 ; bne loop ; mov r2, #5 ; {EXIT}"


class QmpClient:
    """Sends commands and receives answers. Events are kept in ``events``, without their times."""

    def __init__(self, path: str, negotiates: bool = True) -> None:
        connection = wait_until(lambda: _connected(path), f"a monitor at {path}")
        assert connection is not None
        self._socket = connection
        self._lines = self._socket.makefile("rb")
        self.events: list[dict[str, Any]] = []
        self.greeting = self.receive()
        if negotiates:
            assert self.ask("qmp_capabilities") == {}

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_at_once(self, data: bytes) -> None:
        """Send what the monitor takes now. Raise BlockingIOError if that is nothing."""
        self._socket.setblocking(False)
        self._socket.send(data)

    def drain(self) -> None:
        """Receive everything up to the end of the connection, which must come."""
        self._socket.settimeout(_BOUND_S)
        with suppress(ConnectionResetError):  # the monitor had unread commands when it gave up
            while self._socket.recv(1 << 20):
                pass

    def end(self) -> None:
        """Send no more."""
        self._socket.shutdown(socket.SHUT_WR)

    def receive(self) -> dict[str, Any] | None:
        """Return the next answer, or None at the end of the connection."""
        while line := self._lines.readline():
            message = json.loads(line)
            assert line.endswith(b"\r\n") and isinstance(message, dict)
            if "event" not in message:
                return message
            assert message.pop("timestamp").keys() == {"seconds", "microseconds"}
            self.events.append(message)
        return None

    def tell(self, data: bytes) -> dict[str, Any] | None:
        self.send(data)
        return self.receive()

    def ask(self, command: str, **arguments: object) -> Any:
        """Return the answer to a command, or its class of error and description. Raise EOFError if there is none."""
        message = {"execute": command, "id": 1, **({"arguments": arguments} if arguments else {})}
        answer = self.tell(json.dumps(message).encode() + b"\n")
        if answer is None:
            raise EOFError
        assert answer.pop("id") == 1
        error = answer.get("error")
        return answer["return"] if error is None else (error["class"], error["desc"])

    def take_events(self) -> list[str]:
        names = [event["event"] for event in self.events]
        self.events.clear()
        return names

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> QmpClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _connected(path: str) -> socket.socket | None:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(_BOUND_S)
    try:
        client.connect(path)
    except OSError:
        client.close()
        return None
    return client


def machine_of(source: str, tier: Any = "threaded") -> Machine:
    machine = Machine(1 << 20, tier, console=CaptureConsole())
    machine.load_bytes(assemble(source), base=BASE)
    return machine


class Monitored:
    """A machine that runs under a monitor in a thread of its own."""

    def __init__(self, machine: Machine, path: str, fuel: int | None = None, **options: Any) -> None:
        self.machine, self.path = machine, path
        self._fuel, self._options = fuel, options
        self._results: list[RunResult | BaseException] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            with QmpMonitor(self.machine, f"unix:{self.path}", **self._options) as monitor:
                self._results.append(monitor.run(self._fuel, timeout=_BOUND_S))
        except BaseException as error:  # which belongs to the test's own thread
            self._results.append(error)

    @property
    def result(self) -> RunResult:
        """The result of the run, which must come."""
        self._thread.join(_BOUND_S)
        assert self._results
        result = self._results[0]
        if isinstance(result, BaseException):
            raise result
        return result

    def client(self, negotiates: bool = True) -> QmpClient:
        return QmpClient(self.path, negotiates)


@contextmanager
def monitored(machine: Machine, path: str, fuel: int | None = None, **options: Any) -> Iterator[Monitored]:
    made = Monitored(machine, path, fuel, **options)
    try:
        yield made
    finally:
        machine.interrupt()
        _ = made.result
