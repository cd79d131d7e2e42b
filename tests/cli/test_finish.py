"""A run that ends while regions are compiled: the next run has them, and a killed run leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.cli.command import COMMAND, ROOT, children_of, environment, json_of
from tests.codecache.samples import kept
from tests.waiting import wait_until

GUEST = str(ROOT / "guests/bench/images/fib.elf")
#: So many instructions that code is hot, and that the guest ends before LLVM is even imported.
FUEL = "4000000"


def test_what_was_requested_is_there_for_the_next_run(only_handlers: Path) -> None:
    command = [*COMMAND, "run", "--json", "--fuel", FUEL, GUEST]
    first = json_of(subprocess.run(command, env=environment(), capture_output=True, check=False))
    assert first["statistics"]["regions"]["pending"] > 0, "nothing was requested: this test tests nothing"
    wait_until(lambda: not children_of(only_handlers), "the compiler ends")
    assert kept()
    second = json_of(subprocess.run(command, env=environment(), capture_output=True, check=False))
    assert second["statistics"]["regions"]["loaded"] > 0


def test_a_killed_run_leaves_no_compiler(only_handlers: Path) -> None:
    run = subprocess.Popen([*COMMAND, "run", GUEST], env=environment(), stdout=subprocess.DEVNULL)
    wait_until(lambda: len(children_of(only_handlers)) == 2, "the compiler runs")
    run.send_signal(signal.SIGKILL)
    run.wait()
    wait_until(lambda: not children_of(only_handlers), "the compiler ends")


def test_a_run_killed_during_the_first_build_leaves_no_builder(empty_cache: Path) -> None:
    """The builder is stopped, so that it cannot come to its end by itself."""
    run = subprocess.Popen([*COMMAND, "run", GUEST], env=environment(), stdout=subprocess.DEVNULL)

    def builder() -> int | None:
        others = [pid for pid in children_of(empty_cache) if pid != run.pid]
        return next((pid for pid in others if "llvmlite" in Path(f"/proc/{pid}/maps").read_text()), None)

    try:
        pid = wait_until(builder, "the builder has loaded LLVM")
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        run.kill()
        run.wait()
        wait_until(lambda: not children_of(empty_cache), "the builder ends")
    finally:
        for left in children_of(empty_cache):
            os.kill(left, signal.SIGKILL)
