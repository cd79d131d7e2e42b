"""A bare-metal program that tries short sequences of instructions, each in a mode, and notes what became of them.

It needs VBAR, so ARMv7, and neither an MMU nor a device. QEMU and dbt execute the same image.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.assembler import assemble

NOP = 0xE1A00000
#: The instructions of a trial, at most.
LENGTH = 4
#: What ends a trial: the vectors by their numbers. SUPERVISOR_CALL is its orderly end.
UNDEFINED, SUPERVISOR_CALL = 1, 2
USER, SUPERVISOR = 0x1D0, 0x1D3
_TRIAL, _OUTCOME = struct.Struct(f"<{LENGTH}I5I"), struct.Struct("<5I")
_TRIALS = 0x1000
MEGABYTES = 16

_RUNNER = """
    vectors:
        b start
        b undefined
        b supervisor_call
        b prefetch_abort
        b data_abort
        b start
        b interrupt
        b fast_interrupt
    undefined:
        str r0, saved
        mov r0, #1
        b note
    supervisor_call:
        str r0, saved
        mov r0, #2
        b note
    prefetch_abort:
        str r0, saved
        mov r0, #3
        b note
    data_abort:
        str r0, saved
        mov r0, #4
        b note
    interrupt:
        str r0, saved
        mov r0, #6
        b note
    fast_interrupt:
        str r0, saved
        mov r0, #7
    note:
        cps #0x13
        str r0, [r9], #4
        ldr r0, saved
        stmia r9!, {{r0-r3}}
    next:
        cmp r8, r10
        beq finish
        ldmia r8!, {{r0-r3}}
        str r0, slot
        str r1, slot + 4
        str r2, slot + 8
        str r3, slot + 12
        adr lr, slot
        bic r0, lr, #63
        mcr p15, #0, r0, c7, c5, #1
        add r0, r0, #64
        mcr p15, #0, r0, c7, c5, #1
        dsb sy
        isb sy
        ldr r0, [r8], #4
        msr spsr_cxsf, r0
        ldmia r8!, {{r0-r3}}
        movs pc, lr
    slot:
        nop
        nop
        nop
        nop
        svc #0
    saved:
        .word 0
    start:
        adr r0, vectors
        mcr p15, #0, r0, c12, c0, #0
        ldr r8, ={trials}
        ldr r10, ={outcomes}
        mov r9, r10
        b next
    finish:
        mov r0, #1
        adr r1, opening
        svc #0x123456
        adr r1, written
        str r0, [r1]
        mov r0, #5
        svc #0x123456
        mov r0, #0x18
        ldr r1, =0x20026
        svc #0x123456
    opening:
        .word name
        .word 4
        .word 3
    written:
        .word 0
        .word {outcomes}
        .word {size}
    name:
        .word 0x0074743a
        .ltorg
"""


@dataclass(frozen=True)
class Trial:
    """Instructions to be executed in a mode (a CPSR), with R0 to R3."""

    words: tuple[int, ...]
    cpsr: int = SUPERVISOR
    registers: tuple[int, int, int, int] = (0, 0, 0, 0)


class Outcome(NamedTuple):
    """What ended a trial, and R0 to R3 then."""

    event: int
    registers: tuple[int, int, int, int]


def image(trials: Sequence[Trial], base: int) -> bytes:
    """Return the image of the program for a GPA, at which it is entered."""
    outcomes = base + _TRIALS + len(trials) * _TRIAL.size
    size = len(trials) * _OUTCOME.size
    code = assemble(_RUNNER.format(trials=base + _TRIALS, outcomes=outcomes, size=size), base)
    assert len(code) <= _TRIALS and outcomes + size <= base + (MEGABYTES << 20)
    data = b"".join(
        _TRIAL.pack(*trial.words, *[NOP] * (LENGTH - len(trial.words)), trial.cpsr, *trial.registers)
        for trial in trials
    )
    return code.ljust(_TRIALS, b"\0") + data


def outcomes_of(output: bytes) -> Iterator[Outcome]:
    """Yield the outcomes of the trials from what the program has written."""
    for event, *registers in _OUTCOME.iter_unpack(output):
        first, second, third, fourth = registers
        yield Outcome(event, (first, second, third, fourth))
