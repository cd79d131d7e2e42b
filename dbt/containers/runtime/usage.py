"""What a container uses, as its guest's kernel says in files. It is hostile: what makes no sense counts as 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dbt.containers.runtime.root_request import CGROUP
from dbt.containers.runtime.spec import NetStats, Stats

_NET_FIELDS: Final = 16
_MOST: Final = (1 << 63) - 1


def usage_files(pid: int) -> tuple[str, ...]:
    """Return the files that :func:`stats_of` reads."""
    names = ("cpu.stat", "memory.current", "memory.max", "memory.stat", "pids.current", "pids.max", "io.stat")
    return (*(f"{CGROUP}/{name}" for name in names), f"/proc/{pid}/net/dev", "/proc/meminfo")


def stats_of(files: Sequence[bytes | None], cpu_ns: int, now_ns: int) -> Stats:
    """Return what the :func:`usage_files` say. ``cpu_ns`` is the CPU time of the host that the machine has taken, and
    ``now_ns`` the time of a core of it: the guest does not notice when its machine stands still for its limit.
    """
    texts = [(content or b"").decode("ascii", "replace") for content in files]
    cpu, memory, memory_max, memory_stat, pids, pids_max, io, net, meminfo = texts
    cpu_table, io_table = _table(cpu), _io(io)
    user, kernel = cpu_table.get("user_usec", 0), cpu_table.get("system_usec", 0)
    kernel_ns = cpu_ns * kernel // max(user + kernel, 1)
    total = next((_number(line.split()[1]) << 10 for line in meminfo.splitlines()[:1] if len(line.split()) > 1), 0)
    limit = _limit(memory_max)
    return Stats(
        cpu_ns=cpu_ns,
        cpu_user_ns=cpu_ns - kernel_ns,
        cpu_system_ns=kernel_ns,
        system_ns=now_ns,
        memory=_number(memory),
        memory_limit=total if limit is None else limit,
        memory_stat=_table(memory_stat),
        pids=_number(pids),
        pids_limit=_limit(pids_max),
        block_read=io_table.get("rbytes", 0),
        block_written=io_table.get("wbytes", 0),
        block_reads=io_table.get("rios", 0),
        block_writes=io_table.get("wios", 0),
        nets=dict(_nets(net)),
    )


def _number(text: str) -> int:
    text = text.strip()
    return min(int(text), _MOST) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _limit(text: str) -> int | None:
    return None if text.strip() == "max" else _number(text)


def _table(text: str) -> dict[str, int]:
    """Return lines "name number" as a mapping."""
    lines = [line.split() for line in text.splitlines()]
    return {line[0]: _number(line[1]) for line in lines if len(line) == 2}


def _io(text: str) -> Mapping[str, int]:
    """Return the sums over all devices of lines "254:0 rbytes=1 wbytes=2"."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        for field in line.split()[1:]:
            name, _, value = field.partition("=")
            found[name] = found.get(name, 0) + _number(value)
    return found


def _nets(text: str) -> list[tuple[str, NetStats]]:
    found = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = [_number(field) for field in rest.split()]
        if len(numbers) == _NET_FIELDS and name.strip().startswith("eth"):
            found.append((name.strip(), NetStats(*numbers[:4], *numbers[8:12])))
    return found
