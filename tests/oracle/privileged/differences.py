"""The known cases in which QEMU 7.2 does not do what the manual says, or the manual leaves open what happens.

A correction changes QEMU's answer to what the manual asks for, which is then expected. What the manual leaves open, and
no choice of ours settles, is not compared. Everything else must be as QEMU has it. Sections are those of the ARMv7-A
manual (ARM DDI 0406C) unless another one is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.oracle.privileged.layout import Cpu
from tests.oracle.privileged.program import Step
from tests.oracle.privileged.record import Result

_DOMAIN_OF_PAGE, _TRANSLATION_OF_PAGE = 0b1011, 0b0111
_PERMISSION_OF_SECTION, _PERMISSION_OF_PAGE = 0b1101, 0b1111
_ACCESS_FLAG_OF_SECTION, _ACCESS_FLAG_OF_PAGE = 0b0011, 0b0110
_ABORTS = ("data abort", "prefetch abort")
_ALL = (5, 6, 7)


@dataclass(frozen=True, slots=True)
class Correction:
    """A correction of steps whose names match the pattern ``steps``. ``correct`` makes the answer right."""

    name: str
    reason: str
    steps: str
    correct: Callable[[Result], Result]
    archs: tuple[int, ...] = _ALL


@dataclass(frozen=True, slots=True)
class Open:
    """Fields of the answer that match ``fields`` and are not compared in ``steps`` that end with one of ``events``."""

    name: str
    reason: str
    steps: str
    fields: str
    events: tuple[str, ...] = _ABORTS
    archs: tuple[int, ...] = _ALL


def _status(answer: Result, old: int, new: int) -> Result:
    """Return the answer with the fault status ``old`` changed to ``new`` and the domain kept."""
    fields = {name: int(answer[name], 16) for name in ("dfsr", "ifsr") if name in answer}
    return answer | {name: f"{value ^ old ^ new:#x}" for name, value in fields.items() if value & 0xF == old}


def _translation_first(answer: Result) -> Result:
    return _status(answer, _DOMAIN_OF_PAGE, _TRANSLATION_OF_PAGE)


def _access_flag_first(answer: Result) -> Result:
    answer = _status(answer, _PERMISSION_OF_SECTION, _ACCESS_FLAG_OF_SECTION)
    return _status(answer, _PERMISSION_OF_PAGE, _ACCESS_FLAG_OF_PAGE)


def _modified_address(pid: int) -> Callable[[Result], Result]:
    """Return a correction that puts the process ID on top of an address in the first 32 MB."""

    def correct(answer: Result) -> Result:
        return answer | ({"dfar": f"{int(answer['dfar'], 16) + (pid << 25):#x}"} if "dfar" in answer else {})

    return correct


CORRECTIONS = (
    Correction(
        "domain before translation",
        "QEMU looks at the domain before it reads the descriptor of the second level. The manual reads it first "
        "(B3.19.3, TranslationTableWalkSD; ARM926EJ-S TRM, fault checking sequence).",
        r"no (tiny )?page(, other bits)?, no access to the domain: .*|.*B missing.*domain denied",
        _translation_first,
    ),
    Correction(
        "XN before the access flag",
        "QEMU finds XN, which is a permission, before it finds the access flag clear. In the manual the access flag "
        "belongs to the walk and comes first (B3.19.3).",
        r".*AP=.[01]0 XN, AFE: execute .*",
        _access_flag_first,
    ),
    *(
        Correction(
            f"fault address without the process ID {pid}",
            "The fault address register holds the modified virtual address (ARM926EJ-S TRM and ARM1176JZF-S TRM, c6); "
            "QEMU leaves the process ID of the FCSE out.",
            rf"process {pid}, 0x1d15400, .*",
            _modified_address(pid),
            (5, 6),
        )
        for pid in (1, 5, 63)
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
        r"(A\[|\[0x3f).*",
    ),
    Open(
        "identification",
        "QEMU's board takes the Security Extensions out of the CPU, and with them bits of the feature registers that "
        "the TRM has; its TLBTR of the ARM1176, MPIDR and CLIDR of the Cortex-A8 are not those of the TRM. What a "
        "register says about what a CPU has is checked where dbt defines it.",
        r"identification (0, c0, c0, [35]|0, c0, c1, [12]|0, c0, c2, 4|1, c0, c0, 1) in svc",
        r"r1",
        ("end",),
        (6, 7),
    ),
    Open(
        "CPACR of ARMv6",
        "QEMU has ASEDIS and D32DIS, which are ARMv7's (B4.1.40), in the CPACR of every CPU.",
        r"CPACR .*",
        r"r1",
        ("end",),
        (6,),
    ),
)


def expected_of(cpu: Cpu, step: Step, answer: Result) -> Result:
    for known in CORRECTIONS:
        if cpu.arch in known.archs and re.fullmatch(known.steps, step.name):
            answer = known.correct(answer)
    return answer


def is_open(cpu: Cpu, step: Step, event: str, field: str) -> bool:
    """Return True if this field of the answer is not compared."""
    return any(
        cpu.arch in known.archs
        and event in known.events
        and re.fullmatch(known.steps, step.name)
        and re.fullmatch(known.fields, field)
        for known in OPEN
    )


def differing(cpu: Cpu, step: Step, expected: Result, ours: Result) -> set[str]:
    """Return the fields in which our answer is not the expected one."""
    fields = {field for field in {*expected, *ours} if expected.get(field) != ours.get(field)}
    return {field for field in fields if not is_open(cpu, step, expected["event"], field)}
