"""Running trials in QEMU, which is the oracle, and in the tiers, which are under test."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dbt import Machine, RamRegion
from dbt.abi.addresses import Gpa
from dbt.host.console import CaptureConsole
from dbt.vm.machine import TierName
from dbt.vm.result import StopReason
from tests.oracle.coprocessors.program import MEGABYTES, Outcome, Trial, image, outcomes_of

QEMU = "qemu-system-arm"
TIMEOUT = 60  # seconds
#: Where QEMU's board "virt" has its RAM, behind the device tree.
BASE = 0x40200000


def run_qemu(cpu: str, trials: Sequence[Trial]) -> list[Outcome]:
    """Return the outcomes in QEMU, on a CPU without VFP and NEON."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "image")
        path.write_bytes(image(trials, BASE))
        command = [
            *(QEMU, "-M", "virt,highmem=off", "-cpu", f"{cpu},vfp=off,neon=off", "-m", "64"),
            *("-display", "none", "-monitor", "none", "-serial", "null"),
            *("-semihosting-config", "enable=on,target=native"),
            *("-device", f"loader,file={path},addr={BASE:#x},cpu-num=0,force-raw=on"),
        ]
        run = subprocess.run(command, timeout=TIMEOUT, capture_output=True, check=True)
        return list(outcomes_of(run.stdout))


def run_machine(cpu: str, tier: TierName, trials: Sequence[Trial]) -> list[Outcome]:
    """Return the outcomes in a tier."""
    memory = [RamRegion(Gpa(BASE), MEGABYTES << 20)]
    console = CaptureConsole()
    with Machine(memory, tier, console=console, jit="sync", cpu=cpu, semihosting=True) as machine:
        machine.load_bytes(image(trials, BASE), base=BASE, entry=BASE)
        result = machine.run(fuel=200 * len(trials) + 1000)
        assert result.reason is StopReason.EXITED, result.message
        return list(outcomes_of(bytes(console.output)))
