"""The console of a domain: the back end of the ring in the console page (xen/include/public/io/console.h).

The guest's kernel can also write by the hypercall console_io. Both go to the machine's console, in the order in which
they are written. Indices in the ring are the guest's: they are taken modulo its size, and never more is read from it
than it holds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.devices.fields import LARGEST_COUNT
from dbt.devices.output import room_of, send_all
from dbt.devices.shared import shared
from dbt.devices.state import Stateful, Wiring, Word
from dbt.devices.wiring import Transmit
from dbt.hypervisor.xen.byte_ring import ByteRing
from dbt.hypervisor.xen.event_channels import BackEndPorts
from dbt.hypervisor.xen.interface import CONSOLE_PAGE
from dbt.memory.dma import Dma

_IN_SIZE, _OUT_SIZE = 1024, 2048
_IN, _OUT = ByteRing(CONSOLE_PAGE, _IN_SIZE), ByteRing(Gpa(CONSOLE_PAGE + _IN_SIZE), _OUT_SIZE)
_INDICES: Final = struct.Struct("<IIII")  # in_cons, in_prod, out_cons, out_prod
_AT_INDICES: Final = _IN_SIZE + _OUT_SIZE
_IN_PROD, _OUT_CONS, _OUT_PROD = (CONSOLE_PAGE + _AT_INDICES + 4 * number for number in (1, 2, 3))
_OUT_BYTES: Final = CONSOLE_PAGE + _IN_SIZE
_U32: Final = struct.Struct("<I")
_WORD: Final = 0xFFFFFFFF
#: Input for CONSOLEIO_read that waits for the guest at most.
_TYPED: Final = 256


@shared
@dataclass(eq=False)
class XenConsole(Stateful):
    """The console, as the machine sees it too: see :class:`dbt.board.board.ConsolePort`.

    ``refill`` is called before the guest gets input by a hypercall. ``port`` is the guest's port of the ring, or 0 as
    long as the domain has made no hypercall; ``receiver`` is the number of the back end. ``typed`` is input that waits
    for CONSOLEIO_read, if the guest does not use the ring.
    """

    dma: Wiring[Dma]
    ports: Wiring[BackEndPorts]
    transmit: Wiring[Transmit]
    refill: Wiring[Callable[[], None]]
    port: Word = 0
    arrived: int = 0
    typed: bytes = field(default=b"", metadata={"in_python": True})
    receiver: Wiring[int] = field(init=False)

    def __post_init__(self) -> None:
        self.receiver = self.ports.add_receiver(self.drain)

    def is_possible(self) -> bool:
        return 0 <= self.arrived < LARGEST_COUNT and len(self.typed) <= _TYPED

    # -- what the guest writes -----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes to the machine's console."""
        send_all(self.transmit, data)

    def has_room(self, size: int) -> bool:
        """Return True if so many bytes can be written without Python."""
        return size <= room_of(self.transmit)

    def write_from(self, place: int, size: int) -> None:
        """Do as :meth:`write` with bytes at a GPA. Precondition: there is room."""
        for number in range(size):
            self.transmit(self.dma.byte(place + number))

    def drain(self) -> None:
        """The guest has sent an event: take what it has written to the ring, and tell it that there is room."""
        _, _, taken, written = self._indices()
        size = min(written - taken & _WORD, _OUT_SIZE)
        self.write(_OUT.read(self.dma, taken, size))
        self.dma.write(_OUT_CONS, _U32.pack(written))
        if size:
            self._notify()

    @property
    def _waiting(self) -> int:
        """How many bytes the guest has written to the ring that have not been taken."""
        return min(self.dma.word(_OUT_PROD) - self.dma.word(_OUT_CONS) & _WORD, _OUT_SIZE)

    @property
    def is_hot(self) -> bool:
        """Return True if native code can do :meth:`drain_hot`."""
        return self.dma.is_plain(CONSOLE_PAGE) and self._waiting <= room_of(self.transmit)

    def drain_hot(self) -> int:
        """Do as :meth:`drain`, but tell the guest nothing: return whether there was anything. Precondition:
        :attr:`is_hot`.
        """
        size, taken, written = self._waiting, self.dma.word(_OUT_CONS), self.dma.word(_OUT_PROD)
        for number in range(size):
            self.transmit(self.dma.byte(_OUT_BYTES + (taken + number) % _OUT_SIZE))
        self.dma.put_word(_OUT_CONS, written)
        return size

    def _notify(self) -> None:
        self.ports.notify(self.port, self.receiver)

    def _indices(self) -> tuple[int, int, int, int]:
        found = _INDICES.unpack(self.dma.read(CONSOLE_PAGE + _AT_INDICES, _INDICES.size))
        return found[0], found[1], found[2], found[3]

    # -- what the guest reads ------------------------------------------------------------------

    @property
    def expects_input(self) -> bool:
        """True if the guest listens at the port of the ring."""
        return self.ports.is_bound(self.port, self.receiver) and not self.ports.is_masked(self.port)

    @property
    def room(self) -> int:
        if not self.expects_input:
            return _TYPED - len(self.typed)
        taken, given, _, _ = self._indices()
        return _IN_SIZE - min(given - taken & _WORD, _IN_SIZE)

    def push(self, data: bytes) -> None:
        """Take bytes of input, at most :attr:`room`."""
        self.arrived += len(data)
        if not self.expects_input:
            self.typed += data
            return
        _, given, _, _ = self._indices()
        _IN.write(self.dma, given, data)
        self.dma.write(_IN_PROD, _U32.pack(given + len(data) & _WORD))
        self._notify()

    def look(self, size: int) -> bytes:
        """Return input for CONSOLEIO_read, at most ``size`` bytes. It stays until :meth:`take` takes it."""
        if size > len(self.typed):
            self.refill()
        return self.typed[:size]

    def take(self, size: int) -> None:
        """The guest has got so many bytes of input."""
        self.typed = self.typed[size:]
