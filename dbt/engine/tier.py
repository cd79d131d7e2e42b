"""The contract between the virtual CPU and a tier, which executes guest code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

from dbt.abi.addresses import Gpa, Gva, Hva
from dbt.abi.exits import VmExit

if TYPE_CHECKING:
    from dbt.engine.debug_points import DebugPoints
    from dbt.engine.region_counts import RegionActivity
    from dbt.engine.shadow_tables import ShadowPage
    from dbt.engine.stitch_log import StitchLog
    from dbt.engine.stitched import StitchActivity

#: How the region tier compiles: beside the guest, in line, or not at all.
JitMode = Literal["async", "sync", "off"]

#: A function that is called after each access to a device. It returns how many instructions may still be retired in the
#: slice, that of the access included, or None if the access has not made them fewer.
Allowance = Callable[[], int | None]

#: A function that answers the semihosting call at the PC, if nothing but the guest and its files takes part in it.
#: It returns True if it has: then R0 and the PC are those after the instruction, which the tier counts as retired. If
#: it returns False, nothing has changed, and the tier is to leave with the call.
HostCall = Callable[[], bool]


def unlimited() -> None:
    """Do not limit the slice: an :data:`Allowance` that never ends one."""


def unanswered() -> bool:
    """Answer no call: a :data:`HostCall` with which a tier leaves with every one."""
    return False


class Tier(Protocol):
    """Executes guest instructions from ``cpu.r[15]`` on.

    A tier is made with an :data:`Allowance`. It answers sensitive instructions and device accesses itself, and every
    tier leaves with the same exits. If ``native_exceptions`` of ``cpu`` is set, a tier may also enter exceptions
    itself, and have semihosting calls answered by a :data:`HostCall`.
    """

    name: str

    def run(self, budget: int) -> tuple[VmExit, int]:
        """Execute guest code. Return why execution stopped and how many instructions were retired.

        It stops with Budget after exactly ``budget`` instructions. It stops with Budget earlier if Python had to answer
        so much that the slice would become long, if an interrupt is to be taken, or if the allowance requires it.
        Otherwise it stops with another exit, whose instruction is not retired. Then ``cpu.r[15]`` is the address of
        that instruction; for Budget it is that of the next one. Raises RuntimeError after :meth:`close`.
        """

    @property
    def progress(self) -> int:
        """The instructions that :meth:`run` has retired so far, while it runs. Devices need it for the virtual time.

        It remains valid if ``run`` raises an exception.
        """

    @property
    def retired(self) -> dict[str, int]:
        """The numbers of retired instructions by what executed them: "region", "stitched", "threaded" or "reference".

        "stitched" is there where it is measured (:attr:`dbt.engine.observer.Observer.wants_stitched_insns`). Elsewhere
        "threaded" has those instructions too.

        Those that a :data:`HostCall` has completed are not among them.
        """

    @property
    def callouts(self) -> Mapping[str, int]:
        """The numbers of callouts made, by name."""

    @property
    def callout_places(self) -> Mapping[Gpa, int]:
        """How often instructions that make callouts were executed, by GPA. It covers the code that is there now."""

    @property
    def regions(self) -> RegionActivity | None:
        """The tier's activity about regions, or None if it makes none."""

    @property
    def stitching(self) -> StitchActivity | None:
        """What was stitched, or None if the tier does not stitch."""

    @property
    def stitch_log(self) -> StitchLog | None:
        """The log of stitched blocks, where there is one: see :attr:`dbt.engine.observer.Observer.wants_stitch_log`."""

    def reset_counts(self) -> None:
        """Set all counts to zero."""

    def native_symbols(self) -> Iterator[tuple[Hva, int, str]]:
        """Yield address, size in bytes and name of each native function that is not made from the guest's code."""

    def is_decoded(self, gpa: Gpa) -> bool:
        """Return True if a word of a page with code is known to have been executed since it was written."""

    def branch_targets(self) -> Iterator[tuple[Gpa, Gva]]:
        """Yield the GPA of an indirect branch and a GVA that it went to, for some of the branches that were executed.

        For a branch in a region, only targets outside the region are noted.
        """

    def shadow_pages(self) -> Iterator[tuple[int, Iterator[ShadowPage]]]:
        """Yield the number of each address space, and the pages in its shadow page tables."""

    def use_debug_points(self, points: DebugPoints) -> None:
        """Stop where a debugger wants it from now on, with BreakpointHit or WatchpointHit: never after an instruction,
        always in front of one. The guest must not be executing. What it can observe stays the same.
        """

    def call_routine(self, name: str, *arguments: int) -> int | None:
        """Call a routine of the architecture on the state, and return its result, if it has one."""

    def rest(self, deep: bool) -> None:
        """Give back to the host the memory of what native code keeps for speed and makes again: where pages are, and if
        the rest is ``deep`` also what code means. The guest must not be executing. What it can observe stays the same.
        """

    def close(self) -> None:
        """Release all memory, descriptors and processes now. A second call does nothing."""
