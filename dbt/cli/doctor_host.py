"""What ``dbt doctor`` says of the host's parts that many machines need. Nothing here has to be there.

Each check returns the parts of its line: what there is, and for each thing that is missing what follows.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

_TUN: Final = "/dev/net/tun"
#: Files that a host of machines has open for each machine that is a process, with its disk and a card.
_FILES_OF_ONE: Final = 4
#: What this host should be able to have open.
_ENOUGH_FILES: Final = 4096
#: The most mappings of memory that Linux lets a process have by itself.
_ENOUGH_MAPPINGS: Final = 65530


class Found(NamedTuple):
    """What a check has found: what there is, and what is missing, with what follows."""

    there: str
    missing: list[str]


def checks() -> Iterator[tuple[str, Callable[[], Found]]]:
    """Yield the name and the function of each check."""
    yield "jail", _jail
    yield "open files", _open_files
    yield "memory", _memory
    yield "network", _network


def _jail() -> Found:
    """Return which measures the host gives for the processes of machines."""
    from dbt.hypervisor.jail.landlock import version
    from dbt.hypervisor.jail.measures import MEASURES, try_measures

    refused = try_measures()
    given = [measure.name for measure in MEASURES if measure.name not in refused]
    if "Landlock" in given:
        given[given.index("Landlock")] = f"Landlock {version()}"
    missing = [f"{one.name} ({refused[one.name]}): {one.without}" for one in MEASURES if one.name in refused]
    if missing:
        missing.append("--jail strict refuses to start a machine here")
    return Found(", ".join(given) or "nothing", missing)


def _open_files() -> Found:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard if soft == resource.RLIM_INFINITY else soft
    if limit == resource.RLIM_INFINITY:
        return Found("any number", [])
    few = f"some {limit // _FILES_OF_ONE} machines at once; ulimit -n {hard} allows more" if soft != hard else ""
    return Found(f"{soft} of at most {hard}", [few] if few and limit < _ENOUGH_FILES else [])


def _memory() -> Found:
    found = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(found["MemAvailable"].split()[0]) >> 10
    missing = []
    if _number("/proc/sys/vm/overcommit_memory") == 2:
        missing.append(
            "memory is counted when it is reserved (vm.overcommit_memory=2), and machines reserve more than they use: "
            "they may not start"
        )
    mappings = _number("/proc/sys/vm/max_map_count")
    if mappings < _ENOUGH_MAPPINGS:
        missing.append(f"a process has at most {mappings} mappings (vm.max_map_count): machines share less memory")
    limit = _limit_of_group()
    there = f"{available} MiB available" + (f", {limit >> 20} MiB for the control group" if limit else "")
    return Found(there, missing)


def _limit_of_group() -> int:
    """Return how many bytes the control group of this process may have (cgroup v2), or 0 if nobody says."""
    try:
        group = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
        text = Path("/sys/fs/cgroup", group, "memory.max").read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _number(path: str) -> int:
    return int(Path(path).read_text())


def _network() -> Found:
    there, missing = [], []
    passt = shutil.which("passt")
    if passt is not None:
        there.append(passt)
    else:
        missing.append("passt: no guest reaches what is outside by --net user, and no port of a container is published")
    if os.access(_TUN, os.R_OK | os.W_OK):
        there.append(_TUN)
    else:
        missing.append(f"{_TUN}: --net tap:NAME cannot be used")
    return Found(", ".join(there) or "hubs and sockets of this host", missing)
