"""Data aborts in the midst of things: accesses across pages, block transfers, writeback, exclusives, and priorities.

Page A is mapped, page B behind it is not, or not for this access; or the other way round. An aborted
instruction must have changed no register but those of the exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from tests.oracle.privileged import tables
from tests.oracle.privileged.layout import FRAMES, L2, Cpu
from tests.oracle.privileged.program import Step
from tests.oracle.privileged.tables import SCTLR_A, VA, Poke

A, B = VA + 0x15000, VA + 0x16000
PA_A, PA_B = FRAMES + 0x33000, FRAMES + 0x71000
_SCTLR_U = 1 << 22
_WORDS = {
    **{f"A[{offset:#x}]": PA_A + offset for offset in (0xFF0, 0xFF4, 0xFF8, 0xFFC)},
    **{f"B[{offset:#x}]": PA_B + offset for offset in (0, 4, 8, 12)},
}
_PATTERN = 0x11223344


def _pokes(cpu: Cpu, kind: str) -> list[Poke]:
    """``kind`` says what is wrong with which page."""
    mapped: dict[str, int] = {"A": PA_A, "B": PA_B}
    words = {name: tables.page(cpu, pa) for name, pa in mapped.items()}
    if kind != "nothing":
        name = kind[0]
        words[name] = {
            "missing": 0,
            "read-only for usr": tables.page(cpu, mapped[name], 2),
            "privileged": tables.page(cpu, mapped[name], 1),
        }[kind[2:]]
    pokes = [tables.l1_entry(A, tables.coarse(cpu, L2))]
    pokes += [tables.l2_entry(va, words[name]) for name, va in (("A", A), ("B", B))]
    return pokes + [(address, _PATTERN + n) for n, address in enumerate(_WORDS.values())]


def _step(
    cpu: Cpu,
    code: str,
    r0: int,
    kind: str,
    mode: str,
    bits: int = 0,
    watch: bool = False,
    state: Mapping[str, int] = MappingProxyType({}),
) -> Step:
    base = "A" if r0 < B else "B"
    name = f"{code.replace(chr(10), '; ')}, R0 = {base}{r0 - (A if base == 'A' else B):+#x}, {kind}, in {mode}"
    if bits & SCTLR_A:
        name += ", SCTLR.A"
    values = {"r0": r0, "dacr": tables.dacr(tables.CLIENT), "sctlr": tables.sctlr(cpu, bits), **state}
    return Step(name, code, mode, state=values, pokes=_pokes(cpu, kind), watch=_WORDS if watch else {})


def _unaligned(cpu: Cpu) -> Iterator[Step]:
    if cpu.arch == 5:
        return
    kinds = ("nothing", "B missing", "A missing", "B read-only for usr", "B privileged", "A privileged")
    for kind in kinds:
        for mode in ("usr", "svc"):
            for offset in (0xFFD, 0xFFE, 0xFFF):
                yield _step(cpu, "ldr r1, [r0]", A + offset, kind, mode, _SCTLR_U)
                yield _step(cpu, "ldr r1, [r0, #4]!", A + offset - 4, kind, mode, _SCTLR_U)
                yield _step(cpu, "str r1, [r0]", A + offset, kind, mode, _SCTLR_U, True)
                yield _step(cpu, "str r1, [r0], #-8", A + offset, kind, mode, _SCTLR_U, True)
            yield _step(cpu, "ldrh r1, [r0]", A + 0xFFF, kind, mode, _SCTLR_U)
            yield _step(cpu, "ldrsh r1, [r0], #2", A + 0xFFF, kind, mode, _SCTLR_U)
            yield _step(cpu, "strh r1, [r0]", A + 0xFFF, kind, mode, _SCTLR_U, True)
        yield _step(cpu, "ldrt r1, [r0]", A + 0xFFE, kind, "svc", _SCTLR_U)
        yield _step(cpu, "strt r1, [r0]", A + 0xFFE, kind, "svc", _SCTLR_U, True)


def _block_transfers(cpu: Cpu) -> Iterator[Step]:
    starts = {"ia": A + 0xFF8, "ib": A + 0xFF4, "da": B + 4, "db": B + 8}
    for kind in ("nothing", "B missing", "A missing", "B read-only for usr", "B privileged"):
        for mode in ("usr", "svc", "fiq"):
            for amode, start in starts.items():
                for writeback in ("", "!"):
                    registers = "{r1, r2, r8, r9}"
                    yield _step(cpu, f"ldm{amode} r0{writeback}, {registers}", start, kind, mode)
                    yield _step(cpu, f"stm{amode} r0{writeback}, {registers}", start, kind, mode, watch=True)
            # The base is in the list.
            yield _step(cpu, "ldmia r0, {r0, r1, r2, r3}", A + 0xFF8, kind, mode)
            yield _step(cpu, "ldmdb r0, {r0, r1, r2, r3}", B + 8, kind, mode)
        for mode in ("svc", "irq"):
            yield _step(cpu, "ldmia r0, {r1, r8, sp, lr}^\nnop", A + 0xFF8, kind, mode)
            yield _step(cpu, "stmia r0, {r1, r8, sp, lr}^\nnop", A + 0xFF8, kind, mode, watch=True)
    for mode in ("svc", "irq"):
        yield _step(cpu, "ldmia r0!, {r1, r2, pc}^", A + 0xFF8, "B missing", mode)
        yield _step(cpu, "ldmia r0!, {r1, r2, pc}", A + 0xFF8, "B missing", mode)
        if cpu.arch >= 6:
            yield _step(cpu, "rfeia r0!", A + 0xFFC, "B missing", mode)
            yield _step(cpu, "rfedb r0!", B + 4, "A missing", mode)
            sp = {f"sp_{mode}": A + 0xFFC}
            yield _step(cpu, "srsia sp!, #" + ("0x13" if mode == "svc" else "0x12"), A, "B missing", mode, state=sp)


def _single(cpu: Cpu) -> Iterator[Step]:
    codes = (
        "ldr r1, [r0], #4", "ldr r1, [r0, #4]!", "ldr r1, [r0, -r1, lsr #31]!", "ldrb r1, [r0], #1",
        "ldrb r1, [r0, #1]!", "ldrh r1, [r0], #2", "ldrsb r1, [r0, #1]!", "ldrsh r1, [r0], -r1",
        "ldrd r2, r3, [r0], #8", "ldrd r2, r3, [r0, #8]!", "str r1, [r0], #4", "str r1, [r0, #4]!",
        "strb r1, [r0, #1]!", "strh r1, [r0], #2", "strd r2, r3, [r0, #8]!", "strd r2, r3, [r0], #-8",
        "ldrt r1, [r0], #4", "strt r1, [r0], #4", "ldrbt r1, [r0], #1", "strbt r1, [r0], #1",
        "ldr pc, [r0], #4", "ldr r0, [r0]", "swp r1, r2, [r0]", "swpb r1, r2, [r0]", "swp r0, r0, [r0]",
    )  # fmt: skip
    for code in codes:
        for kind in ("B missing", "B privileged", "B read-only for usr"):
            for mode in ("usr", "svc"):
                if code.startswith("ldr pc") and (kind != "B missing") and (mode == "svc" or "read" in kind):
                    continue
                yield _step(cpu, code, B, kind, mode, watch=code.startswith(("st", "sw")))
    if cpu.arch >= 6:
        for kind in ("B missing", "B privileged", "B read-only for usr"):
            for mode in ("usr", "svc"):
                yield _step(cpu, "ldrex r1, [r0]", B, kind, mode)
                yield _step(cpu, "ldrex r1, [r0]\nstrex r2, r3, [r0]", B, kind, mode, watch=True)
                yield _step(cpu, "ldrexd r2, r3, [r0]\nstrexd r1, r4, r5, [r0]", B + 8, kind, mode, watch=True)
                yield _step(cpu, "ldrexb r2, [r0]\nstrexb r1, r4, [r0]", B + 1, kind, mode, watch=True)
        yield _step(cpu, "ldrexd r2, r3, [r0]\nstrexd r1, r4, r5, [r0]", A + 0xFF8, "B missing", "svc", watch=True)
        for code in ("ldrd r2, r3, [r0]", "strd r2, r3, [r0]", "ldrd r2, r3, [r0, #-4]!", "strd r2, r3, [r0], #4"):
            for kind in ("nothing", "B missing", "A missing"):
                r0 = A + (0x1000 if "!" in code else 0xFFC)
                yield _step(cpu, code, r0, kind, "svc", _SCTLR_U, code.startswith("st"))


def _priorities(cpu: Cpu) -> Iterator[Step]:
    """An alignment fault wins over the MMU's; of these, translation over domain over permission."""
    codes = ("ldr r1, [r0]", "str r1, [r0]", "ldrh r1, [r0]", "strh r1, [r0]", "ldmia r0!, {r1, r2}", "stmia r0!, {r1}")
    for code in codes:
        for kind in ("nothing", "B missing", "B privileged", "B read-only for usr"):
            for mode in ("usr", "svc"):
                yield _step(cpu, code, B + 1, kind, mode, SCTLR_A)
            yield _step(cpu, code, A + 0xFFF, kind, "usr", SCTLR_A)
    denied: Mapping[str, int] = {"dacr": tables.dacr(0)}
    for code in ("ldr r1, [r0]", "str r1, [r0]"):
        for kind in ("B missing", "B privileged"):
            step = _step(cpu, code, B, kind, "usr", state=denied)
            yield Step(step.name + ", domain denied", code, "usr", state=step.state, pokes=step.pokes)


def steps(cpu: Cpu) -> Sequence[Step]:
    return [*_unaligned(cpu), *_block_transfers(cpu), *_single(cpu), *_priorities(cpu)]
