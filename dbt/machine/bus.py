"""The bus: which device answers at which guest physical address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


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

    @property
    def end(self) -> int:
        return self.base + self.size


class BusError(ValueError):
    """Two windows claim one address."""


class DeviceBus:
    """Implements :class:`dbt.mmu.memory.Bus`. Windows do not overlap."""

    def __init__(self, windows: Iterable[Window] = ()) -> None:
        self.windows: list[Window] = []
        for window in windows:
            self.attach(window)

    def attach(self, window: Window) -> None:
        for other in self.windows:
            if window.base < other.end and other.base < window.end:
                raise BusError(f"{window.name} at {window.base:#x} and {other.name} at {other.base:#x} overlap")
        self.windows.append(window)

    def covers(self, gpa: int, size: int) -> bool:
        """Whether one device has all ``size`` bytes at ``gpa``."""
        return self._find(gpa, size) is not None

    def read(self, gpa: int, size: int) -> int:
        window = self._require(gpa, size)
        return window.device.read(gpa - window.base, size)

    def write(self, gpa: int, size: int, value: int) -> None:
        window = self._require(gpa, size)
        window.device.write(gpa - window.base, size, value)

    def _find(self, gpa: int, size: int) -> Window | None:
        for window in self.windows:
            if window.base <= gpa and gpa + size <= window.end:
                return window
        return None

    def _require(self, gpa: int, size: int) -> Window:
        window = self._find(gpa, size)
        if window is None:
            raise LookupError(f"no device at GPA {gpa:#010x}")
        return window
