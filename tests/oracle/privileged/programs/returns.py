"""Exception returns from every mode to every mode: by data processing, LDM, RFE, and what SRS stores."""

from __future__ import annotations

from collections.abc import Iterator

from tests.oracle.privileged.layout import EXCEPTION_MODES, FRAMES, MODES, PRIVILEGED, Cpu
from tests.oracle.privileged.program import PSR_A, PSR_F, PSR_I, Step

_STACK = FRAMES + 0x800
_NEAR = {f"[{offset:+}]": _STACK + offset for offset in range(-12, 16, 4)}


def _psr(mode: str, cpu: Cpu) -> int:
    return MODES[mode] | PSR_F | 0x90000000 | (0x000B0000 | PSR_A if cpu.arch >= 6 else PSR_I)


def _by_data_processing(cpu: Cpu) -> Iterator[Step]:
    forms = {"movs pc, lr": "add lr, pc, #4", "subs pc, lr, #4": "add lr, pc, #8", "subs pc, lr, #8": "add lr, pc, #12"}
    for old in EXCEPTION_MODES:
        for new in MODES:
            for form, link in forms.items():
                code = f"{link}\n{form}\nmov r0, #1\nmov r1, #2"
                yield Step(f"{form} from {old} to {new}", code, old, state={"spsr": _psr(new, cpu)})
        yield Step(f"movsne pc from {old}", "add lr, pc, #4\nmovsne pc, lr\nmov r0, #1", old)
        yield Step(f"movseq pc from {old}", "add lr, pc, #4\nmovseq pc, lr\nmov r0, #1", old)
        yield Step(f"mov pc from {old} is none", "add lr, pc, #4\nmov pc, lr\nmov r0, #1", old)


def _by_block_transfer(cpu: Cpu) -> Iterator[Step]:
    for old in EXCEPTION_MODES:
        for new in MODES:
            for form, base in (("ldmia r0, {r1, pc}^", _STACK), ("ldmdb r0!, {r1, r8, r12, sp, pc}^", _STACK + 20)):
                # The address of the second MOV goes where the PC is loaded from.
                place = 4 if "ia" in form else 16
                code = f"add r2, pc, #8\nstr r2, [r3]\n{form}\nmov r4, #1\nmov r5, #2"
                pokes = [(_STACK + 4 * n, 0x1000 + n) for n in range(6)]
                state = {"spsr": _psr(new, cpu), "r0": base, "r3": _STACK + place}
                yield Step(f"{form} from {old} to {new}", code.replace("^", " ^"), old, state=state, pokes=pokes)


def _by_rfe(cpu: Cpu) -> Iterator[Step]:
    amodes = {"ia": 0, "ib": 4, "da": -4, "db": -8}
    for old in PRIVILEGED:
        for new in MODES:
            for amode, offset in amodes.items():
                for writeback in ("", "!"):
                    if amode != "ia" and (old, new) not in (("svc", "usr"), ("irq", "fiq"), ("fiq", "sys")):
                        continue
                    code = f"add r2, pc, #8\nstr r2, [r3]\nrfe{amode} r0{writeback}\nmov r4, #1\nmov r5, #2"
                    state = {"r0": _STACK, "r3": _STACK + offset}
                    pokes = [(_STACK + offset + 4, _psr(new, cpu))]
                    yield Step(f"rfe{amode}{writeback} from {old} to {new}", code, old, state=state, pokes=pokes)
        code = "add r2, pc, #8\nstr r2, [sp]\nrfeia sp!\nmov r4, #1\nmov r5, #2"
        pokes = [(_STACK + 4, _psr("irq", cpu))]
        yield Step(f"rfeia sp! from {old}", code, old, state={"sp": _STACK}, pokes=pokes)


def _by_srs() -> Iterator[Step]:
    clear = [(address, 0) for address in _NEAR.values()]
    for old in EXCEPTION_MODES:
        for new in MODES:
            for amode in ("ia", "ib", "da", "db"):
                if amode in ("ib", "da") and old not in ("svc", "fiq"):
                    continue
                for writeback in ("", "!"):
                    code = f"srs{amode} sp{writeback}, #{MODES[new]}"
                    state = {f"sp_{'usr' if new == 'sys' else new}": _STACK}
                    name = f"srs{amode}{writeback} from {old} to {new}"
                    yield Step(name, code, old, state=state, pokes=clear, watch=_NEAR)


def steps(cpu: Cpu) -> list[Step]:
    found = [*_by_data_processing(cpu), *_by_block_transfer(cpu)]
    if cpu.arch >= 6:
        found += [*_by_rfe(cpu), *_by_srs()]
    return found
