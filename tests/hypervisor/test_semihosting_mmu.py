"""Pointers of a semihosting call are virtual: what they mean under the guest's page tables, as in QEMU."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.vm.options import TIERS, TierName
from tests.assembler import assemble
from tests.vm.programs import make_elf

BASE = 0x10000
_END = "mov r0, #0x18 ; ldr r1, =0x20026 ; svc 0x123456 ; .ltorg"
#: 1 MB is at 2 MB, 3 MB is read-only, 4 MB is for privileged modes, 5 MB is not there, 6 and 7 MB are swapped.
_MMU = """
    ldr sp, =0xf0000
    ldr r0, =0x14000 ; mov r1, #0 ; mov r2, #4096
    clear: str r1, [r0], #4 ; subs r2, r2, #1 ; bne clear
    ldr r0, =0x14000
    ldr r1, =0x00000c02 ; str r1, [r0]
    ldr r1, =0x00200c02 ; str r1, [r0, #4] ; str r1, [r0, #8]
    ldr r1, =0x00308c02 ; bic r1, r1, #0x400 ; str r1, [r0, #12]
    ldr r1, =0x00400402 ; str r1, [r0, #16]
    ldr r1, =0x00700c02 ; str r1, [r0, #24]
    ldr r1, =0x00600c02 ; str r1, [r0, #28]
    mcr p15, #0, r0, c2, c0, #0 ; mov r1, #1 ; mcr p15, #0, r1, c3, c0, #0
    mrc p15, #0, r1, c1, c0, #0 ; orr r1, r1, #1 ; orr r1, r1, #0x800000 ; mcr p15, #0, r1, c1, c0, #0
    b on
    .ltorg
    on:
"""
_TEXT = f"""
    ldr r0, =0x200000 ; ldr r1, =0x{int.from_bytes(b"MMA", "little"):x} ; str r1, [r0]
    ldr r0, =0x100000 ; ldr r1, =0x{int.from_bytes(b"XFX", "little"):x} ; str r1, [r0]
"""
PROGRAMS = {
    "a string": (f"{_TEXT} ; {_MMU} ; mov r0, #4 ; mov r1, #0x100000 ; svc 0x123456 ; {_END}", b"MMA"),
    "a string across pages that are apart": (
        f"""
            {_MMU}
            ldr r0, =0x6ffffc ; ldr r1, =0x64636261 ; str r1, [r0] ; ldr r1, =0x00006665 ; str r1, [r0, #4]
            mov r0, #4 ; ldr r1, =0x6ffffc ; svc 0x123456 ; {_END}
        """,
        b"abcdef",
    ),
    "a store to a read-only page": (
        f"""
            {_MMU}
            mov r0, #0x15 ; adr r1, line ; svc 0x123456
            mov r0, #3 ; ldr r1, =0x300000 ; svc 0x123456
            {_END}
            .align 2
            line: .word 0x300000, 80
        """,
        None,
    ),
    "a privileged page in user mode": (
        f"""
            {_MMU}
            ldr r1, =0x400000 ; ldr r0, =0x00414141 ; str r0, [r1]
            mov r0, #4 ; svc 0x123456
            msr cpsr_c, #0x10
            mov r0, #4 ; ldr r1, =0x400000 ; svc 0x123456
            adr r1, done ; mov r0, #4 ; svc 0x123456
            {_END}
            done: .asciz "B"
        """,
        b"AAAB",
    ),
    "no page": (
        f"""
            {_MMU}
            mov r0, #4 ; ldr r1, =0x500000 ; svc 0x123456
            mov r0, #4 ; adr r1, done ; svc 0x123456
            {_END}
            done: .asciz "B"
        """,
        b"B",
    ),
}


def run(name: str, tier: TierName) -> tuple[bytes, bytes]:
    """What it wrote, and what is at the physical address of 3 MB."""
    console = CaptureConsole()
    with Machine(8 << 20, tier, jit="sync", cpu="cortex-a8", console=console) as machine:
        machine.load_bytes(make_elf(assemble(PROGRAMS[name][0], BASE), BASE), path="program")
        assert machine.run(timeout=60).reason is StopReason.EXITED
        return bytes(console.output), machine.read(0x300000, 8)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_pointers_are_virtual(name: str, tier: TierName) -> None:
    output, store = run(name, tier)
    if name == "a store to a read-only page":  # is done, as in QEMU
        assert store == b"program\0" and output == b"p"
    else:
        assert output == PROGRAMS[name][1]


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed")
@pytest.mark.parametrize("name", PROGRAMS)
def test_qemu_says_so_too(name: str, tmp_path: Path) -> None:
    image = tmp_path / "program"
    image.write_bytes(make_elf(assemble(PROGRAMS[name][0], BASE), BASE))
    command = ["qemu-system-arm", "-M", "versatilepb", "-cpu", "cortex-a8", "-m", "8", "-display", "none"]
    command += ["-monitor", "none", "-serial", "null", "-chardev", "file,id=out,path=out"]
    command += ["-semihosting-config", "enable=on,target=native,userspace=on,chardev=out", "-kernel", image.name]
    # The guest asks for its command line, which is the name of the image, and has 80 bytes for it.
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = (tmp_path / "out").read_bytes()
    if name == "a store to a read-only page":
        assert seen == b"p"
    else:
        assert seen == PROGRAMS[name][1]


def test_a_call_for_memory_that_is_mapped_again_and_again_is_bounded() -> None:
    """4 GiB of addresses that are one page: the host's memory is not the guest's to fill."""
    table = struct.pack("<4096I", *[0x00000C02] * 4096)
    code = """
        mov r0, #0x100000 ; mcr p15, #0, r0, c2, c0, #0 ; mov r1, #1 ; mcr p15, #0, r1, c3, c0, #0
        mrc p15, #0, r1, c1, c0, #0 ; orr r1, r1, #1 ; mcr p15, #0, r1, c1, c0, #0
        mov r0, #1 ; adr r1, open ; svc 0x123456 ; adr r1, write ; str r0, [r1]
        mov r0, #5 ; svc 0x123456 ; mov r4, r0
        b .
        .align 2
        open: .word name, 4, 3
        write: .word 0, 0, 0xf0000000
        name: .asciz ":tt"
    """
    console = CaptureConsole()
    with Machine(4 << 20, "threaded", cpu="cortex-a8", console=console) as machine:
        machine.load_bytes(assemble(code, BASE), base=BASE)
        machine.write(0x100000, table)
        machine.run(fuel=15)
        assert machine.r[4] == 0xFFFFFFFF and not console.output
