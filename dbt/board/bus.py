"""The bus: which device answers at which guest physical address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from dbt.abi.addresses import Gpa
from dbt.devices.device import Device
from dbt.devices.shared import class_number, native_address
from dbt.devices.state import KeptState, PutBack, State, StateError, Wiring

if TYPE_CHECKING:
    from dbt.memory.guest_memory import PrivateRegisters

_PAGE_SHIFT = 12
_INDEXED_PAGES = 256
D = TypeVar("D", bound=Device)


@dataclass(eq=False, repr=False)
class Deferred(Device, Generic[D]):
    """A device that is made when it is first accessed. Until then its state is that after a reset.

    Importing and making all devices of a board takes longer than many guests run.
    """

    make: Wiring[Callable[[], D]]
    device: Wiring[D | None] = None
    #: The state of the device when it was made.
    initial: Wiring[State] = field(default_factory=dict)

    def get(self) -> D:
        """Return the device, after making it if that has not been done."""
        if self.device is None:
            self.device = self.make()
            self.initial = self.device.save()
        return self.device

    def read(self, offset: int, size: int) -> int:
        return self.get().read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self.get().write(offset, size, value)

    def save(self) -> State:
        """Return the device's state. It is empty if the device is as after a reset, whether it has been made or not."""
        state = {} if self.device is None else self.device.save()
        return {} if state == self.initial else state

    def restore(self, state: Mapping[Any, Any]) -> None:
        if state != {} or self.device is not None:
            device = self.get()
            device.restore(self.initial if state == {} else state)


class Window:
    """The addresses of a device: ``device`` answers at ``[base, base + size)``, in bytes.

    ``name`` is the device's name in saved states and messages. ``gaps`` are ranges of whole pages, as offsets from
    ``base``, where the device does not answer; such a device has at most 256 pages. ``origin`` is where the device's
    registers begin, if the window shows a part of them that begins elsewhere: the device has another window then, with
    which it is saved.
    """

    __slots__ = ("_deferred", "base", "device", "end", "gaps", "is_private", "name", "origin", "size")

    def __init__(
        self,
        base: Gpa,
        size: int,
        device: Device,
        name: str,
        gaps: Sequence[range] = (),
        origin: Gpa | None = None,
        is_private: bool = False,
    ) -> None:
        self.base = base
        self.origin = base if origin is None else origin
        self.is_private = is_private
        self.size = size
        self.gaps = tuple(gaps)
        self.end = base + size
        self.device = device
        self.name = name
        self._deferred = device

    def arrive(self) -> Device:
        """Return the device itself. A deferred one is made now, and answers directly from now on."""
        if isinstance(self.device, Deferred):
            self.device = self.device.get()
        return self.device

    def save(self) -> State:
        """Return the state of the device. It is empty if the device is deferred and as after a reset."""
        return self._deferred.save() if self.origin == self.base else {}

    def restore(self, state: Mapping[Any, Any]) -> None:
        """Restore a state that :meth:`save` returned. Raise StateError if it is the state of another object."""
        if self.origin == self.base:
            self._deferred.restore(state)
        elif state != {}:
            raise StateError(f"{self.name} in the saved state is a part of another device")

    @property
    def made(self) -> Device | None:
        """The device itself, or None if it is deferred and has not been made."""
        return self._deferred.device if isinstance(self._deferred, Deferred) else self._deferred


def private_window(device: Device, name: str) -> Window:
    """Return the window of a private peripheral: it has registers of a coprocessor (:mod:`isa.arm.private`), and no
    addresses.
    """
    return Window(Gpa(0), 0, device, name, is_private=True)


def hidden_window(device: Device, name: str) -> Window:
    """Return the window of a device that has no addresses either. The guest reaches it in another way."""
    return Window(Gpa(0), 0, device, name)


class BusError(ValueError):
    """Raised if two windows claim the same address or the same name."""


