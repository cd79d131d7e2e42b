"""Which instructions are sensitive, as their own uops tell (Popek and Goldberg, CACM 17(7), 1974).

An instruction is *sensitive* if it reads or changes privileged state, or behaves by the mode. A processor can be
virtualized by trap-and-emulate alone if all of these are *privileged*, that is trap in user mode. ARM's are not: MSR of
the CPSR's control bits is ignored in user mode, MRS reads them, CPS does nothing. A binary translator need not care,
because it rewrites each of them into callouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from isa.ir.spec import Insn
from isa.ir.uop import CALLOUTS, Uop


class Sensitivity(Enum):
    INNOCUOUS = "innocuous"
    CALL = "call"  # traps in every mode: that is what it is for
    PRIVILEGED = "privileged"  # traps in user mode
    UNPRIVILEGED = "sensitive"  # does something else in user mode, without a trap


_CHECK = "require_privilege"
#: An interworking branch leaves for Thumb state in every mode alike.
_NOT_SENSITIVE = frozenset({"enter_thumb"})


@dataclass(frozen=True, slots=True)
class Classified:
    """``callouts``: the names of those that the instruction is rewritten into, in order."""

    insn: Insn
    sensitivity: Sensitivity
    callouts: tuple[str, ...]


def _walk(block: Iterable[Uop]) -> Iterator[Uop]:
    for uop in block:
        yield uop
        yield from _walk(uop.body)


def makes_callouts(block: Iterable[Uop]) -> bool:
    """Whether uops do something that is the hypervisor's to do."""
    return any(uop.op == "callout" and uop.attr not in _NOT_SENSITIVE for uop in _walk(block))


def classify(insn: Insn) -> Classified:
    """From the uops of all its forms."""
    uops = [uop for form in insn.forms() for uop in _walk(insn.record_form(form).block)]
    callouts = dict.fromkeys(str(uop.attr) for uop in uops if uop.op == "callout" and uop.attr not in _NOT_SENSITIVE)
    raises = any(uop.op == "exception" for uop in uops)
    if _CHECK in callouts:
        sensitivity = Sensitivity.PRIVILEGED
    elif callouts or any(uop.op == "get" and uop.attr == "psr" for uop in uops):
        sensitivity = Sensitivity.UNPRIVILEGED
    elif raises:
        sensitivity = Sensitivity.CALL
    else:
        sensitivity = Sensitivity.INNOCUOUS
    return Classified(insn, sensitivity, tuple(callouts))


def answered_by(callout: str) -> str:
    """Who does a callout: "specification", in uops, or "hypervisor"."""
    return "hypervisor" if CALLOUTS[callout].definition is None else "specification"
