"""The compiler's process: whatever goes wrong there costs a region, never a result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from dbt.backend.compiled import Refused
from dbt.engine import worker
from dbt.engine.worker import CompileWorker
from tests.assembler import assemble
from tests.oracle.programs import ENTRY, SmallMachine, SoonHotTier, same_state
from tests.regions.compilers import HANG, KILL, NOTHING, RAISE, make_compile, region, wait_for_all
from tests.waiting import has_ended, wait_until


@pytest.mark.parametrize("bad", [KILL, HANG, RAISE, NOTHING])
def test_a_request_that_goes_wrong_costs_itself_only(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if bad == HANG:
        monkeypatch.setattr(worker, "TIMEOUT_S", 3.0)  # the others are answered in milliseconds on an idle machine
    compiler = CompileWorker(make_compile)
    for entry in (4, 8, bad, 12, 16):
        compiler.submit(entry)
    refused = Refused("nothing" if bad == NOTHING else "the compiler was lost over it")
    expected = [(4, region(4)), (8, region(8)), (bad, refused), (12, region(12)), (16, region(16))]
    assert wait_for_all(compiler, 5) == expected
    assert compiler.counts.lost == (bad != NOTHING)
    compiler.close()


def test_a_child_killed_while_idle_costs_one_request_at_most() -> None:
    compiler = CompileWorker(make_compile)
    compiler.submit(4)
    assert wait_for_all(compiler, 1) == [(4, region(4))]
    assert compiler._child is not None
    child = compiler._child.pid
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: has_ended(child), "the child's end")
    compiler.submit(8)
    compiler.submit(12)
    assert wait_for_all(compiler, 2)[1] == (12, region(12))
    compiler.close()


def test_closing_twice_and_without_a_child_is_nothing() -> None:
    compiler = CompileWorker(make_compile)
    compiler.close()
    compiler.submit(4)
    compiler.close()
    compiler.close()


LOOP = "mov r0, #0 \n movw r1, #5000 \n loop: add r0, r0, r1 \n subs r1, r1, #1 \n bne loop \n svc #0"


@pytest.mark.parametrize("failure", [os.abort, lambda: os._exit(3), lambda: time.sleep(1000)])
def test_a_guest_runs_on_without_the_compiler(failure: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(failure)
    monkeypatch.setattr(worker, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(SoonHotTier, "_make_compile", lambda tier: lambda entry: failure())
    machines = [SmallMachine(kind, assemble(LOOP, ENTRY)) for kind in ("threaded", "sync", "async")]
    for machine in machines:
        machine.advance(1 << 30)
    assert same_state(machines)
    tier = machines[1].tier
    assert isinstance(tier, SoonHotTier) and tier.worker_counts.lost == 1
    for machine in machines:
        machine.close()


def test_a_killed_parent_leaves_no_child() -> None:
    script = (
        "import time\n"
        "from tests.regions.compilers import CompileWorker, make_compile, wait_for_all\n"
        "workers = [CompileWorker(make_compile) for _ in range(3)]\n"
        "for compiler in workers: compiler.submit(4)\n"
        "for compiler in workers: wait_for_all(compiler, 1)\n"
        "print(*(compiler._child.pid for compiler in workers), flush=True)\n"
        "time.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 3
    assert not any(has_ended(pid) for pid in children)
    parent.kill()
    parent.wait()
    wait_until(lambda: all(has_ended(pid) for pid in children), "the end of all children")
    parent.stdout.close()
