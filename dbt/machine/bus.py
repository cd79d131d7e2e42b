"""The bus: which device answers at which guest physical address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

_PAGE_SHIFT = 12
_INDEXED_PAGES = 256


class Device(Protocol):
    """Registers by their offset from wherever the board has put the device; sizes are 1, 2 or 4 bytes."""

    def read(self, offset: int, size: int) -> int: ...
    def write(self, offset: int, size: int, value: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Window:
    """``device`` answers at ``[base, base + size)``."""

    base: int
    size: int
    device: Device
    name: str
    end: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "end", self.base + self.size)


class BusError(ValueError):
    """Two windows claim one address."""


class DeviceBus:
    """Implements :class:`dbt.mmu.memory.Bus`. Windows do not overlap.

    A device is found by the page of the access; what is larger than 256 pages, by searching. No page
    belongs to two windows.
    """

    def __init__(self, windows: Iterable[Window] = ()) -> None:
        self.windows: list[Window] = []
        self._pages: dict[int, Window] = {}
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

    def write(self, gpa: int, size: int, value: int) -> None:
        window = self._find(gpa, size)
        if window is None:
            raise LookupError(f"no device at GPA {gpa:#010x}")
        window.device.write(gpa - window.base, size, value)

    def _find(self, gpa: int, size: int) -> Window | None:
        window = self._pages.get(gpa >> _PAGE_SHIFT)
        if window is None:
            return next((window for window in self.windows if window.base <= gpa and gpa + size <= window.end), None)
        return window if window.base <= gpa and gpa + size <= window.end else None
