"""The guest's virtual CPU as its hypervisor has it (VCPUOP_*): where its information is, and how it has spent its time.

Time is *stolen* from a domain that could execute and has no core. A domain alone is never without one, and where
machines share the host's, their time does not pass while they wait for it: there, nothing is stolen. In a cluster whose
domains share a core (:class:`dbt.hypervisor.cluster.domains.ClusterDomains`), what is stolen is counted in ticks of the
guest's time, so nothing of the host's gets there. A domain is *blocked* from where it begins to wait until it is woken.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.devices.fields import LARGEST_COUNT
from dbt.devices.state import Stateful, Tick, Wiring, Word
from dbt.devices.wiring import Time
from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.event_channels import check_vcpu, page_of
from dbt.hypervisor.xen.interface import Errno, HypercallError
from dbt.hypervisor.xen.shared_page import VCPU_INFO_SIZE, SharedPage
from dbt.memory.dma import Dma

_REGISTER_RUNSTATE: Final = 5
_REGISTER_INFO: Final = 10
_INFO = struct.Struct("<QII")
_INFO_ALIGNMENT: Final = 8
_AREA = struct.Struct("<Q")
#: struct vcpu_runstate_info: the state, since when, and how long it was running, runnable, blocked and offline.
_RUNSTATE = struct.Struct("<IxxxxQQQQQ")
_RUNNING: Final = 0
_SECOND: Final = 10**9
_LONG: Final = (1 << 64) - 1


@dataclass(eq=False)
class VirtualCpu(Stateful):
    """The virtual CPU. ``has_page`` says whether a page is the guest's own.

    ``runstate`` has the GPAs of where the guest wants to know how its time is spent, which may be in two pages; none if
    it does not. ``stolen`` and ``blocked`` are ticks, and ``blocked_since`` is where it began to wait, if it does.
    """

    dma: Wiring[Dma]
    arguments: Wiring[Arguments]
    time: Wiring[Time]
    shared: Wiring[SharedPage]
    has_page: Wiring[Callable[[Gpa], bool]]
    runstate: list[Word] = field(default_factory=list)
    stolen: Tick = 0
    blocked: Tick = 0
    blocked_since: Tick | None = None

    def is_possible(self) -> bool:
        covers = self.dma.layout.covers
        return (
            sum(size for _, size in self._pieces()) == (_RUNSTATE.size if self.runstate else 0)
            and all(covers(Gpa(at), size) for at, size in self._pieces())
            and max(self.stolen, self.blocked, self.blocked_since or 0) < LARGEST_COUNT
        )

    def call(self, command: int, vcpu: int, handle: int) -> int:
        """Do VCPUOP_*. Return the result, or raise HypercallError."""
        if command not in (_REGISTER_RUNSTATE, _REGISTER_INFO):
            raise HypercallError(Errno.EINVAL)  # Xen on ARM has no others, and says so in this way.
        check_vcpu(vcpu)
        if command == _REGISTER_INFO:
            self._move_info(handle)
        else:
            self._register_runstate(handle)
        return 0

    def _move_info(self, handle: int) -> None:
        frame, offset, _ = self.arguments.unpack(handle, _INFO)
        if offset > PAGE_SIZE - VCPU_INFO_SIZE or offset % _INFO_ALIGNMENT:
            raise HypercallError(Errno.ENXIO)
        page = page_of(self.dma, frame, Errno.EINVAL)
        if not self.has_page(page):
            raise HypercallError(Errno.EINVAL)
        self.shared.move_vcpu_info(Gpa(page + offset))

    # -- how time is spent ---------------------------------------------------------------------

    def _register_runstate(self, handle: int) -> None:
        """Note where the guest wants to read how its time is spent. Xen tries to write there, and says nothing if it
        cannot. The place is found once, with the rights that the guest has now. The address 0 means: nowhere.
        """
        (area,) = self.arguments.unpack(handle, _AREA)
        self.runstate = []
        with suppress(HypercallError):
            places = self.arguments.places(area, _RUNSTATE.size)
            self.arguments.write(area, self._times())
            self.runstate = [*places] if area else []

    def _times(self) -> bytes:
        """Return the runstate of a domain that begins to run now."""
        now, stolen, waited = map(self._nanoseconds, (self.time.now, self.stolen, self.blocked + self._waited()))
        return _RUNSTATE.pack(_RUNNING, now, max(now - stolen - waited, 0), stolen, waited, 0)

    def _nanoseconds(self, ticks: int) -> int:
        return ticks * _SECOND // self.time.ticks_per_second & _LONG

    def _pieces(self) -> list[tuple[int, int]]:
        """Return GPA and size of the parts of the area."""
        left, found = _RUNSTATE.size, []
        for at in self.runstate:
            size = min(left, PAGE_SIZE - at % PAGE_SIZE)
            found.append((at, size))
            left -= size
        return found

    def block(self) -> None:
        """The domain begins to wait."""
        self.blocked_since = self.time.now

    def unblock(self) -> None:
        """The domain is woken, and runs. Tell it for how long it has waited, if time has passed."""
        waited, self.blocked_since = self._waited(), None
        self.blocked += waited
        if waited:
            self.gets_core()

    def has_waited(self, ticks: int) -> None:
        """Count ticks in which the domain waited and nobody has told it, so ``runstate`` is empty."""
        self.blocked += ticks

    def _waited(self) -> int:
        """Return for how many ticks the domain has waited now, if it does."""
        return 0 if self.blocked_since is None else max(self.time.now - self.blocked_since, 0)

    def steal(self, ticks: int) -> None:
        """Count ticks from now on in which the domain could execute, and has no core."""
        self.stolen += ticks
        if self.blocked_since is not None:  # it has been woken, and has not run since
            self.blocked += self._waited()
            self.blocked_since = self.time.now + ticks

    def gets_core(self) -> None:
        """Tell the guest how its time was spent until now, when it has a core."""
        times = self._times()
        for at, size in self._pieces():
            if self.has_page(Gpa(at & -PAGE_SIZE)):  # the guest may have given it back since, or have mapped another
                self.dma.write(at, times[:size])
            times = times[size:]
