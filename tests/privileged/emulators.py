"""Running a program: in QEMU, which is the oracle, and in the tiers, which are under test."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from dbt.machine.console import CaptureConsole
from dbt.machine.machine import Machine
from dbt.machine.result import StopReason
from tests.privileged import layout
from tests.privileged.program import Program

QEMU = "qemu-system-arm"
TIMEOUT = 20  # seconds


def run_qemu(program: Program) -> bytes:
    """What the program writes in QEMU, which looks for interrupts after every instruction."""
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory, "image")
        image.write_bytes(program.image())
        command = [
            *(QEMU, "-M", "versatilepb", "-cpu", program.cpu.name, "-m", f"{layout.MEMORY >> 20}", "-singlestep"),
            *("-display", "none", "-monitor", "none", "-serial", "null"),
            *("-semihosting-config", "enable=on,target=native"),
            *("-device", f"loader,file={image},addr=0,cpu-num=0,force-raw=on"),
        ]
        run = subprocess.run(command, timeout=TIMEOUT, capture_output=True, check=False)
        if run.returncode:
            raise RuntimeError(f"{program.cpu.name} {program.name}: {run.stderr.decode()}")
        return run.stdout


def run_machine(program: Program, tier: str) -> tuple[bytes, str]:
    """What the program wrote in a tier, and why it stopped early if it did."""
    machine = make_machine(program.cpu.name, tier)
    machine.load_bytes(program.image(), base=0, entry=0)
    result = machine.run(fuel=2000 * len(program.steps) + 10_000)
    if result.reason is StopReason.EXITED:
        assert isinstance(machine.console, CaptureConsole)
        return bytes(machine.console.output), ""
    end = int.from_bytes(machine.read(layout.RECORD, 4), "little")
    return machine.read(layout.RESULTS, end - layout.RESULTS), f"{result.reason.name}: {result.message}"


def make_machine(cpu: str, tier: str) -> Machine:
    keywords: Any = {"memory": layout.MEMORY, "tier": tier, "console": CaptureConsole(), "jit": "sync"}
    try:
        return Machine(cpu=cpu, **keywords)
    except TypeError:
        return Machine(**keywords)
