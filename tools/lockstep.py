"""Runs a guest in two tiers side by side and stops at the first instruction after which they differ.

    python tools/lockstep.py IMAGE [--base N] [--first threaded] [--second auto:sync] [--step N] [--fuel N] [-- ARGS]

A tier is reference, threaded, or auto with :off, :sync or :async behind it. States are compared every
STEP instructions; where they differ, both runs are made again up to the last agreement and halved from
there. A run of two pieces is not the same run as one of one piece to a region tier (a region executes only what its
budget lasts for), so each probe is cut in the same places as the first run, but for the last, and
regions are made anew of blocks of one instruction. Where that makes the difference go away, what is found is the
last instruction before the region looks at its budget again.
"""

from __future__ import annotations

import argparse
import hashlib
import sys

from dbt import Machine
from dbt.frontend.techniques import ALL, STEPWISE, Techniques
from dbt.machine.console import CaptureConsole
from dbt.machine.result import StopReason

RAM = 32 << 20


class Side:
    """One tier, started again for each probe."""

    def __init__(self, options: argparse.Namespace, tier: str, techniques: Techniques = ALL) -> None:
        self.label = tier
        self._options = options
        self._techniques = techniques
        self._tier, _, self._jit = tier.partition(":")

    def start(self) -> Machine:
        self.console = CaptureConsole()
        machine = Machine(
            RAM, tier=self._tier, jit=self._jit or "sync", console=self.console, techniques=self._techniques
        )
        machine.load(self._options.image, base=self._options.base, args=self._options.args)
        return machine

    def at(self, icount: int) -> Machine:
        """A machine that has run so many instructions, in steps as the first run."""
        machine = self.start()
        while machine.icount < icount:
            result = machine.run(fuel=min(self._options.step, icount - machine.icount))
            if result.reason is not StopReason.FUEL:
                break
        return machine


def digest(machine: Machine) -> bytes:
    state = machine.icount.to_bytes(8, "little") + machine.cpu.snapshot()
    return hashlib.sha256(state + bytes(machine.memory.ram.bytes)).digest()


def describe(label: str, machine: Machine) -> str:
    words = [f"{name:>4} {value:08x}" for name, value in machine.cpu.describe()]
    lines = ["  ".join(words[n : n + 6]) for n in range(0, len(words), 6)]
    return f"{label}, after {machine.icount} instructions:\n  " + "\n  ".join(lines)


def changed_bytes(first: Machine, second: Machine) -> list[str]:
    a, b = first.memory.ram.bytes, second.memory.ram.bytes
    if a == b:
        return []
    places = [n for n in range(0, RAM, 4096) if a[n : n + 4096] != b[n : n + 4096]]
    words = [w for n in places[:2] for w in range(n, n + 4096, 4) if a[w : w + 4] != b[w : w + 4]]
    return [f"  [{w:#010x}] {a[w : w + 4].hex()} {b[w : w + 4].hex()}" for w in words[:16]]


def agree(sides: list[Side], icount: int) -> bool:
    """Whether the tiers are in the same state after so many instructions."""
    first, second = (digest(side.at(icount)) for side in sides)
    return first == second


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
    machines = [side.start() for side in sides]
    agreed = 0
    while agreed < options.fuel:
        results = [machine.run(fuel=options.step) for machine in machines]
        if digest(machines[0]) != digest(machines[1]):
            break
        agreed = machines[0].icount
        if results[0].reason is not StopReason.FUEL:
            print(f"no difference in {agreed} instructions; {results[0].message}")
            return 0
    else:
        print(f"no difference in {agreed} instructions")
        return 0
    low, high = agreed, agreed + options.step  # they agree at low and differ at high
    finer = [Side(options, side.label, Techniques.without(*STEPWISE)) for side in sides]
    exact = not agree(finer, high)
    if exact:
        sides, low = finer, low if agree(finer, low) else 0
    while high - low > 1:
        middle = (low + high) // 2
        if agree(sides, middle):
            low = middle
        else:
            high = middle
    before = sides[0].at(low)
    print(f"instruction {high} at {before.describe_pc(before.pc)}{'' if exact else ', or one before it in its region'}")
    print(describe("both", before))
    machines = [side.at(high) for side in sides]
    for side, machine in zip(sides, machines, strict=True):
        print(describe(side.label, machine))
    print("\n".join(changed_bytes(*machines)))
    return 1


if __name__ == "__main__":
    sys.exit(main())
