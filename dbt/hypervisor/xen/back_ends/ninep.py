"""The 9p back end (xen/include/public/io/9pfs.h), over the server that virtio's shared directories have, too.

Messages of 9P2000.L and their answers go through one or two pairs of rings, each with a port of its own. One request is
served at a time, and completes at a tick that follows from its message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from dbt.devices.state import Byte, Part, Wiring
from dbt.devices.virtio.ninep import HEADER, MOST_BYTES, NineP, duration_of
from dbt.devices.wiring import Alarm
from dbt.hypervisor.xen.back_ends.back_end import BackEnd, FrontEndError
from dbt.hypervisor.xen.back_ends.flex_ring import LARGEST_ORDER, FlexRing

_MOST_RINGS: Final = 2
_VERSION: Final = "1"


@dataclass(eq=False, kw_only=True)
class NinePBackEnd(BackEnd):
    """A directory that the guest can mount. ``session`` answers messages.

    ``message`` is the one that is being served, and ``reply`` an answer for which there was no room in the ring. Both
    are of the ring ``active``.
    """

    kind: ClassVar[str] = "9pfs"

    session: Part[NineP]
    pairs: Part[list[FlexRing]] = field(init=False)
    message: bytes = b""
    reply: bytes = b""
    active: Byte = 0
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pairs = [FlexRing(self.bus.grants) for _ in range(_MOST_RINGS)]
        self.alarm = self.bus.time.alarm(self.name, self.rings)

    def is_possible(self) -> bool:
        used = self._used
        return (
            used == self.pairs[: len(used)]
            and self.has_ports(len(used))
            and (not self.is_connected or self.active < len(used))
            and (not self.message or HEADER.size <= len(self.message) <= MOST_BYTES)
            and len(self.reply) <= MOST_BYTES
        )

    @property
    def _used(self) -> list[FlexRing]:
        return [one for one in self.pairs if one.is_open]

    # -- XenStore ------------------------------------------------------------------------------

    def offer(self) -> Mapping[str, str]:
        return {
            "versions": _VERSION,
            "max-rings": str(_MOST_RINGS),
            "max-ring-page-order": str(LARGEST_ORDER),
            "security_model": "none",
        }

    def describe(self) -> Mapping[str, str]:
        return {"tag": self.session.tag.decode("latin-1")}

    def connect(self) -> Mapping[str, str]:
        if self.said("version") != _VERSION:
            raise FrontEndError(f"its version is {self.said('version')!r:.50}, and not {_VERSION}")
        count = self.said_number("num-rings", _MOST_RINGS + 1)
        if not count:
            raise FrontEndError("it has no rings")
        for number, pair in enumerate(self.pairs[:count]):
            pair.open(self.said_number(f"ring-ref{number}"))
            self.bind(self.said_number(f"event-channel-{number}"))
        self.active = 0
        return {}

    def holds(self) -> Iterable[int]:
        return [reference for pair in self.pairs for reference in pair.pages]

    def disconnect(self) -> None:
        self.alarm.cancel()
        self.message = self.reply = b""
        self.session.reset()
        for pair in self.pairs:
            pair.close()

    # -- requests ------------------------------------------------------------------------------

    def attend(self) -> None:
        pair = self.pairs[self.active]
        if self.reply and len(self.reply) <= pair.room:
            pair.give(self.reply)
            self.reply = b""
            self.notify(self.active)
        if not self.reply and not self.message:
            self._begin()

    def _begin(self) -> None:
        """Take the next message, from each ring in turn."""
        used = self._used
        for number in (*range(self.active + 1, len(used)), *range(self.active + 1)):
            pair = used[number]
            if size := _next_size(pair):
                self.active, self.message = number, pair.take(size)
                self.counts.batches += 1
                self.counts.requests += 1
                self.alarm.set(self.bus.time.now + self.ticks(duration_of(self.message, size, pair.size)))
                return

    def proceed(self) -> None:
        if not self.message:  # which only a state says that was not saved by us
            return
        message, self.message = self.message, b""
        self.reply = bytes(self.session.respond(message, self.pairs[self.active].size))
        self.attend()


def _next_size(pair: FlexRing) -> int:
    """Return the size of the next message in a ring, or 0 if it is not there as a whole."""
    waiting = pair.waiting
    if waiting < HEADER.size:
        return 0
    size: int = HEADER.unpack(pair.look(HEADER.size))[0]
    if not HEADER.size <= size <= pair.size:
        raise FrontEndError(f"a message of {size} bytes is not one for a ring of {pair.size}")
    return size if size <= waiting else 0
