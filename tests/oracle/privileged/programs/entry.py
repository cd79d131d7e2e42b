"""Exception entry from every mode: LR, SPSR, the masks, and the vector."""

from __future__ import annotations

from tests.oracle.privileged.layout import MODES, OTHER_VECTORS, Cpu
from tests.oracle.privileged.program import PSR_A, PSR_F, PSR_I, Step

_SCTLR_A = 1 << 1
_UNALIGNED = 0x100001
_NOTHING = "mov r1, r1\n"  # so that LR is not the same everywhere


def _causes(cpu: Cpu) -> dict[str, str]:
    causes = {
        "svc": "svc #0x123",
        "udf": ".word 0xe7f000f0",
        "undefined coprocessor": "mcr p14, 5, r0, c3, c5, 6",
        "breakpoint": "bkpt #0x1234",
        "alignment": "ldr r1, [r0]",
        "alignment of stores": "str r1, [r0]",
    }
    if cpu.arch == 7:
        # The manual: UNDEFINED without an FPU enabled. Until it is enabled in CPACR, it is.
        causes["floating point"] = ".word 0xee300a00"
    return causes


def _privileged_in_user_mode(cpu: Cpu) -> dict[str, str]:
    found = {
        "mrc sctlr": "mrc p15, 0, r0, c1, c0, 0",
        "mcr sctlr": "mcr p15, 0, r0, c1, c0, 0",
        "mrc midr": "mrc p15, 0, r0, c0, c0, 0",
        "mrc ttbr0": "mrc p15, 0, r0, c2, c0, 0",
        "mcr dacr": "mcr p15, 0, r0, c3, c0, 0",
        "mrc dfsr": "mrc p15, 0, r0, c5, c0, 0",
        "mrc dfar": "mrc p15, 0, r0, c6, c0, 0",
        "mcr tlbiall": "mcr p15, 0, r0, c8, c7, 0",
        "mcr iciallu": "mcr p15, 0, r0, c7, c5, 0",
        "mrc contextidr": "mrc p15, 0, r0, c13, c0, 1",
    }
    if cpu.arch >= 6:
        found |= {"mrc tpidrprw": "mrc p15, 0, r0, c13, c0, 4", "mcr tpidruro": "mcr p15, 0, r0, c13, c0, 3"}
        found |= {"srs": "srsdb sp!, #0x13", "rfe": "rfeia r0"}
    return found


def steps(cpu: Cpu) -> list[Step]:
    found = []
    unaligned = {"r0": _UNALIGNED, "sctlr": cpu.sctlr | _SCTLR_A}
    mask_sets = {"masked": PSR_I | PSR_F, "unmasked": 0, "F masked": PSR_F, "I masked": PSR_I}
    if cpu.arch >= 6:
        mask_sets |= {"A masked": PSR_A, "all masked": PSR_A | PSR_I | PSR_F}
    flags = 0xA8000000 if cpu.arch == 5 else 0xA80A0000
    for mode in MODES:
        for cause, code in _causes(cpu).items():
            state = unaligned if cause.startswith("alignment") else {}
            for masked, masks in mask_sets.items():
                found.append(Step(f"{cause} in {mode}, {masked}", _NOTHING + code, mode, masks, flags, state))
            base = {"vbar": OTHER_VECTORS} | state
            if cpu.arch >= 7:
                found.append(Step(f"{cause} in {mode}, vbar", code, mode, state=base))
    for name, code in _privileged_in_user_mode(cpu).items():
        found.append(Step(f"{name} in user mode", _NOTHING + code, "usr"))
    # What is not executed raises nothing.
    for code in ("svceq #1", "mcreq p15, 0, r0, c1, c0, 0", "mrceq p15, 0, r0, c0, c0, 0", "ldreq r1, [r0]"):
        found.append(Step(f"{code}, not executed", code, "usr", state=unaligned))
    for mode in ("usr", "svc", "irq"):
        for code, address in (
            ("ldrh r1, [r0]", 1), ("strh r1, [r0]", 3), ("ldrsh r1, [r0]", 1), ("ldr r1, [r0], #4", 2),
            ("ldr r1, [r0, #4]!", 1), ("str r1, [r0], #-4", 3), ("ldmia r0!, {r1-r3}", 2), ("stmdb r0!, {r1-r3}", 1),
            ("ldrd r2, r3, [r0]", 4), ("ldrd r2, r3, [r0]", 2), ("strd r2, r3, [r0]", 1), ("swp r1, r2, [r0]", 2),
            ("ldrb r1, [r0]", 3), ("swpb r1, r2, [r0]", 1), ("ldrt r1, [r0]", 2), ("strt r1, [r0], #8", 1),
        ):  # fmt: skip
            state = {"r0": 0x100100 + address, "sctlr": cpu.sctlr | _SCTLR_A}
            found.append(Step(f"{code} at {address} beyond, in {mode}", code, mode, state=state))
    if cpu.arch >= 6:
        found += [
            Step(f"{code} at {address} beyond", code, state={"r0": 0x100100 + address})
            for code, address in (
                ("ldrex r1, [r0]", 2), ("ldmia r0!, {r1, r2}", 2), ("stmia r0, {r1, r2}", 1), ("rfeia r0", 2),
                ("ldrd r2, r3, [r0]", 2), ("ldr r1, [r0]", 3), ("strh r1, [r0]", 1), ("swp r1, r2, [r0]", 1),
            )
        ]  # fmt: skip
    return found
