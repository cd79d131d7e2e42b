"""The network device (virtio 1.2, section 5.1), without offloads: features, filters and answers are QEMU's, for an end
that has no offloads either.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Final

from dbt.devices.ethernet import (
    ADDRESS,
    BROADCAST,
    LONGEST_FRAME,
    MOST_FRAMES,
    SHORTEST_FRAME,
    VLAN_TYPE,
    announcement,
)
from dbt.devices.state import Wiring
from dbt.devices.virtio.device import RequestError, VirtioDevice
from dbt.devices.virtio.queue import Chain

_F_CTRL_GUEST_OFFLOADS, _F_MAC, _F_MRG_RXBUF, _F_STATUS = 1 << 2, 1 << 5, 1 << 15, 1 << 16
_F_CTRL_VQ, _F_CTRL_RX, _F_CTRL_VLAN, _F_CTRL_RX_EXTRA = 1 << 17, 1 << 18, 1 << 19, 1 << 20
_F_GUEST_ANNOUNCE, _F_CTRL_MAC_ADDR = 1 << 21, 1 << 23
_FEATURES: Final = (
    _F_CTRL_GUEST_OFFLOADS | _F_MAC | _F_MRG_RXBUF | _F_STATUS | _F_CTRL_VQ | _F_CTRL_RX | _F_CTRL_VLAN
    | _F_CTRL_RX_EXTRA | _F_GUEST_ANNOUNCE | _F_CTRL_MAC_ADDR
)  # fmt: skip
_RECEIVE, _TRANSMIT, _CONTROL = range(3)
#: struct virtio_net_hdr with the number of buffers, which begins each frame: nothing but the last field is used.
_HEADER: Final = struct.Struct("<10xH")
_ONE_BUFFER: Final = _HEADER.pack(1)
#: Bits of ``modes`` by the commands of class RX.
_PROMISCUOUS, _ALL_MULTICAST, _ALL_UNICAST, _NO_MULTICAST, _NO_UNICAST, _NO_BROADCAST = range(6)
_ALL_FRAMES: Final = 1 << _PROMISCUOUS
_OK, _ERR = b"\0", b"\1"
_TABLE: Final = 64
_VLANS: Final = 4096
_LINK_UP: Final = 1


@dataclass(eq=False)
class Net(VirtioDevice):
    """A network card. ``send`` gets the frames that the guest sends; ``address`` is the card's own.

    ``mac`` is the address that the guest has given it. ``is_started`` says that the driver is ready, ``merges`` that a
    frame may be spread over its buffers. ``frames`` have arrived and wait for the driver. ``modes`` has
    a bit for each command of class RX that is on. ``addresses`` are those that the guest wants besides its own, and
    ``overflow`` says that it wants too many unicast (1) or multicast ones (2). ``vlans`` has a bit for each.
    """

    device_id: ClassVar[int] = 1
    queue_count: ClassVar[int] = 3
    input_queues: ClassVar[frozenset[int]] = frozenset({_RECEIVE})
    immediate_queues: ClassVar[frozenset[int]] = frozenset({_TRANSMIT, _CONTROL})
    receiver: ClassVar[str] = "net"
    limited: ClassVar[tuple[str, ...]] = ("sent bits", "received bits")
    paced_queues: ClassVar[Mapping[int, int]] = MappingProxyType({_TRANSMIT: 0, _RECEIVE: 1})

    send: Wiring[Callable[[Sequence[bytes]], None]]
    address: Wiring[bytes]
    mac: bytes = field(init=False)
    frames: list[bytes] = field(default_factory=list)
    is_started: bool = False
    merges: bool = False
    modes: int = _ALL_FRAMES
    addresses: bytes = b""
    overflow: int = 0
    vlans: bytes = b"\xff" * (_VLANS // 8)

    outgoing: Wiring[list[bytes]] = field(default_factory=list, init=False)  # during an access

    def __post_init__(self) -> None:
        self.mac = self.address

    def is_possible(self) -> bool:
        return (
            len(self.mac) == ADDRESS
            and len(self.frames) <= MOST_FRAMES
            and all(SHORTEST_FRAME <= len(frame) <= LONGEST_FRAME for frame in self.frames)
            and 0 <= self.modes < 1 << 6
            and len(self.addresses) % ADDRESS == 0
            and len(self.addresses) <= _TABLE * ADDRESS
            and 0 <= self.overflow < 4
            and len(self.vlans) == _VLANS // 8
        )

    def features(self) -> int:
        return _FEATURES

    def start(self, features: int) -> None:
        self.is_started, self.merges = True, bool(features & _F_MRG_RXBUF)
        self.vlans = (b"\0" if features & _F_CTRL_VLAN else b"\xff") * (_VLANS // 8)

    def reset(self) -> None:
        self.mac, self.frames, self.is_started, self.merges = self.address, [], False, False
        self.modes, self.addresses, self.overflow = _ALL_FRAMES, b"", 0
        self.vlans = b"\xff" * (_VLANS // 8)

    def config(self) -> bytes:
        return self.mac + _LINK_UP.to_bytes(2, "little")

    # -- to the guest --------------------------------------------------------------------------

    @property
    def arrivals_at_once(self) -> int:
        """Frames, as long as they find a place."""
        return max(MOST_FRAMES - len(self.frames), 1)

    def arrive(self, frame: bytes) -> None:
        """Take a frame from the network, unless the guest does not want it."""
        is_frame = self.is_started and SHORTEST_FRAME <= len(frame) <= LONGEST_FRAME
        if is_frame and len(self.frames) < MOST_FRAMES and (self.modes & _ALL_FRAMES or self._is_wanted(frame)):
            self.frames.append(frame)

    def _is_wanted(self, frame: bytes) -> bool:
        """Return whether the filters let a frame pass."""
        target = frame[:ADDRESS]
        if frame[12:14] == VLAN_TYPE:
            vlan = int.from_bytes(frame[14:16], "big") % _VLANS
            if not self.vlans[vlan // 8] >> vlan % 8 & 1:
                return False
        if target == self.mac and not target[0] & 1:  # as nearly all
            return not self._is_on(_NO_UNICAST)
        if target == BROADCAST:
            return not self._is_on(_NO_BROADCAST)
        is_multicast = bool(target[0] & 1)
        if self._is_on(_NO_MULTICAST if is_multicast else _NO_UNICAST):
            return False
        if self._is_on(_ALL_MULTICAST if is_multicast else _ALL_UNICAST) or self.overflow >> is_multicast & 1:
            return True
        return target in [self.addresses[at : at + ADDRESS] for at in range(0, len(self.addresses), ADDRESS)]

    def _is_on(self, mode: int) -> bool:
        return bool(self.modes >> mode & 1)

    @property
    def spans_buffers(self) -> bool:
        return self.merges

    def next_input(self, queue: int) -> bytes | None:
        return _ONE_BUFFER + self.frames[0] if self.frames else None

    def for_buffers(self, data: bytes, rooms: Sequence[int]) -> bytes:
        return data if len(rooms) == 1 else _HEADER.pack(len(rooms)) + data[_HEADER.size :]

    def take_input(self, queue: int, size: int) -> None:
        del self.frames[0]  # If the buffer was too small, the rest is lost.

    # -- from the guest ------------------------------------------------------------------------

    def announce(self) -> None:
        """Tell a new network where the guest is."""
        if self.is_started:
            self.send([announcement(self.mac)])

    def duration(self, queue: int, chain: Chain) -> int:
        return 0  # but for what the limit says

    def costs(self, queue: int, size: int) -> Sequence[int]:
        bits = 8 * max(size - _HEADER.size, 0)
        return (bits, 0) if queue == _TRANSMIT else (0, bits)

    def serve(self, queue: int, chain: Chain) -> int:
        if queue == _CONTROL:
            return self._control(chain)
        if chain.out_size < _HEADER.size:
            raise RequestError("a frame that is sent begins with a header of 12 bytes")
        frame = chain.read(_HEADER.size, LONGEST_FRAME + 1)
        if SHORTEST_FRAME <= len(frame) <= LONGEST_FRAME:
            self.outgoing.append(frame)
        return 0

    def answered(self) -> None:
        frames = self.outgoing.copy()
        if frames:
            self.outgoing.clear()
            self.send(frames)

    def _control(self, chain: Chain) -> int:
        if chain.out_size < 2 or not chain.in_size:
            raise RequestError("a command of a network card has a class, a command and a byte for the answer")
        kind, command = chain.read(0, 2)
        is_done = self._command(kind, command, chain.read(2, 1 << 16))
        chain.write(_OK if is_done else _ERR)
        return 1

    def _command(self, kind: int, command: int, data: bytes) -> bool:
        """Do a command, and return whether it can be done."""
        match kind:
            case 0 if command <= _NO_BROADCAST and data:
                self.modes = (self.modes & ~(1 << command)) | (bool(data[0]) << command)
            case 1 if command == 1 and len(data) == ADDRESS:
                self.mac = data
            case 1 if command == 0:
                return self._set_table(data)
            case 2 if command <= 1 and len(data) >= 2:
                vlan = int.from_bytes(data[:2], "little")
                if vlan >= _VLANS:
                    return False
                bits = int.from_bytes(self.vlans, "little")
                bits = bits & ~(1 << vlan) if command else bits | 1 << vlan
                self.vlans = bits.to_bytes(_VLANS // 8, "little")
            case _:  # There is nothing to announce, and there are neither more queues nor offloads.
                return False
        return True

    def _set_table(self, data: bytes) -> bool:
        """Take the tables of addresses, first of unicast and then of multicast ones, each behind its length."""
        addresses, overflow = b"", 0
        for number in range(2):
            count = int.from_bytes(data[:4], "little")
            table = data[4 : 4 + ADDRESS * count]
            if len(data) < 4 or len(table) < ADDRESS * count:
                return False
            data = data[4 + len(table) :]
            if len(addresses) + len(table) <= _TABLE * ADDRESS:
                addresses += table
            else:
                overflow |= 1 << number
        self.addresses, self.overflow = addresses, overflow
        return not data
