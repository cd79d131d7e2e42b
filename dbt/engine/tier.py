"""The contract between the run loop and whatever executes guest code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from dbt.abi.exits import VmExit

#: How the region tier compiles: beside the guest, in line, or not at all.
JitMode = Literal["async", "sync", "off"]


#: How many instructions a slice may still retire; None if no fewer than it was to.
Allowance = Callable[[], int | None]


def unlimited() -> int | None:
    """Nothing that a device does makes a slice shorter."""
    return None


class Tier(Protocol):
    """Executes guest instructions from ``cpu.r[15]`` on.

    ``run(budget)`` returns why it stopped and how many instructions it retired. It stops with
    Budget after exactly ``budget`` instructions, or before: if Python had to answer so much on the way
    that the slice would become long, if an interrupt is to be taken, or if the ``allowance`` that the tier was made
    with, asked after each access to a device, says so: how many instructions may still be retired, that of the access
    included, if these have become fewer. Or it stops with another exit, whose instruction is not retired.
    ``cpu.r[15]`` is then the address of that instruction (of the next one for Budget).

    Sensitive instructions and device accesses are answered inside; every tier leaves with the same exits.
    Where ``cpu``'s ``native_exceptions`` is set, a tier may also take exceptions inside.

    ``progress``, while it runs: the instructions retired so far, for devices that tell the time. If an exception
    comes out of ``run``, it still says how many those were.

    ``retired`` says how many of the instructions that ``run`` retired were executed by which means:
    "region", "threaded" or "reference". ``callouts``: how many were made, by name; ``callout_places``: how often
    instructions that make them were executed, by GPA, of the code that is there now. ``reset_counts`` sets these
    and whatever else it counts to zero.

    ``close`` gives back every process, file descriptor and mapping of the tier at once; nothing else may be called
    then. A second call does nothing.

    ``call_routine`` makes one of :data:`isa.arm.recorder.ROUTINES` on the state.
    """

    name: str

    def run(self, budget: int) -> tuple[VmExit, int]: ...

    @property
    def progress(self) -> int: ...

    @property
    def retired(self) -> dict[str, int]: ...

    @property
    def callouts(self) -> Mapping[str, int]: ...

    @property
    def callout_places(self) -> Mapping[int, int]: ...

    def reset_counts(self) -> None: ...

    def call_routine(self, name: str, *arguments: int) -> int | None: ...

    def close(self) -> None: ...
