"""Limits of what a device does in a second of virtual time, as token buckets. They count exactly, in whole numbers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dbt.devices.state import Part, Stateful, Wiring

#: What says a bucket's rate and burst.
RATE: Final = struct.Struct("<QQ")
#: Rates and bursts are less than this, so that ticks have 63 bits.
RATE_LIMIT: Final = 1 << 48
_LATEST: Final = 1 << 61
_NONE: Final = -1


@dataclass(eq=False)
class TokenBucket(Stateful):
    """Lets ``rate`` units through in a second, or any number if that is 0.

    What is not used is kept for later, up to ``burst`` units. ``free_at`` is the tick at which everything that was
    taken is through, and ``rest`` is what is missing to the next tick, in parts of a tick of which there are ``rate``.
    """

    rate: int = 0
    burst: int = 0
    free_at: int = 0
    rest: int = 0

    def is_possible(self) -> bool:
        return (
            0 <= self.rate < RATE_LIMIT
            and 0 <= self.burst < RATE_LIMIT
            and -_LATEST <= self.free_at <= _LATEST
            and 0 <= self.rest < max(self.rate, 1)
        )

    def set(self, rate: int, burst: int, now: int, ticks_per_second: int) -> None:
        """Let another number of units through from now on. The bucket is full then, unless nothing changes."""
        if (rate, burst) != (self.rate, self.burst):
            self.rate, self.burst, self.rest = rate, burst, 0
            self.free_at = self._least(now, ticks_per_second)

    def _least(self, now: int, ticks_per_second: int) -> int:
        """Return ``free_at`` of a full bucket."""
        return max(now - self.burst * ticks_per_second // self.rate, -_LATEST) if self.rate else now

    def take(self, units: int, now: int, ticks_per_second: int) -> int:
        """Return the tick at which so many more units are through: ``now``, if nothing keeps them."""
        if not self.rate:
            return now
        least = self._least(now, ticks_per_second)
        if self.free_at < least:
            self.free_at, self.rest = least, 0
        ticks, self.rest = divmod(units * ticks_per_second + self.rest, self.rate)
        self.free_at = min(self.free_at + ticks, _LATEST)
        return max(self.free_at + bool(self.rest), now)


@dataclass(eq=False)
class Throttle(Stateful):
    """The buckets of one device. ``input_through`` is when what it says next to the driver is through, or -1 if it has
    not been looked at.
    """

    ticks_per_second: Wiring[int]
    count: Wiring[int]
    buckets: Part[list[TokenBucket]] = field(init=False)
    input_through: int = _NONE

    def __post_init__(self) -> None:
        self.buckets = [TokenBucket() for _ in range(self.count)]

    def is_possible(self) -> bool:
        return _NONE <= self.input_through <= _LATEST

    def limits(self, bucket: int | None) -> bool:
        """Return True if a bucket, by its number, limits something."""
        return bucket is not None and self.buckets[bucket].rate > 0

    def take(self, costs: Sequence[int], since: int) -> int:
        """Take so many units of each bucket, which have waited ``since`` a tick. Return the tick at which they are
        through. It may have passed: time jumps for a guest whose host has not let it execute, and nothing is lost by
        that.
        """
        through = since
        for bucket, units in zip(self.buckets, costs, strict=True):
            if units:
                through = max(through, bucket.take(units, since, self.ticks_per_second))
        return through

    def input_is_through(self, costs: Sequence[int], now: int, since: int) -> bool:
        """Return True if the next thing that the device says to the driver may be delivered: :attr:`input_through` has
        come. It takes so many units, and has waited ``since`` a tick.
        """
        if self.input_through == _NONE:
            self.input_through = self.take(costs, since)
        return self.input_through <= now

    def end_input(self) -> None:
        """Note that the next thing has been delivered, or given up."""
        self.input_through = _NONE

    def set(self, data: bytes, now: int) -> None:
        """Set the buckets to rates and bursts, each pair as :data:`RATE`. Raise ValueError if they are none."""
        pairs = list(RATE.iter_unpack(data)) if len(data) == RATE.size * self.count else []
        if len(pairs) != self.count or any(number >= RATE_LIMIT for pair in pairs for number in pair):
            raise ValueError(f"{data.hex():.100} are no limits of a device that has {self.count}")
        for bucket, (rate, burst) in zip(self.buckets, pairs, strict=True):
            bucket.set(rate, burst, now, self.ticks_per_second)
