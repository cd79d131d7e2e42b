"""Where there is neither RAM nor a device, in every tier: a kernel reads zero, as under QEMU; a program is aborted."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.abi.exits import DataAbort, PrefetchAbort
from dbt.host.console import CaptureConsole
from dbt.vm.result import StopReason
from tests.assembler import assemble
from tests.vm.programs import make_elf

BASE = 0x10000
MODES: list[tuple[Any, Any]] = [("reference", "off"), ("threaded", "off"), ("stitched", "off"), ("auto", "sync")]

#: Loads of all sizes, often enough to become a region, store the sum at 0x3000; loads of registers that are 1 before.
#: The second half does it again under an MMU that maps the hole's megabyte to itself and at 0x30000000.
_LOADS = """
    ldrb r1, [r4] ; ldrh r2, [r4, #2] ; ldr r3, [r4] ; ldm r4, {r6, r7} ; ldrd r8, r9, [r4] ; ldrsb r10, [r4, #1]
    add r0, r0, r1 ; add r0, r0, r2 ; add r0, r0, r3 ; add r0, r0, r6 ; add r0, r0, r7
    add r0, r0, r8 ; add r0, r0, r9 ; add r0, r0, r10
"""
_KERNEL = f"""
    mov r0, #0 ; mov r5, #0x40 ; ldr r4, =0x14000010
again:
    mvn r1, #0
    str r1, [r4] ; strb r1, [r4, #1] ; strh r1, [r4, #2] ; stm r4, {{r1, r5}} ; add r0, r0, #1
    {_LOADS}
    subs r5, r5, #1 ; bne again
    mov r5, #0x3000 ; str r0, [r5]
    ldr r6, =0x4000 ; ldr r7, =0xc0e ; mov r8, #0x14000000 ; orr r9, r7, r8
    str r7, [r6] ; str r9, [r6, #0x500] ; str r9, [r6, #0xc00]
    ldr r8, =0x10000c0e ; str r8, [r6, #0x400] ; ldr r8, =0x10100c0e ; str r8, [r6, #0x404]
    mcr p15, 0, r6, c2, c0, 0 ; mov r8, #3 ; mcr p15, 0, r8, c3, c0, 0
    mov r8, #0 ; mcr p15, 0, r8, c8, c7, 0 ; mrc p15, 0, r8, c1, c0, 0 ; orr r8, r8, #1 ; mcr p15, 0, r8, c1, c0, 0
    mov r0, #7 ; ldr r4, =0x14000010 ; {_LOADS}
    ldr r4, =0x30000010 ; str r0, [r4] ; {_LOADS}
    mov r5, #0x3000 ; str r0, [r5, #4]
"""
_REPORT = """
    ldr r4, =0x101f1000 ; ldr r1, [r5] ; add r1, r1, #1 ; str r1, [r4]
    ldr r1, [r5, #4] ; add r1, r1, #0x30 ; str r1, [r4] ; mov r1, #10 ; str r1, [r4]
    ldr r0, =0x10000000 ; ldr r1, =0xa05f ; str r1, [r0, #0x20] ; ldr r1, =0x104 ; str r1, [r0, #0x40]
stop: b stop
"""


def machine(tier: Any, jit: Any) -> Machine:
    return Machine(16 << 20, tier=tier, jit=jit, console=CaptureConsole())


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "kernel.elf"
    path.write_bytes(make_elf(assemble(_KERNEL + _REPORT, BASE), BASE))
    return path


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_a_kernel_reads_zero(kernel: Path, tier: Any, jit: Any) -> None:
    """``A7``: each of the 64 rounds added one, and nothing that it loaded; under the MMU nothing was added to seven."""
    here = machine(tier, jit)
    here.load_kernel(str(kernel))
    assert here.run(fuel=10_000).reason is StopReason.EXITED
    assert bytes(here.console.output) == b"A7\n"  # type: ignore[attr-defined]


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed")
def test_qemu_says_the_same(kernel: Path) -> None:
    command = ("qemu-system-arm", "-M", "versatilepb", "-kernel", str(kernel), "-no-reboot", "-display", "none")
    quiet = ("-serial", "stdio", "-monitor", "none", "-audiodev", "none,id=n0")
    done = subprocess.run([*command, *quiet], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"A7\n"


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_a_program_is_aborted(tier: Any, jit: Any) -> None:
    here = machine(tier, jit)
    for access, write in (("ldr r6, [r4]", False), ("strb r6, [r4]", True)):
        here.load_bytes(assemble(f"ldr r4, =0x14000010 ; {access} ; b .", BASE), BASE)
        result = here.run(fuel=100)
        assert result.reason is StopReason.FAULT and isinstance(result.exit, DataAbort)
        assert result.exit.gva == 0x14000010 and result.exit.write is write and result.icount == 1


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_nobody_executes_from_there(tmp_path: Path, tier: Any, jit: Any) -> None:
    path = tmp_path / "kernel.elf"
    path.write_bytes(make_elf(assemble("mov r4, #0x14000000 ; bx r4", BASE), BASE))
    here = machine(tier, jit)
    here.load_kernel(str(path))
    result = here.run(fuel=100)
    assert isinstance(result.exit, PrefetchAbort) and result.pc == 0x14000000
