"""What an idle container takes of the host's memory."""

from __future__ import annotations

import time
from typing import Final

from figure import Figure
from host_memory import private_dirty_kb

from containers_bench.engine import Setup, our_engine, processes_from

_CONTAINERS: Final = 50
_IDLE_S: Final = 60.0
_LIMIT_MB: Final = 10.0


def measure(setup: Setup) -> list[Figure]:
    """Return the memory that one of 50 idle containers has for itself, by all processes of the engine."""
    with our_engine(setup.folder / "idle") as engine:
        engine.import_busybox(setup.images, "armel")
        engine.docker("run", "--rm", "busybox", "true")
        before = _private_mb(engine.pid)
        for number in range(_CONTAINERS):
            engine.docker("run", "-d", "--name", f"idle{number}", "busybox", "sleep", "10000")
        time.sleep(_IDLE_S)
        each = (_private_mb(engine.pid) - before) / _CONTAINERS
        engine.docker("rm", "-f", *(f"idle{number}" for number in range(_CONTAINERS)))
    return [Figure(f"{_CONTAINERS} idle containers after {_IDLE_S:.0f} s, each", [each], "MB", _LIMIT_MB)]


def _private_mb(root: int) -> float:
    """Return what a process and all below it have for themselves (Private_Dirty of proc(5)), in MiB."""
    return sum(map(_private_dirty_kb, processes_from(root))) / 1024


def _private_dirty_kb(pid: int) -> int:
    try:
        return private_dirty_kb(pid)
    except OSError:
        return 0  # it has ended meanwhile