class DeviceBus:
    """The bus of a board; it implements :class:`dbt.memory.guest_memory.Bus`. Windows do not overlap.

    A device is found by the page of the access, or by a search if it has more than 256 pages. No page belongs to two
    windows.

    ``holes_read_zero`` says what happens where there is no device. If it is True, loads give zero and stores do
    nothing. Otherwise the bus does not cover the access, which becomes an external abort.
    """

    def __init__(self, windows: Iterable[Window] = (), holes_read_zero: bool = False) -> None:
        self.windows: list[Window] = []
        self._pages: dict[int, Window] = {}
        self._large: list[Window] = []
        self._private: list[PrivateRegisters] = []
        self._latest: Window | None = None  # which the next access is likely to be to, too
        self._holes_read_zero = holes_read_zero
        for window in windows:
            self.attach(window)

    def attach(self, window: Window) -> None:
        """Add a device. Raise BusError if another one has its name or one of its pages."""
        pages = range(window.base >> _PAGE_SHIFT, (window.end - 1 >> _PAGE_SHIFT) + 1)
        for other in self.windows:
            if pages.start << _PAGE_SHIFT < other.end and other.base < pages.stop << _PAGE_SHIFT:
                raise BusError(f"{window.name} at {window.base:#x} and {other.name} at {other.base:#x} overlap")
            if window.name == other.name:
                raise BusError(f"the devices at {window.base:#x} and {other.base:#x} are both called {window.name}")
        self.windows.append(window)
        if window.is_private:
            self._private.append(cast("PrivateRegisters", window.device))
        if len(pages) > _INDEXED_PAGES:
            self._large.append(window)
            return
        for page in pages:
            offset = (page << _PAGE_SHIFT) - window.base
            if not any(offset in gap for gap in window.gaps):
                self._pages[page] = window

    def has_device(self, gpa: Gpa, size: int) -> bool:
        """Return True if one device has all ``size`` bytes at ``gpa``."""
        return self._find(gpa, size) is not None

    def covers(self, gpa: Gpa, size: int) -> bool:
        """Return True if an access of ``size`` bytes at ``gpa`` is answered, by a device or as a hole."""
        window = self._latest
        is_there = window is not None and window.base <= gpa and gpa + size <= window.end
        return is_there or self._holes_read_zero or self._find(gpa, size) is not None

    def read(self, gpa: Gpa, size: int) -> int:
        """Return the value of a load of ``size`` bytes. Raise LookupError if the bus does not cover it."""
        window = self._latest
        if window is None or gpa < window.base or gpa + size > window.end:
            window = self._find(gpa, size)
        if window is None:
            self._pass_hole(gpa)
            return 0
        device = window.device
        if type(device) is Deferred:
            device = window.arrive()
        return device.read(gpa - window.origin, size)

    def native_device(self, gpa: Gpa) -> tuple[Gpa, int, int] | None:
        """See :class:`dbt.memory.guest_memory.Bus`."""
        window = self._find(Gpa(gpa & -1 << _PAGE_SHIFT), 1 << _PAGE_SHIFT)
        if window is None:
            return None
        device = window.arrive()
        address = native_address(device)
        return None if address is None else (window.origin, class_number(type(device)), address)

    def private(self, number: int) -> tuple[PrivateRegisters, int] | None:
        """See :class:`dbt.memory.guest_memory.Bus`. They are attached in the order of their numbers."""
        from isa.arm.private import NUMBERS_OF_EACH  # which few guests need

        place, there = divmod(number, NUMBERS_OF_EACH)
        return (self._private[place], there) if place < len(self._private) else None

    def write(self, gpa: Gpa, size: int, value: int) -> None:
        """Store ``size`` bytes. Raise LookupError if the bus does not cover them."""
        window = self._latest
        if window is None or gpa < window.base or gpa + size > window.end:
            window = self._find(gpa, size)
        if window is None:
            self._pass_hole(gpa)
            return
        device = window.device
        if type(device) is Deferred:
            device = window.arrive()
        device.write(gpa - window.origin, size, value)

    def save(self) -> dict[str, State]:
        """Return the states of the devices by name, without deferred devices that are as after a reset."""
        return {window.name: state for window in self.windows if (state := window.save())}

    def restore(self, states: Mapping[str, Mapping[Any, Any]]) -> None:
        """Restore a state that :meth:`save` returned. Raise StateError if it is that of another board."""
        if type(states) is not dict:
            raise StateError("the states of the devices are no mapping")
        unknown = states.keys() - {window.name for window in self.windows}
        if unknown:
            raise StateError(f"this board has no device called {', '.join(sorted(map(str, unknown)))}")
        for window in self.windows:
            window.restore(states.get(window.name, {}))

    def keep(self) -> PutBack:
        """Return a function that gives all devices their present states again.

        Those that are made later are then as after a reset.
        """
        kept, missing = KeptState(), []
        for window in self.windows:
            if window.made is None:
                missing.append(window)
            else:
                window.made.keep(kept)

        def put_back() -> None:
            kept.put_back()
            for window in [window for window in missing if window.made is not None]:
                window.restore({})
                cast("Device", window.made).keep(kept)
                missing.remove(window)

        return put_back

    def _pass_hole(self, gpa: Gpa) -> None:
        if not self._holes_read_zero:
            raise LookupError(f"no device at GPA {gpa:#010x}")

    def _find(self, gpa: Gpa, size: int) -> Window | None:
        window = self._latest
        if window is not None and window.base <= gpa and gpa + size <= window.end:
            return window
        window = self._pages.get(gpa >> _PAGE_SHIFT)
        if window is None:
            window = next((window for window in self._large if window.base <= gpa and gpa + size <= window.end), None)
        elif not (window.base <= gpa and gpa + size <= window.end):
            window = None
        self._latest = None if window is None or window.gaps else window
        return window
