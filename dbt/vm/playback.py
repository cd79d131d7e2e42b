"""Playing back input that was recorded, in a file or in memory: what comes when, and whether the guest is ready for it.

A recording is a list of :class:`Delivery` and :class:`PassedTime`, in the order in which they came.
"""

from __future__ import annotations

from typing import NamedTuple

from dbt.vm.input import AccessCounter, Arrival, ReplayDiverged

UART, READ, TIME, ARRIVAL, ANSWER = "uart", "read", "time", "arrival", "answer"


class Delivery(NamedTuple):
    """A piece of input: for the UART or for a read by semihosting, and when.

    ``access``: of the accesses to the UART at this tick, the number of the one that got it, from 1 on; 0 if it came
    between two instructions.
    """

    kind: str
    time: int
    data: bytes
    access: int = 0


class PassedTime(NamedTuple):
    """Virtual time was raised at the tick ``time`` by so many ``ticks``, because the host's clock was further."""

    time: int
    ticks: int


class DatedArrival(NamedTuple):
    """Something came for a receiver of the board at the tick ``time``, between two instructions."""

    time: int
    arrival: Arrival


class Answered(NamedTuple):
    """The outcome of an operation outside, which the guest had asked for, at the tick ``time``."""

    time: int
    outcome: bytes


#: What a recording is made of.
Item = Delivery | PassedTime | DatedArrival | Answered


class PlaybackPosition(NamedTuple):
    """How much has been delivered: of the UART's input, of that between two instructions, of reads, of passed time, of
    arrivals, of outcomes.
    """

    uart: int = 0
    between: int = 0
    reads: int = 0
    passed: int = 0
    arrivals: int = 0
    answers: int = 0


