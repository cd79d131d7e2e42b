"""The table of differences between Unicorn and us that are not defects of ours, with their reasons.

Unicorn 2.1.4 is QEMU 5.0.1 without its machines. A case that an entry explains is not compared. Every other difference
is a failure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from isa.arm.a32 import DECODER
from isa.ir.encoding import Pattern
from isa.ir.registry import Insn
from tests.oracle.cases.case import CODE, RAM_SIZE, Case, Outcome, bank_name, changed_words

#: Instructions that are never run in Unicorn, by a pattern for their name, and why.
NOT_COMPARED: dict[str, str] = {
    r"(MRC|MCR|MRRC|MCRR) .*": "Which coprocessor registers there are depends on the processor.",
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


#: Words that are undefined here but not in Unicorn: patterns, and why.
UNDEFINED_HERE: tuple[tuple[Pattern, str], ...] = tuple(
    (Pattern.parse(text), reason)
    for text, reason in (
        ("cond:4 100 p:1 u:1 1 1 0 rn:4 regs:16", "STM of user registers with writeback is UNPREDICTABLE (B9.3.17)."),
        ("cond:4 0001 0 r:1 t:1 0 m1:4 rd:4 001 m:1 0000 rn:4", "MRS and MSR of banked registers: Virtualization."),
        ("cond:4 110 op:5 rn:4 crd:4 111 cp:1 imm8:8", "LDC, STC, MCRR and MRRC: which there are is the processor's."),
        ("cond:4 1110 opc1:3 load:1 crn:4 rt:4 111 cp:1 opc2:3 1 crm:4", "MRC and MCR: likewise."),
        ("cond:4 1110 opc1:3 load:1 crn:4 rt:4 101 cp:1 opc2:3 1 crm:4", "VMRS and VMSR: we have no floating point."),
        ("1111 0001 0000 (000) 1 (000000) e:1 (0) (0000) (0000)", "SETEND: we have no big-endian data accesses."),
        ("1111 0101 u:1 0 01 1111 (1111) imm12:12", "PLDW of a literal is UNPREDICTABLE (A8.8.126)."),
    )
)


@dataclass(frozen=True, slots=True)
class Stop:
    """The instruction at which we stopped, or else the last one, with its fields and the case."""

    insn: Insn
    fields: Mapping[str, int]
    case: Case

    def named(self, names: str) -> bool:
        return re.fullmatch(names, self.insn.name) is not None


@dataclass(frozen=True, slots=True)
class Difference:
    """A known difference. ``explains(stop, ours, unicorn)`` is True if the outcomes differ in this and nothing else."""

    name: str
    reason: str
    explains: Callable[[Stop, Outcome, Outcome], bool]


def _big_endian(stop: Stop, ours: Outcome, theirs: Outcome) -> bool:
    return ours.end == "unsupported" and stop.named(r"MSR \(.*, CPSR\)|LDM \(exception return\)|RFE|ERET")


def _reserved_spsr_bits(stop: Stop, ours: Outcome, theirs: Outcome) -> bool:
    if ours.banks is None or theirs.banks is None or not stop.named(r"MSR \(.*, SPSR\)"):
        return False
    name = f"spsr_{bank_name(stop.case.mode)}"
    kept = {name: theirs.banks[name] & ~_SPSR_RESERVED | ours.banks[name] & _SPSR_RESERVED}
    return replace(theirs, banks=theirs.banks | kept) == ours


def _no_alignment_check(stop: Stop, ours: Outcome, theirs: Outcome) -> bool:
    unaligned = ours.end == "alignment" and int(ours.fault.split()[1], 16) & 3 != 0
    return unaligned and stop.named(r"(LDR|STR)D .*|SWP|(LDR|STR)EX.*|LDM.*|STM.*|RFE|SRS")


def _partial_load(stop: Stop, ours: Outcome, theirs: Outcome) -> bool:
    if not stop.named(r"LDM.*|LDRD .*|LDREXD"):
        return False
    rt = stop.fields.get("rt", 15)
    loaded = stop.fields.get("regs", 0b11 << rt)
    changed = (n for n in range(16) if ours.registers[n] != theirs.registers[n])
    same = replace(theirs, registers=ours.registers, banks=ours.banks) == ours
    return ours.end == "abort" and same and all(loaded >> n & 1 for n in changed)


def _partial_store(stop: Stop, ours: Outcome, theirs: Outcome) -> bool:
    changed = list(changed_words(ours.memory, theirs.memory))
    same = replace(theirs, memory=ours.memory) == ours
    return ours.end == "abort" and stop.named(r"STRH?T? \(.*\)") and same and changed == [RAM_SIZE - 4]


def _branch_to_bits_10(stop: Stop, ours: Outcome, theirs: Outcome) -> bool:
    return theirs.pc & 3 == 2 and replace(theirs, registers=(*theirs.registers[:15], theirs.pc & ~3)) == ours


def _other_exception_return(stop: Stop, ours: Outcome, theirs: Outcome) -> bool:
    returns = stop.fields.get("rd") == 15 and stop.fields.get("s") == 1 and not stop.named(r"(SUB|MOV) .*")
    return returns and ours.cpsr == stop.case.spsr and ours.pc == theirs.pc & ~3 and ours.memory == theirs.memory


def _smlad_q(stop: Stop, ours: Outcome, theirs: Outcome) -> bool:
    if not stop.named("SMLAD, SMLSD"):
        return False
    n, m = (stop.case.registers[stop.fields[name]] for name in ("rn", "rm"))
    return n == m == 0x80008000 and replace(ours, cpsr=ours.cpsr | _Q) == theirs


def _self_modifying(stop: Stop, ours: Outcome, theirs: Outcome) -> bool:
    case = stop.case
    return len(case.code) > 1 and ours.memory[CODE : case.code_end] != case.code_bytes


def _yield(stop: Stop, ours: Outcome, theirs: Outcome) -> bool:
    return stop.insn.name == "NOP and other hints" and stop.fields["hint"] == 1 and theirs.end == "undefined"


DIFFERENCES = (
    Difference(
        "big-endian data",
        "We have no big-endian data accesses (CPSR.E): setting it is an exit, not silently something else.",
        _big_endian,
    ),
    Difference(
        "reserved bits of a SPSR",
        "Bits 24 (J) and 23:20 of a SPSR are reserved or of an extension that we have not; QEMU keeps them.",
        _reserved_spsr_bits,
    ),
    Difference(
        "no alignment check",
        "QEMU 5 does not check the alignment of LDM, STM, LDRD, STRD, SWP and exclusive accesses (A3.2.1 does).",
        _no_alignment_check,
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
        _branch_to_bits_10,
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
        _self_modifying,
    ),
    Difference("YIELD", "QEMU ends the run at a YIELD, which is an internal exception to it.", _yield),
)


def not_compared(insn: Insn) -> bool:
    return any(re.fullmatch(names, insn.name) for names in NOT_COMPARED)


def not_in_blocks(insn: Insn) -> bool:
    return any(re.fullmatch(names, insn.name) for names in NOT_IN_BLOCKS)


def undefined_here(word: int) -> bool:
    """Return True if an undefined word may be defined in Unicorn."""
    return any(pattern.matches(word) for pattern, _ in UNDEFINED_HERE)


def explanation(case: Case, ours: Outcome, theirs: Outcome) -> str | None:
    """Return the name of the difference that explains why these outcomes of ``case`` differ, or None."""
    index = (ours.pc - CODE) // 4 if CODE <= ours.pc < case.code_end and ours.end != "ok" else len(case.code) - 1
    insn = DECODER.decode(case.code[index])
    if insn is None:
        return None
    stop = Stop(insn, insn.pattern.decode(case.code[index]), case)
    return next((known.name for known in DIFFERENCES if known.explains(stop, ours, theirs)), None)
