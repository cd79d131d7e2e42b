"""What happens, told to whoever listens. Everything here is called by the thread of the event loop alone."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, NamedTuple

from dbt.containers.engine.filters import Filters

#: How many events are kept for those who ask for what has been, as docker does it.
_KEPT: Final = 256
#: How many events may wait for a slow listener. Then its stream ends.
_MOST_WAITING: Final = 4096
_NS: Final = 10**9
KNOWN: Final = frozenset(
    {"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret"}
    | {"service", "type", "volume"}
)


class Event(NamedTuple):
    """Something that has happened to the thing ``id`` of a ``type``: container, image, network, volume, daemon.

    ``time`` is in nanoseconds since 1970.
    """

    type: str
    action: str
    id: str
    attributes: Mapping[str, str]
    time: int

    def json(self) -> dict[str, Any]:
        """Return it as docker writes it."""
        old: dict[str, Any] = {}
        if self.type in ("container", "image"):
            old = {"status": self.action, "id": self.id}
            if self.type == "container":
                old["from"] = self.attributes.get("image", "")
        return {
            **old,
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": dict(self.attributes)},
            "scope": "local",
            "time": self.time // _NS,
            "timeNano": self.time,
        }

    def passes(self, filters: Filters) -> bool:
        """Return True if a listener with these filters hears of it."""
        name = self.attributes.get("name", "")
        return (
            filters.exact("type", self.type)
            and filters.exact("scope", "local")
            and filters.any_of("event", [self.action, self.action.partition(":")[0]])
            and filters.labels(self.attributes)
            and self._is_of("container", filters, [name])
            and self._is_of("network", filters, [name])
            and self._is_of("volume", filters, [name])
            and self._is_of("daemon", filters, [name])
            and self._is_of_image(filters)
            and not any(kind in filters for kind in ("config", "node", "plugin", "secret", "service"))
        )

    def _is_of(self, kind: str, filters: Filters, names: list[str]) -> bool:
        wanted = filters.get(kind)
        if not wanted:
            return True
        if self.type != kind:
            return False
        return any(one in names or self.id.startswith(one) for one in wanted)

    def _is_of_image(self, filters: Filters) -> bool:
        if "image" not in filters:
            return True
        if self.type not in ("image", "container"):
            return False
        name = self.attributes.get("image" if self.type == "container" else "name", "")
        return filters.any_of("image", [self.id, name, _without_tag(name)])


def _without_tag(name: str) -> str:
    head, slash, tail = name.rpartition("/")
    return head + slash + tail.partition(":")[0]


class Events:
    """The last events, and those who listen."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=_KEPT)
        self._listeners: set[asyncio.Queue[Event | None]] = set()

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def tell(self, type: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        """Tell all listeners of an event."""
        made = Event(type, action, id, dict(attributes), time.time_ns())
        self._kept.append(made)
        for queue in list(self._listeners):
            if queue.qsize() >= _MOST_WAITING:
                self._listeners.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(made)

    async def listen(self, since: int | None, until: int | None, filters: Filters) -> AsyncGenerator[Event, None]:
        """Yield the events from now on until a time, and those that are kept ``since`` a time first.

        Times are in nanoseconds since 1970. Without ``since``, only what comes is told.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        earlier: list[Event] = []
        if since is not None or until is not None:
            earlier = [one for one in self._kept if one.time >= (since or 0)]
        self._listeners.add(queue)
        try:
            for event in earlier:
                if (until is None or event.time <= until) and event.passes(filters):
                    yield event
            while (heard := await _next(queue, until)) is not None:
                if heard.passes(filters):
                    yield heard
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        """Let everybody's listening end."""
        for queue in self._listeners:
            queue.put_nowait(None)
        self._listeners.clear()


async def _next(queue: asyncio.Queue[Event | None], until: int | None) -> Event | None:
    """Return the next event, or None if there is none until a time."""
    if until is None:
        return await queue.get()
    try:
        async with asyncio.timeout(max((until - time.time_ns()) / _NS, 0)):
            event = await queue.get()
    except TimeoutError:
        return None
    return event if event is not None and event.time <= until else None
