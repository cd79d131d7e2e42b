"""Debian's unmodified kernel as a domain of Xen: it finds its hypervisor, has its console on hvc0, both ways, and ends
in the same state in every tier.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.linux.debian import TIMEOUT
from tests.linux.domu import NEEDS_DOMU, boot
from tests.linux.typist import Typist

pytestmark = NEEDS_DOMU
_PROMPT = b"# "


def test_it_boots_to_a_shell_on_hvc0_and_powers_off(tmp_path: Path) -> None:
    """What is typed comes by the ring, as does what is printed. The recording gives the same state in another tier."""
    path = str(tmp_path / "recording")
    console = Typist([(_PROMPT, b"echo typed $((40+2)); cat /sys/hypervisor/type\n"), (_PROMPT, b"poweroff -f\n")])
    with boot("threaded", console) as machine:
        recorder = Recorder(machine.input_source, path, identify(machine, ""))
        machine.attach_input(recorder)
        result = machine.run(timeout=TIMEOUT)
        recorder.end(machine, result)
        assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), console.output[-2000:]
        assert "switched the machine off" in result.message
        end = result.icount, state_hash(machine), bytes(console.output)
    for text in (
        rb"Xen 4\.17 support found",
        rb"xen:events: Using FIFO-based ABI",
        rb"Grant tables using version 1 layout",
        rb"typed 42\r?\nxen\r?\n",
        rb"GIC-0 +31 Level +events",
        rb"reboot: Power down",
    ):
        assert re.search(text, console.output), (text, console.output[-3000:])
    listener = CaptureConsole()
    with boot("auto-async", listener) as again:
        replay = Replay(read_recording(path), identify(again, ""))
        again.attach_input(replay)
        result = replay.compare(again, again.run(timeout=TIMEOUT), pytest.fail)
        assert (result.icount, state_hash(again), bytes(listener.output)) == end


def test_it_reboots() -> None:
    console = CaptureConsole()
    with boot("auto-async", console, "console=hvc0 panic=-1 rdinit=/init2") as machine:
        result = machine.run(timeout=TIMEOUT)
    assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), console.output[-2000:]
    assert "reset the machine" in result.message
    assert console.output.rstrip().endswith(b"reboot: Restarting system")


@pytest.mark.parametrize("icount", [1_000_000_003, 3_500_000_001])
def test_it_goes_on_from_a_saved_state(icount: int) -> None:
    """Saved by one tier and restored by another, it comes to the same state as without."""
    ends = []
    with boot("auto-async", CaptureConsole()) as machine:
        machine.run(fuel=icount, timeout=TIMEOUT)
        with machine.save() as state:
            machine.run(fuel=30_000_000, timeout=TIMEOUT)
            ends.append(state_hash(machine))
            with Machine.restore(state, tier="threaded", console=CaptureConsole()) as again:
                again.run(fuel=30_000_000, timeout=TIMEOUT)
                ends.append(state_hash(again))
    assert ends[0] == ends[1]


def test_the_toolstack_asks_for_memory_and_for_the_end() -> None:
    """By XenStore: Linux gives memory to its balloon and takes it back, and takes the request to power off. It runs
    /sbin/poweroff then, of which a shell as process 1 does not hear.
    """
    console = Typist([(_PROMPT, b"echo up; while true; do sleep 1; done\n")])
    with boot("auto-async", console) as machine:

        def run_until(is_true: Callable[[], bool]) -> None:
            for _ in range(200):
                if is_true():
                    return
                assert machine.run(fuel=20_000_000, timeout=TIMEOUT).reason is StopReason.FUEL
            raise AssertionError(console.output[-2000:])

        run_until(lambda: b"\nup" in console.output.replace(b"\r", b""))
        domain = machine.board.hypervisor
        assert domain is not None
        machine.write_store("memory/target", str((128 - 16) << 10))
        run_until(lambda: len(domain.reservation.holes) == 16 << 8)
        machine.write_store("memory/target", str(128 << 10))
        run_until(lambda: not domain.reservation.holes)
        tree = domain.store.server.tree
        node = f"{domain.store.server.home}/control/shutdown"
        machine.write_store("control/shutdown", "poweroff")
        changes = tree.generation
        run_until(lambda: tree.generation >= changes + 2 and not tree.values[node])  # the toolstack's, and Linux'
    assert tree.values[f"{domain.store.server.home}/control/feature-poweroff"] == b"1"


def test_shutdown_requests_are_honoured() -> None:
    """Linux runs the program of that name, which asks for what the toolstack has asked for."""
    script = "printf '#!/bin/busybox sh\\n/bin/busybox %s -f\\n' {0} > /sbin/{0}; chmod +x /sbin/{0}"
    commands = [script.format("poweroff"), script.format("reboot"), "echo rea''dy"]
    console = Typist([(_PROMPT, command.encode() + b"\n") for command in commands])
    with boot("auto-async", console) as machine:
        while b"ready" not in console.output:
            assert machine.run(fuel=50_000_000, timeout=TIMEOUT).reason is StopReason.FUEL, console.output[-2000:]
        with machine.save() as state:
            for word, message in (("poweroff", "switched the machine off"), ("reboot", "reset the machine")):
                listener = CaptureConsole()
                with Machine.restore(state, console=listener) as again:
                    again.write_store("control/shutdown", word)
                    result = again.run(timeout=TIMEOUT)
                assert result.reason is StopReason.EXITED and message in result.message, listener.output[-2000:]
