"""The contract between the run loop and whatever executes guest code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

from dbt.abi.addresses import Gpa, Gva, Hva
from dbt.abi.exits import VmExit

if TYPE_CHECKING:
    from dbt.engine.region_counts import RegionActivity
    from dbt.engine.shadow_tables import ShadowPage

#: How the region tier compiles: beside the guest, in line, or not at all.
JitMode = Literal["async", "sync", "off"]

#: Is asked after each access to a device how many instructions may still be retired in the slice, that of the access
#: included, if these have become fewer; None if they have not.
Allowance = Callable[[], int | None]


def unlimited() -> None:
    """An :data:`Allowance` that never ends a slice."""


class Tier(Protocol):
    """Executes guest instructions from ``cpu.r[15]`` on.

    A tier is made with an :data:`Allowance`. Sensitive instructions and device accesses are answered inside; every tier
    leaves with the same exits. Where ``cpu``'s ``native_exceptions`` is set, a tier may also take exceptions inside.
    """

    name: str

    def run(self, budget: int) -> tuple[VmExit, int]:
        """Execute, and return why it stopped and how many instructions it retired.

        It stops with Budget after exactly ``budget`` instructions, or before: if Python had to answer so much on the
        way that the slice would become long, if an interrupt is to be taken, or if the allowance says so. Or it stops
        with another exit, whose instruction is not retired. ``cpu.r[15]`` is then the address of that instruction (of
        the next one for Budget). Raises RuntimeError after :meth:`close`.
        """

    @property
    def progress(self) -> int:
        """The instructions retired so far by :meth:`run`, while it runs, for devices that tell the time.

        If an exception comes out of ``run``, it still says how many those were.
        """

    @property
    def retired(self) -> dict[str, int]:
        """How many of the instructions that were retired were executed by "region", "threaded" or "reference"."""

    @property
    def callouts(self) -> Mapping[str, int]:
        """How many callouts were made, by name."""

    @property
    def callout_places(self) -> Mapping[Gpa, int]:
        """How often instructions that make callouts were executed, by GPA, of the code that is there now."""

    @property
    def regions(self) -> RegionActivity | None:
        """What was done about regions; None where none are made."""

    def reset_counts(self) -> None:
        """Set these and whatever else is counted to zero."""

    def native_symbols(self) -> Iterator[tuple[Hva, int, str]]:
        """Address, size in bytes and name of each native function that does not come from the guest's code."""

    def is_decoded(self, gpa: Gpa) -> bool:
        """Whether a word of a page that has code is known to have been executed since it was written."""

    def branch_targets(self) -> Iterator[tuple[Gpa, Gva]]:
        """The GPA of an indirect branch and the GVA that it went to, for some of those that were made.

        Of a branch in a region only those are noted that left it.
        """

    def shadow_pages(self) -> Iterator[tuple[int, Iterator[ShadowPage]]]:
        """The number of each address space, and the pages that its shadow page tables have."""

    def call_routine(self, name: str, *arguments: int) -> int | None:
        """Make one of the routines of the architecture on the state, and return its result if it has one."""

    def close(self) -> None:
        """Give back all memory, descriptors and processes now. To close again is nothing."""
