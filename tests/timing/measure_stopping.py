"""How soon a run ends when it is told to: by its time limit, by another thread, by Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.machine import TierName
from dbt.vm.result import StopReason
from tests.assembler import assemble
from tests.cli.command import COMMAND, dbt, environment, paragraph
from tests.vm.programs import TIERS, make_elf

SPIN = "b ."
PROGRAMS = {
    "a branch to itself": (SPIN, 0.1),
    "semihosting calls": ("loop: mov r0, #0x13; svc 0x123456; b loop", 0.1),
    "a loop over a device": ("ldr r5, =0x101f1000; loop: ldr r0, [r5, #0x18]; b loop", 0.2),
}
#: Prints a character, by which one sees that it runs, and goes in a circle.
READY = "mov r0, #0x13; mov r1, #0x21; push {r1}; mov r1, sp; mov r0, #3; svc 0x123456; b ."
LIMIT = 0.1


def machine(source: str, tier: TierName) -> Machine:
    made = Machine(1 << 20, tier, console=CaptureConsole())
    made.load_bytes(make_elf(assemble(source)))
    _ = made.tier  # what there is to make is made before the clock runs
    return made


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_time_limit(name: str, tier: TierName) -> None:
    """A run ends at most so many seconds after its limit."""
    source, late = PROGRAMS[name]
    made = machine(source, tier)
    started = time.monotonic()
    assert made.run(timeout=LIMIT).reason is StopReason.TIMEOUT
    assert time.monotonic() - started < LIMIT + late


@pytest.mark.parametrize("tier", TIERS)
def test_an_interrupt(tier: TierName) -> None:
    made = machine(SPIN, tier)
    asked: list[float] = []

    def interrupt() -> None:
        asked.append(time.monotonic())
        made.interrupt()

    threading.Timer(0.2, interrupt).start()
    assert made.run(timeout=10).reason is StopReason.INTERRUPTED
    assert time.monotonic() - asked[0] < 0.05


@pytest.mark.parametrize("tier", TIERS)
def test_the_time_limit_of_the_command(tmp_path: Path, tier: TierName) -> None:
    guest = tmp_path / "spin.elf"
    guest.write_bytes(make_elf(assemble(SPIN)))
    started = time.monotonic()
    paragraph(dbt("run", "--timeout", "0.2", "--tier", tier, guest), 124)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("tier", TIERS)
def test_ctrl_c(tmp_path: Path, tier: TierName) -> None:
    guest = tmp_path / "ready.elf"
    guest.write_bytes(make_elf(assemble(READY)))
    command = [*COMMAND, "run", "--tier", tier, str(guest)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None and process.stdout.read(1) == b"!"
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        assert process.wait(10) == 130
        assert time.monotonic() - started < 1
