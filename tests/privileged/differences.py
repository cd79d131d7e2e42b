"""Where QEMU 7.2 is known not to do what the manual says, or the manual leaves open what happens.

A correction makes of QEMU's answer what the manual asks for, and that is then expected. What the manual leaves open,
and no choice of ours settles, is not compared. Everything else must be as QEMU has it. Sections are of the ARMv7-A
manual (ARM DDI 0406C) unless another one is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.privileged.layout import Cpu
from tests.privileged.program import Step
from tests.privileged.record import Result

_DOMAIN_OF_PAGE, _TRANSLATION_OF_PAGE = 0b1011, 0b0111
_ABORTS = ("data abort", "prefetch abort")


@dataclass(frozen=True, slots=True)
class Correction:
    """``steps``: a pattern for their names; ``correct`` makes the answer right."""

    name: str
    reason: str
    steps: str
    correct: Callable[[Result], Result]
    since: int = 5  # the oldest architecture that it is for
    until: int = 7  # ... and the newest


@dataclass(frozen=True, slots=True)
class Open:
    """``fields`` of the answer, a pattern, are not compared in ``steps`` that end with one of ``events``."""

    name: str
    reason: str
    steps: str
    fields: str
    events: tuple[str, ...] = _ABORTS
    since: int = 5


def _translation_first(answer: Result) -> Result:
    """A domain fault of the second level is a translation fault."""
    fields = {name: int(answer[name], 16) for name in ("dfsr", "ifsr") if name in answer}
    changed = {
        name: f"{value ^ _DOMAIN_OF_PAGE ^ _TRANSLATION_OF_PAGE:#x}"
        for name, value in fields.items()
        if value & 0xF == _DOMAIN_OF_PAGE
    }
    return answer | changed


def _access_flag_first(answer: Result) -> Result:
    """A permission fault is an access flag fault, of the same level."""
    status = int(answer["ifsr"], 16)
    flag = 0b0110 if status & 2 else 0b0011
    return answer | {"ifsr": f"{status & ~0xF | flag:#x}"}


def _ones_of_arm926(answer: Result) -> Result:
    """Bits 18 and 16 of SCTLR are one and bit 19 is zero; QEMU has it the other way round."""
    return answer | {name: f"{int(answer[name], 16) ^ 0xC0000:#x}" for name in ("r1", "r2", "r3") if name in answer}


CORRECTIONS = (
    Correction(
        "execute never before access flag",
        "QEMU looks at XN before the access flag; in the manual (B3.13.2, figure B3-23) an access flag fault comes "
        "before all permission faults.",
        r"(super)?section, AP=..0 XN, AFE: execute .*|(large|small) page, AP=..0 XN, AFE: execute .*",
        _access_flag_first,
        since=6,
    ),
    Correction(
        "SCTLR of ARM926",
        "Bits 18 and 16 should be one and bit 19 is reserved (ARM926EJ-S TRM, DDI 0198, table 2-10).",
        r"SCTLR.*",
        _ones_of_arm926,
        until=5,
    ),
    Correction(
        "CPACR after a reset",
        "All coprocessors are denied at reset (ARM1176JZF-S TRM, DDI 0301, 3.2.9); QEMU has bits 31 and 30 set.",
        r"CPACR written with 0x0",
        lambda answer: answer | {"r1": "0x0"},
        since=6,
        until=6,
    ),
    Correction(
        "domain before translation",
        "QEMU looks at the domain before it reads the descriptor of the second level; in the manual (B3.19.3, "
        "TranslationTableWalkSD; ARM926EJ-S TRM, figure 3-8) a translation fault comes first.",
        r"no (tiny )?page(, other bits)?, no access to the domain: .*|.*B missing.*domain denied",
        _translation_first,
    ),
)

OPEN = (
    Open(
        "partial load",
        "Registers loaded before the abort are UNKNOWN after it (B1.9.8), the base excepted.",
        r"(ldm|ldrd).*",
        r"r[1-9]\d*(_usr|_fiq)?|(sp|lr)_usr",
    ),
    Open(
        "partial store",
        "What was stored before the abort is UNKNOWN (B1.9.8): the words that the instruction stores to, in the page "
        "that it may store to.",
        r"(stm|strd|srs).*",
        r"A\[.*",
    ),
)


def expected_of(cpu: Cpu, step: Step, answer: Result) -> Result:
    for known in CORRECTIONS:
        if known.since <= cpu.arch <= known.until and re.fullmatch(known.steps, step.name):
            answer = known.correct(answer)
    return answer


def is_open(cpu: Cpu, step: Step, event: str, field: str) -> bool:
    """Whether this field of the answer is not compared."""
    return any(
        cpu.arch >= known.since
        and event in known.events
        and re.fullmatch(known.steps, step.name)
        and re.fullmatch(known.fields, field)
        for known in OPEN
    )


def differing(cpu: Cpu, step: Step, expected: Result, ours: Result) -> set[str]:
    """The fields in which our answer is not the expected one."""
    fields = {field for field in {*expected, *ours} if expected.get(field) != ours.get(field)}
    return {field for field in fields if not is_open(cpu, step, expected["event"], field)}
