"""How exactly limits hold: half of what a processor gives, and a megabit each second."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from figure import Figure

from containers_bench.engine import Engine, Setup, our_engine, processes_from

#: A part of a processor; how long a container with it computes before its code is compiled, and then is measured.
_PART: Final = 0.5
_SETTLING_S, _MEASURED_S = 5.0, 20.0
#: Bytes that go through a network, and their rate.
_LESS_BYTES, _MORE_BYTES = 300_000, 2_000_000
_RATE: Final = 1_000_000
_HEADERS: Final = 1.0 + 66 / 1448  # Ethernet, IP, and TCP with timestamps, beside each full segment
_LIMIT_PERCENT: Final = 1.0


def measure(setup: Setup) -> list[Figure]:
    """Return how far limits are missed, in percent."""
    with our_engine(setup.folder / "limits") as engine:
        engine.import_busybox(setup.images, "armel")
        return [_half_a_processor(engine), _a_megabit(engine)]


def _seconds(engine: Engine, *arguments: str) -> float:
    """Return what ``date`` of a container says before and after some work, by the container's clock."""
    *options, work = arguments
    script = f"read a _ < /proc/uptime; {work} > /dev/null; read b _ < /proc/uptime; echo $a $b"
    begun, ended = engine.docker("run", "--rm", *options, "busybox", "sh", "-c", script).split()
    return float(ended) - float(begun)


def _half_a_processor(engine: Engine) -> Figure:
    """Ask the host what a container takes that computes all the time."""
    engine.docker("run", "-d", "--cpus", str(_PART), "--name", "limited", "busybox", "md5sum", "/dev/zero")
    time.sleep(_SETTLING_S)
    before, begun = _processor_ns(engine), time.monotonic_ns()
    time.sleep(_MEASURED_S)
    after, ended = _processor_ns(engine), time.monotonic_ns()
    engine.docker("rm", "-f", "limited")
    most = max(after[pid] - before.get(pid, 0) for pid in after)  # what the machine's process has used
    off = abs(most / (ended - begun) / _PART - 1.0) * 100
    return Figure(f"--cpus {_PART}: processor time, off by", [off], "%", _LIMIT_PERCENT)


def _processor_ns(engine: Engine) -> dict[int, int]:
    """Return the processor time of the engine's processes, in nanoseconds (/proc/PID/schedstat)."""
    found = {}
    for pid in processes_from(engine.pid):
        try:
            threads = list(Path(f"/proc/{pid}/task").iterdir())
            found[pid] = sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
        except OSError:
            continue  # it has ended meanwhile
    return found


def _a_megabit(engine: Engine) -> Figure:
    engine.docker("network", "create", "measured")
    serve = f"mkdir /w; for n in {_LESS_BYTES} {_MORE_BYTES}; do head -c $n /dev/zero > /w/$n; done; httpd -f -h /w"
    engine.docker("run", "-d", "--network", "measured", "--name", "server", "busybox", "sh", "-c", serve)
    waits = f"until wget -q -O - http://server/{_MORE_BYTES} > /dev/null 2>&1; do sleep 0.1; done"
    engine.docker("run", "--rm", "--network", "measured", "busybox", "sh", "-c", waits)
    limited = ("--network", "measured", "--label", "dbt.net.rate=1mbit")
    less, more = (
        _seconds(engine, *limited, f"wget -q -O - http://server/{size}") for size in (_LESS_BYTES, _MORE_BYTES)
    )
    engine.docker("rm", "-f", "server")
    engine.docker("network", "rm", "measured")
    rate = (_MORE_BYTES - _LESS_BYTES) * 8 * _HEADERS / (more - less)
    return Figure("a network of 1 Mbit/s, off by", [abs(rate / _RATE - 1.0) * 100], "%", _LIMIT_PERCENT)
