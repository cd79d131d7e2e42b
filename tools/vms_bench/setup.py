"""What the rows have in common: how many machines there are and for how long, guests, and memory as it is measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dbt import Machine
from dbt.abi.addresses import Gva
from dbt.assembler.program import assemble_program
from dbt.engine.tier import JitMode
from dbt.host.console import Console
from dbt.hypervisor import Domain, Host
from dbt.hypervisor.process.process_vm import ProcessVm

#: What is asked: MB for a Linux and for a bare-metal machine, in one process and as processes, and ms.
LINUX_MB: Final = 6.0
LINUX_PROCESS_MB: Final = 10.0
BARE_METAL_MB: Final = 2.0
BARE_METAL_PROCESS_MB: Final = 5.0
START_MS: Final = 20.0
_BOOT_S: Final = 600.0
PROMPT: Final = b"# "
#: A guest that waits for a timer of the board versatile, which interrupts it each 10 ms.
_TICKER: Final = """
    b start
    .space 20
    b irq
start:
    ldr r4, =0x10140000 ; mov r0, #0x10 ; str r0, [r4, #0x10]
    ldr r5, =0x101e2000 ; ldr r0, =10000 ; str r0, [r5] ; mov r0, #0xe2 ; str r0, [r5, #8]
    msr cpsr_c, #0xd2 ; mov sp, #0x8000 ; msr cpsr_c, #0x53
again:
    mcr p15, #0, r0, c7, c0, #4 ; b again
irq:
    ldr r5, =0x101e2000 ; str r5, [r5, #0xc] ; subs pc, lr, #4
"""
#: A guest that waits for ever, and one that computes for ever.
_SLEEPER: Final = "again: mcr p15, #0, r0, c7, c0, #4 ; b again"
_SPINNER: Final = "again: add r0, r0, #1 ; eor r1, r1, r0 ; add r2, r2, r1 ; b again"


@dataclass(frozen=True)
class Setup:
    """Where Linux is, if it is anywhere, how many machines there are, and how many seconds they are idle."""

    images: Path | None
    linux: int
    bare_metal: int
    processes: int
    idle_s: float


@dataclass(frozen=True)
class Boot:
    """Boots the words of a guest. It can be sent to a process, which needs no assembler."""

    code: bytes
    jit: JitMode = "async"

    def __call__(self, console: Console) -> Machine:
        machine = Machine(1 << 20, console=console, jit=self.jit)
        machine.load_bytes(self.code, base=0, entry=0)
        return machine


def ticker() -> Boot:
    return Boot(assemble_program(_TICKER, Gva(0)))


def sleeper() -> Boot:
    return Boot(assemble_program(_SLEEPER, Gva(0)))


def spinner() -> Boot:
    """Return the guest that computes, without the compiler, whose work would be in one figure and not in the other."""
    return Boot(assemble_program(_SPINNER, Gva(0)), "off")


@dataclass(frozen=True)
class LinuxBoot:
    """Boots Debian's kernel to a shell. It can be sent to a process."""

    images: Path

    def __call__(self, console: Console) -> Machine:
        machine = Machine(64 << 20, console=console, cpu="cortex-a15", devices=["rng"])
        initrd = self.images / "initramfs-virt.cpio.gz"
        machine.load_kernel(self.images / "vmlinuz", initrd=initrd, append="console=ttyAMA0 rdinit=/bin/sh quiet")
        return machine


def cpu_s(pid: int | None = None) -> float:
    """Return the CPU time of a process, by default this one, in seconds."""
    if pid is None:
        return time.process_time()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pid_of(domain: Domain) -> int:
    """Return the process of a domain's machine."""
    if not isinstance(domain.vm, ProcessVm):
        raise TypeError(f"the machine of {domain.name} has no process of its own")
    return domain.vm.pid


def run_to_prompt(host: Host, domain: Domain) -> None:
    """Run until a Linux is at its shell, and what the kernel does in the background has come to rest."""
    deadline = time.monotonic() + _BOOT_S
    while PROMPT not in domain.console.output:
        if time.monotonic() > deadline:
            raise TimeoutError("the guest does not get to its shell")
        host.run(timeout=0.001)
    host.run(timeout=5.0)
