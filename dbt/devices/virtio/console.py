"""The console device (virtio 1.2, section 5.3) with one port, which is a console: QEMU's virtio-serial-device with
``max_ports=2`` and a virtconsole. With a place for a second port the driver says when somebody reads the first one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from dbt.devices.fields import LARGEST_COUNT
from dbt.devices.state import Wiring
from dbt.devices.virtio.device import VirtioDevice
from dbt.devices.virtio.queue import Chain
from dbt.devices.virtio.transport import Transport

_F_MULTIPORT, _F_EMERG_WRITE = 1 << 1, 1 << 2
#: The other queues are those of the second port, which is never there.
_RECEIVE, _TRANSMIT, _CONTROL_IN, _CONTROL_OUT = range(4)
_PORTS: Final = 2
#: A control message: the port, the event and its value.
_MESSAGE: Final = struct.Struct("<IHH")
_DEVICE_READY, _PORT_ADD, _PORT_READY, _CONSOLE_PORT, _PORT_OPEN = 0, 1, 3, 4, 6
#: struct virtio_console_config: columns and rows, the number of ports, and where a byte can be written without a queue.
_CONFIG: Final = struct.Struct("<HHII")
_EMERGENCY: Final = 8
_MOST_MESSAGES: Final = 64
#: Bytes of input that wait for the driver at most.
ROOM: Final = 4096


@dataclass(eq=False)
class Console(VirtioDevice):
    """A console. ``transmit`` gets what the driver sends, in pieces. With ``is_plain``, the port is no console but a
    stream of bytes for a program of the guest (Linux' ``/dev/vport0p0``).

    ``received`` is input that the driver has not got yet, ``arrived`` counts all of it. ``messages`` are control
    messages for the driver. ``is_multiport`` says whether the driver uses these, ``is_open`` whether the guest has
    opened the port.
    """

    device_id: ClassVar[int] = 3
    queue_count: ClassVar[int] = 2 * (_PORTS + 1)
    input_queues: ClassVar[frozenset[int]] = frozenset({_RECEIVE, _CONTROL_IN, 4})
    immediate_queues: ClassVar[frozenset[int]] = frozenset({_TRANSMIT, _CONTROL_OUT, 5})

    transmit: Wiring[Callable[[bytes], None]]
    is_plain: Wiring[bool] = False
    received: bytes = b""
    arrived: int = 0
    messages: bytes = b""
    is_multiport: bool = False
    is_open: bool = False

    def is_possible(self) -> bool:
        return (
            len(self.received) <= ROOM
            and 0 <= self.arrived < LARGEST_COUNT
            and len(self.messages) % _MESSAGE.size == 0
            and len(self.messages) <= _MOST_MESSAGES * _MESSAGE.size
        )

    def features(self) -> int:
        return _F_MULTIPORT | _F_EMERG_WRITE

    def start(self, features: int) -> None:
        self.is_multiport = bool(features & _F_MULTIPORT)

    def reset(self) -> None:
        self.messages, self.is_multiport, self.is_open = b"", False, False

    def config(self) -> bytes:
        return _CONFIG.pack(0, 0, _PORTS, 0)

    def write_config(self, offset: int, data: bytes) -> None:
        if offset == _EMERGENCY:
            self.transmit(data[:1])

    def serve(self, queue: int, chain: Chain) -> int:
        data = chain.read()
        if queue == _TRANSMIT:
            self.transmit(data)
        elif queue == _CONTROL_OUT and len(data) >= _MESSAGE.size:
            self._obey(*_MESSAGE.unpack_from(data))
        return 0

    def _obey(self, port: int, event: int, value: int) -> None:
        """Do what a control message of the driver says."""
        if event == _DEVICE_READY and value:
            self._tell(_PORT_ADD)
        elif port == 0 and event == _PORT_READY and value:
            if not self.is_plain:
                self._tell(_CONSOLE_PORT)
            self._tell(_PORT_OPEN)
        elif port == 0 and event == _PORT_OPEN:
            self.is_open = bool(value)

    def _tell(self, event: int) -> None:
        """Send a control message to the driver, unless it does not read them."""
        if len(self.messages) < _MOST_MESSAGES * _MESSAGE.size:
            self.messages += _MESSAGE.pack(0, event, 1)

    @property
    def takes_input(self) -> bool:
        """True if the guest has opened the port, or cannot say that it has."""
        return self.is_open or not self.is_multiport

    def next_input(self, queue: int) -> bytes | None:
        if queue == _CONTROL_IN:
            return self.messages[: _MESSAGE.size] or None
        return self.received or None if queue == _RECEIVE and self.takes_input else None

    def take_input(self, queue: int, size: int) -> None:
        if queue == _CONTROL_IN:
            self.messages = self.messages[_MESSAGE.size :]
        else:
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
        device = self._device
        return device.takes_input and not device.received and self._transport.has_buffers(_RECEIVE)

    @property
    def room(self) -> int:
        return ROOM - len(self._device.received)

    def push(self, data: bytes) -> None:
        self._device.arrived += len(data)
        self._device.received += data
        self._transport.attend()