class Playback:
    """Input that is delivered at the times at which it was recorded. ``name`` is that of the recording, for errors.

    The methods are those of :class:`dbt.vm.input.InputSource`. They raise ReplayDiverged if the guest is not ready for
    a delivery.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._uart: list[Delivery] = []
        self._between: list[int] = []  # the times of those that came between two instructions
        self._reads: list[Delivery] = []
        self._passed: list[PassedTime] = []
        self._arrivals: list[DatedArrival] = []
        self._answers: list[Answered] = []
        self._at = PlaybackPosition()
        self._accesses = AccessCounter()

    # -- what is played back -------------------------------------------------------------------

    def add(self, item: Item) -> None:
        """Add what comes after all that is there."""
        if isinstance(item, PassedTime):
            self._passed.append(item)
        elif isinstance(item, DatedArrival):
            self._arrivals.append(item)
        elif isinstance(item, Answered):
            self._answers.append(item)
        elif item.kind == READ:
            self._reads.append(item)
        else:
            self._uart.append(item)
            if not item.access:
                self._between.append(item.time)

    def add_delivered(self, item: Item) -> None:
        """Add what comes after all that is there, and has been delivered too. Precondition: so has the rest of its
        kind.
        """
        self.add(item)
        uart, between, reads, passed, arrivals, answers = self._at
        if isinstance(item, PassedTime):
            passed += 1
        elif isinstance(item, DatedArrival):
            arrivals += 1
        elif isinstance(item, Answered):
            answers += 1
        elif item.kind == READ:
            reads += 1
        else:
            uart, between = uart + 1, between + (not item.access)
        self._at = PlaybackPosition(uart, between, reads, passed, arrivals, answers)

    def cut(self) -> None:
        """Forget what has not been delivered."""
        del self._uart[self._at.uart :]
        del self._between[self._at.between :]
        del self._reads[self._at.reads :]
        del self._passed[self._at.passed :]
        del self._arrivals[self._at.arrivals :]
        del self._answers[self._at.answers :]

    # -- where it stands -----------------------------------------------------------------------

    @property
    def position(self) -> PlaybackPosition:
        return self._at

    def go_back(self, position: PlaybackPosition) -> None:
        """Stand again where :attr:`position` was this, between two instructions."""
        self._at = position
        self._accesses.forget()

    def skip(self, now: int, arrived: int, received: int, asked: int) -> tuple[int, int]:
        """Take as delivered what came before the tick ``now``, and of what came at that tick as much as belongs to what
        has come altogether: ``arrived`` bytes for the UART, ``received`` bytes by reads, and the outcomes of ``asked``
        operations. What came at that tick for other receivers has come before a machine can have stopped there.

        Return how many of each are missing. It is 0, unless this is another run's recording.
        """
        uart, last, uart_left = _skipped(self._uart, now, arrived)
        reads, _, reads_left = _skipped(self._reads, now, received)
        between = sum(not delivery.access for delivery in self._uart[:uart])
        passed = next((at for at, item in enumerate(self._passed) if item.time >= now), len(self._passed))
        arrivals = sum(item.time <= now for item in self._arrivals)
        answers = sum(item.time < now for item in self._answers)
        if asked > answers:
            answers += sum(item.time == now for item in self._answers[answers:asked])
        self._at = PlaybackPosition(uart, between, reads, passed, arrivals, answers)
        if last is not None and last.time == now:
            self._accesses = AccessCounter(now, last.access)
        return uart_left, reads_left

    # -- delivering ----------------------------------------------------------------------------

    @property
    def next_uart(self) -> Delivery | None:
        """The next input for the UART, or None if no more comes."""
        return self._uart[self._at.uart] if self._at.uart < len(self._uart) else None

    @property
    def has_reads(self) -> bool:
        """Whether more reads by semihosting get something."""
        return self._at.reads < len(self._reads)

    @property
    def next_passed(self) -> PassedTime | None:
        """When time is to pass next, or None if it never is."""
        return self._passed[self._at.passed] if self._at.passed < len(self._passed) else None

    @property
    def next_arrival(self) -> DatedArrival | None:
        """What comes next for a receiver of the board, or None if nothing does."""
        return self._arrivals[self._at.arrivals] if self._at.arrivals < len(self._arrivals) else None

    @property
    def next_delivery(self) -> int | None:
        """When a delivery between two instructions is due, or time is to pass. Accesses get theirs wherever slices
        end.
        """
        times = [item.time for item in (self.next_passed, self.next_arrival) if item is not None]
        if self._at.between < len(self._between):
            times.append(self._between[self._at.between])
        return min(times, default=None)

    def arrivals(self, now: int) -> list[Arrival]:
        found = []
        while (item := self.next_arrival) is not None and item.time <= now:
            self._at = self._at._replace(arrivals=self._at.arrivals + 1)
            if item.time < now:
                raise self.diverged(
                    f"something is to arrive at {item.time}, and no instruction ended there until {now}"
                )
            found.append(item.arrival)
        return found

    def poll(self, now: int, room: int, access: bool) -> bytes:
        """Return the next delivery of this time. Others follow: a device may take pieces otherwise than their sum."""
        number = self._accesses.number(now, access)
        delivery = self.next_uart
        if delivery is None or (delivery.time, delivery.access) > (now, number):
            return b""
        self._at = self._at._replace(uart=self._at.uart + 1, between=self._at.between + (not delivery.access))
        if delivery.time < now or delivery.access < number:
            raise self.diverged(f"input is to arrive at {delivery.time}, and nobody asked for it until {now}")
        if len(delivery.data) > room:
            raise self.diverged(f"{len(delivery.data)} bytes arrive at {now}, and the UART has room for {room}")
        return delivery.data

    def pass_time(self, now: int) -> int:
        item = self.next_passed
        if item is None or item.time > now:
            return 0
        self._at = self._at._replace(passed=self._at.passed + 1)
        if item.time < now:
            raise self.diverged(f"time is to pass at {item.time}, and no instruction ended there until {now}")
        return item.ticks

    def read(self, now: int, size: int) -> bytes:
        """Return what the next read gets; nothing after the last one."""
        if not self.has_reads:
            return b""
        _, tick, data, _ = self._reads[self._at.reads]
        self._at = self._at._replace(reads=self._at.reads + 1)
        if tick != now or len(data) > size:
            wanted = f"{len(data)} bytes at {tick}" if len(data) > size else f"at {tick}"
            raise self.diverged(f"the guest reads {size} bytes at {now}, and was to read {wanted}")
        return data

    def answer(self, now: int) -> bytes:
        """Return the outcome of what the guest asks for."""
        if self._at.answers >= len(self._answers):
            raise self.diverged(f"the guest asks for a file of the host at {now}, and was not to do so any more")
        item = self._answers[self._at.answers]
        self._at = self._at._replace(answers=self._at.answers + 1)
        if item.time != now:
            raise self.diverged(f"the guest asks for a file of the host at {now}, and was to do so at {item.time}")
        return item.outcome

    def diverged(self, what: str) -> ReplayDiverged:
        return ReplayDiverged(f"the replay differs from {self._name}: {what}")


def _skipped(deliveries: list[Delivery], now: int, size: int) -> tuple[int, Delivery | None, int]:
    """Return how many deliveries came before the tick ``now``, or at it as a part of the ``size`` bytes that have come;
    the last of them; and how many of the bytes are missing.
    """
    count, left, last = 0, size, None
    for delivery in deliveries:
        if delivery.time > now or (delivery.time == now and left <= 0):
            break
        count, left, last = count + 1, left - len(delivery.data), delivery
    return count, last, left
