"""Running a program in QEMU, which is the oracle, and in the tiers, which are under test."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from dbt.abi.addresses import Gva
from dbt.engine.region_tier import RegionTier
from dbt.host.console import CaptureConsole
from dbt.vm.machine import Machine, TierName
from dbt.vm.result import RunResult, StopReason
from tests.oracle.privileged import layout, runner
from tests.oracle.privileged.program import Program

QEMU = "qemu-system-arm"
TIMEOUT = 60  # seconds
SYS_CLOCK = 0x10


def run_qemu(program: Program) -> bytes:
    """Return what the program writes in QEMU, which looks for interrupts after every instruction."""
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


def run_machine(program: Program, tier: TierName, cpu: str | None = None) -> tuple[bytes, str]:
    """Return what the program wrote in a tier, and why it stopped early if it did. ``cpu`` replaces its own."""
    machine = _machine(program, tier, cpu)
    machine.load_bytes(program.image(), base=0, entry=0)
    return _run(machine, program)


def run_regions(program: Program, every: int) -> tuple[bytes, str]:
    """Run the program twice, the second time with the code of each ``every``-th step compiled as a region.

    The first run executes the code, because regions are made of executed code only. Returns as :func:`run_machine`.
    """
    machine = _machine(program, "auto")
    image = program.image()
    machine.load_bytes(image, base=0, entry=0)
    data, stopped = _run(machine, program)
    if stopped:
        return data, stopped
    # Everything except the code of the runner and of the steps.
    for start, end in ((layout.SAVE, layout.CODE), (layout.FRAMES, layout.RESULTS)):
        machine.write(start, image[start:end])
    machine.reset()
    assert isinstance(machine.console, CaptureConsole)
    machine.console.output.clear()
    chosen = set(program.addresses()[every // 2 :: every])
    call = machine.semihosting.call

    def listen(operation: int, parameter: int) -> object:
        if operation == SYS_CLOCK and _entry(machine) in chosen:
            machine.interrupt()
        return call(operation, parameter)

    machine.semihosting.call = listen  # type: ignore[method-assign, assignment]
    while True:
        result = machine.run(fuel=_fuel(program))
        if result.reason is not StopReason.INTERRUPTED:
            return _written(machine, result)
        machine.run(fuel=runner.INSNS_TO_STEP)
        assert machine.pc == _entry(machine)
        assert isinstance(machine.tier, RegionTier)
        machine.tier.compile_now(Gva(machine.pc))


def _machine(program: Program, tier: TierName, cpu: str | None = None) -> Machine:
    """Return a machine for the program. If it makes regions, the guest waits for them."""
    return Machine(
        layout.MEMORY, tier, console=CaptureConsole(), jit="sync", cpu=cpu or program.cpu.name, board="versatile"
    )


def _entry(machine: Machine) -> int:
    return int.from_bytes(machine.read(layout.STATE + 4 * 15, 4), "little")


def _fuel(program: Program) -> int:
    return 2000 * len(program.steps) + 10_000


def _run(machine: Machine, program: Program) -> tuple[bytes, str]:
    return _written(machine, machine.run(fuel=_fuel(program)))


def _written(machine: Machine, result: RunResult) -> tuple[bytes, str]:
    if result.reason is StopReason.EXITED:
        assert isinstance(machine.console, CaptureConsole)
        return bytes(machine.console.output), ""
    end = int.from_bytes(machine.read(layout.RECORD, 4), "little")
    return machine.read(layout.RESULTS, end - layout.RESULTS), f"{result.reason.name}: {result.message}"
