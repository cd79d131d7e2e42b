"""Sharing of equal memory between RAMs of one process, at a moment when no guest executes.

RAM is compared in aligned runs of 64 KiB: by a digest first, and then byte by byte. Runs that are equal, and that the
host keeps twice, are mapped privately from one file afterwards. So a later store changes nobody else's RAM, and no RAM
changes by being shared. Each stretch of shared runs is a mapping of the host's, of which a process may have a limited
number: those of one RAM, and of all of them together, are bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from dbt.abi.addresses import Gpa
from dbt.memory.contents import own_parts
from dbt.memory.ram import SHARED_RUN, Pool, Ram

#: Mappings that sharing adds to one RAM at most.
_MOST_STRETCHES: Final = 256
#: The part of the host's limit of mappings for a process (max_map_count) that is left for everything else.
_LEFT: Final = 0.5
_DIGEST: Final = 16
_MAX_MAP_COUNT: Final = Path("/proc/sys/vm/max_map_count")
_ZEROS: Final = bytes(SHARED_RUN)


class SharingReport(NamedTuple):
    """What sharing has done: the ``runs`` that are shared now, the ``saved`` bytes, and the ``stretches`` of runs."""

    runs: int
    saved: int
    stretches: int


class _Run(NamedTuple):
    """A run of a RAM, by the number of the RAM and its GPA."""

    number: int
    gpa: Gpa


def mappings_left() -> int:
    """Return how many mappings sharing may add to this process."""
    try:
        most = int(_MAX_MAP_COUNT.read_text())
        with open("/proc/self/maps", "rb") as maps:
            return max(int(most * _LEFT) - sum(1 for _ in maps), 0)
    except OSError:
        return 0


def share_equal_runs(rams: Sequence[Ram], most: int | None = None) -> SharingReport:
    """Let RAMs share their equal runs. No guest of them executes. ``most`` is the number of mappings to add at most, by
    default what the host leaves. Raise OSError if the host has no room.

    RAM that is kept in a file (:meth:`dbt.memory.ram.Ram.keep_in_file`) has no part in it.
    """
    rams = [ram for ram in rams if ram.home is None]
    groups = _equal_runs(rams)
    pool = Pool(len(groups))
    places: dict[_Run, int] = {}
    for place, group in enumerate(groups):
        pool.write(place, rams[group[0].number].bytes[group[0].gpa : group[0].gpa + SHARED_RUN])
        places.update(dict.fromkeys(group, place))
    left = mappings_left() if most is None else most
    runs = stretches = 0
    for number, ram in enumerate(rams):
        mine = sorted((run.gpa, place) for run, place in places.items() if run.number == number)
        # A mapping in the middle of another one makes three of it.
        for gpa, place, count in _longest(_stretches(mine), min(_MOST_STRETCHES, left // 2)):
            ram.map_pool(gpa, pool, place, count)
            runs, stretches, left = runs + count, stretches + 1, left - 2
    return SharingReport(runs, max(runs - len(groups), 0) * SHARED_RUN, stretches)


def _equal_runs(rams: Sequence[Ram]) -> list[list[_Run]]:
    """Return the groups of equal runs that the host keeps more than once, in the order of their first runs."""
    found: dict[bytes, list[list[_Run]]] = {}
    for number, ram in enumerate(rams):
        for gpa in _own_runs(ram):
            data = ram.bytes[gpa : gpa + SHARED_RUN]
            if data == _ZEROS:
                continue
            alike = found.setdefault(blake2b(data, digest_size=_DIGEST).digest(), [])
            for group in alike:
                first = group[0]
                if rams[first.number].bytes[first.gpa : first.gpa + SHARED_RUN] == data:
                    group.append(_Run(number, gpa))
                    break
            else:
                alike.append([_Run(number, gpa)])
    return sorted(group for alike in found.values() for group in alike if len(group) > 1)


def _own_runs(ram: Ram) -> Iterable[Gpa]:
    """Return the GPAs of the runs within one region of RAM of which the host keeps something for this RAM alone."""
    runs: set[int] = set()
    for start, size in own_parts(ram):
        runs.update(range(start // SHARED_RUN * SHARED_RUN, start + size, SHARED_RUN))
    return sorted(
        Gpa(gpa)
        for gpa in runs
        if any(region.base <= gpa and gpa + SHARED_RUN <= region.end for region in ram.layout.regions)
    )


def _stretches(runs: Sequence[tuple[Gpa, int]]) -> list[tuple[Gpa, int, int]]:
    """Return GPA, place in the pool and number of the runs that follow each other in both."""
    found: list[tuple[Gpa, int, int]] = []
    for gpa, place in runs:
        if found:
            first, first_place, count = found[-1]
            if (gpa, place) == (first + count * SHARED_RUN, first_place + count):
                found[-1] = first, first_place, count + 1
                continue
        found.append((gpa, place, 1))
    return found


def _longest(stretches: Sequence[tuple[Gpa, int, int]], most: int) -> list[tuple[Gpa, int, int]]:
    return sorted(stretches, key=lambda one: -one[2])[:most]
