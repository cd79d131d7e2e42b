"""What happens to domains, told to whoever listens. Everything here is called by the thread of the event loop alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import msgspec

#: How many events are kept for those who come back with the number of the last one that they have seen.
_KEPT: Final = 1024
#: How many events may wait for a slow listener. Then it is sent away, and can come back for the rest.
_MOST_WAITING: Final = 1024


class Event(msgspec.Struct, frozen=True):
    """Something that has happened.

    ``number`` counts all events of this daemon. ``time`` is in seconds since 1970. ``event`` is a word such as
    "started", and ``detail`` says more in a sentence or is empty.
    """

    number: int
    time: float
    domain: str
    event: str
    detail: str = ""


class Events:
    """The last events, and those who listen."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=_KEPT)
        self._listeners: set[asyncio.Queue[Event | None]] = set()
        self._count = 0

    def tell(self, time: float, domain: str, event: str, detail: str = "") -> None:
        """Tell all listeners of an event."""
        self._count += 1
        made = Event(self._count, time, domain, event, detail)
        self._kept.append(made)
        for queue in list(self._listeners):
            if queue.qsize() >= _MOST_WAITING:
                self._listeners.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(made)

    async def listen(self, after: int | None = None) -> AsyncIterator[Event]:
        """Yield the events from now on, or those that are kept ``after`` a number first."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        earlier: Iterable[Event] = () if after is None else [event for event in self._kept if event.number > after]
        self._listeners.add(queue)
        try:
            for event in earlier:
                yield event
            while (event_or_end := await queue.get()) is not None:
                yield event_or_end
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        """Let everybody's listening end."""
        for queue in self._listeners:
            queue.put_nowait(None)
        self._listeners.clear()


def as_server_sent(name: str, data: Any, number: int | None = None) -> bytes:
    """Return a message of a stream of server-sent events (HTML standard, section 9.2)."""
    head = b"" if number is None else b"id: %d\n" % number
    return head + f"event: {name}\n".encode() + b"data: " + msgspec.json.encode(data) + b"\n\n"
