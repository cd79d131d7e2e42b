"""Every difference between Unicorn and us that is not a defect of ours, with its reason.

Unicorn 2.1.4 is QEMU 5.0.1 without its machines. A case that an entry here explains is not
compared; nothing else is let off, so the list of unexplained differences is empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from isa.a32 import DECODER
from isa.spec import Insn
from tests.oracle.case import CODE, Case, Outcome

#: Instructions that are never run in Unicorn, by a pattern for their name, and why.
NOT_COMPARED: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Difference:
    """``explains(insn, ours, unicorn)``; ``insn`` is the instruction at which we stopped, if any."""

    name: str
    reason: str
    explains: Callable[[Insn | None, Outcome, Outcome], bool]


def _named(insn: Insn | None, names: str) -> bool:
    return insn is not None and re.fullmatch(names, insn.name) is not None


DIFFERENCES = (
    Difference(
        "alignment",
        "QEMU 5 does not check the alignment of LDM, STM, LDRD, STRD, SWP and exclusive accesses (A3.2.1 does).",
        lambda insn, ours, theirs: ours.end == "alignment"
        and _named(insn, r"(LDR|STR)D .*|SWPB?|(LDR|STR)EX.*|LDM.*|STM.*|POP.*|PUSH.*"),
    ),
    Difference(
        "branch to bits 10",
        "A branch to an address with bits 1:0 = 0b10 is UNPREDICTABLE; QEMU keeps bit 1 in the PC, we clear it.",
        lambda insn, ours, theirs: ours.end == theirs.end == "ok" and theirs.pc & 3 == 2,
    ),
)


def not_compared(insn: Insn) -> bool:
    return any(re.fullmatch(names, insn.name) for names in NOT_COMPARED)


def explanation(case: Case, ours: Outcome, theirs: Outcome) -> str | None:
    """The name of the difference that explains why these outcomes of ``case`` differ, or None."""
    index = (ours.pc - CODE) // 4 if CODE <= ours.pc < case.code_end and ours.end != "ok" else len(case.code) - 1
    insn = DECODER.decode(case.code[index])
    return next((known.name for known in DIFFERENCES if known.explains(insn, ours, theirs)), None)
