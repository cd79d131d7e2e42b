"""The server: it lets the guest run, and debuggers come, look and go.

Without a debugger the guest runs. One that connects stops it. It runs on when the debugger detaches, and also when the
connection breaks. A server that waits holds the guest until the first debugger comes, and after a broken connection.

The server works in the thread that calls :meth:`GdbServer.serve`. While the guest runs, the run loop asks it between
slices whether somebody wants something.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable
from enum import Enum

from dbt.gdb.connection import Client, ClientGone, Door, ready
from dbt.gdb.packets import Signal
from dbt.gdb.session import Leave, Resume, Session
from dbt.gdb.target import Stop, StopSignal, Target
from dbt.host.endpoint import describe

#: While the guest is stopped, its user is looked after so often, in seconds.
_PAUSE_S = 0.1


class End(Enum):
    """How :meth:`GdbServer.serve` ended."""

    GUEST = "guest"  # the guest's run is over: the target knows how
    KILLED = "killed"  # by the debugger
    INTERRUPTED = "interrupted"  # by the machine's own user


class GdbServer:
    """A server for one machine. It closes ``listener``."""

    def __init__(self, target: Target, listener: socket.socket, wait: bool = False) -> None:
        self._target, self._waits = target, wait
        self._holds = wait  # the guest stays stopped until a debugger comes
        self.address = describe(listener)
        self._door = Door(listener)
        self._client: Client | None = None
        self._packets: deque[bytes] = deque()  # that have come and were not answered
        self._asked = False  # somebody has asked for the guest to stop

    def close(self) -> None:
        """Close all sockets."""
        if self._client is not None:
            self._client.close()
        self._door.close()

    def serve(self) -> End:
        """Run the guest and serve debuggers, until the guest ends or somebody ends the run."""
        end: End | None = None
        while end is None:
            end = self._run_alone() if self._client is None else self._attend(self._client)
        return end

    # -- without a debugger --------------------------------------------------------------------

    def _run_alone(self) -> End | None:
        """Let the guest run until a debugger has connected."""
        if self._holds:
            while not ready(_PAUSE_S, self._door):
                if self._target.is_ended():
                    return End.INTERRUPTED
        else:
            self._asked = False
            stop = self._target.resume(self._is_wanted)
            if stop.log_end is not None:  # which nobody is told, so it goes on
                return None
            if stop.signal is not StopSignal.INTERRUPT:
                return End.GUEST
            if not self._asked:
                return End.INTERRUPTED
        self._client = self._door.accept()
        self._holds = self._holds and self._client is None
        return None

    def _is_wanted(self) -> bool:
        """Return True if somebody comes."""
        self._asked = bool(ready(0, self._door))
        return self._asked

    # -- with one ------------------------------------------------------------------------------

    def _attend(self, client: Client) -> End | None:
        """Serve a client until it leaves."""
        session = Session(self._target, client.send)
        self._packets.clear()
        try:
            while self._client is not None:
                if self._packets:
                    end = self._answer(client, session, self._packets.popleft())
                    if end is not None:
                        return end
                elif self._target.is_ended():
                    return self._say_end(client, b"X02", End.INTERRUPTED)
                else:
                    self._listen(client, _PAUSE_S)
        except ClientGone:
            self._part()
            self._holds = self._waits
        return None

    def _listen(self, client: Client, seconds: float) -> None:
        """Take what the client sends. Raise ClientGone."""
        found = ready(seconds, client, self._door)
        if client in found:
            for item in client.receive():
                if isinstance(item, bytes):
                    self._packets.append(item)
                self._asked |= isinstance(item, bytes) or item is Signal.INTERRUPT
        elif self._door in found:  # who comes after the client has gone is not refused
            self._door.refuse()

    def _answer(self, client: Client, session: Session, packet: bytes) -> End | None:
        answer = session.answer(packet)
        if isinstance(answer, Leave):
            if answer.reply is not None:
                client.send(answer.reply)
            self._part()
            return End.KILLED if answer.kill else None
        if isinstance(answer, Resume):
            return self._resume(client, session, answer)
        if answer is not None:
            client.send(answer)
        if not session.acknowledges:
            client.acknowledges = False
        return None

    def _resume(self, client: Client, session: Session, wanted: Resume) -> End | None:
        """Let the guest go on, and tell the client why it has stopped."""
        self._asked = False
        gone: list[ClientGone] = []

        def is_asked() -> bool:
            try:
                self._listen(client, 0)
            except ClientGone as error:
                gone.append(error)
            return self._asked or bool(gone)

        stop = self._go(wanted, is_asked)
        if gone and stop.exit_code is None:
            raise gone[0]
        if stop.signal is StopSignal.INTERRUPT and not self._asked:
            return self._say_end(client, b"X02", End.INTERRUPTED)
        return self._tell_stop(client, session, stop)

    def _go(self, wanted: Resume, is_asked: Callable[[], bool]) -> Stop:
        target = self._target
        if wanted.back:
            return target.step_back() if wanted.step else target.resume_back(is_asked)
        return target.step(wanted.start, wanted.end, is_asked) if wanted.step else target.resume(is_asked)

    def _tell_stop(self, client: Client, session: Session, stop: Stop) -> End | None:
        session.stop = stop
        if stop.exit_code is not None:
            return self._say_end(client, session.stop_reply(), End.GUEST)
        if stop.message:
            session.tell(f"dbt: {stop.message}\n")
        client.send(session.stop_reply())
        return None

    def _say_end(self, client: Client, reply: bytes, end: End) -> End:
        """Tell the client that there is no guest any more. It may be gone, too."""
        with contextlib.suppress(ClientGone):
            client.send(reply)
        return end

    def _part(self) -> None:
        """The client leaves, and with it everything that it wanted to stop the guest for."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self._target.detach()
