"""The rules for combinations of fields that the architecture leaves UNPREDICTABLE, each with a name.

The generator drops such words, because any behaviour is right for them; our choice is written in ``isa``. Words that no
rule names are compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from isa.arm.operands import ALWAYS
from isa.arm.state import BANKS, PSR_MODE, Mode
from isa.ir.registry import Insn
from tests.oracle.cases.case import Case

PC, LR, SP = 15, 14, 13
REGISTER_FIELDS = frozenset({"rd", "rn", "rm", "rs", "ra", "rt", "rt2", "hi", "lo"})

#: Where R15 may stand: instruction (a pattern for its name) and fields. Anywhere else it is
#: UNPREDICTABLE as a register operand.
PC_ALLOWED: tuple[tuple[str, frozenset[str]], ...] = (
    (r"(AND|EOR|SUB|RSB|ADD|ADC|SBC|RSC|TST|TEQ|CMP|CMN|ORR|MOV|BIC|MVN) \((immediate|register)\)",
     frozenset({"rd", "rn", "rm"})),
    (r"BX", frozenset({"rm"})),
    (r"(LDR|STR) \((immediate|register), offset\)", frozenset({"rt", "rn"})),
    (r"(LDR|STR) \((immediate|register), (pre|post)-indexed\)", frozenset({"rt"})),
    (r"(LDR|STR)(B|H|SB|SH|D) \((immediate|register), offset\)", frozenset({"rn"})),
    (r"PLD|PLI", frozenset({"rn"})),
    (r"BFI, BFC", frozenset({"rn"})),  # BFC
)  # fmt: skip

Fields = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. ``breaks`` returns True if the fields of an instruction whose name matches ``insns`` break it."""

    name: str
    section: str
    insns: str
    breaks: Callable[[Fields], bool]


def _misplaced_pc(insn: Insn, f: Fields) -> bool:
    return any(f.get(name) == PC and name not in _pc_fields(insn) for name in REGISTER_FIELDS)


def _pc_fields(insn: Insn) -> frozenset[str]:
    return next((fields for names, fields in PC_ALLOWED if re.fullmatch(names, insn.name)), frozenset())


def _pair(f: Fields) -> tuple[int, int]:
    return f["rt"], f["rt"] + 1


_STORES_AND_LOADS_BACK = r"(LDR|STR)(|B|H|SB|SH|D)T? \((immediate|register), (pre-indexed|post-indexed|unprivileged)\)"


def _base_in_list(f: Fields) -> bool:
    return f["w"] == 1 and f["regs"] >> f["rn"] & 1 == 1


def _base_in_list_not_lowest(f: Fields) -> bool:
    return _base_in_list(f) and f["regs"] & (1 << f["rn"]) - 1 != 0


def _cps(f: Fields) -> bool:
    enables = f["imod"] >> 1
    return (
        f["imod"] == 1
        or (enables == 1) != (f["aif"] != 0)
        or (f["m"] == 0 and f["mode"] != 0)
        or (f["imod"] == 0 and f["m"] == 0)
        or (f["m"] == 1 and f["mode"] not in BANKS)
    )


