"""How exactly limits hold: half of what a processor gives, and a megabit each second."""

from __future__ import annotations

from functools import partial
from typing import Final

from figure import Figure, timed

from containers_bench.engine import Engine, Setup, our_engine

#: Megabytes whose checksum is computed; bytes that go through a network, and their rate.
_LESS_MB, _MORE_MB = 20, 170
_LESS_BYTES, _MORE_BYTES = 300_000, 800_000
_RATE: Final = 1_000_000
_HEADERS: Final = 1.0 + 54 / 1460  # Ethernet, IP and TCP beside each full segment
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
    """Compare by the host's clock: a container that only computes is ahead of it."""
    whole, half = (_compute(engine, cpus) for cpus in ("0.25", "0.125"))
    name = "time with 1/8 of a processor in place of 1/4, off by"
    return Figure(name, [abs(half / whole - 2.0) * 50], "%", _LIMIT_PERCENT)


def _compute(engine: Engine, cpus: str) -> float:
    """Return the milliseconds that the checksum of some megabytes takes longer than that of fewer."""
    times = []
    for megabytes in (_LESS_MB, _LESS_MB, _MORE_MB):  # the first one has its code compiled
        work = f"dd if=/dev/zero bs=1M count={megabytes} 2>/dev/null | md5sum"
        times += timed(partial(engine.docker, "run", "--rm", "--cpus", cpus, "busybox", "sh", "-c", work), 1, skipped=0)
    return times[2] - times[1]


def _a_megabit(engine: Engine) -> Figure:
    engine.docker("network", "create", "measured")
    serve = f"mkdir /w; for n in {_LESS_BYTES} {_MORE_BYTES}; do head -c $n /dev/zero > /w/$n; done; httpd -f -h /w"
    engine.docker("run", "-d", "--network", "measured", "--name", "server", "busybox", "sh", "-c", serve)
    limited = ("--network", "measured", "--label", "dbt.net.rate=1mbit")
    less, more = (
        _seconds(engine, *limited, f"wget -q -O - http://server/{size}") for size in (_LESS_BYTES, _MORE_BYTES)
    )
    engine.docker("rm", "-f", "server")
    engine.docker("network", "rm", "measured")
    rate = (_MORE_BYTES - _LESS_BYTES) * 8 * _HEADERS / (more - less)
    return Figure("a network of 1 Mbit/s, off by", [abs(rate / _RATE - 1.0) * 100], "%", _LIMIT_PERCENT)
