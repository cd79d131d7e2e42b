"""LDM and STM of the user registers, which name the same registers in every mode."""

from __future__ import annotations

from tests.oracle.privileged.layout import EXCEPTION_MODES, FRAMES, Cpu
from tests.oracle.privileged.program import Step

_BASE = FRAMES + 0x800
_WORDS = {f"[{4 * n:+}]": _BASE + 4 * n for n in range(-16, 17)}
_LISTS = ("r8-r14", "r0-r14", "sp", "lr", "r3, r8, r12, lr", "r7, sp", "r13-r15", "r1-r7")


def steps(cpu: Cpu) -> list[Step]:
    found = []
    for mode in EXCEPTION_MODES:
        for amode in ("ia", "ib", "da", "db"):
            for registers in _LISTS:
                # R0 is in some lists, so the base is one that is in none.
                base = {"r0-r14": "r7", "r1-r7": "r0"}.get(registers, "r0")
                pokes = [(address, 0x100 + n) for n, address in enumerate(_WORDS.values())]
                state = {base: _BASE}
                if "r15" not in registers:
                    code = f"ldm{amode} {base}, {{{registers}}}^\nmov r0, r0"
                    found.append(Step(f"{mode}: {code.splitlines()[0]}", code, mode, state=state, pokes=pokes))
                watch = {name: address for name, address in _WORDS.items() if abs(address - _BASE) <= 64}
                code = f"stm{amode} {base}, {{{registers}}}^\nmov r0, r0"
                name = f"{mode}: {code.splitlines()[0]}"
                found.append(Step(name, code, mode, state=state, pokes=[(a, 0) for a in _WORDS.values()], watch=watch))
    return found
