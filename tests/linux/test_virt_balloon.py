"""Linux with a balloon: memory that it frees goes back to the host, in every kind of RAM, and the states are the same.

The guest fills a large part of its memory with a file and deletes it. Its free page reporting gives that back.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole, Console
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.linux.booting import MODES
from tests.linux.debian import DISK, KERNEL, NEEDS_DEBIAN, TIMEOUT
from tests.linux.typist import Typist

pytestmark = NEEDS_DEBIAN

_APPEND = "console=ttyAMA0 rdinit=/init-virt nowait quiet"
#: Linux reports blocks of 8 MiB, and nothing unless more than 32 of them are free. All of this is low memory.
_MEMORY = 704 << 20
_FILE = 300 << 20
_GIVEN = 400 << 20
#: Instructions between two looks at the console.
_SLICE = 20_000_000


def resident() -> int:
    """The bytes of this process that are in memory."""
    with open("/proc/self/status") as file:
        found = re.search(r"VmRSS:\s+(\d+) kB", file.read())
    assert found
    return int(found[1]) << 10


def boot(mode: str, console: Console) -> Machine:
    """A machine with a balloon that is about to boot."""
    tier, jit = MODES[mode]
    machine = Machine(_MEMORY, tier=tier, jit=jit, console=console, cpu="cortex-a15", devices=["balloon"])
    machine.load_kernel(KERNEL, initrd=DISK, append=_APPEND)
    return machine


def at_shell(mode: str, console: Typist) -> Machine:
    machine = boot(mode, console)
    ask(machine, console, "true")
    return machine


def ask(machine: Machine, console: Typist, command: str) -> bytes:
    """Type a command, and run until it is done. Return what the guest has said meanwhile."""
    before = len(console.output)
    console.steps.append((b"# ", command.encode() + b"; echo do''ne\n"))
    while b"done" not in console.output[before:]:
        result = machine.run(fuel=_SLICE, timeout=TIMEOUT)
        assert result.reason is StopReason.FUEL, (result.message, bytes(console.output[-2000:]))
    return bytes(console.output[before:])


_FILL = f"dd if=/dev/zero of=/big bs=1M count={_FILE >> 20}"
_FREE = "rm /big; sleep 20"


@pytest.mark.parametrize("kind", ["own file", "forked"])
def test_what_the_guest_frees_goes_back_to_the_host(kind: str) -> None:
    console = Typist([])
    machine = at_shell("auto-async", console)
    if kind == "forked":  # so RAM is a private mapping of a file, which has pages where the guest frees some
        ask(machine, console, _FILL + "; echo the end >>/big")
        other = Typist([])
        other.output += b"# "  # the prompt at which the fork waits
        fork = machine.fork(console=other)
        ask(machine, console, _FREE)
        assert b"\nthe end" in ask(fork, other, "tail -c 8 /big")
        fork.close()
    idle = resident()
    ask(machine, console, _FILL)
    used = resident()
    ask(machine, console, _FREE)
    freed = resident()
    print(f"{kind}: idle {idle >> 20} MiB, with the file {used >> 20} MiB, without {freed >> 20} MiB")
    assert used - idle > _FILE * 3 // 4 and used - freed > _FILE * 3 // 4
    machine.close()


def test_the_balloon_is_as_large_as_it_is_asked_to_be() -> None:
    console, total, held = Typist([]), [], []
    with at_shell("auto-async", console) as machine:
        ask(machine, console, _FILL + "; rm /big")
        for size in (0, _GIVEN, 0):
            machine.ask_for_memory(size)
            said = ask(machine, console, "sleep 5; grep MemTotal /proc/meminfo")
            found = re.search(rb"MemTotal: +(\d+)", said)
            assert found, said
            total.append(int(found[1]) << 10)
            held.append(resident())
    print(f"MemTotal {total}, resident {held}")
    assert total[0] - total[1] == _GIVEN and total[2] == total[0]


def test_every_tier_has_the_same_state_afterwards(tmp_path: Path) -> None:
    """When a command comes depends on the host, so it is recorded, and the other tier repeats it."""
    path = str(tmp_path / "recording")
    command = "dd if=/dev/zero of=/big bs=1M count=20; rm /big; sleep 20; poweroff -f\n"
    with boot("threaded", Typist([(b"# ", command.encode())])) as machine:
        recorder = Recorder(machine.input_source, path, identify(machine, ""))
        machine.attach_input(recorder)
        result = machine.run(timeout=TIMEOUT)
        recorder.end(machine, result)
        assert result.reason is StopReason.EXITED
        end = result.icount, state_hash(machine)
    with boot("auto-async", CaptureConsole()) as again:
        replay = Replay(read_recording(path), identify(again, ""))
        again.attach_input(replay)
        result = replay.compare(again, again.run(timeout=TIMEOUT), pytest.fail)
        assert (result.icount, state_hash(again)) == end
