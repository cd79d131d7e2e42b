"""Runs of a machine that shares its host with others: within an allowance, and without waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dbt.board.clock import least_nanoseconds

if TYPE_CHECKING:
    from dbt.vm.controlled_machine import ControlledMachine
    from dbt.vm.host_loop import HostLoop, TicksBehind
    from dbt.vm.result import RunResult
    from dbt.vm.run_watcher import RunWatcher


class MeteredRun(NamedTuple):
    """How a run within an allowance ended, and what it has used.

    - ``result``: as of any run. The reason is FUEL if the allowance or the fuel is used up, WAITING if the guest waits.
    - ``retired``: the instructions that have retired.
    - ``charged``: what other events were charged, in instructions (:class:`dbt.vm.meter.Charges`).
    - ``wait_ns``: for how many nanoseconds of its own time the guest waits. It is None if it does not wait, or for
      something from outside.
    """

    result: RunResult
    retired: int
    charged: int
    wait_ns: int | None

    @property
    def used(self) -> int:
        """The instructions retired, and the charges. One event may be charged more than is left of the allowance."""
        return self.retired + self.charged


def run_metered(
    machine: ControlledMachine,
    loop: HostLoop,
    allowance: int,
    watcher: RunWatcher | None,
    ticks_behind: TicksBehind | None,
    fuel: int | None,
) -> MeteredRun:
    """See :meth:`dbt.vm.controlled_machine.ControlledMachine.run_metered`. The calling thread owns the machine."""
    vcpu = machine.vcpu
    began = vcpu.icount
    meter = vcpu.begin_metering(allowance)
    try:
        result = loop.run(
            machine, allowance if fuel is None else min(allowance, fuel), None, None, watcher, ticks_behind
        )
    finally:
        vcpu.end_metering()
    wait = loop.wait_ahead() if vcpu.is_waiting else None
    wait_ns = None if wait is None else least_nanoseconds(wait, machine.timeline.ticks_per_second)
    return MeteredRun(result, vcpu.icount - began, meter.charged(), wait_ns)
