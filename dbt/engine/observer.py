"""Observers of the translator. What happens in Python is reported to them, by one call for each event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.abi.exits import VmExit

if TYPE_CHECKING:
    from dbt.abi.addresses import Gpa, Gva, Hva
    from dbt.backend.compiled import CompiledRegion


class Observer:
    """An observer that ignores everything. Others derive from it. An observer must not change the machine.

    A region is named by the physical address of its entry. ``gva`` is the virtual address of the same word.
    """

    #: True if regions are to have compile records (:mod:`dbt.backend.compile_record`).
    wants_compile_records = False
    #: True if regions are to count their blocks (:class:`dbt.abi.layout.BlockCounters`).
    wants_block_counters = False
    #: True if stitched code is to keep the number of instructions that it executes.
    wants_stitched_insns = False
    #: True if stitched blocks are to be logged (:class:`dbt.engine.stitch_log.StitchLog`).
    wants_stitch_log = False
    #: Slices end where the icount is a multiple of this.
    checkpoint_interval = 1 << 62

    @property
    def hears_exits(self) -> bool:
        """True if :meth:`left_guest` does something. Then a tier leaves with each semihosting call."""
        return type(self).left_guest is not Observer.left_guest

    def region_requested(self, entry: Gpa, gva: Gva) -> None:
        """Code has become hot, and a region is requested."""

    def region_refused(self, entry: Gpa, gva: Gva, reason: str) -> None:
        """No region can be made for a request, for the reason ``why``."""

    def region_outdated(self, entry: Gpa, gva: Gva, changed: Gpa | None) -> None:
        """A compiled region cannot be installed, because the word at ``changed`` is no longer what it was made from."""

    def region_installed(self, region: CompiledRegion, address: Hva, kept: bool) -> None:
        """A region was installed at an HVA. ``kept`` says whether it was on disk."""

    def region_dropped(self, entry: Gpa, why: str, written: Gpa | None) -> None:
        """A region was dropped. ``written`` is the GPA of the word that was written over, if that is the reason."""

    def device_accessed(self, gpa: Gpa, size: int, value: int, write: bool) -> None:
        """The instruction at the PC accessed a device in Python. Most accesses are made in native code, unheard of."""

    def left_guest(self, exit_: VmExit) -> None:
        """The tier returned, at the end of its budget or with another exit."""

    def interrupted(self, kind: str) -> None:
        """An interrupt was taken between two slices, and not in native code."""


class _Measuring(Observer):
    """An observer that ignores everything, with which ``retired`` of a tier tells what stitched code executed."""

    wants_stitched_insns = True


class Several(Observer):
    """An observer that passes everything on to several others."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self.wants_compile_records = any(observer.wants_compile_records for observer in observers)
        self.wants_block_counters = any(observer.wants_block_counters for observer in observers)
        self.wants_stitched_insns = any(observer.wants_stitched_insns for observer in observers)
        self.wants_stitch_log = any(observer.wants_stitch_log for observer in observers)
        self.checkpoint_interval = min(observer.checkpoint_interval for observer in observers)

    @property
    def hears_exits(self) -> bool:
        return any(observer.hears_exits for observer in self._observers)

    def region_requested(self, entry: Gpa, gva: Gva) -> None:
        for observer in self._observers:
            observer.region_requested(entry, gva)

    def region_refused(self, entry: Gpa, gva: Gva, reason: str) -> None:
        for observer in self._observers:
            observer.region_refused(entry, gva, reason)

    def region_outdated(self, entry: Gpa, gva: Gva, changed: Gpa | None) -> None:
        for observer in self._observers:
            observer.region_outdated(entry, gva, changed)

    def region_installed(self, region: CompiledRegion, address: Hva, kept: bool) -> None:
        for observer in self._observers:
            observer.region_installed(region, address, kept)

    def region_dropped(self, entry: Gpa, why: str, written: Gpa | None) -> None:
        for observer in self._observers:
            observer.region_dropped(entry, why, written)

    def device_accessed(self, gpa: Gpa, size: int, value: int, write: bool) -> None:
        for observer in self._observers:
            observer.device_accessed(gpa, size, value, write)

    def left_guest(self, exit_: VmExit) -> None:
        for observer in self._observers:
            observer.left_guest(exit_)

    def interrupted(self, kind: str) -> None:
        for observer in self._observers:
            observer.interrupted(kind)


NOBODY = Observer()
MEASURING = _Measuring()
