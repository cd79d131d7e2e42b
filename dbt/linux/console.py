"""The console of a machine that runs a program for Linux: a port to the agent of the guest."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping

from dbt.host.console import Console
from dbt.linux.protocol import (
    INPUT_MOST,
    Failure,
    Frame,
    FrameReader,
    FromGuest,
    ProtocolError,
    Request,
    ToGuest,
    frame,
    window,
)

#: Bytes of the kernel's messages that are kept.
_LOG_KEPT = 8192
_PIECE = 4096
_PROGRAM = 0  # the session


class ProgramConsole:
    """Brings the streams of one program to ``streams``, and its input, signals and window sizes to the program.

    It is a :class:`dbt.host.console.Console`, and so is ``streams``: what the program writes to standard output goes to
    ``write``, and to standard error to ``write_error``. ``path`` names the program in messages.
    """

    def __init__(self, streams: Console, path: str = "") -> None:
        self.streams = streams
        self._path = path
        self._items: list[str] = []  # of the request
        self._reader = FrameReader()
        self._waiting = bytearray()  # frames for the guest
        self._room = 0  # bytes of the program's input that the agent takes now
        self._input_ended = False
        self._log = bytearray()
        #: True when the guest has booted.
        self.is_ready = False
        #: True when the program has been started.
        self.is_started = False
        #: The status of the program as of wait(2), when it has ended.
        self.status: int | None = None
        #: Why it was not started, if that has failed.
        self.failure: Failure | None = None

    def start(self, request: Request) -> None:
        """Send a request. The guest ends after its program."""
        self._items = request.items
        self._waiting += request.frames(_PROGRAM) + frame(ToGuest.FINISH)

    def explain_failure(self) -> str:
        """Return why the program was not started, in words. Precondition: there is a ``failure``."""
        assert self.failure is not None
        error, tag, place = self.failure
        reason = os.strerror(error)
        if tag == "p":
            if error == errno.ENOENT:
                reason = "the guest has no such file, or not the interpreter that it names"
            return f"{self._path}: it cannot be executed: {reason}"
        about = self._items[place] if place < len(self._items) else "the request"
        return f"{self._path}: the Linux guest cannot prepare it ({about}): {reason}"

    def signal(self, number: int) -> None:
        """Send a signal to the program and the processes of its group."""
        self._waiting += frame(ToGuest.SIGNAL, _PROGRAM, number.to_bytes(4, "little"))

    def resize(self, rows: int, columns: int) -> None:
        """Tell the program's terminal that it has another size."""
        self._waiting += frame(ToGuest.RESIZE, _PROGRAM, window(rows, columns))

    @property
    def log(self) -> str:
        """The last messages of the guest's kernel."""
        return self._log.decode("ascii", "replace")

    # -- what comes from the guest -------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Take what the agent sends. Raise ProtocolError for what it does not send."""
        for one in self._reader.feed(data):
            if (take := _TAKERS.get(one.kind)) is None:
                raise ProtocolError(f"the guest sent a frame {one.kind.name} for which nobody has asked")
            take(self, one)

    def write_error(self, data: bytes) -> None:
        """Take messages of the guest's kernel."""
        self._log += data
        del self._log[:-_LOG_KEPT]

    def _take_ready(self, one: Frame) -> None:
        if self.is_started:
            raise ProtocolError("the guest has started again")
        self.is_ready = True

    def _take_started(self, one: Frame) -> None:
        self.is_started = True
        self._room = INPUT_MOST

    def _take_output(self, one: Frame) -> None:
        if one.stream == 1:
            self.streams.write(one.value)
        else:
            self.streams.write_error(one.value)

    def _take_taken(self, one: Frame) -> None:
        self._room = min(self._room + one.number, INPUT_MOST)

    def _take_ended(self, one: Frame) -> None:
        self.status = one.number & 0xFFFF
        self._input_ended = True

    def _take_failed(self, one: Frame) -> None:
        self.failure = Failure.of(one.value)
        self._input_ended = True

    def flush(self) -> None:
        self.streams.flush()

    # -- what goes to the guest ----------------------------------------------------------------

    @property
    def _wants_input(self) -> bool:
        return self._room > 0 and not self._input_ended

    def read(self, size: int) -> bytes | None:
        if not self._waiting and self._wants_input:
            data = self.streams.read(min(self._room, _PIECE))
            if data is not None:
                self._room -= len(data)
                self._input_ended = not data
                self._waiting += frame(ToGuest.INPUT, _PROGRAM, data)
        if not self._waiting:
            return b"" if self.ended else None
        piece = bytes(self._waiting[:size])
        del self._waiting[:size]
        return piece

    def arrived(self) -> bool:
        return bool(self._waiting) or (self._wants_input and (self.streams.arrived() or self.streams.ended))

    @property
    def ended(self) -> bool:
        """True if the program has ended. Before, a signal may come."""
        return not self._waiting and (self.status is not None or self.failure is not None)

    def wait(self, seconds: float) -> None:
        if self._waiting:
            return
        if self._wants_input:
            self.streams.wait(seconds)
        else:
            time.sleep(seconds)


_TAKERS: Mapping[FromGuest, Callable[[ProgramConsole, Frame], None]] = {
    FromGuest.READY: ProgramConsole._take_ready,
    FromGuest.STARTED: ProgramConsole._take_started,
    FromGuest.OUTPUT: ProgramConsole._take_output,
    FromGuest.TAKEN: ProgramConsole._take_taken,
    FromGuest.ENDED: ProgramConsole._take_ended,
    FromGuest.FAILED: ProgramConsole._take_failed,
}


def exit_status(status: int) -> tuple[int, int]:
    """Return the exit status of a status as of wait(2), and the signal that has ended the program, or 0."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return (128 + number if number else os.WEXITSTATUS(status)), number
