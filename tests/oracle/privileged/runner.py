"""The runner of steps, in assembly, which sets up a state, lets a step run, and records the result.

A step ends at its first exception, or with a jump to the stub of KINDS[END]. All stubs save R0 by a PC-relative store,
put the kind into R0 and go to ``collect``, which saves the rest in any mode. Only an SVC leads from user mode to the
banked registers, and it overwrites LR and SPSR of supervisor mode.
"""

from __future__ import annotations

import struct

from tests.assembler import assemble
from tests.oracle.privileged import layout
from tests.oracle.privileged.layout import (
    END,
    HIGH,
    HIGH_VECTORS,
    OTHER,
    OTHER_VECTORS,
    PHASE,
    RECORD,
    RUNNER,
    SAVE,
    STATE,
    STATE_WORDS,
    STEP,
    VECTORS,
    Cpu,
)

_NO_INTERRUPTS = 0xC0
INSNS_TO_STEP = 12
MOV_PC_R3 = 0xE1A0F003
_STUB_SIZE = 12
_STUB_KINDS = [*range(END + 1), *range(HIGH, HIGH + 8), *range(OTHER, OTHER + 8)]
STUBS = RUNNER + 0x800
_COLLECT = RUNNER + 0x400
_LOAD_PC = 0xE59FF018  # ldr pc, [pc, #24]


def stub(kind: int) -> int:
    """Return the address to which an exception of this kind goes."""
    return STUBS + _STUB_KINDS.index(kind) * _STUB_SIZE


def _state(word: str) -> str:
    return f"{STATE + 4 * STATE_WORDS.index(word):#x}"


def _mode(mode: str) -> str:
    return f"msr cpsr_c, #{_NO_INTERRUPTS | layout.MODES[mode]:#x}"


def _constant(register: str, value: int | str) -> str:
    """Return code that loads a constant, because Keystone has no literal pools."""
    return f"ldr {register}, [pc]\nb . + 8\n.word {value}"


# As words, because Keystone warns of SP in a list.
_LOAD, _STORE = ".word 0xe8b00000 + ", ".word 0xe8a00000 + "  # LDMIA and STMIA R0!
_R8_TO_R14, _R8_TO_R12, _SP_LR = "0x7f00", "0x1f00", "0x6000"
_LOAD_ALL = ".word 0xe890ffff"  # LDMIA R0, {R0-R15}


def _for_each_bank(transfer: str, status: str) -> str:
    lines = [_mode("sys"), transfer + _R8_TO_R14, _mode("fiq"), transfer + _R8_TO_R12]
    for mode in layout.EXCEPTION_MODES:
        lines += [_mode(mode), transfer + _SP_LR, *status.split("; ")]
    return "\n".join(lines)


def _cp15(cpu: Cpu) -> dict[str, str]:
    """Return the registers that the CPU has, in the order of layout.CP15."""
    registers = {
        "ttbr0": "c2, c0, 0",
        "ttbr1": "c2, c0, 1" if cpu.arch >= 6 else "",
        "ttbcr": "c2, c0, 2" if cpu.arch >= 6 else "",
        "dacr": "c3, c0, 0",
        "dfsr": "c5, c0, 0",
        "ifsr": "c5, c0, 1",
        "dfar": "c6, c0, 0",
        "ifar": "c6, c0, 2" if cpu.arch >= 6 else "",
        "contextidr": "c13, c0, 1",
        "fcseidr": "c13, c0, 0" if cpu.arch <= 6 else "",
        "vbar": "c12, c0, 0" if cpu.arch >= 7 else "",
        "sctlr": "c1, c0, 0",
    }
    return {name: registers[name] for name in layout.CP15}


def _write_cp15(cpu: Cpu, register: str, name: str) -> str:
    where = _cp15(cpu)[name]
    return f"mcr p15, 0, {register}, {where}" if where else ""


def _start(cpu: Cpu) -> str:
    """Return the code that leads from one step to the code of the next.

    The semihosting call SYS_CLOCK signals that all is set up. The step begins INSNS_TO_STEP instructions later. The
    word before its code is executed first and returns to R3, so that its page has executed code.
    """
    barrier = ".word 0xee070f95" if cpu.arch >= 6 else ""
    # .word: MCR CP15ISB, of which Keystone warns
    cp15 = "\n".join(
        f"ldr r1, [r0], #4\n{_write_cp15(cpu, 'r1', name)}" for name in layout.CP15[:-2]
    )  # then SCTLR and the process ID, which applies without the MMU too
    return f"""
start:
    {_constant("r0", layout.TEMPLATE)}
    {_constant("r1", STATE)}
    mov r2, #{-(-len(STATE_WORDS) // 8)}
copy:
    ldmia r0!, {{r3-r10}}
    stmia r1!, {{r3-r10}}
    subs r2, r2, #1
    bne copy
    {_constant("r7", STEP)}
    ldr r11, [r7]
    ldr r12, [r11], #4
    cmn r12, #1
    beq finish
poke:
    subs r12, r12, #1
    ldmiage r11!, {{r0, r1}}
    strge r1, [r0]
    bge poke
    str r11, [r7]
    {_constant("r0", _state("r8_usr"))}
    {_for_each_bank(_LOAD, "ldr r1, [r0], #4; msr spsr_cxsf, r1")}
    {_mode("svc")}
    {cp15}
    mov r1, #0
    mcr p15, 0, r1, c8, c7, 0
    ldr r1, [r0], #4
    {_write_cp15(cpu, "r1", "sctlr")}
    {barrier}
    ldr r1, [r0]
    {_write_cp15(cpu, "r1", "fcseidr")}
    mov r0, #0x10
    svc #0x123456
    {_constant("r0", _state("cpsr"))}
    ldr r1, [r0]
    {_constant("r0", STATE)}
    msr cpsr_cxsf, r1
    ldr r2, [r0, #60]
    sub r2, r2, #4
    add r3, pc, #0
    mov pc, r2
    {_LOAD_ALL}
finish:
    mov r0, #1
    {_constant("r1", "opened")}
    svc #0x123456
    {_constant("r1", "written")}
    str r0, [r1]
    ldr r2, [r1, #4]
    {_constant("r3", RECORD)}
    ldr r3, [r3]
    sub r3, r3, r2
    str r3, [r1, #8]
    mov r0, #5
    svc #0x123456
    mov r0, #0x18
    {_constant("r1", 0x20026)}
    svc #0x123456
console:
    .word 0x0074743A
opened:
    .word console, 5, 3
written:
    .word 0, {layout.RESULTS:#x}, 0
"""


