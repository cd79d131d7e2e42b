"""A program in a container, with its streams."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from dbt.containers.runtime.spec import VmEnded
from dbt.linux.console import exit_status
from dbt.linux.protocol import FRAME_MOST, INPUT_MOST, Failure, Frame, FromGuest, ProtocolError, ToGuest, frame, window

#: Bytes of output that may be on their way, or be here and not read.
WINDOW: Final = 1 << 16
#: Credit is given when so much has been read.
_STEP: Final = WINDOW // 4


class Port(Protocol):
    """What a session needs of its VM's port. ``position`` is where the frame ends that it takes."""

    position: int

    def send(self, data: bytes) -> None:
        """Send frames. Raise VmEnded if the VM has ended, and RuntimeFailure if it does not read."""

    def forget(self, number: int) -> None:
        """Hear that a session is over."""


class Session:
    """A program in a container. All methods belong to the event loop of its runtime.

    ``number`` is that of the session at the ``port``. ``items`` say what each item of its request is about.
    """

    def __init__(self, port: Port, number: int, items: list[str]) -> None:
        self.number = number
        self.items = items
        #: Its process ID in the guest.
        self.pid = 0
        #: Why it was not started, if that has failed.
        self.failure: Failure | None = None
        self._port = port
        self._output: deque[tuple[int, bytes, int]] = deque()  # with the position of its end
        self._saved: deque[tuple[int, bytes]] = deque()  # output for which no credit is given
        self._read_to = 0
        self._on_its_way = WINDOW  # what the guest may still send
        self._read = 0  # bytes that were read and for which no credit was given
        self._room = 0  # bytes of input that the agent takes
        self._input_ended = self._begun = self._over = self._is_lost = False
        self._code: int | None = None
        self._lost = ""
        self._changed = asyncio.Event()

    # -- for its user --------------------------------------------------------------------------

    async def read(self) -> tuple[int, bytes] | None:
        """Return what it has written, with the number of the stream, 1 or 2 (a terminal has only 1). Return None when
        all of it has been read and the program has ended, or the VM has.

        The program waits when it has written more than a window that nobody reads.
        """
        await self._until(lambda: bool(self._output or self._saved) or self._over)
        if self._saved:
            self._changed.set()
            return self._saved.popleft()
        if not self._output:
            return None
        self._changed.set()
        stream, data, self._read_to = self._output.popleft()
        self._read += len(data)
        if self._read >= _STEP and not self._over:
            self._give_credit()
        return stream, data

    @property
    def has_unread(self) -> bool:
        """True if it has written something that has not been read."""
        return bool(self._output or self._saved)

    @property
    def read_to(self) -> int | None:
        """The position in the guest's stream up to which everything of it has been read, if that is known."""
        if self._saved:
            return None
        return self._read_to if self._output else self._port.position

    async def all_read(self) -> None:
        """Return when all that it has written has been read."""
        await self._until(lambda: not self.has_unread)

    async def write(self, data: bytes) -> None:
        """Give it input. Return when the guest has room for it. What a program that has ended does not read is lost."""
        view = memoryview(data)
        while view and not self._over and not self._input_ended:
            await self._until(lambda: self._room > 0 or self._over)
            piece = view[: min(self._room, FRAME_MOST)]
            if not self._over and piece:
                self._room -= len(piece)
                self._port.send(frame(ToGuest.INPUT, self.number, bytes(piece)))
            view = view[len(piece) :]

    def end_input(self) -> None:
        """Let its input end, after all that was written. A terminal has no end of input."""
        if not self._input_ended and not self._over:
            self._port.send(frame(ToGuest.INPUT, self.number))
        self._input_ended = True

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size."""
        if not self._over:
            self._port.send(frame(ToGuest.RESIZE, self.number, window(rows, columns)))

    async def kill(self, number: int) -> None:
        """Send a signal to its process."""
        if not self._over:
            self._port.send(frame(ToGuest.SIGNAL, self.number, number.to_bytes(4, "little"), stream=1))

    async def wait(self) -> int:
        """Return its exit code when it has ended, as docker counts: 128 and the signal's number for a signal. Raise
        VmEnded if the VM ends before.
        """
        await self._until(lambda: self._over)
        if self._code is None:
            raise VmEnded(self._lost)
        return self._code

    @property
    def has_ended(self) -> bool:
        """True if the program has ended, or the VM has. What it has written may not have been read."""
        return self._over

    @property
    def has_code(self) -> bool:
        """True if the program has ended, and not its VM with it."""
        return self._code is not None

    async def started(self) -> None:
        """Return when the program executes, or when that has failed (:attr:`failure`). Raise VmEnded."""
        await self._until(lambda: self._begun or self._over)
        if self._is_lost:
            raise VmEnded(self._lost)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _give_credit(self) -> None:
        self._on_its_way += self._read
        self._port.send(frame(ToGuest.CREDIT, self.number, self._read.to_bytes(4, "little")))
        self._read = 0

    # -- for its port --------------------------------------------------------------------------

    def take(self, one: Frame) -> None:
        """Take a frame from the guest. Raise ProtocolError for one that the agent does not send now."""
        match one.kind:
            case FromGuest.STARTED if not self._begun:
                self._begun, self.pid, self._room = True, one.number, INPUT_MOST
            case FromGuest.OUTPUT if self._begun and len(one.value) <= self._on_its_way:
                self._on_its_way -= len(one.value)
                self._output.append((one.stream, one.value, self._port.position))
            case FromGuest.TAKEN if self._begun and one.number <= INPUT_MOST - self._room:
                self._room += one.number
            case FromGuest.ENDED if self._begun:
                self._code = exit_status(one.number & 0xFFFF)[0]
                self._end()
            case FromGuest.FAILED if not self._begun:
                self.failure = Failure.of(one.value)
                self._end()
            case _:
                raise ProtocolError(f"the guest sent a frame {one.kind.name} for session {self.number}, which is wrong")
        self._changed.set()

    def _end(self) -> None:
        self._over = True
        self._port.forget(self.number)

    def lose(self, why: str) -> None:
        """Hear that the VM has ended."""
        if not self._over:
            self._over = self._is_lost = True
            self._lost = why
            self._changed.set()

    def go_on(self, pid: int, credit: int, waiting: int) -> None:
        """Be a program that was started before this process. The guest may send so much output, and so much input waits
        there. Raise ProtocolError for what is not possible.
        """
        if credit > WINDOW or waiting > INPUT_MOST:
            raise ProtocolError(f"the guest says that session {self.number} has more to send than it may")
        self._begun, self.pid, self._room = True, pid, INPUT_MOST - waiting
        self._on_its_way, self._read = credit, WINDOW - credit
        self._give_credit()

    def find(self, output: Iterable[tuple[int, bytes]]) -> None:
        """Have output that came before this process, and that nobody has read."""
        self._saved.extend(output)
        self._changed.set()

    @property
    def flow(self) -> tuple[int, int]:
        """How much output the guest may still send, and how much input waits there."""
        return self._on_its_way, INPUT_MOST - self._room

    def have_ended(self, status: int) -> None:
        """Be a program that had ended before this process asked, with a status as of wait(2)."""
        self._begun, self._code = True, exit_status(status)[0]
        self._end()
