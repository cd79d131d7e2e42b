"""Machines that are forked without end: the host's refusal is a clear error, and harms none of those that are there."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.command import environment
from tests.guests import GUESTS

_BOMB = """
import resource
from contextlib import ExitStack

from dbt import CaptureConsole, Machine

machine = Machine(16 << 20, "threaded", console=CaptureConsole())
machine.load({guest!r})
machine.run(fuel=100_000)
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, resource.RLIM_INFINITY))
machines = [machine]
try:
    while len(machines) < 10_000:
        with ExitStack() as stack:
            fork = stack.enter_context(machines[-1].fork(console=CaptureConsole()))
            fork.run(fuel=10)
            machines.append(fork)
            stack.pop_all()
except OSError as error:
    print("refused:", error.strerror)
print(len(machines) > 1, {{each.run(fuel=1000).reason.value for each in machines}})
for each in machines[1:]:
    each.close()
print(machine.fork(console=CaptureConsole()).run().exit_code, machine.run().exit_code)
"""


def test_the_last_machine_is_refused_and_the_others_run_on() -> None:
    code = _BOMB.format(guest=str(GUESTS / "images" / "sudoku-armv7-a-O2.elf"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    first, *rest = done.stdout.splitlines()
    assert first.startswith("refused: Cannot allocate memory"), done.stderr
    assert rest == ["True {'fuel'}", "0 0"]