def _save(register: int, address: int) -> str:
    return f".word {0xE58F0000 | register << 12 | SAVE + 4 * register - address - 8:#x}"


def _collect(cpu: Cpu) -> str:
    """Return the code that leads from the stub of an event to the next step."""
    saves = "\n".join(_save(n, _COLLECT + 4 * (n - 1)) for n in range(1, 15))
    status = "\n".join(
        f"mrc p15, 0, r{1 + n}, {_cp15(cpu)[name]}" if _cp15(cpu)[name] else f"mov r{1 + n}, #0"
        for n, name in enumerate(("dfsr", "ifsr", "dfar", "ifar"))
    )
    reset = "\n".join(_write_cp15(cpu, "r2", name) for name in ("ttbcr", "vbar", "contextidr"))
    return f"""
    {saves}
    {_constant("r7", SAVE)}
    mrs r1, cpsr
    str r0, [r7, #60]
    str r1, [r7, #64]
    ldr r2, [r7, #{PHASE - SAVE}]
    cmp r2, #0
    bne privileged
    ldr r0, [r7, #{RECORD - SAVE}]
    ldmia r7!, {{r1-r6}}
    stmia r0!, {{r1-r6}}
    ldmia r7!, {{r1-r6}}
    stmia r0!, {{r1-r6}}
    ldmia r7!, {{r1-r6}}
    stmia r0!, {{r1-r6}}
    sub r7, r7, #72
    str r0, [r7, #{RECORD - SAVE}]
    mov r2, #1
    str r2, [r7, #{PHASE - SAVE}]
    mrs r1, cpsr
    and r1, r1, #0x1f
    cmp r1, #0x10
    bne privileged
    svc #0
privileged:
    {_mode("svc")}
    mov r2, #0
    str r2, [r7, #{PHASE - SAVE}]
    ldr r0, [r7, #{RECORD - SAVE}]
    {_for_each_bank(_STORE, "mrs r1, spsr; str r1, [r0], #4")}
    {_mode("svc")}
    {status}
    stmia r0!, {{r1-r4}}
    mov r2, #0
    {_write_cp15(cpu, "r2", "fcseidr")}
    {_constant("r1", cpu.sctlr)}
    {_write_cp15(cpu, "r1", "sctlr")}
    {reset}
    mcr p15, 0, r2, c8, c7, 0
    ldr r11, [r7, #{STEP - SAVE}]
    ldr r12, [r11], #4
watch:
    subs r12, r12, #1
    ldrge r1, [r11], #4
    ldrge r1, [r1]
    strge r1, [r0], #4
    bge watch
    str r0, [r7, #{RECORD - SAVE}]
    str r11, [r7, #{STEP - SAVE}]
    ldr pc, [pc, #-4]
    .word {RUNNER + 4:#x}
"""


def _stubs() -> bytes:
    words = []
    for kind in _STUB_KINDS:
        address = stub(kind)
        words += [0xE58F0000 | SAVE - address - 8, 0xE3A00000 | kind]
        words += [0xEA000000 | (_COLLECT - address - 16) // 4 & 0xFFFFFF]
    return struct.pack(f"<{len(words)}I", *words)


def _vectors(first_kind: int) -> bytes:
    return struct.pack("<16I", *[_LOAD_PC] * 8, *(stub(first_kind + n) for n in range(8)))


def pieces(cpu: Cpu) -> dict[int, bytes]:
    """Return the runner for ``cpu`` as bytes by address. It is entered at RUNNER."""
    parts = {
        VECTORS: _vectors(0),
        HIGH_VECTORS: _vectors(HIGH),
        OTHER_VECTORS: _vectors(OTHER),
        RUNNER: assemble(_mode("svc") + "\n" + _start(cpu), RUNNER),
        _COLLECT: assemble(_collect(cpu), _COLLECT),
        STUBS: _stubs(),
    }
    assert len(parts[RUNNER]) <= _COLLECT - RUNNER
    assert len(parts[_COLLECT]) <= STUBS - _COLLECT
    return parts
