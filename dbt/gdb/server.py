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
from dbt.gdb.session import Answer, Leave, Resume, Session
from dbt.gdb.target import Stop, StopSignal, Target
from dbt.host.endpoint import describe

#: While the guest is stopped, its user is looked after so often, in seconds.
_PAUSE_S = 0.1
#: While so many packets wait for an answer, no more are read.
_MOST_PACKETS = 1024


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
        self._is_busy = False  # a packet is being answered
        self._is_interrupted = False  # the client has sent an interrupt, and does not mean what was answered before
        self._is_gone = False  # the client is, which was noticed while something was done for it

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
        session = Session(self._target, client.send, lambda: self._hears(client) and self._is_interrupted)
        self._packets.clear()
        self._is_gone = False
        try:
            while self._client is not None:
                if self._target.is_ended():  # also between packets, for which a client can let the answers wait
                    return self._say_end(client, b"X02", End.INTERRUPTED)
                if self._packets:
                    end = self._answer(client, session, self._packets.popleft())
                    if end is not None:
                        return end
                else:
                    self._asked = self._is_interrupted = False
                    self._listen(client, _PAUSE_S)
        except ClientGone:
            self._part()
            self._holds = self._waits
        return None

    def _hears(self, client: Client) -> bool:
        """Take what the client sends while something is done for it. Return True if it wants anything, or is gone."""
        if not self._is_gone:
            try:
                self._listen(client, 0)
            except ClientGone:
                self._is_gone = self._is_interrupted = True
        return self._asked or self._is_interrupted

    def _listen(self, client: Client, seconds: float) -> None:
        """Take what the client sends. Raise ClientGone."""
        found = ready(seconds, client, self._door)
        if client in found and len(self._packets) < _MOST_PACKETS:
            for item in client.receive():
                if isinstance(item, bytes):
                    self._packets.append(item)
                    self._asked = True
                elif item is Signal.INTERRUPT and (self._is_busy or self._packets):  # else nothing is there to stop
                    self._asked = self._is_interrupted = True
        elif self._door in found:  # who comes after the client has gone is not refused
            self._door.refuse()

    def _answer(self, client: Client, session: Session, packet: bytes) -> End | None:
        self._is_busy = True
        try:
            return self._do(client, session, session.answer(packet))
        finally:
            self._is_busy = False

    def _do(self, client: Client, session: Session, answer: Answer) -> End | None:
        if isinstance(answer, Leave):
            if answer.reply is not None:
                client.send(answer.reply)
            self._part()
            return End.KILLED if answer.kill else None
        if isinstance(answer, Resume):
            return self._resume(client, session, answer)
        if self._is_gone:
            raise ClientGone
        if answer is not None:
            client.send(answer)
        if not session.acknowledges:
            client.acknowledges = False
        return None

    def _resume(self, client: Client, session: Session, wanted: Resume) -> End | None:
        """Let the guest go on, and tell the client why it has stopped."""
        self._asked = self._is_interrupted or bool(self._packets)
        stop = self._go(wanted, lambda: self._hears(client))
        if self._is_gone and stop.exit_code is None:
            raise ClientGone
        is_wanted, self._is_interrupted = self._asked, False
        if stop.signal is StopSignal.INTERRUPT and not is_wanted:
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
