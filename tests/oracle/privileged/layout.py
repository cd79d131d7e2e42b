"""The layout of a privileged program's image, and the three CPUs that it is made for.

Addresses are physical. With the MMU on, the first megabytes are mapped to themselves, for all modes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isa.arm.state import Mode

VECTORS = 0x0000
RUNNER = 0x1000
SAVE = 0x2000  # what a stub saves, then the runner's variables, within reach of PC-relative stores
STATE = 0x2100
TEMPLATE = 0x2300
HIGH_VECTORS = 0x3000  # a page for the test to map at 0xFFFF0000
OTHER_VECTORS = 0x3800  # for VBAR
L1 = 0x4000
OTHER_L1 = 0x8000
L2 = 0xC000  # tables of 1 KiB (coarse) or 4 KiB (fine), to 0x10000
CODE = 0x10000
STEPS = 0x60000
FRAMES = 0x100000  # a megabyte to map for tests; see programs/translation.py
RESULTS = 0x200000
MEMORY = 0x1000000

MODES: Mapping[str, Mode] = {
    "usr": Mode.USER,
    "fiq": Mode.FIQ,
    "irq": Mode.IRQ,
    "svc": Mode.SUPERVISOR,
    "abt": Mode.ABORT,
    "und": Mode.UNDEFINED,
    "sys": Mode.SYSTEM,
}
EXCEPTION_MODES = ("fiq", "irq", "svc", "abt", "und")
PRIVILEGED = (*EXCEPTION_MODES, "sys")

#: The events, by the numbers that the stubs give them. The first eight are the vectors.
KINDS = ("reset", "undefined", "svc", "prefetch abort", "data abort", "reserved", "irq", "fiq", "end")
END = 8
#: Added to the number when the exception came by the high vectors, or by those that VBAR points to.
HIGH, OTHER = 0x10, 0x20

VISIBLE = tuple(f"r{n}" for n in range(16))
CP15 = ("ttbr0", "ttbr1", "ttbcr", "dacr", "dfsr", "ifsr", "dfar", "ifar", "contextidr", "vbar", "sctlr", "fcseidr")


def bank_words() -> tuple[str, ...]:
    """Return the banked registers in the order in which the runner loads and stores them."""
    words = [f"r{n}_usr" for n in range(8, 13)] + ["sp_usr", "lr_usr"]
    words += [f"r{n}_fiq" for n in range(8, 13)]
    for mode in EXCEPTION_MODES:
        words += [f"sp_{mode}", f"lr_{mode}", f"spsr_{mode}"]
    return tuple(words)


BANKS = bank_words()
#: The state block, with the state in which a step begins.
STATE_WORDS = (*VISIBLE, "cpsr", *BANKS, *CP15)
#: The record of a step, which the words that it watches follow.
RECORD_WORDS = (*VISIBLE[:15], "kind", "cpsr", "pad", *BANKS, "dfsr", "ifsr", "dfar", "ifar")

VARIABLES = SAVE + 4 * 18
STEP, RECORD, PHASE = VARIABLES, VARIABLES + 4, VARIABLES + 8


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU. ``sctlr`` is its value after a reset, by its TRM, with the MMU off. (QEMU's arm926 has 0x00090078.)"""

    name: str
    arch: int
    sctlr: int


CPUS = {
    cpu.name: cpu
    for cpu in (Cpu("arm926", 5, 0x00050078), Cpu("arm1176", 6, 0x00050078), Cpu("cortex-a8", 7, 0x00C50078))
}


def template(cpu: Cpu) -> dict[str, int]:
    """Return the default of every word of the state: values that show where they come from."""
    words = {f"r{n}": 0x5EED0000 + n for n in range(8)}
    words |= {f"r{n}_{mode}": 0x5EED0000 + (MODES[mode] << 8) + n for mode in ("usr", "fiq") for n in range(8, 13)}
    for mode in ("usr", *EXCEPTION_MODES):
        words |= {f"sp_{mode}": 0x5EED000D + (MODES[mode] << 8), f"lr_{mode}": 0x5EED000E + (MODES[mode] << 8)}
    words |= {
        "spsr_fiq": 0x800000D2,
        "spsr_irq": 0x40000093,
        "spsr_svc": 0x200000D7,
        "spsr_abt": 0x1000005B,
        "spsr_und": 0x600000D1,
    }
    words |= dict.fromkeys(CP15, 0) | {"ttbr0": L1, "ttbr1": OTHER_L1, "dacr": 1, "sctlr": cpu.sctlr}
    return words
