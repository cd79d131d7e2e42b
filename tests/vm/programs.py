"""Small guests for tests: assembly text to code, and code to ELF files with any field one likes."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from dbt.vm.machine import JitMode, TierName
from tests.assembler import assemble

BASE = 0x8000
#: The tiers without a compiler.
TIERS: tuple[TierName, ...] = ("reference", "threaded", "stitched")
#: What executes a guest: the tier, and how hot regions are compiled. A guest ends the same in each of them.
MODES: list[tuple[TierName, JitMode]] = [
    ("reference", "off"), ("threaded", "off"), ("stitched", "off"), ("auto", "sync"), ("auto", "async"),
]  # fmt: skip

#: Ends a guest with the exit code in R2 (SYS_EXIT_EXTENDED), with nine words at its end.
EXIT = """
    push {r2}
    ldr r3, =0x20026
    push {r3}
    mov r1, sp
    mov r0, #0x20
    svc 0x123456
"""


def exiting(code: int) -> bytes:
    """A guest that does nothing but exit with this code."""
    return assemble(f"mov r2, #{code}\n{EXIT}")


def calling(operation: int, block: bytes = b"", tail: str = "1: b 1b") -> bytes:
    """A guest that makes one semihosting call with R1 at ``block``, which follows its code."""
    code = f"mov r0, #{operation}\nadr r1, data\nsvc 0x123456\n{tail}\n.align 2\ndata:"
    return assemble(code) + block


def make_elf(
    code: bytes,
    base: int = BASE,
    *,
    entry: int | None = None,
    symbols: Mapping[str, tuple[int, int]] | None = None,
    bss: int = 0,
    gva: int | None = None,
    header: Mapping[str, int] | None = None,
    segment: Mapping[str, int] | None = None,
) -> bytes:
    """An ELF executable of one segment. ``header`` and ``segment`` override fields by their ELF names.

    ``symbols``: name to address and size.
    """
    fields = {
        "class": 1, "data": 1, "version": 1, "e_type": 2, "e_machine": 40, "e_version": 1,
        "e_entry": base if entry is None else entry, "e_phoff": 52, "e_shoff": 0, "e_flags": 0x05000000,
        "e_ehsize": 52, "e_phentsize": 32, "e_phnum": 1, "e_shentsize": 40, "e_shnum": 0, "e_shstrndx": 0,
    }  # fmt: skip
    load = {
        "p_type": 1, "p_offset": 84, "p_vaddr": base if gva is None else gva, "p_paddr": base,
        "p_filesz": len(code), "p_memsz": len(code) + bss, "p_flags": 7, "p_align": 4,
    }  # fmt: skip
    sections = b""
    if symbols is not None:
        sections, fields["e_shoff"] = _symbol_sections(symbols, 84 + len(code))
        fields["e_shnum"], fields["e_shstrndx"] = 4, 3
    fields |= header or {}
    load |= segment or {}
    ident = b"\x7fELF" + bytes((fields["class"], fields["data"], fields["version"])) + bytes(9)
    names = list(fields)[3:]
    return (
        ident
        + struct.pack("<HHIIIIIHHHHHH", *(fields[name] for name in names))
        + struct.pack("<8I", *load.values())
        + code
        + sections
    )


def _symbol_sections(symbols: Mapping[str, tuple[int, int]], offset: int) -> tuple[bytes, int]:
    """.symtab, .strtab and .shstrtab with their headers, and where the headers begin."""
    strings, table = b"\0", bytes(16)
    for name, (address, size) in symbols.items():
        table += struct.pack("<IIIBBH", len(strings), address, size, 0x12, 0, 1)
        strings += name.encode() + b"\0"
    names = b"\0.symtab\0.strtab\0.shstrtab\0"
    data = table + strings + names
    data += bytes(-len(data) % 4)
    at = offset
    headers = bytes(40)
    headers += struct.pack("<10I", 1, 2, 0, 0, at, len(table), 2, 1, 4, 16)
    headers += struct.pack("<10I", 9, 3, 0, 0, at + len(table), len(strings), 0, 0, 1, 0)
    headers += struct.pack("<10I", 17, 3, 0, 0, at + len(table) + len(strings), len(names), 0, 0, 1, 0)
    return data + headers, offset + len(data)


#: Interrupts of the UART: for what is received, and for what has waited.
RX, RT = 0x10, 0x40


def interrupt_driven(mask: int, trigger: int = 0, wait: str = "") -> bytes:
    """A driver that empties the FIFO and then clears all interrupts. R7 is a sum of what it got, R5 counts it.

    A timer ends slices every 3 us. A Z ends the guest. The main program counts in R6. With ``wait``, an instruction, it
    waits each time, and there is no timer.
    """
    return assemble(
        f"""
            b start
            .space 20
            b irq
        start:
            msr cpsr_c, #0xd2 ; ldr sp, =0x40000 ; msr cpsr_c, #0xd3 ; ldr sp, =0x50000
            ldr r9, =0x101e2000 ; mov r0, #3 ; str r0, [r9] ; mov r0, #{0 if wait else 0xE2} ; str r0, [r9, #8]
            ldr r10, =0x101f1000 ; mov r0, #0x70 ; str r0, [r10, #0x2c] ; mov r0, #{trigger << 3} ; str r0, [r10, #0x34]
            mov r0, #1 ; str r0, [r10, #0x24]
            ldr r0, =0x301 ; str r0, [r10, #0x30] ; mov r0, #{mask} ; str r0, [r10, #0x38]
            ldr r9, =0x10140000 ; ldr r0, =0x1010 ; str r0, [r9, #0x10] ; ldr r9, =0x101e2000
            mov r4, #0 ; mov r5, #0 ; mov r7, #0 ; msr cpsr_c, #0x53
        main:
            add r6, r6, #1
            {wait}
            b main
        irq:
            push {{r0, r1, r2, r3}} ; add r4, r4, #1 ; str r0, [r9, #0xc]
            ldr r0, [r10, #0x40] ; cmp r0, #0 ; beq leave
        drain:
            ldr r0, [r10, #0x18] ; tst r0, #0x10 ; bne empty
            ldr r0, [r10] ; add r5, r5, #1 ; add r7, r0, r7, ror #3
            cmp r0, #0x5a ; beq done
            b drain
        empty:
            nop
            ldr r0, =0x7ff ; str r0, [r10, #0x44]
        leave:
            pop {{r0, r1, r2, r3}}
            subs pc, lr, #4
        done:
            mov r2, #0 ; {EXIT}
        """,
        0,
    )
