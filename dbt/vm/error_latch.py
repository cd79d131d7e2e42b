"""Keeping an exception that is raised inside an instruction until the slice has ended.

A device access may ask the console for input, or call an observer. Both may be the user's code. If an exception left
the instruction half done, the guest could not go on. So the first exception is kept, the slice ends at the next
instruction, and the exception is raised between two instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa, Gva, Hva
from dbt.abi.exits import VmExit
from dbt.engine.observer import Observer

if TYPE_CHECKING:
    from dbt.backend.compiled import CompiledRegion


class ErrorLatch:
    """Keeps the first exception of a slice."""

    def __init__(self) -> None:
        self._error: BaseException | None = None

    @property
    def is_set(self) -> bool:
        """Return True if an exception waits to be raised."""
        return self._error is not None

    def keep(self, error: BaseException) -> None:
        """Keep an exception, unless one is kept already."""
        if self._error is None:
            self._error = error

    def raise_kept(self) -> None:
        """Raise the exception that was kept, once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error


class LatchedObserver(Observer):
    """An observer that passes everything on to another one, whose exceptions it keeps."""

    def __init__(self, inner: Observer, latch: ErrorLatch) -> None:
        self._inner = inner
        self._latch = latch
        self.wants_compile_records = inner.wants_compile_records
        self.wants_block_counters = inner.wants_block_counters
        self.wants_stitched_insns = inner.wants_stitched_insns
        self.wants_stitch_log = inner.wants_stitch_log
        self.checkpoint_interval = inner.checkpoint_interval

    @property
    def hears_exits(self) -> bool:
        return self._inner.hears_exits

    def _tell(self, method: Callable[..., None], *arguments: object) -> None:
        try:
            method(*arguments)
        except BaseException as error:  # whatever it is, it is raised when the slice has ended
            self._latch.keep(error)

    def region_requested(self, entry: Gpa, gva: Gva) -> None:
        self._tell(self._inner.region_requested, entry, gva)

    def region_refused(self, entry: Gpa, gva: Gva, reason: str) -> None:
        self._tell(self._inner.region_refused, entry, gva, reason)

    def region_outdated(self, entry: Gpa, gva: Gva, changed: Gpa | None) -> None:
        self._tell(self._inner.region_outdated, entry, gva, changed)

    def region_installed(self, region: CompiledRegion, address: Hva, kept: bool) -> None:
        self._tell(self._inner.region_installed, region, address, kept)

    def region_dropped(self, entry: Gpa, why: str, written: Gpa | None) -> None:
        self._tell(self._inner.region_dropped, entry, why, written)

    def device_accessed(self, gpa: Gpa, size: int, value: int, write: bool) -> None:
        self._tell(self._inner.device_accessed, gpa, size, value, write)

    def left_guest(self, exit_: VmExit) -> None:
        self._tell(self._inner.left_guest, exit_)

    def interrupted(self, kind: str) -> None:
        self._tell(self._inner.interrupted, kind)
