"""The compiler runs where a processor is idle, unless somebody waits for it or it gets nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from dbt.engine import compiler_process, worker
from dbt.engine.compiler_process import CompilerProcess
from dbt.engine.priority import seconds_on_processor, seconds_without_processor, share_processors, yield_processors
from dbt.engine.worker import CompileClient, CompileWorker
from tests.cli.command import ROOT
from tests.codecache.hosts import as_one_who_obeys
from tests.regions.compilers import HANG, SLOW, connect, make_compile, request
from tests.waiting import wait_until

privileged = pytest.mark.skipif(os.geteuid() != 0, reason="only root may take priority back")


def policy(compiler: CompileWorker) -> int:
    assert isinstance(compiler._child, CompilerProcess)
    return os.sched_getscheduler(compiler._child.pid)


def answer(client: CompileClient, look: Callable[[], object]) -> object:
    """Poll until there is an answer. Return what ``look`` gave before."""
    seen = None
    while not client.poll():
        seen = look()
        time.sleep(0.01)
    return seen


def test_it_yields_while_a_guest_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PATIENCE_S", 1000)
    compiler = CompileWorker(make_compile)
    client = connect(compiler)
    client.submit(request(SLOW))
    assert answer(client, lambda: policy(compiler)) == os.SCHED_IDLE
    client.close()


def test_it_does_not_yield_where_it_must_not() -> None:
    compiler = CompileWorker(make_compile, yields=False)
    client = connect(compiler)
    client.submit(request(SLOW))
    assert answer(client, lambda: policy(compiler)) == os.SCHED_OTHER
    client.close()


@privileged
def test_it_shares_while_somebody_waits() -> None:
    compiler = CompileWorker(make_compile)
    client = connect(compiler)
    client.submit(request(SLOW))
    client.poll()
    assert policy(compiler) == os.SCHED_IDLE
    assert client.wait()
    assert policy(compiler) == os.SCHED_OTHER
    client.submit(request(SLOW))
    client.poll()
    assert policy(compiler) == os.SCHED_IDLE
    compiler.let_finish()
    assert policy(compiler) == os.SCHED_OTHER
    client.close()


def test_it_shares_after_it_has_got_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PATIENCE_S", 0.1)
    compiler = CompileWorker(make_compile)
    client = connect(compiler)
    client.submit(request(HANG))
    client.poll()
    wait_until(lambda: not client.poll() and policy(compiler) == os.SCHED_OTHER, "it shares")
    time.sleep(0.2)
    client.poll()
    client.submit(request(4))
    client.poll()
    assert policy(compiler) == os.SCHED_OTHER, "which it does from then on"
    client.close()


def test_it_yields_on_as_long_as_it_has_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PATIENCE_S", 0.1)
    begun = time.monotonic()
    monkeypatch.setattr(compiler_process, "seconds_on_processor", lambda pid: time.monotonic() - begun)
    compiler = CompileWorker(make_compile)
    client = connect(compiler)
    client.submit(request(SLOW))
    client.poll()
    assert answer(client, lambda: policy(compiler)) == os.SCHED_IDLE
    client.close()


def test_a_user_who_may_not_take_priority_back_gets_another_compiler() -> None:
    """Nothing is lost by it, and the new one does not yield."""
    script = (
        "import os\n"
        "from tests.regions.compilers import *\n"
        "compiler = CompileWorker(make_compile)\n"
        "client = connect(compiler)\n"
        "for entry in (SLOW, 4, 8): client.submit(request(entry))\n"
        "client.poll()\n"
        "pid = compiler._child.pid\n"
        "print(os.sched_getscheduler(pid) == os.SCHED_IDLE)\n"
        "print(wait_for_all(client, 3) == [(SLOW, region(SLOW)), (4, region(4)), (8, region(8))])\n"
        "print(compiler._child.pid != pid, os.sched_getscheduler(compiler._child.pid), client.counts.restarts)\n"
        "client.submit(request(12)); client.poll()\n"
        "print(os.sched_getscheduler(compiler._child.pid))\n"
        "client.close()\n"
    )
    command = [*as_one_who_obeys(), sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "True\nTrue\nTrue 0 0\n0\n"


def test_a_process_that_has_ended_is_nothing() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    pid = ended.pid
    yield_processors(pid)
    assert share_processors(pid)
    assert seconds_without_processor(pid) == 0


def test_time_on_a_processor_is_the_process_s_own() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            wait_until(lambda: seconds_on_processor(busy.pid) > 0.2, "it runs")
        finally:
            busy.kill()
    assert seconds_on_processor(busy.pid) == 0


def test_time_without_a_processor_is_counted_by_the_kernel() -> None:
    """Two processes on one processor each wait for about half of the time."""
    processor = min(os.sched_getaffinity(0))
    script = f"import os, time; os.sched_setaffinity(0, {{{processor}}})\nwhile True: pass"
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    try:
        wait_until(lambda: all(seconds_without_processor(one.pid) > 0.2 for one in both), "both wait")
    finally:
        for one in both:
            one.kill()
            one.wait()
