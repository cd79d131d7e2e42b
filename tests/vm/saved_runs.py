"""Saves and forks of a guest at many icounts, each compared with the same guest that nobody has interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dbt import Machine
from dbt.engine.tier import JitMode
from dbt.host.console import CaptureConsole
from dbt.vm.machine import TierName
from dbt.vm.options import HostOptions
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash

#: What executes a guest: the tier, and how hot regions are compiled.
Mode = tuple[TierName, JitMode]
NATIVE: tuple[Mode, ...] = (("threaded", "off"), ("stitched", "off"), ("auto", "sync"), ("auto", "async"))


@dataclass(frozen=True)
class Place:
    """Where a guest is: its state, and whether it has ended."""

    reason: StopReason
    icount: int
    state: str


def go_on(machine: Machine, icount: int) -> Place:
    """Run a guest up to an icount, or to its end if that comes first."""
    result = machine.run(fuel=icount - machine.icount, timeout=600)
    return Place(result.reason, result.icount, state_hash(machine))


def places(machine: Machine, icounts: Iterable[int]) -> dict[int, Place]:
    """Return where a guest is at each of the icounts, and close it."""
    found: dict[int, Place] = {}
    with machine:
        for icount in sorted(set(icounts)):
            ended = next((place for place in found.values() if place.reason is not StopReason.FUEL), None)
            found[icount] = ended or go_on(machine, icount)
    return found


def remaining(machine: Machine) -> CaptureConsole:
    """A console with the input that the machine has not got yet."""
    assert isinstance(machine.console, CaptureConsole)
    return CaptureConsole(machine.console.input)


def check_saves(
    start: Callable[[Mode], Machine],
    saver: Mode,
    icounts: Sequence[int],
    ahead: int,
    modes: Sequence[Mode] = NATIVE,
    host: HostOptions | None = None,
    attach: Callable[[Machine], None] = lambda machine: None,
) -> None:
    """Save a guest at each of the icounts, and let what is restored execute ``ahead`` instructions.

    ``start`` returns a machine at its beginning, and ``saver`` executes the one that is saved. Each restored machine is
    executed by another of the ``modes``. Every second one is a fork, so what is saved goes on from a copy of its RAM.
    ``host`` is what the machine has of the host, such as disks. ``attach`` is called with each machine before it runs.
    """

    def begin(mode: Mode) -> Machine:
        machine = start(mode)
        attach(machine)
        return machine

    expected = places(begin(("threaded", "off")), [at + more for at in icounts for more in (0, ahead)])
    with begin(saver) as machine:
        for number, icount in enumerate(sorted(icounts)):
            tier, jit = modes[number // 2 % len(modes)]
            here = go_on(machine, icount)
            assert here == expected[icount], f"the machine that was saved before differs at {icount}"
            if here.reason is not StopReason.FUEL:
                return
            options: HostOptions = {**(host or {}), "tier": tier, "jit": jit, "console": remaining(machine)}
            if number % 2:
                other = machine.fork(**options)
            else:
                with machine.save() as state:
                    assert state.hash() == here.state
                    other = Machine.restore(state, **options)
            with other:
                attach(other)
                found = go_on(other, icount + ahead)
            assert found == expected[icount + ahead], f"restored at {icount} in {tier} {jit}"
