"""Every difference between Unicorn and us that is not a defect of ours, with its reason.

Unicorn 2.1.4 is QEMU 5.0.1 without its machines. A case that an entry here explains is not
compared; nothing else is let off, so the list of unexplained differences is empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from isa.a32 import DECODER
from isa.spec import Insn
from tests.oracle.case import CODE, RAM_SIZE, Case, Outcome, bank_name, changed_words

#: Instructions that are never run in Unicorn, by a pattern for their name, and why.
NOT_COMPARED: dict[str, str] = {
    r"(MRC|MCR)( \(thread ID\))?": "Which coprocessor registers there are depends on the processor.",
    r"WFI|WFE": "Waiting is an exit here, nothing in QEMU's WFI, and an internal exception in its WFE.",
    r"HVC|SMC": "The Cortex-A15 has the Virtualization and Security Extensions that these belong to; we have not.",
}


#: Instructions that are compared alone but not within random blocks.
NOT_IN_BLOCKS: dict[str, str] = {
    r"NOP and other hints": "QEMU ends the run at a YIELD.",
    r"SMLAD, SMLSD": "QEMU's Q, see below; alone it is compared wherever it can be right.",
    r"(LDR|STR)EX.*": "A STREX whose LDREX had another address or size is UNPREDICTABLE (A3.4.5); pairs are compared.",
}

_Q = 1 << 27
_SPSR_RESERVED = 0x01F00000


@dataclass(frozen=True, slots=True)
class Difference:
    """``explains(insn, case, ours, unicorn)``; ``insn`` is the one at which we stopped, else the last."""

    name: str
    reason: str
    explains: Callable[[Insn, Case, Outcome, Outcome], bool]


def _named(insn: Insn, names: str) -> bool:
    return re.fullmatch(names, insn.name) is not None


def _partial_load(insn: Insn, case: Case, ours: Outcome, theirs: Outcome) -> bool:
    return (
        ours.end == theirs.end == "abort"
        and _named(insn, r"LDM.*|LDRD .*|LDREXD")
        and (ours.memory, ours.cpsr, ours.pc) == (theirs.memory, theirs.cpsr, theirs.pc)
    )


def _partial_store(insn: Insn, case: Case, ours: Outcome, theirs: Outcome) -> bool:
    return (
        ours.end == theirs.end == "abort"
        and _named(insn, r"STRH?T? \(.*\)")
        and ours.registers == theirs.registers
        and list(changed_words(ours.memory, theirs.memory)) == [RAM_SIZE - 4]
    )


def _other_exception_return(insn: Insn, case: Case, ours: Outcome, theirs: Outcome) -> bool:
    fields = insn.pattern.decode(case.code[-1])
    return fields.get("rd") == 15 and fields.get("s") == 1 and not _named(insn, r"(SUB|MOV) .*")


def _reserved_spsr_bits(insn: Insn, case: Case, ours: Outcome, theirs: Outcome) -> bool:
    name = f"spsr_{bank_name(case.mode)}"
    if ours.banks is None or theirs.banks is None or not _named(insn, r"MSR \(.*, SPSR\)"):
        return False
    bits = (ours.banks[name] ^ theirs.banks[name]) & ~_SPSR_RESERVED
    return bits == 0 and replace(ours, banks=None) == replace(theirs, banks=None)


def _smlad_q(insn: Insn, case: Case, ours: Outcome, theirs: Outcome) -> bool:
    fields = insn.pattern.decode(case.code[-1])
    return (
        _named(insn, "SMLAD, SMLSD")
        and case.registers[fields["rn"]] == case.registers[fields["rm"]] == 0x80008000
        and replace(ours, cpsr=ours.cpsr | _Q) == theirs
    )


DIFFERENCES = (
    Difference(
        "big-endian data",
        "We have no big-endian data accesses (CPSR.E): setting it is an exit, not silently something else.",
        lambda insn, case, ours, theirs: ours.end == "unsupported" and _named(insn, r"MSR .*|LDM \(exc.*|RFE|ERET"),
    ),
    Difference(
        "reserved bits of a SPSR",
        "Bits 24 (J) and 23:20 of a SPSR are reserved or of an extension that we have not; QEMU keeps them.",
        _reserved_spsr_bits,
    ),
    Difference(
        "no alignment check",
        "QEMU 5 does not check the alignment of LDM, STM, LDRD, STRD, SWP and exclusive accesses (A3.2.1 does).",
        lambda insn, case, ours, theirs: ours.end == "alignment"
        and _named(insn, r"(LDR|STR)D .*|SWP|(LDR|STR)EX.*|LDM.*|STM.*|RFE|SRS"),
    ),
    Difference(
        "partial load before an abort",
        "Registers loaded before the abort are UNKNOWN after it (B1.9.8); QEMU has loaded them, we have not.",
        _partial_load,
    ),
    Difference(
        "partial store before an abort",
        "The bytes of an unaligned store before the page that aborts are UNKNOWN; QEMU has stored them, we have not.",
        _partial_store,
    ),
    Difference(
        "branch to bits 10",
        "A branch to an address with bits 1:0 = 0b10 is UNPREDICTABLE; QEMU keeps bit 1 in the PC, we clear it.",
        lambda insn, case, ours, theirs: ours.end == theirs.end == "ok" and theirs.pc & 3 == 2,
    ),
    Difference(
        "exception return by other operations",
        "QEMU 5 returns from exceptions by SUBS and MOVS only; the manual (B9.3.20) by all that write the PC.",
        _other_exception_return,
    ),
    Difference(
        "Q of SMLAD",
        "QEMU 5 sets Q where the sum of the products alone overflows; the manual (A8.8.177) where the whole sum does.",
        _smlad_q,
    ),
    Difference(
        "self-modifying block",
        "An instruction changed without an ISB may be executed as it was (A3.5.4); QEMU does, we execute the new one.",
        lambda insn, case, ours, theirs: ours.memory[CODE : case.code_end] != case.code_bytes and len(case.code) > 1,
    ),
    Difference(
        "YIELD",
        "QEMU ends the run at a YIELD, which is an internal exception to it.",
        lambda insn, case, ours, theirs: _named(insn, "NOP and other hints") and theirs.end == "undefined",
    ),
)


def not_compared(insn: Insn) -> bool:
    return any(re.fullmatch(names, insn.name) for names in NOT_COMPARED)


def not_in_blocks(insn: Insn) -> bool:
    return any(re.fullmatch(names, insn.name) for names in NOT_IN_BLOCKS)


def explanation(case: Case, ours: Outcome, theirs: Outcome) -> str | None:
    """The name of the difference that explains why these outcomes of ``case`` differ, or None."""
    index = (ours.pc - CODE) // 4 if CODE <= ours.pc < case.code_end and ours.end != "ok" else len(case.code) - 1
    insn = DECODER.decode(case.code[index])
    if insn is None:
        return None
    return next((known.name for known in DIFFERENCES if known.explains(insn, case, ours, theirs)), None)
