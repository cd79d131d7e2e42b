"""The network back end (xen/include/public/io/netif.h), on the networks that virtio cards are on, too.

The front end sends a frame as one or several requests, each a part of a granted page. Its protocol checksum may be
left to the back end, and one long segment of TCP instead of many short ones (GSO). For what arrives it has granted
pages: a frame is spread over several of them if it agrees, and segments of TCP that wait one behind the other come as
a long one. Frames take no time: they are sent when the front end sends its event, as by a virtio card.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

from dbt.abi.layout import PAGE_SIZE
from dbt.devices.ethernet import (
    LONGEST_FRAME,
    SHORTEST_FRAME,
    ChecksumError,
    announcement,
    joined,
    segments,
    with_checksum,
)
from dbt.devices.state import Byte, Part, Wiring
from dbt.hypervisor.xen.back_ends.back_end import BackEnd, FrontEndError
from dbt.hypervisor.xen.back_ends.shared_ring import SharedRing
from dbt.hypervisor.xen.grant_table import GrantError

_SENT: Final = struct.Struct("<IHHHH")  # grant, offset, flags, id, size
_SENT_ANSWER: Final = struct.Struct("<Hhxxxxxxxx")
_ROOM: Final = struct.Struct("<HxxI")  # id, grant
_ROOM_ANSWER: Final = struct.Struct("<HHHh")  # id, offset, flags, size or error
_CHECKSUM_BLANK, _MORE_DATA, _EXTRA_INFO = 1, 4, 8
_MORE_EXTRAS: Final = 1
#: What is behind the first request of a frame that is to be divided: XEN_NETIF_EXTRA_TYPE_GSO, the size of the parts,
#: and the kind, which is the version of IP.
_EXTRA: Final = struct.Struct("<BBHBxxxxxxx")
_GSO: Final = 1
#: The same for a frame that arrives. Its checksum is right, and not filled in.
_EXTRA_ARRIVED: Final = struct.Struct("<BBHBxxx")
_CHECKSUM_GOOD, _CHECKSUM_UNFILLED = 1, 2
#: The kinds of GSO by the types of frames. They are bits of ``joins``, too.
_GSO_KINDS: Final = {b"\x08\0": 1, b"\x86\xdd": 2}
_OKAY, _ERROR, _NOTHING = 0, -1, 1
#: What arrives and waits for pages at most, for the ring has but 256: the burst that a network end may have, and the
#: bytes that a virtio card can have waiting. What comes then is lost.
MOST_FRAMES: Final = 1024
MOST_BYTES: Final = 256 * LONGEST_FRAME
#: The requests of a frame at most (XEN_NETIF_NR_SLOTS_MIN).
_MOST_PARTS: Final = 18


class Fragment(NamedTuple):
    """One request of the front end: a part of a frame that it sends."""

    reference: int
    offset: int
    flags: int
    number: int
    size: int


class Slot(NamedTuple):
    """What the front end gets for a page: a part of a frame that goes there, or what takes the answer's place."""

    data: bytes
    flags: int = 0
    is_extra: bool = False


class Packet(NamedTuple):
    """The requests of a frame. ``extras`` say more about it, and are behind the first one."""

    parts: Sequence[Fragment]
    extras: Sequence[bytes]


