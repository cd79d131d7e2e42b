"""Several accesses to one page in a step: what a TLB holds from the first must not let the second do more, or less.

Pages of four permissions and tiny pages ask for more: there, a kilobyte says nothing about the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from tests.oracle.privileged import runner, tables
from tests.oracle.privileged.layout import END, FRAMES, L2, Cpu
from tests.oracle.privileged.program import Step
from tests.oracle.privileged.tables import CLIENT, SCTLR_XP, VA, Poke, marker

_PAGE = VA + 0x15000
_FRAME = FRAMES + 0x33000
_LARGE, _LARGE_FRAME = VA + 0x10000, FRAMES + 0x20000
_ACCESSES = {
    "ldr": "ldr r1, [r0]",
    "str": "str r1, [r0, #4]",
    "ldrt": "ldrt r2, [r0]",
    "strt": "strt r3, [r4]",
    "ldrb": "ldrb r5, [r0, #1]",
    "strh": "strh r5, [r0, #6]",
}
_IN_USER_MODE = {"ldr in usr": "msr cpsr_c, #0xd0\nldr r1, [r0]", "str in usr": "msr cpsr_c, #0xd0\nstr r3, [r0, #4]"}
#: The four tiny pages of 4 KB, and where they are: not in order, and not together.
_TINY = tuple(FRAMES + unit * 0x400 for unit in (0x1DF, 0x0C4, 0x3A1, 0x0C3))
_RETURN = 0xE1A0F00E  # mov pc, lr
_CALL = "mov lr, pc\nmov pc, r0"


def _state(cpu: Cpu, old: bool = False, **more: int) -> dict[str, int]:
    bits = tables.sctlr(cpu) & ~(SCTLR_XP if old else 0)
    return {"sctlr": bits, "dacr": tables.dacr(CLIENT), "r0": _PAGE + 0x10, "r4": _PAGE + 0x14, **more}


def _one_page(cpu: Cpu) -> Iterator[Step]:
    if cpu.arch == 5:
        words = {f"AP={ap}": tables.old_small(_FRAME, (ap,) * 4) for ap in (1, 2, 3)}
        words["no page"] = 0
    else:
        kinds = ((0, 1), (0, 2), (0, 3), (1, 1), (1, 3))
        words = {f"AP={apx}{ap:02b}": tables.small(_FRAME, ap, apx) for apx, ap in kinds}
        words["XN"] = tables.small(_FRAME, xn=1)
    for name, word in words.items():
        pokes = [tables.l1_entry(_PAGE, tables.coarse(cpu, L2)), tables.l2_entry(_PAGE, word), (_FRAME + 0x14, 0)]
        watch = {"stored": _FRAME + 0x14}
        for first, code in _ACCESSES.items():
            for second, then in (_ACCESSES | _IN_USER_MODE).items():
                full = f"{first} and {second}, {name}"
                yield Step(full, f"{code}\n{then}", state=_state(cpu), pokes=pokes, watch=watch)
            full = f"{first} and execution, {name}"
            yield Step(full, f"{code}\nsub r0, r0, #16\nmov pc, r0", state=_state(cpu), pokes=pokes, watch=watch)


def _quarters(cpu: Cpu) -> Iterator[Step]:
    """One quarter of a page after another one."""
    coarse = tables.l1_entry(_PAGE, tables.coarse(cpu, L2))
    for aps in ((3, 2, 1, 0), (0, 3, 3, 2)):
        small = [coarse, tables.l2_entry(_PAGE, tables.old_small(_FRAME, aps))]
        word = tables.old_large(_LARGE_FRAME, aps)
        large = [coarse, *(tables.l2_entry(_LARGE + 0x1000 * n, word) for n in range(16))]
        for name, pokes, size, base in (("small", small, 0x400, _PAGE), ("large", large, 0x4000, _LARGE)):
            for one, other in permutations(range(4), 2):
                for kind in ("ldrt {}, [{}]", "strt {}, [{}]", "ldr {}, [{}]"):
                    code = f"{kind.format('r1', 'r0')}\n{kind.format('r2', 'r4')}"
                    places = {"r0": base + one * size + 0x10, "r4": base + other * size + 0x10}
                    full = f"{name} page of {aps}, quarters {one} and {other}, {kind.split()[0]}"
                    restored = [(_FRAME + 0x10, marker(0xCC)), (_LARGE_FRAME + 0x10, marker(0x80))]
                    for quarter in range(4):
                        restored.append((_FRAME + 0x400 * quarter + 0x10, marker(0xCC + quarter)))
                        restored.append((_LARGE_FRAME + 0x4000 * quarter + 0x10, marker(0x80 + 0x10 * quarter)))
                    yield Step(full, code, state=_state(cpu, True, **places), pokes=[*pokes, *restored])
    # A block transfer from one quarter into the next, and code that goes on there.
    for aps in ((3, 3, 3, 3), (3, 1, 3, 3), (3, 2, 3, 3), (3, 0, 3, 3)):
        pokes = [coarse, tables.l2_entry(_PAGE, tables.old_small(_FRAME, aps)), (_FRAME + 0x3FC, 0xE3A02001)]
        places = {"r0": _PAGE + 0x3F8}
        for code in ("ldmia r0!, {r1, r2, r3, r4}", "stmia r0!, {r1, r2, r3, r4}"):
            watch = {f"[{n:#x}]": _FRAME + n for n in (0x3F8, 0x3FC)} if code.startswith("st") else {}
            cleared = [*pokes, *((place, 0) for place in watch.values())]
            cleared += [(_FRAME + 0x400, 0xE59F1008), (_FRAME + 0x404, 0xE51FF004)]
            for mode in ("usr", "svc"):
                full = f"{code} from quarter 0 to 1 of {aps} in {mode}"
                yield Step(full, code, mode, state=_state(cpu, True, **places), pokes=cleared, watch=watch)
        restored = [*pokes, (_FRAME + 0x400, 0xE59F1008), (_FRAME + 0x404, 0xE51FF004)]
        for mode in ("usr", "svc"):
            state = _state(cpu, True, r0=_PAGE + 0x3FC)
            yield Step(f"code from quarter 0 to 1 of {aps} in {mode}", "mov pc, r0", mode, state=state, pokes=restored)


def _block_transfers(cpu: Cpu) -> Iterator[Step]:
    """Those of user mode's registers and those that return, in a page that is known, and from there into the next."""
    frame = tables.old_small(_FRAME, (3,) * 4) if cpu.arch == 5 else tables.small(_FRAME, 3)
    following = tables.old_small(_FRAME + 0x1000, (3,) * 4) if cpu.arch == 5 else tables.small(_FRAME + 0x1000, 3)
    edge, registers = _PAGE + 0xFF8, "{r1, r8, sp, lr}^\nnop"
    twice = {f"{name}mia": f"{name}mia r0, {registers}\n{name}mia r4, {registers}" for name in ("ld", "st")}
    both = {**twice, "ldmia with pc": "ldmia r0, {r1, r2}\nldmia r4, {r1, r8, pc}^"}
    if cpu.arch >= 6:
        both |= {"rfeia": "ldr r1, [r0]\nadd r4, r4, #4\nrfeia r4"}
    for missing in (False, True):
        pokes = [tables.l1_entry(_PAGE, tables.coarse(cpu, L2)), tables.l2_entry(_PAGE, frame)]
        pokes.append(tables.l2_entry(_PAGE + 0x1000, 0 if missing else following))
        for number in range(4):
            pokes += [(_FRAME + 0x10 + 4 * number, 0x111 * number), (_FRAME + 0xFF8 + 4 * number, 0x222 * number)]
        watch = {f"[{n:#x}]": _FRAME + n for n in (0x10, 0x1C, 0xFF8, 0xFFC, 0x1000)}
        for mode in ("svc", "irq", "fiq"):
            for name, code in (both if missing else twice).items():
                full = f"{name} of user registers in {mode}, {'next missing' if missing else 'into the next'}"
                yield Step(full, code, mode, state=_state(cpu, r4=edge), pokes=pokes, watch=watch)
    # With the rights of the mode, and not of user mode, whose registers they are.
    for ap in (1, 2, 3):
        word = tables.old_small(_FRAME, (ap,) * 4) if cpu.arch == 5 else tables.small(_FRAME, ap)
        pokes = [tables.l1_entry(_PAGE, tables.coarse(cpu, L2)), tables.l2_entry(_PAGE, word)]
        for kind in ("ld", "st"):
            codes = (f"{kind}mia r0, {registers}", f"{kind}rt r2, [r4]")
            for first, second in (codes, codes[::-1]):
                full = f"{first.split()[0]} and {second.split()[0]}, AP={ap}"
                yield Step(full, f"{first}\n{second}", state=_state(cpu), pokes=pokes)


