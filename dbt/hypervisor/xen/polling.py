"""Waiting for some ports alone, or for a time (SCHEDOP_poll)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from dbt.devices.shared import shared
from dbt.devices.state import Stateful, Tick, Wiring, Word
from dbt.devices.wiring import Alarm, Time
from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.event_queues import PORTS, EventQueues
from dbt.hypervisor.xen.interface import Errno, HypercallError

_POLL = struct.Struct("<QIxxxxQ")
_MOST_POLLED: Final = 128
_SECOND: Final = 10**9


@shared
@dataclass(eq=False)
class Polling(Stateful):
    """What the guest waits for, if ``is_on``: that one of ``ports`` is pending, until the tick ``end``."""

    arguments: Wiring[Arguments]
    queues: Wiring[EventQueues]
    time: Wiring[Time]
    is_on: bool = False
    ports: list[Word] = field(default_factory=list, metadata={"in_python": True})
    end: Tick | None = None
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.alarm = self.time.alarm("poll", self._rings)

    def is_possible(self) -> bool:
        return len(self.ports) <= _MOST_POLLED and all(port < PORTS for port in self.ports)

    def begin(self, handle: int) -> bool:
        """Wait until one of some ports is pending, or until a time of the virtual clock, if that is not 0. Return False
        if there is nothing to wait for. Raise HypercallError.
        """
        ports, count, timeout = self.arguments.unpack(handle, _POLL)
        if count > _MOST_POLLED:
            raise HypercallError(Errno.EINVAL)
        self.ports = list(struct.unpack(f"<{count}I", self.arguments.read(ports, 4 * count)))
        if any(port >= PORTS for port in self.ports):
            self.ports = []
            raise HypercallError(Errno.EINVAL)
        if any(map(self.queues.is_pending, self.ports)):
            return False
        end = -(-timeout * self.time.ticks_per_second // _SECOND)
        if timeout and end <= self.time.now:
            return False
        self.is_on = True
        self.end = None
        if timeout and end < 1 << 62:
            self.end = end
            self.alarm.set(end)
        return True

    def _rings(self) -> None:
        """The time has come until which the guest polls: the machine looks at :attr:`wakes` now."""

    @property
    def wakes(self) -> bool:
        """True if the guest polls for what has come."""
        if not self.is_on:
            return False
        is_over = self.end is not None and self.time.now >= self.end
        return is_over or any(map(self.queues.is_pending, self.ports))

    def stop(self) -> None:
        """The guest does not wait any more, or waits for something else."""
        self.is_on = False
        self.end = None
        self.alarm.cancel()
