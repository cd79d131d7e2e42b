"""What changes the translation of an address: TTBRs, TTBCR, ASIDs, FCSE, changed descriptors with the maintenance
that the architecture asks for, the MMU switched off and on, and vectors that move. And code written by another name.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.oracle.privileged import runner, tables
from tests.oracle.privileged.accesses import ACCESSES, access
from tests.oracle.privileged.layout import END, FRAMES, HIGH_VECTORS, L1, L2, OTHER_L1, Cpu
from tests.oracle.privileged.program import Step
from tests.oracle.privileged.tables import SCTLR_A, SCTLR_V, VA, Poke, marker

_VA = VA + 0x15400
_PA, _OTHER_PA = FRAMES + 0x15400, FRAMES + 0x16400
_NOT_GLOBAL = 1 << 11  # of a small page
_OTHER_L2 = L2 + 0x400
_ABORT_VECTOR, _PREFETCH_VECTOR = 0x30, 0x2C  # where the runner's addresses of them are
_RETURN = 0xE1A0F00E  # mov pc, lr
_MOV_R1 = 0xE3A01000
_CALL = "mov lr, pc\nmov pc, r0"


def _state(cpu: Cpu, bits: int = 0, **more: int) -> dict[str, int]:
    return {"dacr": tables.dacr(tables.CLIENT), "sctlr": tables.sctlr(cpu, bits), "r0": _VA + 0x10, "r10": 0, **more}


def _barrier(cpu: Cpu) -> str:
    """DSB and ISB by CP15, with R10 = 0. ARMv5 drains the write buffer."""
    drain = "mcr p15, 0, r10, c7, c10, 4\n"
    return drain if cpu.arch == 5 else drain + ".word 0xee07af95\n"  # CP15ISB


def _pages(cpu: Cpu, pa: int) -> list[Poke]:
    return tables.map_pages(cpu, (_VA & ~0xFFF, pa & ~0xFFF))


# -- translation table registers -------------------------------------------------------------------------


def _two_tables(cpu: Cpu) -> Iterator[Step]:
    """TTBCR.N: addresses whose top N bits are zero belong to TTBR0, whose table shrinks, the others to TTBR1."""
    for n in range(8):
        boundary = 1 << 32 - n & 0xFFFFFFFF
        places = {"below": (boundary - 0x100000) & 0xFFFFFFFF, "at": boundary, "top": 0xFFE00000}
        for place, megabyte in places.items():
            if n == 0 and place != "below":
                continue
            for name, table in (("TTBR0", L1), ("TTBR1", OTHER_L1)):
                pokes = [
                    tables.l1_entry(megabyte, 0, L1),
                    tables.l1_entry(megabyte, 0, OTHER_L1),
                    tables.l1_entry(megabyte, tables.section(cpu, FRAMES), table),
                ]
                state = _state(cpu, ttbcr=n)
                state.pop("r0")
                full = f"TTBCR.N={n}, {place} the boundary, mapped by {name}"
                yield from access(full, megabyte + 0x15400, _PA, pokes, state, ACCESSES[1:6:2])
        # A small table need not be aligned to more than its size.
        size = 0x4000 >> n
        base = L1 + 0x4000 - size if n > 1 else L1
        words = [tables.section(cpu, m << 20, domain=0) for m in range(3)]
        pokes = [(base + 4 * m, word) for m, word in enumerate(words)]
        megabyte = 0x01F00000
        pokes += [(base + (megabyte >> 18), tables.section(cpu, FRAMES))]
        state = _state(cpu, ttbcr=n, ttbr0=base)
        state.pop("r0")
        yield from access(f"TTBCR.N={n}, table at {base:#x}", megabyte + 0x15400, _PA, pokes, state, ACCESSES[1:6:2])
    for bits in (0x01, 0x18, 0x5B):
        pokes = [tables.l1_entry(VA, tables.section(cpu, FRAMES))]
        state = _state(cpu, ttbr0=L1 | bits, ttbr1=OTHER_L1 | bits)
        yield Step(f"attributes {bits:#x} in the TTBRs", "ldr r1, [r0]", state=state, pokes=pokes)


def _switching(cpu: Cpu) -> Iterator[Step]:
    """Another table in TTBR0: with everything invalidated, or with another ASID for pages that are not global."""
    other = [(OTHER_L1 + 4 * (VA >> 20), tables.coarse(cpu, _OTHER_L2))]
    other += [tables.l2_entry(_VA, tables.page(cpu, _OTHER_PA & ~0xFFF), _OTHER_L2)]
    pokes = [*_pages(cpu, _PA), *other]
    state = _state(cpu, r3=OTHER_L1, r4=L1, r7=1, r8=2)
    switch = f"{_barrier(cpu)}mcr p15, 0, r3, c2, c0, 0\n{_barrier(cpu)}"
    flush = f"mcr p15, 0, r10, c8, c7, 0\n{_barrier(cpu)}"
    back = switch.replace("r3, c2", "r4, c2")
    code = f"ldr r1, [r0]\n{switch}{flush}ldr r2, [r0]\n{back}{flush}ldr r5, [r0]"
    yield Step("TTBR0 changed and all invalidated", code, state=state, pokes=pokes)
    if cpu.arch == 5:
        return
    pokes[1] = (pokes[1][0], pokes[1][1] | _NOT_GLOBAL)
    pokes[3] = (pokes[3][0], pokes[3][1] | _NOT_GLOBAL)
    # The manual's sequence (B3.10.4): a reserved ASID in between.
    to = "mcr p15, 0, r10, c13, c0, 1\n.word 0xee07af95\n{}mcr p15, 0, {}, c13, c0, 1\n.word 0xee07af95\n"
    first, second = to.format(back, "r7"), to.format(switch, "r8")
    code = f"{first}ldr r1, [r0]\n{second}ldr r2, [r0]\n{first}ldr r5, [r0]\n{second}ldr r6, [r0]"
    yield Step("TTBR0 and ASID changed", code, state=state, pokes=pokes)
    code = f"{first}ldr r1, [r0]\n{second}str r8, [r0]\n{first}ldr r5, [r0]"
    watch = {"stored": _OTHER_PA + 0x10}
    yield Step("TTBR0 and ASID changed, a store", code, state=state, pokes=[*pokes, (_OTHER_PA + 0x10, 0)], watch=watch)
    yield Step("the ASID is not the state of the next step", "ldr r1, [r0]", state=_state(cpu), pokes=_pages(cpu, _PA))
    yield Step("the marker again", "mov r0, r0", pokes=[(_OTHER_PA + 0x10, marker(0x59))])


# -- changed descriptors ---------------------------------------------------------------------------------


def _invalidations(cpu: Cpu) -> dict[str, str]:
    """What makes a changed descriptor of the page at R9 known: R9 is its address and ASID 0."""
    operations = {"all": "c8, c7, 0", "mva": "c8, c7, 1", "data mva": "c8, c6, 1", "data": "c8, c6, 0"}
    if cpu.arch >= 6:
        operations["asid"] = "c8, c7, 2"
    found = {name: f"mcr p15, 0, {'r9' if 'mva' in name else 'r10'}, {where}\n" for name, where in operations.items()}
    if cpu.arch == 7:
        found.pop("data mva")
        found.pop("data")
    return found


def _changed(cpu: Cpu) -> Iterator[Step]:
    entry = tables.l2_entry(_VA, 0)[0]
    words = {
        "another page": tables.page(cpu, _OTHER_PA & ~0xFFF),
        "nothing": 0,
        "no access": tables.page(cpu, _PA & ~0xFFF, 0),
        "read-only for usr": tables.page(cpu, _PA & ~0xFFF, 2),
    }
    for what, word in words.items():
        for how, invalidate in _invalidations(cpu).items():
            for verb, first, second in (
                ("read", "ldr r1, [r0]", "ldr r2, [r0]"),
                ("written", "str r1, [r0, #4]", "str r3, [r0, #4]"),
                ("read as usr", "ldrt r1, [r0]", "ldrt r2, [r0]"),
                ("written as usr", "strt r1, [r0]", "strt r3, [r0]"),
            ):
                code = f"{first}\nstr r3, [r4]\n{_barrier(cpu)}{invalidate}{_barrier(cpu)}{second}"
                if verb == "written as usr":
                    code = code.replace("strt r1, [r0]", "add r0, r0, #4\nstrt r1, [r0]", 1)
                watch = {"[page]": _PA + 0x14, "[other]": _OTHER_PA + 0x14}
                asid = {}
                if how == "asid":  # a page that is not global
                    asid = {"contextidr": 0}
                global_bit = _NOT_GLOBAL if how == "asid" else 0
                pokes = _pages(cpu, _PA)
                pokes[1] = (pokes[1][0], pokes[1][1] | global_bit)
                state = _state(cpu, r3=word | (global_bit if word else 0), r4=entry, r9=_VA & ~0xFFF, **asid)
                name = f"small page changed to {what}, {verb}, invalidated by {how}"
                yield Step(name, code, state=state, pokes=[*pokes, (_PA + 0x14, 0), (_OTHER_PA + 0x14, 0)], watch=watch)
    # A section that becomes a table, and a table that becomes a section.
    section, table = tables.section(cpu, FRAMES), tables.coarse(cpu, L2)
    for name, old, new in (("section to table", section, table), ("table to section", table, section)):
        pokes = [tables.l2_entry(_VA, tables.page(cpu, _OTHER_PA & ~0xFFF)), tables.l1_entry(VA, old)]
        state = _state(cpu, r3=new, r4=tables.l1_entry(VA, 0)[0], r9=_VA & ~0xFFF)
        for how, invalidate in _invalidations(cpu).items():
            if how == "asid":
                continue
            code = f"ldr r1, [r0]\nstr r3, [r4]\n{_barrier(cpu)}{invalidate}{_barrier(cpu)}ldr r2, [r0]"
            yield Step(f"{name}, invalidated by {how}", code, state=state, pokes=pokes)
    # A fault is never in a TLB, so that a descriptor that was none needs no invalidation.
    for name, pokes in (("section", [tables.l1_entry(VA, 0)]), ("page", [*_pages(cpu, 0)[:1], (entry, 0)])):
        new, where = (section, tables.l1_entry(VA, 0)[0]) if name == "section" else (words["another page"], entry)
        for kind, vector, first, back in (
            ("data", _ABORT_VECTOR, "ldr r2, [r0]", 8),
            ("prefetch", _PREFETCH_VECTOR, "mov lr, pc\nmov pc, r0", 4),
        ):
            handler = f"str r5, [r6]\nstr r3, [r4]\n{_barrier(cpu)}subs pc, lr, #{back}"
            setup = "ldr r5, [r6]\nadr r7, handler\nstr r7, [r6]\n"
            code = f"{setup}{first}\nmov r8, #1\nb end\nhandler:\n{handler}\nend:"
            state = _state(cpu, r3=new, r4=where, r6=vector)
            if kind == "prefetch":
                state["r0"] = _VA
            yield Step(f"{name} mapped by the handler of a {kind} abort", code, state=state, pokes=pokes)


def _domains(cpu: Cpu) -> Iterator[Step]:
    """DACR needs no invalidation."""
    for old in (0, 1, 3):
        for new in (0, 1, 3):
            code = f"mcr p15, 0, r3, c3, c0, 0\n{_barrier(cpu)}ldr r2, [r0]\nmcr p15, 0, r4, c3, c0, 0\n"
            code += f"{_barrier(cpu)}str r3, [r0, #4]"
            state = _state(cpu, r3=tables.dacr(new), r4=tables.dacr(old))
            pokes = [tables.l1_entry(VA, tables.section(cpu, FRAMES, ap=0)), (_PA + 0x14, 0)]
            yield Step(f"DACR {new} and then {old}", code, state=state, pokes=pokes, watch={"stored": _PA + 0x14})


def _off_and_on(cpu: Cpu) -> Iterator[Step]:
    """With the MMU off an address is a physical one. The code is mapped where it is."""
    address = 0x00C00010
    pokes = [tables.l1_entry(address, tables.section(cpu, FRAMES)), (address, 0xC0FFEE)]
    toggle = f"eor r6, r6, #1\nmcr p15, 0, r6, c1, c0, 0\n{_barrier(cpu)}"
    for start, bits in (("on", tables.sctlr(cpu)), ("off", tables.sctlr(cpu) & ~tables.SCTLR_M)):
        code = f"ldr r1, [r0]\nmrc p15, 0, r6, c1, c0, 0\n{toggle}ldr r2, [r0]\n{toggle}ldr r3, [r0]\nmov r6, #0"
        state = {**_state(cpu, r0=address), "sctlr": bits}
        yield Step(f"the MMU toggled from {start}", code, state=state, pokes=pokes)
        code = code.replace("ldr r2, [r0]", "str r4, [r0]")
        watch = {"[virtual]": FRAMES + 0x10, "[physical]": address}
        restored = [*pokes, (FRAMES + 0x10, marker(0))]
        yield Step(f"the MMU toggled from {start}, a store", code, state=state, pokes=restored, watch=watch)
    yield Step("the first marker again", "mov r0, r0", pokes=[(FRAMES + 0x10, marker(0)), tables.l1_entry(
        address, tables.section(cpu, address & -(1 << 20), domain=0))])  # fmt: skip
    # Alignment checks are switched on and off as well.
    toggle = toggle.replace("#1", f"#{SCTLR_A}")
    code = f"mrc p15, 0, r6, c1, c0, 0\n{toggle}{toggle}mov r6, #0\nldrb r1, [r0, #1]"
    yield Step("alignment checks toggled", code, state=_state(cpu), pokes=_pages(cpu, _PA))


# -- vectors and FCSE ------------------------------------------------------------------------------------


def _vectors(cpu: Cpu) -> Iterator[Step]:
    causes = {
        "svc": "svc #1",
        "undefined": ".word 0xe7f000f0",
        "breakpoint": "bkpt #0",
        "data abort": "ldr r1, [r0]",
        "prefetch abort": "mov pc, r0",
    }
    high = [
        tables.l1_entry(0xFFFF0000, tables.coarse(cpu, _OTHER_L2, 0)),
        tables.l2_entry(0xFFFF0000, tables.page(cpu, HIGH_VECTORS), _OTHER_L2),
        tables.l1_entry(VA, 0),
    ]
    for name, code in causes.items():
        for mode in ("usr", "svc", "fiq"):
            state = _state(cpu, SCTLR_V)
            yield Step(f"{name} in {mode}, high vectors", code, mode, state=state, pokes=high)
            privileged = [*high[:1], (high[1][0], tables.page(cpu, HIGH_VECTORS, 1)), high[2]]
            full = f"{name} in {mode}, high vectors that user mode may not read"
            yield Step(full, code, mode, state=state, pokes=privileged)
            if cpu.arch == 7:
                virtual = VA + 0x100000
                pokes = [
                    tables.l1_entry(virtual, tables.coarse(cpu, _OTHER_L2, 0)),
                    tables.l2_entry(virtual, tables.page(cpu, HIGH_VECTORS), _OTHER_L2),
                    tables.l1_entry(VA, 0),
                ]
                vbar = _state(cpu, vbar=virtual + 0x800)
                yield Step(f"{name} in {mode}, VBAR", code, mode, state=vbar, pokes=pokes)
                both = _state(cpu, SCTLR_V, vbar=virtual + 0x800)
                yield Step(f"{name} in {mode}, VBAR and high vectors", code, mode, state=both, pokes=[*pokes, *high])


def _process_ids(cpu: Cpu) -> Iterator[Step]:
    """FCSE: addresses below 32 MB are those of a process's own 32 MB, the runner's among them."""
    if cpu.arch == 7:
        return
    for pid in (1, 5, 0x3F):
        base = pid << 25
        here = [tables.l1_entry(base + (m << 20), tables.section(cpu, m << 20, domain=0)) for m in range(3)]
        for address in (0x01D15400, 0x02D15400, base + 0x01D15400):
            mapped = base + address if address < 0x02000000 else address
            for what, word in (("mapped", tables.section(cpu, FRAMES)), ("missing", 0)):
                pokes = [*here, tables.l1_entry(address, 0), tables.l1_entry(mapped, word)]
                state = _state(cpu, fcseidr=base)
                state.pop("r0")
                full = f"process {pid}, {address:#x}, {what}"
                yield from access(full, address, _PA, pokes, state, ACCESSES[:6])


# -- code by other names ---------------------------------------------------------------------------------


def _maintain_code(cpu: Cpu, address: str) -> str:
    """After a store to the line of ``address``: clean the data, invalidate the instructions and branch predictions."""
    if cpu.arch == 5:
        return f"mcr p15, 0, {address}, c7, c10, 1\n{_barrier(cpu)}mcr p15, 0, r10, c7, c5, 0\n"
    clean = "c7, c11, 1" if cpu.arch == 7 else "c7, c10, 1"
    drain = "mcr p15, 0, r10, c7, c10, 4\n"
    return (
        f"mcr p15, 0, {address}, {clean}\n{drain}mcr p15, 0, r10, c7, c5, 0\n"
        f"mcr p15, 0, r10, c7, c5, 6\n{_barrier(cpu)}"
    )


def _aliases(cpu: Cpu) -> Iterator[Step]:
    page, other = FRAMES + 0x33000, FRAMES + 0x71000
    first, second, third = VA + 0x15000, VA + 0x16000, VA + 0x27000
    base = tables.map_pages(cpu, (first, page), (second, page), (third, other))
    code_words = [
        (page + 0x100, _MOV_R1 | 1),
        (page + 0x104, _RETURN),
        (other + 0x100, _MOV_R1 | 3),
        (other + 0x104, _RETURN),
    ]
    pokes = [*base, *code_words]
    names = {"the same name": first, "another name": second, "its physical address": page}
    for name, writer in names.items():
        for times in (1, 3):
            # Executed, changed, executed again, by the name that was executed before.
            calls = "\n".join([_CALL] * times)
            code = f"{calls}\nmov r2, r1\nstr r3, [r4]\n{_maintain_code(cpu, 'r4')}{_CALL}"
            state = _state(cpu, r0=first + 0x100, r3=_MOV_R1 | 2, r4=writer + 0x100)
            yield Step(f"code written by {name}, executed {times} times before", code, state=state, pokes=pokes)
    code = f"{_CALL}\nmov r2, r1\nmov r0, r5\n{_CALL}\nmov r6, r1\nstr r3, [r4]\n{_maintain_code(cpu, 'r4')}{_CALL}\n"
    code += f"mov r7, r1\nmov r0, r8\n{_CALL}"
    state = _state(cpu, r0=first + 0x100, r5=second + 0x100, r8=first + 0x100, r3=_MOV_R1 | 2, r4=page + 0x100)
    yield Step("code executed by two names and written by a third", code, state=state, pokes=pokes)
    for how, invalidate in _invalidations(cpu).items():
        if "data" in how or how == "asid":
            continue
        code = f"{_CALL}\nmov r2, r1\nstr r3, [r4]\n{_barrier(cpu)}{invalidate}mcr p15, 0, r10, c7, c5, 0\n"
        code += ("mcr p15, 0, r10, c7, c5, 6\n" if cpu.arch >= 6 else "") + f"{_barrier(cpu)}{_CALL}"
        state = _state(cpu, r0=first + 0x100, r3=tables.page(cpu, other), r4=tables.l2_entry(first, 0)[0], r9=first)
        yield Step(f"another page of code, invalidated by {how}", code, state=state, pokes=pokes)
        state["r3"] = 0
        yield Step(f"no page of code any more, invalidated by {how}", code, state=state, pokes=pokes)
    # The same address is different code to different tables.
    others = [*pokes, (OTHER_L1 + 4 * (VA >> 20), tables.coarse(cpu, _OTHER_L2))]
    others += [tables.l2_entry(first, tables.page(cpu, other), _OTHER_L2)]
    flush = f"{_barrier(cpu)}mcr p15, 0, {{}}, c2, c0, 0\n{_barrier(cpu)}mcr p15, 0, r10, c8, c7, 0\n"
    flush += "mcr p15, 0, r10, c7, c5, 0\n" + ("mcr p15, 0, r10, c7, c5, 6\n" if cpu.arch >= 6 else "") + _barrier(cpu)
    code = f"{_CALL}\nmov r2, r1\n{flush.format('r3')}{_CALL}\nmov r5, r1\n{flush.format('r4')}{_CALL}"
    state = _state(cpu, r0=first + 0x100, r3=OTHER_L1, r4=L1)
    yield Step("the same address in two tables", code, state=state, pokes=others)
    # Code in a page that user mode may not execute, called from both.
    private = [*tables.map_pages(cpu, (first, page)), *code_words]
    private[1] = (private[1][0], tables.page(cpu, page, 1))
    for mode in ("svc", "usr"):
        yield Step(f"private code called in {mode}", _CALL, mode, state=_state(cpu, r0=first + 0x100), pokes=private)
    code = f"{_CALL}\nmsr cpsr_c, #0xd0\n{_CALL}"
    yield Step("private code called in svc and then in usr", code, state=_state(cpu, r0=first + 0x100), pokes=private)
    landing = [(page, 0xE59F1008), (page + 4, 0xE51FF004), (page + 8, runner.stub(END)), (page + 16, marker(0xCC))]
    yield Step("the frame again", "mov r0, r0", pokes=landing)


def steps(cpu: Cpu) -> list[Step]:
    found = [*_switching(cpu), *_changed(cpu), *_domains(cpu), *_off_and_on(cpu), *_vectors(cpu)]
    found += [*_process_ids(cpu), *_aliases(cpu)]
    return found + ([*_two_tables(cpu)] if cpu.arch >= 6 else [])
