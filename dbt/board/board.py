"""What every board is: devices on a bus, an interrupt controller with inputs, a console, and a timeline.

:mod:`dbt.board.boards` says which boards there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dbt.board.bus import DeviceBus, Window
from dbt.board.timeline import Event, Timeline
from dbt.devices.pl011 import ConsoleUart
from dbt.devices.state import PutBack, State
from dbt.devices.wiring import Line, Transmit, no_input
from dbt.memory.ram import RamLayout

PAGE = 0x1000

if TYPE_CHECKING:
    from typing import Protocol

    from dbt.devices.receivers import Receive
    from dbt.devices.virtio.attached import Attached
    from dbt.devices.virtio.slots import VirtioSlots
    from dbt.hypervisor.xen.back_ends.back_end import BackEnd, XenBus
    from dbt.hypervisor.xen.domain import XenDomain
    from dbt.hypervisor.xen.store.ring import StoreListener
    from dbt.memory.guest_memory import GuestMemory

    class InterruptController(Protocol):
        """The interrupt controller that drives the CPU's interrupt inputs to these levels."""

        irq_level: bool
        fiq_level: bool

        @property
        def has_fast_interrupts(self) -> bool:
            """True if the interrupt of some device would be an FIQ."""

    class ConsolePort(Protocol):
        """The device that gets what is typed at the console."""

        @property
        def arrived(self) -> int:
            """How many bytes of input it has got."""

        @property
        def expects_input(self) -> bool:
            """True if the guest has done what it does to be told of input."""

        @property
        def room(self) -> int:
            """How many bytes :meth:`push` can take."""

        def push(self, data: bytes) -> None:
            """Take bytes of input."""


def _unheard(number: int, command: int) -> None:
    """Hear that a hypercall is not known."""


class BoardWiring:
    """What a board is connected to.

    - ``transmit`` is called with each byte that the guest sends to the console.
    - ``ram`` hides the devices that are where it is.
    - ``irq`` and ``fiq`` are called with the levels of the CPU's interrupt inputs when these change; both are low at
      first.
    - ``reset`` is called when the guest or its watchdog resets the board, from within a device access or an event.
    - ``epoch`` is the time of day at tick 0 of ``timeline``, in seconds since 1970.
    - ``refill`` is called when the console can take input (:class:`dbt.devices.pl011.ConsoleUart`).
    - ``holes_read_zero``: see :class:`dbt.board.bus.DeviceBus`.
    - ``attached`` are virtio devices.
    - ``memory`` is the guest's, for a board with a hypervisor, and ``unknown`` is told number and command of hypercalls
      that are not answered. ``back_ends`` make the back ends of its para-virtual devices, and
      ``store_listener`` looks at its XenStore.
    """

    # It is no NamedTuple, which would take a quarter of a millisecond at each start.
    def __init__(
        self,
        transmit: Transmit,
        ram: RamLayout,
        timeline: Timeline,
        irq: Line,
        fiq: Line,
        reset: Callable[[], None],
        epoch: int,
        refill: Callable[[], None] = no_input,
        holes_read_zero: bool = False,
        attached: Attached | None = None,
        memory: GuestMemory | None = None,
        unknown: Callable[[int, int], None] = _unheard,
        back_ends: Sequence[Callable[[XenBus], BackEnd]] = (),
        store_listener: StoreListener | None = None,
    ) -> None:
        self.transmit, self.ram, self.timeline = transmit, ram, timeline
        self.irq, self.fiq, self.reset = irq, fiq, reset
        self.epoch, self.refill, self.holes_read_zero = epoch, refill, holes_read_zero
        self.attached, self.memory, self.unknown, self.back_ends = attached, memory, unknown, back_ends
        self.store_listener = store_listener

    @property
    def uart_refill(self) -> Callable[[], None]:
        """What the console's UART calls when it can take input. A virtio console gets the input in its place."""
        has_console = self.attached is not None and self.attached.console is not None
        return no_input if has_console else self.refill


