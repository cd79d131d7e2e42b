"""Input: everything that the host gives a running guest comes from one input source, at a known time.

Between two slices the machine asks the source for bytes to push into the UART, and semihosting reads the console
through it. The source is the console, or a recording (:mod:`dbt.vm.recording`), whose bytes arrive at the times that it
states. Times are virtual, in ticks, and never decrease. It is input, too, by how much virtual time is raised to the
host's clock while the guest computes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from dbt.host.console import Console
from dbt.vm.error_latch import ErrorLatch

#: How often the console is looked at while a guest waits for the network too, in seconds.
_CONSOLE_INTERVAL = 0.002


class Arrival(NamedTuple):
    """Something from outside for a receiver of the board (:class:`dbt.board.board.Board`), other than the console."""

    receiver: str
    data: bytes


class Network(Protocol):
    """What the network cards and the socket device of a machine are connected to."""

    def arrivals(self) -> Iterable[Arrival]:
        """Return what has come since the last call. Do not wait."""

    def events(self) -> dict[int, int]:
        """Return the file descriptors at which something may arrive, each with POLLIN, POLLOUT, both or 0."""


class Mailbox:
    """What has come from outside, until the machine takes it. Any thread, and the handler of a signal, may post.

    ``network`` is asked for what has come from there, if the machine has one.
    """

    def __init__(self, network: Network | None = None) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._network = network

    def post(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)

    @property
    def is_empty(self) -> bool:
        if self._network is not None:
            self._arrivals.extend(self._network.arrivals())
        return not self._arrivals

    def take(self) -> Sequence[Arrival]:
        """Return what has arrived, in its order, and keep nothing of it."""
        if self.is_empty:
            return ()
        arrivals = self._arrivals
        return [arrivals.popleft() for _ in range(len(arrivals))]

    def wait(self, console: Console, seconds: float) -> None:
        """Return when something may have arrived here or at the console, or after ``seconds``."""
        if self._network is None:
            console.wait(seconds)
            return
        from dbt.engine.descriptors import ready  # which few guests need

        end = time.monotonic() + seconds
        while not console.arrived() and self.is_empty and (left := end - time.monotonic()) > 0:
            ready(self._network.events(), min(left, _CONSOLE_INTERVAL))


class InputSource(Protocol):
    """The source of a machine's input."""

    @property
    def next_delivery(self) -> int | None:
        """The time at which :meth:`poll` or :meth:`arrivals` will have input, or None if that is not known. A slice
        must end there.
        """

    @property
    def ended(self) -> bool:
        """True if it is certain that no more input will come."""

    def due(self, now: int) -> int | None:
        """Return the time from which on :meth:`poll` may give input to an access, or None if there is none yet.

        Accesses before that time need not ask. It is asked for before each slice, which takes some milliseconds.
        """

    def pass_time(self, now: int, behind: int) -> int:
        """Return by how many ticks virtual time is to be raised. ``behind`` says how far it is behind the host's clock,
        0 if it does not follow it. It is called after slices that have ended with their budget.
        """

    def poll(self, now: int, room: int, access: bool = False) -> bytes:
        """Return what has arrived for the UART, at most ``room`` bytes. Do not wait.

        ``access``: whether an access of the guest's to the UART asks, and not the run loop between two instructions.
        """

    def read(self, now: int, size: int) -> bytes | None:
        """Return up to ``size`` bytes for semihosting, ``b""`` at the end of the input, or None if there is nothing
        yet.
        """

    def arrivals(self, now: int) -> Sequence[Arrival]:
        """Return what has come for other receivers than the console. It is called when time has come to the tick
        ``now``, between two instructions.
        """

    @property
    def has_arrivals(self) -> bool:
        """True if :meth:`arrivals` has something to give, at no time that was known before."""

    def ask(self, now: int, operation: Callable[[], bytes]) -> bytes:
        """Return the outcome of an operation on what is outside the machine, which the guest has asked for."""

    def wait(self, seconds: float) -> None:
        """Return when something may have arrived, or after ``seconds``. It is called while a guest waits."""