RULES = (
    Rule("writeback to the register transferred", "A8.8.63", _STORES_AND_LOADS_BACK, lambda f: f["rn"] == f["rt"]),
    Rule("writeback to the second register transferred", "A8.8.72",
         r"(LDR|STR)D \((immediate|register), (pre|post)-indexed\)", lambda f: f["rn"] in _pair(f)),
    Rule("R14 and R15 as a pair", "A8.8.72", r"(LDR|STR)D .*|(LDR|STR)EXD", lambda f: f["rt"] == LR),
    Rule("the index is loaded", "A8.8.74", r"LDRD \(register, .*\)", lambda f: f["rm"] in _pair(f)),
    Rule("SWP of the base", "A8.8.229", r"SWP", lambda f: f["rn"] in (f["rt"], f["rt2"])),
    Rule("STREX status in an operand", "A8.8.212", r"STREX.*", lambda f: f["rd"] in (f["rn"], f["rt"])),
    Rule("STREXD status in the second register", "A8.8.214", r"STREXD", lambda f: f["rd"] == f["rt"] + 1),
    Rule("LDM with writeback to a loaded base", "A8.8.58", r"LDM( \((with PC|exception return)\))?", _base_in_list),
    Rule("STM of a base written back, not the lowest", "A8.8.199", r"STM( \(with PC\))?", _base_in_list_not_lowest),
    Rule("one register for both halves", "A8.8.257", r"[US]M(ULL|LAL|AAL)|UMAAL|SMLAL|SMLALD, SMLSLD",
         lambda f: f["hi"] == f["lo"]),
    Rule("bit field that ends before it begins", "A8.8.20", r"BFI, BFC", lambda f: f["msb"] < f["lsb"]),
    Rule("bit field beyond bit 31", "A8.8.164, A8.8.246", r"[SU]BFX", lambda f: f["lsb"] + f["widthm1"] > 31),
    Rule("MSR of no byte", "A8.8.113", r"MSR \(register, flags\)", lambda f: f["fs"] == 0),
    Rule("MSR SPSR of no byte", "B9.3.12", r"MSR \((immediate|register), SPSR\)", lambda f: f["mask"] == 0),
    Rule("CPS of nothing, or of a reserved mode", "B9.3.2", r"CPS", _cps),
    Rule("SRS to a reserved mode", "B9.3.16", r"SRS", lambda f: f["mode"] not in BANKS),
    Rule("conditional BKPT and HVC", "A8.8.24", r"BKPT|HVC", lambda f: f["cond"] != ALWAYS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StateRule:
    """A rule for states. ``breaks`` returns True if the fields are UNPREDICTABLE in the state of the case."""

    name: str
    section: str
    insns: str
    breaks: Callable[[Fields, Case], bool]


_NO_SPSR = (Mode.USER, Mode.SYSTEM)


def _returns(f: Fields) -> bool:
    """Return True for data processing with S to the PC, which is an exception return."""
    return f.get("rd") == PC and f.get("s") == 1


def _msr_value(f: Fields, case: Case) -> int:
    if "rm" in f:
        return case.registers[f["rm"]]
    amount = 2 * f["rotate"]
    return (f["imm8"] >> amount | f["imm8"] << 32 - amount) & 0xFFFFFFFF


def _msr_reserved_mode(f: Fields, case: Case) -> bool:
    return case.privileged and f["xc"] & 1 == 1 and _msr_value(f, case) & PSR_MODE not in BANKS


STATE_RULES = (
    StateRule("exception return without a SPSR", "B9.3.20", r"[A-Z]{3} \((immediate|register)\)",
              lambda f, case: _returns(f) and case.mode in _NO_SPSR),
    StateRule("SPSR in a mode without one", "B9.3.8",
              r"(MRS|MSR) \(.*SPSR\)|ERET|SRS|LDM \(exception return\)", lambda f, case: case.mode in _NO_SPSR),
    StateRule("RFE in user mode", "B9.3.13", r"RFE", lambda f, case: not case.privileged),
    StateRule("user registers in user and system mode", "B9.3.6", r"(LDM|STM) \(user registers.*\)",
              lambda f, case: case.mode in _NO_SPSR),
    StateRule("MSR to a reserved mode", "B9.3.12", r"MSR \((immediate|register), CPSR\)", _msr_reserved_mode),
)  # fmt: skip


def broken_rule(insn: Insn, fields: Fields) -> str | None:
    """Return the name of a rule that the fields break, or None."""
    if _misplaced_pc(insn, fields):
        return "R15 as an operand"
    for rule in RULES:
        if re.fullmatch(rule.insns, insn.name) and rule.breaks(fields):
            return rule.name
    return None


def broken_state_rule(insn: Insn, fields: Fields, case: Case) -> str | None:
    """Return the name of a rule that the fields break in this state, or None."""
    for rule in STATE_RULES:
        if re.fullmatch(rule.insns, insn.name) and rule.breaks(fields, case):
            return rule.name
    return None
