"""Programs for the privileged architecture. QEMU's answers are kept in ``expected/``, and every tier must give them.

    programs/        what is tested: each module makes steps, a state and a few instructions each
    layout.py        where things are in an image, and the CPUs
    tables.py        page tables; accesses.py: the ways to access a page
    runner.py        the assembly around the steps: sets up a state, records what became of it
    program.py       steps to an image
    record.py        what the image wrote to lines of text, one for each step
    emulators.py     runs an image in QEMU and in the tiers
    differences.py   where QEMU is not right, and what is left open
    refresh.py       asks QEMU again: ``make refresh-oracle``
    guest.py         one virtual CPU on which single instructions are tried, without QEMU

A step ends at its first exception or at its end. A line names the event, the CPSR, and every register, fault register
and watched word that has changed.
"""

from __future__ import annotations

from tests.oracle.privileged.differences import CORRECTIONS, OPEN, differing, expected_of
from tests.oracle.privileged.emulators import run_machine, run_qemu, run_regions
from tests.oracle.privileged.guest import CODE, TIERS, Guest
from tests.oracle.privileged.program import Program, Step
from tests.oracle.privileged.programs import PROGRAMS, expected_file, make_program
from tests.oracle.privileged.record import Reader, Result, parse, text

__all__ = [
    "CODE",
    "CORRECTIONS",
    "OPEN",
    "PROGRAMS",
    "TIERS",
    "Guest",
    "Program",
    "Reader",
    "Result",
    "Step",
    "differing",
    "expected_file",
    "expected_of",
    "make_program",
    "parse",
    "run_machine",
    "run_qemu",
    "run_regions",
    "text",
]
