"""WFI (B1.8.13): it completes when there is an interrupt, and the interrupt returns to the instruction after it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.vm.options import TIERS, TierName
from dbt.vm.state import state_hash
from tests.assembler import assemble

BASE = 0x10000
WAITS = {"cortex-a8": "wfi", "arm926": "mcr p15, #0, r0, c7, c0, #4"}


def program(wait: str, mask: int = 0x13) -> bytes:
    """Prints W, waits until the timer's handler has set a flag, and prints R."""
    return assemble(
        f"""
            mov r1, #0x18 ; ldr r3, =0xe59ff018 ; str r3, [r1]
            adr r3, irq ; str r3, [r1, #0x20]
            msr cpsr_c, #0xd2 ; mov sp, #0x8000
            ldr r4, =0x10140000 ; mov r0, #0x10 ; str r0, [r4, #0x10]
            ldr r5, =0x101e2000 ; mov r0, #1000 ; str r0, [r5] ; mov r0, #0xe2 ; str r0, [r5, #8]
            ldr r8, =0x101f1000 ; adr r7, flag ; mov r0, #0x57 ; str r0, [r8]
            msr cpsr_c, #{mask}
        again: {wait}
            add r9, r9, #1
            ldr r0, [r7] ; cmp r0, #0 ; beq again
            mov r0, #0x52 ; str r0, [r8] ; mov r0, #10 ; str r0, [r8]
            msr cpsr_c, #0xd3
            b .
        irq: ldr r5, =0x101e2000 ; str r5, [r5, #0xc] ; sub r10, lr, #4 ; str sp, [r7] ; subs pc, lr, #4
        flag: .word 0
        .ltorg
        """,
        BASE,
    )


def machine_for(cpu: str, tier: TierName) -> tuple[Machine, CaptureConsole]:
    console = CaptureConsole()
    machine = Machine(1 << 20, tier, jit="sync", cpu=cpu, console=console)
    machine.load_bytes(program(WAITS[cpu]), base=BASE)
    return machine, console


def place(cpu: str) -> int:
    word = assemble(WAITS[cpu])
    return BASE + program(WAITS[cpu]).index(word)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("cpu", WAITS)
def test_an_interrupt_returns_to_the_instruction_after_the_wait(cpu: str, tier: TierName) -> None:
    machine, console = machine_for(cpu, tier)
    with machine:
        machine.run(fuel=2000)
        assert bytes(console.output) == b"WR\n"
        assert machine.r[10] == place(cpu) + 4 and machine.r[9] == 1


@pytest.mark.parametrize("cpu", WAITS)
def test_the_wait_retires_once_wherever_the_run_is_cut(cpu: str) -> None:
    found = {}
    for tier in TIERS:
        for fuel in (1, 3, 2000):
            machine, console = machine_for(cpu, tier)
            with machine:
                while machine.icount < 200:
                    assert machine.run(fuel=min(fuel, 200 - machine.icount)).reason is StopReason.FUEL
                found[tier, fuel] = machine.timeline.now, state_hash(machine), bytes(console.output)
    assert len(set(found.values())) == 1


def test_a_run_that_is_stopped_in_the_wait_goes_on_with_it() -> None:
    machine, console = machine_for("cortex-a8", "threaded")
    with machine:
        while machine.pc != place("cortex-a8"):
            machine.step()
        icount = machine.icount
        machine.interrupt()
        assert machine.run().reason is StopReason.INTERRUPTED
        assert (machine.icount, machine.pc) == (icount, place("cortex-a8"))
        machine.step()
        assert (machine.icount, machine.pc) == (icount + 1, place("cortex-a8") + 4)
        machine.run(fuel=1000)
        assert bytes(console.output) == b"WR\n" and machine.r[10] == place("cortex-a8") + 4


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed")
@pytest.mark.parametrize("cpu", WAITS)
def test_qemu_says_so_too(cpu: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(program(WAITS[cpu]))
    serial = tmp_path / "serial"
    command = ["qemu-system-arm", "-M", "versatilepb", "-cpu", cpu, "-m", "1", "-display", "none", "-monitor", "none"]
    command += ["-serial", f"file:{serial}", "-device", f"loader,file={image},addr={BASE},cpu-num=0,force-raw=on"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as qemu:
        try:
            for _ in range(100):
                if serial.exists() and serial.read_bytes().endswith(b"\n"):
                    break
                try:
                    qemu.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            qemu.kill()
    assert serial.read_bytes() == b"WR\n"