@runtime_checkable
class PositionedInput(Protocol):
    """An input source that knows where it stands, so that it can go back with a machine that is rolled back.

    Other sources go on: what they have delivered, they do not deliver again.
    """

    def position(self) -> object:
        """Return where it stands."""

    def go_back(self, position: object) -> None:
        """Stand again where :meth:`position` was called. Raise an exception before anything changes, if it cannot."""


class AccessCounter:
    """Numbers the device accesses that ask for input at one tick, from 1 on: an instruction can make several."""

    def __init__(self, now: int = -1, count: int = 0) -> None:
        """``count`` accesses have been made at the tick ``now``."""
        self._now = now
        self._count = count

    def number(self, now: int, access: bool) -> int:
        """Return the number of an access at the tick ``now``; 0 if it is none."""
        if not access:
            return 0
        self._now, self._count = now, self._count + 1 if now == self._now else 1
        return self._count

    def forget(self) -> None:
        """Begin to count anew, because time has gone back to between two instructions."""
        self._now = -1


class RecordingError(Exception):
    """Raised for a file that is no recording or belongs to another run, and for a recording that cannot be written."""


class ReplayDiverged(Exception):
    """Raised if a replayed guest does something else than it did when it was recorded."""


class ConsoleInput:
    """The input source that reads a console and a mailbox. Input is delivered at the time at which it is found."""

    def __init__(self, console: Console, mailbox: Mailbox | None = None) -> None:
        self._console = console
        self._mailbox = mailbox if mailbox is not None else Mailbox()

    @property
    def next_delivery(self) -> int | None:
        return None

    @property
    def ended(self) -> bool:
        return self._console.ended

    def due(self, now: int) -> int | None:
        return now if self._console.arrived() else None

    def pass_time(self, now: int, behind: int) -> int:
        return behind

    def poll(self, now: int, room: int, access: bool = False) -> bytes:
        if room <= 0 or not self._console.arrived():
            return b""
        return self._console.read(room) or b""

    def read(self, now: int, size: int) -> bytes | None:
        return self._console.read(size)

    def arrivals(self, now: int) -> Sequence[Arrival]:
        return self._mailbox.take()

    @property
    def has_arrivals(self) -> bool:
        return not self._mailbox.is_empty

    def ask(self, now: int, operation: Callable[[], bytes]) -> bytes:
        return operation()

    def wait(self, seconds: float) -> None:
        self._mailbox.wait(self._console, seconds)


class InputPort:
    """The place where a machine's input source is connected, at first ``source``. :meth:`attach` connects another
    one.
    """

    def __init__(self, source: InputSource, latch: ErrorLatch) -> None:
        self._latch = latch
        self.attach(source)

    def attach(self, source: InputSource) -> None:
        """Take the input from ``source`` from now on."""
        self.source = source
        #: The source, if it knows its position. To ask takes 10 us, so nobody asks at each rollback.
        self._positioned = source if isinstance(source, PositionedInput) else None

    def keep(self) -> Callable[[], None]:
        """Return a function that takes the source back to where it stands now. The source that is attached stays.

        The function raises RuntimeError if a source that knows its position has been attached since.
        """
        kept = self._positioned
        position = None if kept is None else kept.position()

        def put_back() -> None:
            source = self._positioned
            if source is not None:
                if source is not kept:
                    raise RuntimeError("the input source was attached after the checkpoint, so it cannot go back to it")
                source.go_back(position)

        return put_back

    def poll(self, now: int, room: int, access: bool) -> bytes:
        """Return :meth:`InputSource.poll` of the source. What it raises is kept until the slice has ended."""
        if self._latch.is_set:
            return b""
        try:
            return self.source.poll(now, room, access)
        except BaseException as error:  # whatever it is, it is raised when the slice has ended
            self._latch.keep(error)
            return b""

    def ask(self, now: int, operation: Callable[[], bytes]) -> bytes:
        """Return :meth:`InputSource.ask` of the source. What it raises is kept until the slice has ended, and there are
        no bytes then.
        """
        if self._latch.is_set:
            return b""
        try:
            return self.source.ask(now, operation)
        except BaseException as error:  # whatever it is, it is raised when the slice has ended
            self._latch.keep(error)
            return b""
