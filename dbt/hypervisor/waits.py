"""The domains that are blocked, and until when. A domain that waits costs nothing until its time comes."""

from __future__ import annotations

from heapq import heappop, heappush

#: A guest whose time is behind by more, in nanoseconds, loses what is more, as one does on a host that was asleep.
_MOST_LAG_NS = 1_000_000_000
#: What a guest that computes is not told of, in nanoseconds.
_LEAST_LAG_NS = 1_000_000


class GuestTime:
    """How far the time of a guest is behind its host's. Both are in nanoseconds.

    A guest that is behind, because others had the cores or because its events took long, waits less for it. One that is
    ahead, because the host is slower than the guest's time is, is not delayed.
    """

    def __init__(self, ahead: int | None = None) -> None:
        #: By how much the host's time was before the guest's when the guest was least behind.
        self.ahead = ahead

    def forget(self) -> None:
        """Let the guest be on time now, because its time did not pass."""
        self.ahead = None

    def lag(self, host_ns: int, guest_ns: int) -> int:
        """Return how far the guest is behind."""
        ahead = host_ns - guest_ns
        if self.ahead is None or ahead < self.ahead:
            self.ahead = ahead
        self.ahead = max(self.ahead, ahead - _MOST_LAG_NS)
        return ahead - self.ahead

    def noticeable_lag(self, host_ns: int, guest_ns: int) -> int:
        """Return how far a guest that computes is behind, or 0 if it is little: each time is a line of a recording."""
        lag = self.lag(host_ns, guest_ns)
        return lag if lag >= _LEAST_LAG_NS else 0


class Waits:
    """Until when domains wait, by their names: a tick of the cores' clocks, or None for what comes from outside."""

    def __init__(self) -> None:
        self._waits: dict[str, int | None] = {}
        self._heap: list[tuple[int, int, str]] = []  # waits that are over already are left in it for a while
        self._count = 0

    def add(self, name: str, until: int | None) -> None:
        self._waits[name] = until
        if until is not None:
            self._count += 1
            heappush(self._heap, (until, self._count, name))

    def remove(self, name: str) -> None:
        """Forget the wait of a domain, if it has one."""
        self._waits.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._waits

    def shorten(self, name: str, until: int) -> None:
        """Let the wait of a domain end at ``until``, if it would end later."""
        end = self._waits[name]
        if end is None or until < end:
            self.add(name, until)

    def __len__(self) -> int:
        return len(self._waits)

    def next_end(self) -> int | None:
        """Return the earliest tick at which a wait ends, or None if none does by itself."""
        while self._heap and self._waits.get(self._heap[0][2]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, clock: int) -> str | None:
        """Return the domain whose wait ended first, and forget the wait; or None if none has ended by ``clock``."""
        end = self.next_end()
        if end is None or end > clock:
            return None
        name = heappop(self._heap)[2]
        del self._waits[name]
        return name
