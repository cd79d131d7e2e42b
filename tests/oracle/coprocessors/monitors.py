"""Random accesses to the performance monitors, and what QEMU answers, as text: each in the state that the others left.

Cycles are not counted in them, because QEMU's depend on the host's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.oracle.coprocessors.program import SUPERVISOR_CALL, Trial
from tests.oracle.coprocessors.sweep import Place, Run

_REGISTERS = {
    "PMCR": (9, 12, 0), "PMCNTENSET": (9, 12, 1), "PMCNTENCLR": (9, 12, 2), "PMOVSR": (9, 12, 3),
    "PMSWINC": (9, 12, 4), "PMSELR": (9, 12, 5), "PMCCNTR": (9, 13, 0), "PMXEVTYPER": (9, 13, 1),
    "PMXEVCNTR": (9, 13, 2), "PMINTENSET": (9, 14, 1), "PMINTENCLR": (9, 14, 2), "PMOVSSET": (9, 14, 3),
    "PMCCFILTR": (14, 15, 7), "PMEVCNTR1": (14, 8, 1), "PMEVTYPER1": (14, 12, 1), "PMEVCNTR3": (14, 8, 3),
    "PMEVTYPER3": (14, 12, 3),
}  # fmt: skip
_ACCESSES = 600
_WRITE_ONLY = ("PMSWINC",)
#: Bits of writes: the cycle counter is not enabled, and its event is counted nowhere. LC and DP are of later versions.
_WRITTEN = {"PMCR": 0x1F, "PMCNTENSET": 0x7FFFFFFF}


def _value(name: str, random: Random) -> int:
    if name in ("PMXEVTYPER", "PMEVTYPER1", "PMEVTYPER3"):
        return random.choice((0, 0, 0, 0x03, 0x1B, 0xF8000000, 0xF8000002)) & ~0xC0000000  # no mode is left out
    if name in ("PMXEVCNTR", "PMEVCNTR1", "PMEVCNTR3", "PMCCNTR"):
        return random.choice((0, 0xFFFFFFFF, 0xFFFFFFFE, random.getrandbits(32)))
    if name == "PMSELR":
        return random.choice((0, 1, 3, 4, 5, 6, 31, 0xFFFFFFFF))
    if name == "PMCR":
        return random.choice((1, 1, 1, 3, 5, 0, 9, random.getrandbits(32)))
    return random.choice((random.getrandbits(32), random.getrandbits(6), 0x3F, 0xA))


def answers(run: Run, seed: int = 1) -> Iterator[str]:
    """Yield a line for each access."""
    random = Random(seed)
    accesses = []
    for _ in range(_ACCESSES):
        name = random.choice([*_REGISTERS, *["PMSWINC"] * 4])
        load = name not in _WRITE_ONLY and random.random() < 0.5
        value = 0 if load else _value(name, random) & _WRITTEN.get(name, 0xFFFFFFFF)
        accesses.append((name, load, value))
    trials = []
    for name, load, value in accesses:
        crn, crm, opc2 = _REGISTERS[name]
        trials.append(Trial((Place(15, 0, crm, crn, opc2).word(load, 0),), registers=(value, 0, 0, 0)))
    for (name, load, value), outcome in zip(accesses, run(trials), strict=True):
        assert outcome.event == SUPERVISOR_CALL
        yield f"read {name} -> {outcome.registers[0]:#x}" if load else f"write {name} {value:#x}"