def _tiny_pokes(*missing: int) -> list[Poke]:
    pokes = [tables.l1_entry(_PAGE, tables.fine(L2))]
    for n, frame in enumerate(_TINY):
        pokes.append(tables.fine_entry(_PAGE + 0x400 * n, 0 if n in missing else tables.tiny(frame, 3)))
        pokes += [(frame + 0x100, 0xE3A01000 | n), (frame + 0x104, _RETURN), (frame + 0x14, 0), (frame + 0x3FC, 0)]
    return pokes


def _tiny_pages(cpu: Cpu) -> Iterator[Step]:
    """Four frames in one 4 KB."""
    watch = {f"{n}": frame + 0x14 for n, frame in enumerate(_TINY)}
    reads = "\n".join(f"ldr r{n + 1}, [r0, #{0x400 * n + 0x10:#x}]" for n in range(4))
    writes = "\n".join(f"str r{n + 1}, [r0, #{0x400 * n + 0x14:#x}]" for n in range(3))
    writes += "\nadd r5, r0, #0xc00\nstr r4, [r5, #20]"
    calls = "add r0, r0, #256\n" + "\n".join(f"{_CALL}\nmov r{n + 2}, r1\nadd r0, r0, #1024" for n in range(4))
    for missing in ((), (0,), (1,), (3,)):
        pokes, state = _tiny_pokes(*missing), _state(cpu, r0=_PAGE)
        name = f", {missing[0]} missing" if missing else ""
        for mode in ("usr", "svc"):
            yield Step(f"tiny pages read in {mode}{name}", reads, mode, state=state, pokes=pokes)
            yield Step(f"tiny pages written in {mode}{name}", writes, mode, state=state, pokes=pokes, watch=watch)
            yield Step(f"tiny pages executed in {mode}{name}", calls, mode, state=state, pokes=pokes)
    for missing in ((), (1,)):
        name = ", next missing" if missing else ""
        pokes = [*_tiny_pokes(*missing), (_TINY[0] + 0x3FC, 0xE3A02007)]
        yield Step(
            f"code from a tiny page to the next{name}", "mov pc, r0", state=_state(cpu, r0=_PAGE + 0x3FC), pokes=pokes
        )
        pokes = [*_tiny_pokes(*missing), (_TINY[0] + 0x3F8, 11), (_TINY[0] + 0x3FC, 12)]
        code = "ldmia r0!, {r1, r2, r3}"
        yield Step(f"{code} from a tiny page to the next{name}", code, state=_state(cpu, r0=_PAGE + 0x3F8), pokes=pokes)
    # Code changed in one of them, by its own address and by another one.
    maintain = "mcr p15, 0, r4, c7, c10, 1\nmcr p15, 0, r10, c7, c10, 4\nmcr p15, 0, r10, c7, c5, 0\n"
    for name, writer in (("its own", _PAGE + 0x500), ("its physical", _TINY[1] + 0x100)):
        code = f"{_CALL}\nmov r2, r1\nstr r3, [r4]\n{maintain}{_CALL}"
        state = _state(cpu, r0=_PAGE + 0x500, r3=0xE3A01009, r4=writer, r10=0)
        yield Step(f"code of a tiny page changed by {name} address", code, state=state, pokes=_tiny_pokes())
    # One of them moved, by itself.
    entry = tables.fine_entry(_PAGE + 0x400, 0)[0]
    for how, invalidate in (("all", "mcr p15, 0, r10, c8, c7, 0"), ("mva", "mcr p15, 0, r9, c8, c7, 1")):
        code = f"ldr r1, [r0]\nldr r2, [r0, #0x400]\nstr r3, [r4]\nmcr p15, 0, r10, c7, c10, 4\n{invalidate}\n"
        code += "ldr r5, [r0]\nldr r6, [r0, #0x400]"
        state = _state(cpu, r3=tables.tiny(_TINY[2], 3), r4=entry, r9=_PAGE + 0x400, r10=0)
        yield Step(f"a tiny page moved, invalidated by {how}", code, state=state, pokes=_tiny_pokes())


def _restored() -> Iterator[Step]:
    landing = ((0, 0xE59F1008), (4, 0xE51FF004), (8, runner.stub(END)))
    pokes = [(_FRAME + 0x400 * n + at, word) for n in range(4) for at, word in landing]
    yield Step("the frame again", "mov r0, r0", pokes=pokes)


def steps(cpu: Cpu) -> list[Step]:
    found = [*_one_page(cpu), *_block_transfers(cpu), *_restored()]
    if cpu.arch <= 6:
        found += _quarters(cpu)
    if cpu.arch == 5:
        found += _tiny_pages(cpu)
    return found
