"""Machines in processes of their own, as the daemon has them: their memory, and the start of a clone."""

from __future__ import annotations

import statistics
import time

from figure import Figure, timed
from host_memory import private_dirty_kb

from dbt.hypervisor import Clock, Domain, Host, ProcessCarrier
from vms_bench.setup import (
    BARE_METAL_PROCESS_MB,
    LINUX_PROCESS_MB,
    START_MS,
    LinuxBoot,
    Setup,
    cpu_s,
    pid_of,
    run_to_prompt,
    sleeper,
)

_STARTS = 20


def bare_metal(setup: Setup) -> list[Figure]:
    """Return the memory of a machine without an operating system that is a process, and waits for ever."""
    with ProcessCarrier(modules=("vms_bench.setup",)) as carrier, Host(2, Clock.REAL, carrier=carrier) as host:
        domains = [host.define(f"domain {number}", sleeper()) for number in range(setup.processes)]
        for domain in domains:
            domain.start()
        host.run(timeout=setup.idle_s)
        each = [private_dirty_kb(pid_of(domain)) / 1024 for domain in domains]
    return [Figure(f"{setup.processes} bare-metal processes, each", each, "MB", BARE_METAL_PROCESS_MB)]


def linux(setup: Setup) -> list[Figure]:
    """Return the memory of clones of a Linux, its CPU time while it waits, and how long the start of a clone takes."""
    assert setup.images is not None
    with ProcessCarrier(modules=("vms_bench.setup",)) as carrier, Host(2, Clock.REAL, carrier=carrier) as host:
        template = host.define("template", LinuxBoot(setup.images))
        template.start()
        run_to_prompt(host, template)
        starts = timed(lambda: _first_turn(host, template), _STARTS)
        clones = [template.clone(f"clone {number}") for number in range(setup.linux)]
        for clone in clones:
            clone.resume()
        host.run(timeout=setup.idle_s / 2)
        before, began = _cpu_of(clones), time.monotonic()
        host.run(timeout=setup.idle_s / 2)
        percent = 100 * (_cpu_of(clones) - before) / (time.monotonic() - began)
        each = [private_dirty_kb(pid_of(clone)) / 1024 for clone in clones]
    mean = statistics.mean(each)
    return [
        Figure(f"{setup.linux} Linux processes after {setup.idle_s:.0f} s, each", [mean], "MB", LINUX_PROCESS_MB),
        Figure(f"{setup.linux} Linux processes that wait, all together, of a core", [percent], "%"),
        Figure("a Linux process that is cloned, its first turn, and its end", starts, "ms", START_MS),
    ]


def _cpu_of(domains: list[Domain]) -> float:
    return cpu_s() + sum(cpu_s(pid_of(domain)) for domain in domains)


def _first_turn(host: Host, template: Domain) -> None:
    """Make a clone, and let it execute one instruction."""
    clone = template.clone("to start")
    clone.execute(1)
    host.undefine(clone.name, destroy=True)
