"""The bus: which device answers at which guest physical address."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dbt.devices.wiring import VirtualCounter

_PAGE_SHIFT = 12
_INDEXED_PAGES = 256


class Device(Protocol):
    """Registers by their offset from wherever the board has put the device; sizes are 1, 2 or 4 bytes."""

    def read(self, offset: int, size: int) -> int: ...
    def write(self, offset: int, size: int, value: int) -> None: ...


class Window:
    """``device`` answers at ``[base, base + size)``."""

    __slots__ = ("base", "device", "end", "name", "size")

    def __init__(self, base: int, size: int, device: Device, name: str) -> None:
        self.base = base
        self.size = size
        self.end = base + size
        self.device = device
        self.name = name

    @classmethod
    def later(cls, base: int, size: int, make: Callable[[], Device], name: str) -> Window:
        """A window whose device is made when it is accessed first: until then it is as after a reset.

        To import and make all devices of a board takes longer than many a guest runs.
        """
        deferred = _Deferred(make)
        deferred.window = cls(base, size, deferred, name)
        return deferred.window


class _Deferred:
    window: Window

    def __init__(self, make: Callable[[], Device]) -> None:
        self._make = make

    def _arrive(self) -> Device:
        self.window.device = device = self._make()
        return device

    def read(self, offset: int, size: int) -> int:
        return self._arrive().read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._arrive().write(offset, size, value)


class BusError(ValueError):
    """Two windows claim one address."""


class DeviceBus:
    """Implements :class:`dbt.memory.guest_memory.Bus`. Windows do not overlap.

    A device is found by the page of the access; what is larger than 256 pages, by searching. No page
    belongs to two windows.
    """

    def __init__(self, windows: Iterable[Window] = ()) -> None:
        self.windows: list[Window] = []
        self._pages: dict[int, Window] = {}
        self._latest: Window | None = None  # which the next access is likely to be to, too
        for window in windows:
            self.attach(window)

    def attach(self, window: Window) -> None:
        pages = range(window.base >> _PAGE_SHIFT, (window.end - 1 >> _PAGE_SHIFT) + 1)
        for other in self.windows:
            if pages.start << _PAGE_SHIFT < other.end and other.base < pages.stop << _PAGE_SHIFT:
                raise BusError(f"{window.name} at {window.base:#x} and {other.name} at {other.base:#x} overlap")
        self.windows.append(window)
        if len(pages) <= _INDEXED_PAGES:
            self._pages.update(dict.fromkeys(pages, window))

    def covers(self, gpa: int, size: int) -> bool:
        """Whether one device has all ``size`` bytes at ``gpa``."""
        return self._find(gpa, size) is not None

    def read(self, gpa: int, size: int) -> int:
        window = self._find(gpa, size)
        if window is None:
            raise LookupError(f"no device at GPA {gpa:#010x}")
        return window.device.read(gpa - window.base, size)

    def virtual_counter(self, gpa: int) -> VirtualCounter | None:
        """How the word at ``gpa``, a multiple of 4, goes on, if its device says so."""
        window = self._find(gpa, 4)
        tell = getattr(window.device, "virtual_counter", None) if window is not None else None
        return tell(gpa - window.base) if tell is not None and window is not None else None

    def write(self, gpa: int, size: int, value: int) -> None:
        window = self._find(gpa, size)
        if window is None:
            raise LookupError(f"no device at GPA {gpa:#010x}")
        window.device.write(gpa - window.base, size, value)

    def _find(self, gpa: int, size: int) -> Window | None:
        window = self._latest
        if window is not None and window.base <= gpa and gpa + size <= window.end:
            return window
        window = self._pages.get(gpa >> _PAGE_SHIFT)
        if window is None:
            window = next((window for window in self.windows if window.base <= gpa and gpa + size <= window.end), None)
        elif not (window.base <= gpa and gpa + size <= window.end):
            window = None
        self._latest = window
        return window