@dataclass(eq=False, kw_only=True)
class NetBackEnd(BackEnd):
    """A network card. ``send`` gets the frames that the guest sends; ``address`` is the card's own.

    ``frames`` have arrived, and wait for pages of the guest's. ``spreads`` says that a frame may be in several pages,
    and ``joins`` which segments of TCP may come as a long one: those in IPv4 (1) and in IPv6 (2).
    """

    kind: ClassVar[str] = "vif"
    receiver_name: ClassVar[str] = "net"

    send: Wiring[Callable[[Sequence[bytes]], None]]
    address: Wiring[bytes]
    sending: Part[SharedRing] = field(init=False)
    receiving: Part[SharedRing] = field(init=False)
    frames: list[bytes] = field(default_factory=list)
    spreads: bool = False
    joins: Byte = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sending = SharedRing(self.bus.grants, _SENT.size)
        self.receiving = SharedRing(self.bus.grants, _ROOM.size)

    def is_possible(self) -> bool:
        return (
            len(self.frames) <= MOST_FRAMES
            and sum(map(len, self.frames)) <= MOST_BYTES
            and all(SHORTEST_FRAME <= len(frame) <= LONGEST_FRAME for frame in self.frames)
            and self.sending.is_open == self.receiving.is_open == self.is_connected
            and self.has_ports(1)
            and self.joins in ((0, 1, 2, 3) if self.spreads else (0,))
        )

    # -- XenStore ------------------------------------------------------------------------------

    def offer(self) -> Mapping[str, str]:
        return {
            "mac": self._address_text,
            "handle": str(self.number),
            "feature-sg": "1",
            "feature-rx-copy": "1",
            "feature-rx-flip": "0",
            "feature-ipv6-csum-offload": "1",
            "feature-gso-tcpv4": "1",
            "feature-gso-tcpv6": "1",
            "feature-split-event-channels": "0",
            "hotplug-status": "connected",
        }

    def describe(self) -> Mapping[str, str]:
        return {"mac": self._address_text, "handle": str(self.number)}

    @property
    def _address_text(self) -> str:
        return self.address.hex(":")

    def connect(self) -> Mapping[str, str]:
        if not self.says("request-rx-copy"):
            raise FrontEndError(
                "it does not want what arrives to be copied (request-rx-copy), and nothing else is done"
            )
        self.sending.open(self.said_number("tx-ring-ref"))
        self.receiving.open(self.said_number("rx-ring-ref"))
        self.bind(self.said_number("event-channel"))
        self.spreads = self.says("feature-sg")
        in_ipv4 = self.says("feature-gso-tcpv4") and not self.says("feature-no-csum-offload")
        in_ipv6 = self.says("feature-gso-tcpv6") and self.says("feature-ipv6-csum-offload")
        self.joins = (in_ipv4 | in_ipv6 << 1) * self.spreads
        return {}

    def holds(self) -> Iterable[int]:
        return [*self.sending.holds(), *self.receiving.holds()]

    def disconnect(self) -> None:
        self.frames = []
        self.sending.close()
        self.receiving.close()

    def announce(self) -> None:
        """Tell a new network where the guest is."""
        if self.is_connected:
            self.send([announcement(self.address)])

    # -- from the guest ------------------------------------------------------------------------

    def attend(self) -> None:
        requests = self.sending.take(self.sending.size, wants=1)
        wants_event = False
        if requests:
            frames, answers = self._frames_of(requests)
            wants_event = self.sending.answer(answers)
            self.counts.batches += 1
            self.counts.requests += len(requests)
            if frames:
                self.send(frames)
        if self._deliver() or wants_event:
            self.notify()

    def _frames_of(self, requests: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Return the frames that requests are, and the answers to these."""
        frames, answers = [], []
        for packet in _packets(requests):
            status = _ERROR
            try:
                frames += self._sent_by(packet)
                status = _OKAY
            except (GrantError, ChecksumError):
                pass  # The front end hears by the status that the frame is lost.
            first, *others = [_SENT_ANSWER.pack(part.number, status) for part in packet.parts]
            answers += [first, *[_SENT_ANSWER.pack(0, _NOTHING)] * len(packet.extras), *others]
        return frames, answers

    def _sent_by(self, packet: Packet) -> list[bytes]:
        """Return the frames that go to the network. Raise GrantError or ChecksumError if the front end sends none."""
        first = packet.parts[0]
        size = _part_size(packet.extras)
        if first.size < SHORTEST_FRAME:
            raise ChecksumError("it is too short")
        read = self.bus.grants.read
        frame = b"".join([read(part.reference, part.offset, part.size) for part in _sized(packet.parts) if part.size])
        if size is not None:
            return segments(frame, size)
        return [with_checksum(frame) if first.flags & _CHECKSUM_BLANK else frame]

    # -- to the guest --------------------------------------------------------------------------

    def arrive(self, pieces: Sequence[bytes]) -> None:
        """Take frames as if they came one after the other. The front end hears of as many at once as can wait."""
        most = LONGEST_FRAME if self.spreads else PAGE_SIZE
        size, wants_event, has_room = sum(map(len, self.frames)), False, True
        for frame in pieces:
            if not SHORTEST_FRAME <= len(frame) <= most:
                continue
            if has_room and not self._can_wait(frame, size):
                before = len(self.frames)
                wants_event |= self._deliver()
                size, has_room = sum(map(len, self.frames)), len(self.frames) < before
            if self._can_wait(frame, size):
                self.frames.append(frame)
                size += len(frame)
        if self._deliver() or wants_event:
            self.notify()

    def _can_wait(self, frame: bytes, size: int) -> bool:
        """Return False if a frame is lost, because others of ``size`` bytes wait."""
        return len(self.frames) < MOST_FRAMES and size + len(frame) <= MOST_BYTES

    def _deliver(self) -> bool:
        """Put frames into pages of the guest's, as far as there are any. Return whether it wants an event for them.

        For more pages the back end wants an event as long as frames wait, and else none.
        """
        if not self.frames:
            return False
        slots: list[Slot] = []
        room, count, needed = self.receiving.waiting, 0, 1
        while count < len(self.frames):
            needed = _pages(self.frames[count])
            if len(slots) + needed > room:
                break
            taken, more = self._next(count, room - len(slots))
            count += taken
            slots += more
        del self.frames[:count]
        rooms = self.receiving.take(len(slots), wants=needed if self.frames else 0)
        answers = [self._fill(*one) for one in zip(rooms, slots, strict=True)]
        self.counts.requests += len(answers)
        return bool(answers) and self.receiving.answer(answers)

    def _next(self, first: int, room: int) -> tuple[int, list[Slot]]:
        """Return how many of the frames that wait are given to the front end as one, and by what. They begin with
        number ``first``, and this one fits.
        """
        frame = self.frames[first]
        kind = _GSO_KINDS.get(frame[12:14], 0) & self.joins
        found = joined(self.frames, first, min(LONGEST_FRAME, (room - 1) * PAGE_SIZE)) if kind else None
        if found is None:
            return 1, _slots(frame)
        begin, *rest = _slots(found.frame)
        begin = begin._replace(flags=begin.flags | _EXTRA_INFO | _CHECKSUM_GOOD | _CHECKSUM_UNFILLED)
        return found.segments, [begin, Slot(_EXTRA_ARRIVED.pack(_GSO, 0, found.size, kind), is_extra=True), *rest]

    def _fill(self, room: bytes, slot: Slot) -> bytes:
        """Write a part of a frame to a page of the guest's, and return the answer."""
        if slot.is_extra:
            return slot.data
        number, reference = _ROOM.unpack(room)
        size = len(slot.data)
        try:
            self.bus.grants.write(reference, 0, slot.data)
        except GrantError:
            size = _ERROR
        return _ROOM_ANSWER.pack(number, 0, slot.flags, size)


def _pages(frame: bytes) -> int:
    return -(-len(frame) // PAGE_SIZE)


def _slots(frame: bytes) -> list[Slot]:
    """Return the parts of a frame that has arrived, for a page each."""
    ends = range(PAGE_SIZE, len(frame) + PAGE_SIZE, PAGE_SIZE)
    return [Slot(frame[end - PAGE_SIZE : end], _MORE_DATA * (end < len(frame))) for end in ends]


def _packets(requests: Sequence[bytes]) -> Iterable[Packet]:
    """Yield the requests of each frame. Raise FrontEndError for the last frame if some of its requests are missing, and
    for what no front end would send.
    """
    waiting = iter(requests)

    def following() -> bytes:
        request = next(waiting, None)
        if request is None:
            raise FrontEndError("a frame that it sends ends in the middle")
        return request

    for request in waiting:
        parts, extras = [Fragment(*_SENT.unpack(request))], list[bytes]()
        more = bool(parts[0].flags & _EXTRA_INFO)
        while more:
            extras.append(following())
            more = bool(extras[-1][1] & _MORE_EXTRAS)
        while parts[-1].flags & _MORE_DATA:
            if len(parts) == _MOST_PARTS:
                raise FrontEndError(f"a frame that it sends has more than {_MOST_PARTS} parts")
            parts.append(Fragment(*_SENT.unpack(following())))
        if any(part.offset + part.size > PAGE_SIZE for part in _sized(parts)):
            raise FrontEndError("a part of a frame that it sends leaves its page")
        yield Packet(parts, extras)


def _part_size(extras: Sequence[bytes]) -> int | None:
    """Return how many bytes each segment of a frame is to have, or None for a frame that is one. Raise ChecksumError if
    it asks for what was not offered.
    """
    if not extras:
        return None
    kind, _, size, version = _EXTRA.unpack(extras[0])
    if len(extras) > 1 or kind != _GSO or version not in (1, 2):
        raise ChecksumError("it asks for what was not offered")
    return int(size)


def _sized(parts: Sequence[Fragment]) -> list[Fragment]:
    """Return the parts of a frame with their own sizes. The first one has the size of the frame."""
    size = parts[0].size - sum(part.size for part in parts[1:])
    if size < 0:
        raise FrontEndError("the parts of a frame that it sends have more bytes than the frame")
    return [parts[0]._replace(size=size), *parts[1:]]
