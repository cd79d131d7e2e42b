"""Machines in one process: their memory, the start of a clone, and what scheduling costs."""

from __future__ import annotations

from figure import Figure, timed
from host_memory import private_dirty_kb

from dbt.host.console import CaptureConsole
from dbt.hypervisor import Clock, Domain, Host
from vms_bench.setup import (
    BARE_METAL_MB,
    LINUX_MB,
    START_MS,
    LinuxBoot,
    Setup,
    cpu_s,
    run_to_prompt,
    spinner,
    ticker,
)

_STARTS = 50
_OVERHEAD_PERCENT = 2.0
_ROUNDS = 15
_WARM_UP, _INSTRUCTIONS = 300_000_000, 1_000_000_000


def bare_metal(setup: Setup) -> list[Figure]:
    """Return the memory of a domain without an operating system, of which there are many in a process."""
    with Host(2, Clock.REAL) as host:
        host.define("first", ticker()).start()
        host.run(timeout=1.0)
        before = private_dirty_kb()
        for number in range(setup.bare_metal):
            host.define(f"domain {number}", ticker()).start()
        host.run(timeout=10.0)
        each = (private_dirty_kb() - before) / 1024 / setup.bare_metal
    return [Figure(f"{setup.bare_metal} bare-metal domains, each", [each], "MB", BARE_METAL_MB)]


def linux(setup: Setup) -> list[Figure]:
    """Return the memory of a clone that is a Linux at its prompt, and the time to a clone's first instruction."""
    assert setup.images is not None
    with Host(2, Clock.REAL) as host:
        template = host.define("template", LinuxBoot(setup.images))
        template.start()
        run_to_prompt(host, template)
        starts = timed(lambda: _first_instruction(host, template), _STARTS)
        before = private_dirty_kb()
        for number in range(setup.linux):
            template.clone(f"clone {number}").resume()
        host.run(timeout=setup.idle_s)
        each = (private_dirty_kb() - before) / 1024 / setup.linux
    return [
        Figure(f"{setup.linux} Linux clones after {setup.idle_s:.0f} s, each", [each], "MB", LINUX_MB),
        Figure("a Linux clone, its first instruction, and its end", starts, "ms", START_MS),
    ]


def _first_instruction(host: Host, template: Domain) -> None:
    """Make a clone, and let it execute one instruction, for which its time jumps to the end of its wait."""
    clone = template.clone("to start")
    clone.machine.run(fuel=1)
    host.undefine(clone.name, destroy=True)


def overhead(_: Setup) -> list[Figure]:
    """Return how much more CPU time a guest that computes takes in turns than in one run, in turn with that."""
    found: list[float] = []
    with Host(1, Clock.FREE) as host, spinner()(CaptureConsole()) as alone:
        domain = host.define("spinner", spinner())
        domain.start()
        periods = _INSTRUCTIONS // host.period_units
        host.run(periods=_WARM_UP // host.period_units)
        alone.run(fuel=_WARM_UP)
        while len(found) < _ROUNDS:
            began = cpu_s()
            alone.run(fuel=periods * host.period_units)
            between = cpu_s()
            host.run(periods=periods)
            found.append(100 * ((cpu_s() - between) / (between - began) - 1))
    return [Figure("scheduling, of the CPU time of a guest that computes", found, "%", _OVERHEAD_PERCENT)]
