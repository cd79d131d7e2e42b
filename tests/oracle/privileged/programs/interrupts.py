"""Interrupts from the interrupt controller (PL190), raised by software: before which instruction they are taken.

On the board a write to SOFTINT raises the line some cycles later. Here, and in QEMU when it translates one instruction
at a time, the interrupt is there before the next instruction, or before the first one that is not masked.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.oracle.privileged import tables
from tests.oracle.privileged.layout import EXCEPTION_MODES, FRAMES, MODES, Cpu
from tests.oracle.privileged.program import PSR_F, PSR_I, Step
from tests.oracle.privileged.tables import Poke

PIC, TIMER = 0x10140000, 0x101E2000
_STATUS, _FIQ_STATUS, _RAW, _SELECT, _ENABLE, _ENABLE_CLEAR, _SOFT, _SOFT_CLEAR = range(0, 0x20, 4)
_LINE = 1 << 2
_OTHER = 1 << 3
_TIMER_LINE = 1 << 4
_STACK = FRAMES + 0x800
_NO_MASKS = 0


def _setup(enabled: int = _LINE, fast: int = 0, pending: int = 0) -> list[Poke]:
    clear = 0xFFFFFFFF
    return [
        (PIC + _SOFT_CLEAR, clear), (PIC + _ENABLE_CLEAR, clear), (TIMER + 8, 0), (TIMER + 12, 0),
        (PIC + _SELECT, fast), (PIC + _ENABLE, enabled), (PIC + _SOFT, pending),
    ]  # fmt: skip


_STATE = {"r0": PIC, "r1": _LINE, "r2": 0, "r3": 0, "r4": 0, "r5": 0}
_RAISE = f"str r1, [r0, #{_SOFT}]"
_AFTER = "mov r2, #1\nmov r3, #1\nmov r4, #1"


def _raised(cpu: Cpu) -> Iterator[Step]:
    """By a store, with interrupts enabled or not."""
    for mode in MODES:
        for kind, fast in (("irq", 0), ("fiq", _LINE)):
            for masked, masks in (("unmasked", 0), ("I", PSR_I), ("F", PSR_F), ("I and F", PSR_I | PSR_F)):
                name = f"{kind} raised in {mode}, masked: {masked}"
                yield Step(name, f"mov r5, #1\n{_RAISE}\n{_AFTER}", mode, masks, 0xA0000000, _STATE, _setup(fast=fast))
    stores = {
        "strne not executed": "cmp r0, r0\nstrne r1, [r0, #24]",
        "streq": "cmp r0, r0\nstreq r1, [r0, #24]",
        "stm": "add r6, r0, #24\nstmia r6, {r1}",
        "stm with writeback": "add r6, r0, #24\nstmia r6!, {r1}",
        "str with writeback": "str r1, [r0, #24]!",
        "two stores": "str r1, [r0, #24]\nstr r1, [r0, #28]",
        "enabled": f"str r1, [r0, #{_ENABLE_CLEAR}]\n{_RAISE}\nmov r5, #2\nstr r1, [r0, #{_ENABLE}]",
        "selected as fast": f"str r1, [r0, #{_SELECT}]\n{_RAISE}",
        "before a branch": f"{_RAISE}\nb . + 8\nmov r5, #1",
        "before a call": f"{_RAISE}\nbl . + 8\nmov r5, #1",
        "before svc": f"{_RAISE}\nsvc #1",
        "before an undefined instruction": f"{_RAISE}\n.word 0xe7f000f0",
        "before a breakpoint": f"{_RAISE}\nbkpt #0",
        "before a move to the mode": f"{_RAISE}\nmsr cpsr_c, #0xdf",
    }
    for name, code in stores.items():
        for mode in ("usr", "sys", "abt"):
            yield Step(f"{name} in {mode}", f"{code}\n{_AFTER}", mode, _NO_MASKS, state=_STATE, pokes=_setup())
    both = _setup(enabled=_LINE | _OTHER, fast=_OTHER)
    for masked, masks in (("unmasked", 0), ("I", PSR_I), ("F", PSR_F)):
        state = {**_STATE, "r1": _LINE | _OTHER}
        yield Step(
            f"irq and fiq at once, masked: {masked}", f"{_RAISE}\n{_AFTER}", "svc", masks, state=state, pokes=both
        )


def _unmasked(cpu: Cpu) -> Iterator[Step]:
    """Pending already when an instruction unmasks it."""
    for kind, fast, bit in (("irq", 0, PSR_I), ("fiq", _LINE, PSR_F)):
        pokes = _setup(fast=fast, pending=_LINE)
        left = (PSR_I | PSR_F) & ~bit
        for mode in ("svc", "irq", "sys", "fiq", "und"):
            ways = {
                "msr": f"msr cpsr_c, #{left | MODES[mode]:#x}",
                "msr with register": f"mov r6, #{left | MODES[mode]:#x}\nmsr cpsr_c, r6",
                "msr to another mode": f"msr cpsr_c, #{left | MODES['abt']:#x}",
                "msr to user mode": f"msr cpsr_c, #{left | MODES['usr']:#x}",
                "msr that is not executed": f"cmp r0, r0\nmsrne cpsr_c, #{left | MODES[mode]:#x}",
                "msr of the flags": "msr cpsr_f, #0xf0000000",
                "msr and back": f"msr cpsr_c, #{left | MODES[mode]:#x}\nmsr cpsr_c, #{PSR_I | PSR_F | MODES[mode]:#x}",
                "the other mask": f"msr cpsr_c, #{bit | MODES[mode]:#x}",
                "svc": "svc #1",
            }
            if cpu.arch >= 6:
                letter = "i" if bit == PSR_I else "f"
                ways |= {
                    "cpsie": f"cpsie {letter}",
                    "cpsie of the other": f"cpsie {'f' if letter == 'i' else 'i'}",
                    "cpsie and mode": f"cpsie {letter}, #{MODES['abt']}",
                    "cpsie and cpsid": f"cpsie {letter}\ncpsid {letter}",
                    "cpsie after cpsid": f"cpsid {letter}\nmov r5, #1\ncpsie {letter}",
                }
            for name, code in ways.items():
                full = f"pending {kind}, {name} in {mode}"
                yield Step(full, f"mov r5, #1\n{code}\n{_AFTER}", mode, state=_STATE, pokes=pokes)
        yield from _returned(cpu, kind, pokes, left)


def _returned(cpu: Cpu, kind: str, pokes: list[Poke], left: int) -> Iterator[Step]:
    """An exception return that unmasks it: the interrupt is taken before the instruction returned to."""
    for old in EXCEPTION_MODES:
        for new in ("usr", "svc", "irq"):
            psr = left | MODES[new] | 0x40000000
            state = {**_STATE, "spsr": psr, "r6": _STACK}
            returns = {
                "movs pc": "add lr, pc, #4\nmovs pc, lr\nmov r5, #1",
                "subs pc, #4": "add lr, pc, #8\nsubs pc, lr, #4\nmov r5, #1",
                "ldm ^": "add r7, pc, #8\nstr r7, [r6]\nldmia r6, {pc} ^\nmov r5, #1",
            }
            if cpu.arch >= 6:
                returns["rfe"] = "add r7, pc, #8\nstr r7, [r6]\nrfeia r6\nmov r5, #1"
            for name, code in returns.items():
                full = f"pending {kind}, {name} from {old} to {new}"
                stack = [*pokes, (_STACK + 4, psr)]
                yield Step(full, f"{code}\n{_AFTER}", old, state=state, pokes=stack)


def _status(cpu: Cpu) -> Iterator[Step]:
    """What the controller says about it."""
    read = "".join(
        f"ldr r{2 + n}, [r0, #{place}]\n" for n, place in enumerate((_STATUS, _FIQ_STATUS, _RAW, _ENABLE, _SOFT))
    )
    for name, pokes in {
        "enabled": _setup(),
        "not enabled": _setup(enabled=0),
        "fast": _setup(fast=_LINE),
    }.items():
        yield Step(f"status, {name}", f"{_RAISE}\n{read}", state=_STATE, pokes=pokes)
        code = f"{_RAISE}\nstr r1, [r0, #{_SOFT_CLEAR}]\n{read}"
        yield Step(f"status, {name}, cleared", code, state=_STATE, pokes=pokes)
    code = f"{_RAISE}\nstr r1, [r0, #{_SOFT_CLEAR}]\nmsr cpsr_c, #0x13\n{_AFTER}"
    yield Step("cleared before it is unmasked", code, state=_STATE, pokes=_setup())


def _waiting(cpu: Cpu) -> Iterator[Step]:
    """WFI ends when an interrupt is pending, masked or not, and the interrupt belongs to the instruction after it."""
    waits = {"cp15": "mov r6, #0\nmcr p15, 0, r6, c7, c0, 4"}
    if cpu.arch == 7:
        waits = {"wfi": "wfi"}
    for name, wait in waits.items():
        for mode in ("svc", "irq", "sys"):
            for kind, fast in (("irq", 0), ("fiq", _LINE)):
                full = f"{name} in {mode}, pending {kind}"
                pokes = _setup(fast=fast, pending=_LINE)
                yield Step(f"{full}, masked", f"{wait}\n{_AFTER}", mode, state=_STATE, pokes=pokes)
                code = f"{wait}\nmov r2, #1\nmsr cpsr_c, #{MODES[mode]:#x}\nmov r3, #1"
                yield Step(f"{full}, unmasked after", code, mode, state=_STATE, pokes=pokes)
        # A timer ends the wait: one shot, 32 bits, with its interrupt, after ten microseconds.
        timer = {**_STATE, "r7": TIMER, "r8": 0xA3}
        start = "str r8, [r7, #8]"
        pokes = [*_setup(enabled=_TIMER_LINE), (TIMER, 10)]
        read = f"ldr r2, [r7, #20]\nldr r3, [r0, #{_STATUS}]\nldr r4, [r7, #4]"
        for kind, fast in (("irq", 0), ("fiq", _TIMER_LINE)):
            fast_pokes = [*pokes, (PIC + _SELECT, fast)]
            yield Step(f"{name}, timer's {kind} masked", f"{start}\n{wait}\n{read}", state=timer, pokes=fast_pokes)
            # Only after the wait is it certain that it has come.
            code = f"{start}\n{wait}\nmov r2, #1\nmsr cpsr_c, #0x13\nmov r3, #1"
            yield Step(f"{name}, timer's {kind} unmasked after", code, state=timer, pokes=fast_pokes)
        code = f"{start}\n{wait}\nstr r8, [r7, #12]\n{read}"
        yield Step(f"{name}, timer cleared", code, state=timer, pokes=pokes)


def _under_the_mmu(cpu: Cpu) -> Iterator[Step]:
    """As :func:`_raised`, with the devices mapped where they are, for privileged modes only."""
    pokes = [*_setup(), tables.l1_entry(PIC, tables.section(cpu, PIC & -(1 << 20), ap=1))]
    state = {**_STATE, "sctlr": tables.sctlr(cpu), "dacr": tables.dacr(tables.CLIENT)}
    for mode in ("svc", "irq", "sys", "usr"):
        yield Step(f"raised in {mode} with the MMU", f"{_RAISE}\n{_AFTER}", mode, _NO_MASKS, state=state, pokes=pokes)


def steps(cpu: Cpu) -> list[Step]:
    return [*_raised(cpu), *_unmasked(cpu), *_status(cpu), *_waiting(cpu), *_under_the_mmu(cpu)]
