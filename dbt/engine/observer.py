"""Whoever wants to know what the translator does: what happens in Python is reported here, one call an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.abi.exits import VmExit

if TYPE_CHECKING:
    from dbt.backend.compiled import CompiledRegion


class Observer:
    """Takes no notice. What the others note is no part of the run: they must not change the machine.

    Addresses of regions are physical unless they are called ``gva``.
    """

    #: Whether regions are to tell how they were made (:mod:`dbt.backend.compile_record`).
    wants_compile_records = False
    #: Whether regions are to count their blocks (:class:`dbt.abi.layout.BlockCounters`).
    wants_block_counters = False
    #: Slices end where the icount is a multiple of this.
    checkpoint_interval = 1 << 62

    def region_requested(self, entry: int, gva: int) -> None:
        """Code has become hot, and a region is to be made."""

    def region_refused(self, entry: int, gva: int, reason: str) -> None:
        """There is nothing that could be compiled, or the compiler was lost."""

    def region_outdated(self, entry: int, changed: int | None) -> None:
        """A region was compiled, but memory does not hold any more what it was made from: the word at ``changed``."""

    def region_installed(self, region: CompiledRegion, address: int, kept: bool) -> None:
        """At an HVA. ``kept``: it was on disk."""

    def region_dropped(self, entry: int, why: str, written: int | None) -> None:
        """``written``: the word that was written over."""

    def device_accessed(self, pc: int, gpa: int, size: int, value: int, write: bool) -> None:
        """By the instruction at a GVA."""

    def left_guest(self, exit_: VmExit) -> None:
        """The tier is back in the run loop, at the end of its budget or with something to be answered there."""

    def interrupted(self, kind: str) -> None:
        """An interrupt was taken between two slices."""


class Several(Observer):
    """Tells all of them."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self.wants_compile_records = any(observer.wants_compile_records for observer in observers)
        self.wants_block_counters = any(observer.wants_block_counters for observer in observers)
        self.checkpoint_interval = min(observer.checkpoint_interval for observer in observers)

    def region_requested(self, entry: int, gva: int) -> None:
        for observer in self._observers:
            observer.region_requested(entry, gva)

    def region_refused(self, entry: int, gva: int, reason: str) -> None:
        for observer in self._observers:
            observer.region_refused(entry, gva, reason)

    def region_outdated(self, entry: int, changed: int | None) -> None:
        for observer in self._observers:
            observer.region_outdated(entry, changed)

    def region_installed(self, region: CompiledRegion, address: int, kept: bool) -> None:
        for observer in self._observers:
            observer.region_installed(region, address, kept)

    def region_dropped(self, entry: int, why: str, written: int | None) -> None:
        for observer in self._observers:
            observer.region_dropped(entry, why, written)

    def device_accessed(self, pc: int, gpa: int, size: int, value: int, write: bool) -> None:
        for observer in self._observers:
            observer.device_accessed(pc, gpa, size, value, write)

    def left_guest(self, exit_: VmExit) -> None:
        for observer in self._observers:
            observer.left_guest(exit_)

    def interrupted(self, kind: str) -> None:
        for observer in self._observers:
            observer.interrupted(kind)


NOBODY = Observer()