class Board(NamedTuple):
    """The devices of a machine. ``bus`` has them all; ``console_uart`` is the one that the console is connected to, if
    the board has a UART, and ``console`` what gets its input: the UART, a virtio console or a hypervisor's.

    ``timeline`` has the alarms of the devices, each under the name of the device's window. ``receivers`` take what
    comes from outside, besides the console's input, by the name of whom it is for. ``hypervisor`` answers hypercalls.
    """

    bus: DeviceBus
    console_uart: ConsoleUart | None
    console: ConsolePort
    controller: InterruptController
    timeline: Timeline
    receivers: Mapping[str, Receive]
    hypervisor: XenDomain | None = None

    @property
    def has_fast_interrupts(self) -> bool:
        """True if the interrupt of some device would be an FIQ."""
        return self.controller.has_fast_interrupts

    def save(self) -> BoardState:
        """Return the state of all devices and the pending events, as plain values."""
        return BoardState(self.bus.save(), self.timeline.save())

    def keep(self) -> PutBack:
        """Return a function that gives the devices their present states, and makes the present events pending again.

        Like :meth:`restore` it leaves out the levels of the CPU's interrupt inputs.
        """
        devices, events = self.bus.keep(), self.timeline.keep()

        def put_back() -> None:
            devices()
            events()
            if self.hypervisor is not None:
                self.hypervisor.foreign.guard()

        return put_back

    def restore(self, state: BoardState) -> None:
        """Restore a state that :meth:`save` returned. Raise StateError if it is that of another board.

        The levels of the CPU's interrupt inputs are not set again, because they belong to the CPU's state.
        """
        self.bus.restore(state.devices)
        waiting = {event[0] for event in state.events if isinstance(event, tuple) and event and type(event[0]) is str}
        for window in self.bus.windows:
            if window.name in waiting:
                window.arrive()
        self.timeline.restore(state.events)


class BoardState(NamedTuple):
    """The state of a board. ``devices`` has states by name; a device that is missing is as after a reset. ``events``
    has the pending events.
    """

    devices: dict[str, State]
    events: list[Event]


class InterruptTaken(ValueError):
    """Raised if a device is connected to an interrupt that another device has, or to one that does not exist."""


class Inputs:
    """The ``count`` inputs of an interrupt controller. Each is one device's, whether that is made already or not."""

    def __init__(self, controller: str, line: Callable[[int], Line], count: int = 32) -> None:
        self._controller = controller
        self._line = line
        self._count = count
        self._devices: dict[int, str] = {}

    def connect(self, number: int, device: str) -> Line:
        """Return input ``number`` for the device of that name. Raise InterruptTaken if it cannot have it."""
        if not 0 <= number < self._count:
            raise InterruptTaken(f"{device}: {self._controller} has no input {number}; they are 0 to {self._count - 1}")
        if number in self._devices:
            free = ", ".join(str(one) for one in range(self._count) if one not in self._devices)
            raise InterruptTaken(
                f"{device}: input {number} of {self._controller} is that of {self._devices[number]}; "
                f"not connected yet are {free}"
            )
        self._devices[number] = device
        return self._line(number)


def console_port(uart: ConsoleUart, attached: Attached | None, slots: VirtioSlots | None) -> ConsolePort:
    """Return what gets the console's input: a virtio console in the slots if there is one, else the UART."""
    if slots is None or attached is None or attached.console is None:
        return uart
    from dbt.devices.virtio.console import ConsolePort as VirtioPort

    return VirtioPort(attached.console, slots.find(attached.console))


def visible(windows: Iterable[Window], ram: RamLayout) -> Iterator[Window]:
    """Yield the windows that RAM does not hide. All of a device is hidden if RAM is where a part of it would be."""
    for window in windows:
        if not any(region.base < window.end and window.base < region.end for region in ram.regions):
            yield window
