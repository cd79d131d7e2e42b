"""The console device (virtio 1.2, section 5.3) with one port: QEMU's virtio-serial-device with ``max_ports=1`` and a
virtconsole. Such a device has no control messages; its port is always open.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from dbt.devices.state import Wiring
from dbt.devices.virtio.device import VirtioDevice
from dbt.devices.virtio.queue import Chain
from dbt.devices.virtio.transport import Transport
from dbt.devices.wiring import Transmit

_F_EMERG_WRITE = 1 << 2
_RECEIVE, _TRANSMIT = range(2)
#: struct virtio_console_config: columns and rows, the number of ports, and where a byte can be written without a queue.
_CONFIG: Final = struct.Struct("<HHII")
_EMERGENCY: Final = 8
#: Bytes of input that wait for the driver at most.
ROOM: Final = 4096
_LATENCY_NS: Final = 1_000


@dataclass(eq=False)
class Console(VirtioDevice):
    """A console. ``transmit`` gets each byte that the driver sends.

    ``received`` is input that the driver has not got yet, ``arrived`` counts all of it.
    """

    device_id: ClassVar[int] = 3
    queue_count: ClassVar[int] = 2
    input_queues: ClassVar[frozenset[int]] = frozenset({_RECEIVE})

    transmit: Wiring[Transmit]
    received: bytes = b""
    arrived: int = 0

    def is_possible(self) -> bool:
        return len(self.received) <= ROOM and self.arrived >= 0

    def features(self) -> int:
        return _F_EMERG_WRITE

    def config(self) -> bytes:
        return _CONFIG.pack(0, 0, 1, 0)

    def write_config(self, offset: int, data: bytes) -> None:
        if offset == _EMERGENCY:
            self.transmit(data[0])

    def duration(self, queue: int, chain: Chain) -> int:
        return _LATENCY_NS + chain.out_size

    def serve(self, queue: int, chain: Chain) -> int:
        for byte in chain.read():
            self.transmit(byte)
        return 0

    def next_input(self, queue: int) -> bytes | None:
        return self.received or None

    def take_input(self, queue: int, size: int) -> None:
        self.received = self.received[size:]


class ConsolePort:
    """The console as the machine sees it: see :class:`dbt.board.board.ConsolePort`."""

    def __init__(self, device: Console, transport: Transport) -> None:
        self._device = device
        self._transport = transport

    @property
    def arrived(self) -> int:
        return self._device.arrived

    @property
    def expects_input(self) -> bool:
        return not self._device.received and self._transport.has_buffers(_RECEIVE)

    @property
    def room(self) -> int:
        return ROOM - len(self._device.received)

    def push(self, data: bytes) -> None:
        self._device.arrived += len(data)
        self._device.received += data
        self._transport.attend()
