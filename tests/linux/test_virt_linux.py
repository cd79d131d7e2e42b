"""Debian's unmodified kernel for ARMv7 on the board virt has the same states in every tier, saved or not."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.linux.booting import MODES
from tests.linux.debian import KERNEL, NEEDS_DEBIAN, TIMEOUT, boot
from tests.linux.typist import Typist
from tests.long import LONG
from tests.vm.saved_runs import Mode, check_saves

pytestmark = NEEDS_DEBIAN
_NAMES: dict[Mode, str] = {mode: name for name, mode in MODES.items()}
_HASH_INTERVAL = 400_000_000
#: The icount at which the guest powers off lies beyond this.
_BOOT = 3_700_000_000


def test_every_tier_has_the_same_states() -> None:
    def states(mode: str) -> list[tuple[int, str]]:
        found = []
        with boot(mode, CaptureConsole()) as machine:
            while True:
                result = machine.run(fuel=_HASH_INTERVAL, timeout=TIMEOUT)
                found.append((result.icount, state_hash(machine)))
                if result.reason is not StopReason.FUEL:
                    assert result.reason is StopReason.EXITED, result.message
                    return found

    expected = states("threaded")
    assert len(expected) > 8
    others = ("stitched", "auto-async", "auto-sync") if LONG else ("stitched", "auto-async")  # to wait takes minutes
    for mode in others:
        assert states(mode) == expected, mode


def test_it_is_saved_anywhere() -> None:
    def start(mode: Mode) -> Machine:
        return boot(_NAMES[mode], CaptureConsole())

    icounts = random.Random(23).sample(range(1, _BOOT), 1000 if LONG else 8)
    check_saves(start, ("auto", "async"), icounts, 20_000_000)


def test_alone_it_is_explained() -> None:
    """Without options it has a processor that is too old for it."""
    with Machine(console=CaptureConsole()) as machine:
        machine.load_kernel(KERNEL)
        result = machine.run(timeout=TIMEOUT)
    assert result.reason is StopReason.FAULT and "ARMv7 has this instruction" in result.message
    assert "--board virt" in result.advice and "the processor arm926" in result.advice


def test_it_reboots() -> None:
    """The shell's first command ends the machine, by PSCI's SYSTEM_RESET."""
    console = CaptureConsole()
    with boot("auto-async", console, "console=ttyAMA0 rdinit=/init2") as machine:
        result = machine.run(timeout=TIMEOUT)
    assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), console.output[-2000:]
    assert b"=== FIRST SHELL COMMAND ===" in console.output
    assert console.output.rstrip().endswith(b"reboot: Restarting system")


def test_a_session_with_the_power_key_is_replayed(tmp_path: Path) -> None:
    """The kernel's interrupt counts tell that the key was pressed: twice an edge."""
    console = Typist([])
    append = "console=ttyAMA0 rdinit=/init-virt nowait"
    with boot("auto-async", console, append) as machine:
        recorder = Recorder(machine.input_source, str(tmp_path / "run"), identify(machine, ""))
        machine.attach_input(recorder)
        while b"VIRTIO DONE" not in console.output:
            assert machine.run(fuel=50_000_000, timeout=TIMEOUT).reason is StopReason.FUEL
        machine.press_power_key()
        console.steps += [(b"# ", b"sleep 1\n"), (b"# ", b"grep Poweroff /proc/interrupts; poweroff -f\n")]
        result = machine.run(timeout=TIMEOUT)
        recorder.end(machine, result)
    assert re.search(rb" 31: +2 +9030000.pl061 +3 Edge +GPIO Key Poweroff", console.output), console.output[-2000:]
    with boot("threaded", CaptureConsole(), append) as machine:
        replay = Replay(read_recording(str(tmp_path / "run")), identify(machine, ""))
        machine.attach_input(replay)
        replay.compare(machine, machine.run(fuel=replay.fuel(0, None), timeout=TIMEOUT), pytest.fail)
