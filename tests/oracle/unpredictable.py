"""The combinations of fields that the architecture leaves UNPREDICTABLE, one named rule each.

The generator throws such words away, because any behaviour is right for them; what we chose is
written in ``isa``. An instruction of fields that no rule names is compared, whatever they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from isa.spec import Insn

PC, LR, SP = 15, 14, 13
REGISTER_FIELDS = frozenset({"rd", "rn", "rm", "rs", "ra", "rt", "rt2", "rdlo", "rdhi"})

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
)  # fmt: skip

Fields = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rule:
    """``breaks`` says whether these fields of an instruction whose name matches ``insns`` break it."""

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

RULES = (
    Rule("writeback to the register transferred", "A8.8.63", _STORES_AND_LOADS_BACK, lambda f: f["rn"] == f["rt"]),
    Rule("writeback to the second register transferred", "A8.8.72",
         r"(LDR|STR)D \((immediate|register), (pre|post)-indexed\)", lambda f: f["rn"] in _pair(f)),
    Rule("R14 and R15 as a pair", "A8.8.72", r"(LDR|STR)D .*|(LDR|STR)EXD", lambda f: f["rt"] == LR),
    Rule("the index is loaded", "A8.8.74", r"LDRD \(register, .*\)", lambda f: f["rm"] in _pair(f)),
    Rule("SWP of the base", "A8.8.229", r"SWP", lambda f: f["rn"] in (f["rt"], f["rt2"])),
    Rule("STREX status in an operand", "A8.8.212", r"STREX.*", lambda f: f["rd"] in (f["rn"], f["rt"])),
    Rule("STREXD status in the second register", "A8.8.214", r"STREXD", lambda f: f["rd"] == f["rt"] + 1),
)  # fmt: skip


def broken_rule(insn: Insn, fields: Fields) -> str | None:
    """The name of a rule that the fields break, or None."""
    if _misplaced_pc(insn, fields):
        return "R15 as an operand"
    for rule in RULES:
        if re.fullmatch(rule.insns, insn.name) and rule.breaks(fields):
            return rule.name
    return None
