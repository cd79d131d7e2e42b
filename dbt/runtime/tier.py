"""The contract between the run loop and whatever executes guest code."""

from __future__ import annotations

from typing import Protocol

from dbt.runtime.exits import VmExit


class Tier(Protocol):
    """Executes guest instructions from ``cpu.r[15]`` on.

    ``run(budget)`` returns why it stopped and how many instructions it retired. It stops with
    Budget after exactly ``budget`` instructions, or before if Python had to answer so much on the way
    that the slice would become long; or earlier with another exit, whose instruction is not retired.
    ``cpu.r[15]`` is then the address of that instruction (of the next one for Budget).

    Sensitive instructions and device accesses are answered inside; every tier leaves with the same exits.

    ``retired`` says how many of the instructions that ``run`` retired were executed by which means:
    "region", "threaded" or "reference". ``reset_counts`` sets these and whatever else it counts to zero.
    """

    name: str

    def run(self, budget: int) -> tuple[VmExit, int]: ...

    @property
    def retired(self) -> dict[str, int]: ...

    def reset_counts(self) -> None: ...
