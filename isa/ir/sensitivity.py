"""Finding the sensitive instructions from their uops (Popek and Goldberg, CACM 17(7), 1974).

An instruction is *sensitive* if it reads or changes privileged state, or depends on the mode. A processor can be
virtualized by trap-and-emulate alone if all sensitive instructions are *privileged*, which means that they trap in user
mode. On ARM they do not: in user mode, MSR ignores the CPSR's control bits, MRS reads them, and CPS does nothing. A
binary translator rewrites each of them into callouts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from isa.ir.callouts import Callout
from isa.ir.queries import walk
from isa.ir.registry import Insn
from isa.ir.uop import Uop


class Sensitivity(Enum):
    INNOCUOUS = "innocuous"
    CALL = "call"  # traps in every mode: that is what it is for
    PRIVILEGED = "privileged"  # traps in user mode
    UNPRIVILEGED = "sensitive"  # does something else in user mode, without a trap


@dataclass(frozen=True, slots=True)
class Classified:
    """An instruction and its class. ``callouts`` are those that it is rewritten into, in order."""

    insn: Insn
    sensitivity: Sensitivity
    callouts: tuple[Callout, ...]


def sensitive_callouts(block: Iterable[Uop]) -> tuple[Callout, ...]:
    """Return the names of the sensitive callouts in a block, each once, in order."""
    found = (uop.attr for uop in walk(block) if isinstance(uop.attr, Callout))
    return tuple(dict.fromkeys(callout for callout in found if callout.sensitive))


def makes_callouts(block: Iterable[Uop]) -> bool:
    """Return True if a block makes a sensitive callout."""
    return any(isinstance(uop.attr, Callout) and uop.attr.sensitive for uop in walk(block))


def classify(insn: Insn) -> Classified:
    """Find the class of an instruction from the uops of all its forms."""
    uops = [uop for form in insn.forms() for uop in walk(insn.record_form(form))]
    callouts = sensitive_callouts(uops)
    words = insn.registry.new_recorder().layout.words
    if any(callout.checks_privilege for callout in callouts):
        sensitivity = Sensitivity.PRIVILEGED
    elif callouts or any(uop.op == "get" and words[str(uop.attr)].sensitive for uop in uops):
        sensitivity = Sensitivity.UNPRIVILEGED
    elif any(uop.op == "exception" for uop in uops):
        sensitivity = Sensitivity.CALL
    else:
        sensitivity = Sensitivity.INNOCUOUS
    return Classified(insn, sensitivity, callouts)


def answered_by(callout: Callout) -> str:
    """Return who answers a callout: "specification" if it is defined in uops, else "hypervisor"."""
    return "hypervisor" if callout.definition is None else "specification"
