"""Machines whose RAM is in several places, as their users see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt import CaptureConsole, ImageError, Machine, RamRegion, StopReason
from dbt.abi.addresses import Gpa
from dbt.vm.machine import TIERS, TierName
from dbt.vm.state import state_hash
from tests.assembler import assemble

HIGH = 0x4000_0000
REGIONS = (
    RamRegion(Gpa(0), 0x1000, read_only=True),
    RamRegion(Gpa(HIGH), 1 << 20),
    RamRegion(Gpa(HIGH + (2 << 20)), 0x1000),
)


@pytest.mark.parametrize("tier", TIERS)
def test_a_program_runs_where_its_ram_is(tier: TierName) -> None:
    """It finds SP at the end of the largest region, heap and stack there by SYS_HEAPINFO, and its UART."""
    code = assemble(
        """
        ldr r4, uart; mov r0, #0x41; str r0, [r4]; push {r4}; pop {r5}
        ldr r6, far; str r0, [r6]; ldr r1, block; mov r0, #0x16; svc #0x123456
        ldr r2, info; ldm r2, {r8, r9, r10, r11}
        mov r0, #0x18; ldr r1, code; svc #0x123456
        uart: .word 0x101F1000; far: .word 0x40200ffc; block: .word 0x40000f00
        info: .word 0x40000f10; code: .word 0x20026
        """,
        HIGH,
    )
    console = CaptureConsole()
    with Machine(REGIONS, tier=tier, console=console) as machine:
        machine.load_bytes(code, base=HIGH)
        assert machine.r[13] == HIGH + (1 << 20)
        machine.write(HIGH + 0xF00, (HIGH + 0xF10).to_bytes(4, "little"))
        result = machine.run(fuel=1000)
        assert result.reason is StopReason.EXITED and result.exit_code == 0, result.message
        heap, heap_end, stack, stack_end = machine.r[8], machine.r[9], machine.r[10], machine.r[11]
        assert HIGH < heap <= heap_end == stack_end < stack == HIGH + (1 << 20)
        assert machine.read(HIGH + (2 << 20) + 0xFFC, 1) == b"A"
        assert console.output == b"A"


def test_all_tiers_leave_the_same_state() -> None:
    code = assemble("mov r2, #0; loop: str r2, [r0], #4; add r2, r2, #1; cmp r2, #0x3000; bne loop; here: b here", HIGH)
    hashes = set()
    for tier in TIERS:
        with Machine(REGIONS, tier=tier, jit="sync", console=CaptureConsole()) as machine:
            machine.load_bytes(code, base=HIGH)
            machine.r[0] = HIGH + 0x1000
            machine.run(fuel=100_000)
            hashes.add(state_hash(machine))
    assert len(hashes) == 1


def test_a_program_that_lies_between_regions_is_refused() -> None:
    with Machine(REGIONS, tier="reference", console=CaptureConsole()) as machine:
        for base in (0x1000, HIGH - 4, HIGH + (1 << 20) - 4, HIGH + (2 << 20) + 0xFFC):
            with pytest.raises(
                ImageError, match=r"outside the RAM, \[0, 0x1000\) read-only, \[0x40000000, 0x40100000\)"
            ):
                machine.load_bytes(bytes(8), base=base)
        machine.load_bytes(b"\x01\x02\x03\x04", base=0)  # the hypervisor fills what the guest cannot
        assert machine.read(0, 4) == b"\x01\x02\x03\x04"


def test_a_kernel_needs_ram_at_zero(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.bin"
    kernel.write_bytes(assemble("b ."))
    with (
        Machine(REGIONS[1:], tier="reference", console=CaptureConsole()) as machine,
        pytest.raises(ImageError, match="boots kernels in RAM at address 0"),
    ):
        machine.load_kernel(str(kernel))


def test_a_device_under_ram_is_hidden() -> None:
    uart = RamRegion(Gpa(0x101F1000), 0x1000)
    console = CaptureConsole()
    with Machine([RamRegion(Gpa(0), 0x10000), uart], tier="reference", console=console) as machine:
        machine.load_bytes(
            assemble("ldr r1, uart; mov r0, #0x41; str r0, [r1]; ldr r2, [r1]; uart: .word 0x101F1000"), 0x8000
        )
        machine.run(fuel=4)
        assert machine.r[2] == 0x41 and console.output == b""


def test_what_is_no_memory() -> None:
    for memory, message in (
        ([], "at least one region"),
        ([RamRegion(Gpa(0), 100)], "not a positive multiple"),
        ([RamRegion(Gpa(0), 0x2000), RamRegion(Gpa(0x1000), 0x1000)], "overlap"),
    ):
        with pytest.raises(ValueError, match=message):
            Machine(memory)
