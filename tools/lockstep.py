"""A program that runs a guest in two tiers side by side and finds the first instruction after which they differ.

    python tools/lockstep.py IMAGE [--base N] [--first threaded] [--second auto:sync] [--step N] [--fuel N] [-- ARGS]

A tier is reference, threaded, or auto with :off, :sync or :async behind it. States are compared every STEP
instructions. If they differ, both runs are repeated up to the last agreement, and the distance from there is halved.

To a region tier, a run in two pieces is not the same as a run in one, because a region executes only what its budget
lasts for. Therefore each probe is cut in the same places as the first run, except for the last, and regions are made
anew of blocks of one instruction. If that makes the difference go away, the result is the last instruction before the
region checks its budget again.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice

from dbt import Machine
from dbt.debug.divergence import At, advance, changed_words, describe_first, first_different, same_state
from dbt.engine.tier import JitMode
from dbt.frontend.optimizations import ALL, STEPWISE, Optimizations
from dbt.host.console import CaptureConsole
from dbt.vm.machine import JIT_MODES, TIERS, TierName
from dbt.vm.result import StopReason

RAM = 32 << 20
_TIERS: dict[str, TierName] = {name: name for name in TIERS}
_JIT_MODES: dict[str, JitMode] = {name: name for name in JIT_MODES}


class Side:
    """One tier, started again for each probe."""

    def __init__(self, options: argparse.Namespace, tier: str, optimizations: Optimizations = ALL) -> None:
        self.label = tier
        self._options = options
        self._optimizations = optimizations
        name, _, jit = tier.partition(":")
        self._tier, self._jit = _TIERS[name], _JIT_MODES[jit or "sync"]

    def start(self) -> Machine:
        self.console = CaptureConsole()
        machine = Machine(RAM, tier=self._tier, jit=self._jit, console=self.console, optimizations=self._optimizations)
        machine.load(self._options.image, base=self._options.base, args=self._options.args)
        return machine

    def at(self, icount: int) -> Machine:
        """Return a machine that has run ``icount`` instructions, in the same steps as the first run."""
        return advance(self.start(), icount, self._options.step)


def describe(label: str, machine: Machine) -> str:
    words = [f"{name:>4} {value:08x}" for name, value in machine.cpu.describe()]
    lines = ["  ".join(words[n : n + 6]) for n in range(0, len(words), 6)]
    return f"{label}, after {machine.icount} instructions:\n  " + "\n  ".join(lines)


def at_both(sides: list[Side]) -> At:
    return lambda icount: (sides[0].at(icount), sides[1].at(icount))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image")
    parser.add_argument("args", nargs="*")
    parser.add_argument("--base", type=lambda text: int(text, 0))
    parser.add_argument("--first", default="threaded")
    parser.add_argument("--second", default="auto:sync")
    parser.add_argument("--step", type=int, default=100_000)
    parser.add_argument("--fuel", type=int, default=1 << 60)
    options = parser.parse_args(arguments)
    sides = [Side(options, options.first), Side(options, options.second)]
    machines = sides[0].start(), sides[1].start()
    agreed = 0
    while agreed < options.fuel:
        results = [machine.run(fuel=options.step) for machine in machines]
        if not same_state(machines):
            break
        agreed = machines[0].icount
        if results[0].reason is not StopReason.FUEL:
            print(f"no difference in {agreed} instructions; {results[0].message}")
            return 0
    else:
        print(f"no difference in {agreed} instructions")
        return 0
    low, high = agreed, agreed + options.step  # they agree at low and differ at high
    finer = [Side(options, side.label, Optimizations.without(*STEPWISE)) for side in sides]
    exact = not same_state(at_both(finer)(high))
    if exact:
        sides, low = finer, low if same_state(at_both(finer)(low)) else 0
    insn = first_different(at_both(sides), low, high)
    before, after = sides[0].at(insn - 1), at_both(sides)(insn)
    print(describe_first(insn, before, exact))
    print(describe("both", before))
    for side, machine in zip(sides, after, strict=True):
        print(describe(side.label, machine))
    for gpa, first, second in islice(changed_words(after), 16):
        print(f"  [{gpa:#010x}] {first:08x} {second:08x}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
