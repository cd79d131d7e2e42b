"""Programs in several small machines side by side: whatever executes them, they have one history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from tests.assembler import assemble
from tests.oracle.programs.machines import ENTRY, KINDS, SmallMachine, SoonHotTier
from tests.oracle.programs.random_programs import ProgramWriter

#: How many times the machines are compared in one random program.
STEPS = 150


class ProgramMismatch(AssertionError):
    """Two machines that ran the same instructions have different states. The message shows the state of each."""


def same_state(machines: Iterable[SmallMachine]) -> bool:
    """Return True if all machines show the guest the same state, and have had the same exits and device accesses."""
    first, *others = machines
    return all(machine.agrees(first) for machine in others)


def require_same_state(machines: Sequence[SmallMachine], when: str = "") -> None:
    """Raise ProgramMismatch, which begins with ``when``, unless all machines have the same state."""
    if not same_state(machines):
        raise ProgramMismatch("\n".join([when, *(machine.describe() for machine in machines)]))


def advance_side_by_side(machines: Sequence[SmallMachine], counts: Iterable[int], when: str = "") -> None:
    """Let machines execute one count of instructions after the other, and compare them after each.

    Stops when the program has ended. Raises ProgramMismatch, which begins with ``when``.
    """
    for count in counts:
        for machine in machines:
            machine.advance(count)
        require_same_state(machines, f"{when}after {machines[0].icount} instructions")
        if machines[0].ended:
            break


def run_side_by_side(source: str, kinds: Iterable[str], counts: Iterable[int]) -> list[SmallMachine]:
    """Run assembly text in one machine of each kind, and compare them after each count of instructions.

    Stops when the program has ended, and returns the machines, whose tiers are still open. Raises ProgramMismatch.
    """
    machines = [SmallMachine(kind, assemble(source, ENTRY)) for kind in kinds]
    advance_side_by_side(machines, counts)
    return machines


def compare_random_program(seed: int, kinds: Iterable[str] = KINDS, end: int = STEPS) -> dict[str, int]:
    """Run the random program of ``seed`` in machines of several kinds, at most ``end`` steps.

    In each step all run as many instructions, but each in slices of its own. Returns how many regions each kind
    compiled. Raises ProgramMismatch after the first step in which they differ.
    """
    code = assemble(ProgramWriter(seed).write(), ENTRY)
    machines = [SmallMachine(kind, code) for kind in kinds]
    cuts = {machine.kind: Random(f"{seed}/{machine.kind}") for machine in machines}
    steps = Random(f"{seed}/steps")
    for step in range(end):
        count = steps.choice((1, 2, 3, 4, 5, 17, 60, 200))
        for machine in machines:
            _advance_in_slices(machine, count, cuts[machine.kind])
            if isinstance(machine.tier, SoonHotTier) and step % 5 == 0:
                machine.tier.settle()
        require_same_state(machines, f"seed {seed}: after step {step} of {count} instructions")
        if machines[0].ended:
            break
    compiled = {m.kind: m.tier.regions.counts.compiled for m in machines if m.tier.regions is not None}
    for machine in machines:
        machine.close()
    return compiled


def _advance_in_slices(machine: SmallMachine, count: int, random: Random) -> None:
    while count:
        part = min(count, random.choice((1, 2, 3, 5, 50, 1000)))
        machine.advance(part)
        count -= part
