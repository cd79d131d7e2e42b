"""The counts of the region tier, for ``--stats`` and for translation traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gpa
from dbt.abi.layout import BlockCounters, SideExit

if TYPE_CHECKING:
    from dbt.backend.dump import DumpCounts
    from dbt.codecache.region_store import StoreCounts


class RegionCounts:
    """The counts of the regions of one machine, at first zero.

    ``compiled`` and ``loaded`` count what was installed, ``insns`` and ``code_bytes`` its size.

    ``outdated`` counts regions that were compiled, but not for what the guest's memory holds now. ``refused`` counts
    requests of which nothing could be compiled, or over which the compiler was lost; ``cold`` those that were not given
    to the compiler, because the code had not been hot lately. Of those dropped, ``code_writes`` and ``literal_writes``
    were because what they were made from was written over. ``pages_given_up`` counts code pages that became data.
    ``seconds`` were waited for the compiler, if in line.
    ``earlier`` counts regions that were installed because an earlier run had left the request for them.
    """

    compiled: int = 0
    loaded: int = 0
    refused: int = 0
    outdated: int = 0
    cold: int = 0
    dropped: int = 0
    code_writes: int = 0
    literal_writes: int = 0
    pages_given_up: int = 0
    insns: int = 0
    code_bytes: int = 0
    seconds: float = 0.0
    earlier: int = 0

    def clear(self) -> None:
        """Set all counts to zero."""
        self.__dict__.clear()


class WorkerCounts:
    """The requests of one machine to the compiler. ``pending`` requests are not answered yet.

    ``lost`` requests killed or hung the compiler's process; ``restarts`` counts how often this machine had to begin
    anew with another one. ``seconds`` were spent on all requests that were answered, ``longest`` on one of them.
    """

    requests: int = 0
    pending: int = 0
    restarts: int = 0
    lost: int = 0
    seconds: float = 0.0
    longest: float = 0.0

    def __init__(self, requests: int = 0) -> None:
        self.requests = requests


class RegionActivity(NamedTuple):
    """The activity of a tier about regions.

    ``waiting`` regions were asked for, and the compiler has not been given them. ``left`` requests of earlier runs are
    still to be done. ``side_exits`` says how often control left a region, by reason. ``store`` and ``dump`` are None
    where regions are not kept, or not dumped. ``block_counts`` returns what
    regions have counted by address, if blocks are counted.
    """

    counts: RegionCounts
    worker: WorkerCounts
    waiting: int
    left: int
    side_exits: Mapping[SideExit, int]
    store: StoreCounts | None
    dump: DumpCounts | None
    block_counts: Callable[[], Mapping[BlockCounters, Mapping[Gpa, int]]] | None
