"""Prefetch aborts: which instruction they belong to, and that what precedes it has been done."""

from __future__ import annotations

from collections.abc import Iterator

from tests.oracle.privileged import runner, tables
from tests.oracle.privileged.layout import END, EXCEPTION_MODES, FRAMES, L2, MODES, PRIVILEGED, Cpu
from tests.oracle.privileged.program import PSR_F, PSR_I, Step
from tests.oracle.privileged.tables import VA, Poke

A, B = VA + 0x15000, VA + 0x16000
PA_A, PA_B = FRAMES + 0x33000, FRAMES + 0x71000
_STACK = FRAMES + 0x800
_MASKED = PSR_I | PSR_F


def _pokes(cpu: Cpu, kind: str) -> list[Poke]:
    words = {
        "mapped": tables.page(cpu, PA_B),
        "missing": 0,
        "privileged": tables.page(cpu, PA_B, 1),
        "never to be executed": tables.small(PA_B, xn=1) if cpu.arch >= 6 else 0,
    }
    pokes = [tables.l1_entry(A, tables.coarse(cpu, L2)), tables.l2_entry(A, tables.page(cpu, PA_A))]
    return [*pokes, tables.l2_entry(B, words[kind])]


def _kinds(cpu: Cpu) -> list[str]:
    return ["mapped", "missing", "privileged"] + (["never to be executed"] if cpu.arch >= 6 else [])


def _state(cpu: Cpu, **more: int) -> dict[str, int]:
    return {"dacr": tables.dacr(tables.CLIENT), "sctlr": tables.sctlr(cpu), "r0": B, **more}


def _falling_through(cpu: Cpu) -> Iterator[Step]:
    """The last word of page A, then page B."""
    last = {
        "mov r2, #7": 0xE3A02007,
        "moveq r2, #7": 0x03A02007,
        "adds r2, r2, r2": 0xE0922002,
        "svc": 0xEF000007,
        "udf": 0xE7F000F0,
        "ldr r2, [r3]": 0xE5932000,
        "b to A": 0xEAFFFC00,
        "bne to A": 0x1AFFFC00,
        "beq to A": 0x0AFFFC00,
        "msr cpsr_f": 0xE328F20F,
        "msr cpsr_c, fiq": 0xE321F0D1,
        "str r2, [r3]": 0xE5832000,
    }
    for kind in _kinds(cpu):
        for mode in ("usr", "svc"):
            for name, word in last.items():
                # The landing code of A is longer than a word, so that its end is as it is there.
                pokes = [*_pokes(cpu, kind), (PA_A + 0xFFC, word)]
                state = _state(cpu, r0=A + 0xFFC, r3=_STACK)
                yield Step(f"{name} before B, {kind}, in {mode}", "mov pc, r0", mode, state=state, pokes=pokes)


def _branching(cpu: Cpu) -> Iterator[Step]:
    codes = (
        "mov pc, r0",
        "bx r0",
        "blx r0",
        "add pc, r0, #4",
        "ldr pc, [r3]",
        "ldmia r3!, {r1, pc}",
        "mov lr, pc\nmov pc, r0",
    )
    for kind in _kinds(cpu)[1:]:
        for mode in ("usr", "svc", "irq"):
            for code in codes:
                pokes = [*_pokes(cpu, kind), (_STACK, B), (_STACK + 4, B)]
                name = f"{code.replace(chr(10), '; ')} to B, {kind}, in {mode}"
                yield Step(name, code, mode, state=_state(cpu, r3=_STACK), pokes=pokes)


def _returning(cpu: Cpu) -> Iterator[Step]:
    """An exception return to where the fetch aborts, in the mode that was returned to."""
    for kind in _kinds(cpu)[1:]:
        for old in EXCEPTION_MODES:
            for new in MODES:
                if (old, new) not in (("svc", "usr"), ("irq", "svc"), ("abt", "usr"), ("abt", "sys"), ("und", "fiq")):
                    continue
                psr = MODES[new] | PSR_F | 0x30000000
                pokes = [*_pokes(cpu, kind), (_STACK, B), (_STACK + 4, psr)]
                codes = ["movs pc, r0", "ldmia r3, {pc}^"] + (["rfeia r3"] if cpu.arch >= 6 else [])
                for code in codes:
                    state = _state(cpu, r3=_STACK, spsr=psr)
                    name = f"{code} from {old} to {new}, {kind}"
                    yield Step(name, code.replace("^", " ^"), old, state=state, pokes=pokes)


def _both(cpu: Cpu) -> Iterator[Step]:
    """What the last word of a page does comes before the fault of the missing page behind it."""
    pokes = _pokes(cpu, "missing")
    for mode in ("usr", *PRIVILEGED):
        state = _state(cpu, r0=A + 0xFFC, r3=B + 4)
        words = {"ldr r2, [r3]": 0xE5932000, "bkpt": 0xE1200070}
        for name, word in words.items():
            full = f"{name} in {mode}, data and next page missing"
            yield Step(full, "mov pc, r0", mode, state=state, pokes=[*pokes, (PA_A + 0xFFC, word)])
    # A word that is data to everybody but is executed in B's first place.
    landing = [(PA_B, 0xE3A02001), (PA_B + 4, 0xE51FF004), (PA_B + 8, runner.stub(END))]
    yield Step("mapped again", "mov pc, r0", state=_state(cpu), pokes=[*_pokes(cpu, "mapped"), *landing])


def steps(cpu: Cpu) -> list[Step]:
    return [*_falling_through(cpu), *_branching(cpu), *_returning(cpu), *_both(cpu)]
