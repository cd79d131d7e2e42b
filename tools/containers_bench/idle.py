"""What an idle container takes of the host's memory."""

from __future__ import annotations

import time
from typing import Final

from figure import Figure
from host_memory import private_dirty_kb

from containers_bench.engine import Engine, Setup, our_engine, processes_from

_CONTAINERS: Final = 50
#: With fewer than two, what all share is one process's alone.
_BEFORE: Final = 3
_IDLE_S: Final = 60.0
_LIMIT_MB: Final = 10.0


def measure(setup: Setup) -> list[Figure]:
    """Return the memory that each of 50 idle containers has for itself, by all processes of the engine. What all
    share is not in it, nor what there is beside them: others are idle before, and it is what more of them take.
    """
    with our_engine(setup.folder / "idle") as engine:
        engine.import_busybox(setup.images, "armel")
        _start(engine, range(_BEFORE))
        time.sleep(_IDLE_S)
        before = _private_mb(engine.pid)
        _start(engine, range(_BEFORE, _BEFORE + _CONTAINERS))
        time.sleep(_IDLE_S)
        each = (_private_mb(engine.pid) - before) / _CONTAINERS
        engine.docker("rm", "-f", *map(_name, range(_BEFORE + _CONTAINERS)))
    row = f"{_CONTAINERS} idle containers after {_IDLE_S:.0f} s, each, beside {_BEFORE} others"
    return [Figure(row, [each], "MB", _LIMIT_MB)]


def _start(engine: Engine, numbers: range) -> None:
    for number in numbers:
        engine.docker("run", "-d", "--name", _name(number), "busybox", "sleep", "10000")


def _name(number: int) -> str:
    return f"idle{number}"


def _private_mb(root: int) -> float:
    """Return what a process and all below it have for themselves (Private_Dirty of proc(5)), in MiB."""
    return sum(map(_private_dirty_kb, processes_from(root))) / 1024


def _private_dirty_kb(pid: int) -> int:
    try:
        return private_dirty_kb(pid)
    except OSError:
        return 0  # it has ended meanwhile
