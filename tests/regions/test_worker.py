"""The compiler's process: whatever goes wrong there costs a region, never a result."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from dbt.abi.addresses import Gva
from dbt.backend.compiled import CompiledRegion, Refused
from dbt.engine import worker
from dbt.engine.compiler_process import CompilerProcess
from dbt.engine.messages import CompileRequest
from dbt.engine.mirror import CodeMirror
from dbt.engine.region_tier import RegionTier
from dbt.engine.worker import CompileWorker, shared_worker
from tests.assembler import assemble
from tests.oracle.programs import ENTRY, SmallMachine, SoonHotTier, same_state
from tests.regions.compilers import (
    HANG,
    KILL,
    NOTHING,
    RAISE,
    SLOW,
    check_run,
    connect,
    loop_machine,
    make_compile,
    region,
    request,
    wait_for_all,
)
from tests.waiting import has_ended, wait_until


def pid_of(compiler: CompileWorker) -> int:
    assert isinstance(compiler._child, CompilerProcess)
    return compiler._child.pid


@pytest.mark.parametrize("bad", [KILL, HANG, RAISE, NOTHING])
def test_a_request_that_goes_wrong_costs_itself_only(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if bad == HANG:
        monkeypatch.setattr(worker, "TIMEOUT_S", 3.0)  # the others are answered in milliseconds on an idle machine
    client = connect(CompileWorker(make_compile))
    for entry in (4, 8, bad, 12, 16):
        client.submit(request(entry))
    refused = Refused("nothing" if bad == NOTHING else "the compiler was lost over it")
    expected = [(4, region(4)), (8, region(8)), (bad, refused), (12, region(12)), (16, region(16))]
    assert wait_for_all(client, 5) == expected
    assert client.counts.lost == client.counts.restarts == (bad != NOTHING)
    client.close()


def test_a_child_killed_while_idle_costs_nothing() -> None:
    compiler = CompileWorker(make_compile)
    client = connect(compiler)
    client.submit(request(4))
    assert wait_for_all(client, 1) == [(4, region(4))]
    child = pid_of(compiler)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: has_ended(child), "the child's end")
    client.submit(request(8))
    client.submit(request(12))
    assert wait_for_all(client, 2) == [(8, region(8)), (12, region(12))]
    assert client.counts.lost == 0
    client.close()


def test_a_child_that_somebody_else_kills_is_asked_again_but_once() -> None:
    """The host was short of memory, or the thread has ended that forked it: neither is the request's fault."""
    compiler = CompileWorker(make_compile)
    client = connect(compiler)
    client.submit(request(SLOW))
    time.sleep(0.2)
    os.kill(pid_of(compiler), signal.SIGKILL)
    assert wait_for_all(client, 1) == [(SLOW, region(SLOW))]
    client.submit(request(HANG))
    for _ in range(2):
        time.sleep(0.2)
        assert client.poll() == []
        os.kill(pid_of(compiler), signal.SIGKILL)
        time.sleep(0.1)
    assert wait_for_all(client, 1) == [(HANG, Refused("the compiler was lost over it"))]
    client.close()


def test_a_compiler_that_has_grown_is_begun_anew_between_two_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "REGIONS_PER_PROCESS", 3)
    compiler = CompileWorker(make_compile)
    client, pids = connect(compiler), []
    for entry in range(4, 32, 4):
        client.submit(request(entry))
        pids.append(pid_of(compiler))
        assert wait_for_all(client, 1) == [(entry, region(entry))]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert client.counts.lost == client.counts.restarts == 0
    client.close()


def test_closing_twice_and_without_a_child_is_nothing() -> None:
    client = connect(CompileWorker(make_compile))
    client.close()
    client = connect(CompileWorker(make_compile))
    client.submit(request(4))
    client.close()
    client.close()


# -- machines -----------------------------------------------------------------------------------------

LOOP = "mov r0, #0 \n movw r1, #5000 \n loop: add r0, r0, r1 \n subs r1, r1, #1 \n bne loop \n svc #0"


@pytest.mark.parametrize("failure", [os.abort, lambda: os._exit(3), lambda: time.sleep(1000)])
def test_a_guest_runs_on_without_the_compiler(failure: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TIMEOUT_S", 0.3)

    def compile_(mirror: CodeMirror, wanted: CompileRequest) -> CompiledRegion | Refused:
        failure()
        return Refused("it did not fail")

    broken = CompileWorker(lambda: compile_)
    monkeypatch.setattr("dbt.engine.worker.shared_worker", lambda: broken)
    machines = [SmallMachine(kind, assemble(LOOP, ENTRY)) for kind in ("threaded", "sync", "async")]
    for machine in machines:
        machine.advance(1 << 30)
    assert same_state(machines)
    tier = machines[1].tier
    assert isinstance(tier, SoonHotTier) and tier.regions.worker.lost == 1
    for machine in machines:
        machine.close()


def test_a_guest_runs_uncompiled_where_no_process_can_be_made(
    only_handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("dbt.engine.worker.shared_worker", CompileWorker)
    monkeypatch.setattr(os, "fork", fork)
    notices: list[str] = []
    machine = loop_machine(notices)
    check_run(machine)
    assert len(notices) == 1 and "Resource temporarily unavailable" in notices[0] and "continues" in notices[0]
    assert machine.retired["region"] == 0
    activity = machine.tier.regions
    assert activity is not None and activity.worker.lost == activity.counts.refused == activity.worker.requests == 1


def test_the_machines_of_a_process_share_one_compiler_which_ends_with_the_last(only_handlers: Path) -> None:
    compiler = CompileWorker()
    tiers = []
    for _ in range(3):
        small = SmallMachine("threaded", assemble(LOOP, ENTRY))
        small.tier.close()
        small.tier = SoonHotTier(small.cpu, small.memory, "sync", worker=compiler)
        small.advance(1 << 30)
        assert small.tier.regions.counts.compiled
        tiers.append((small.tier, pid_of(compiler)))
    assert len({pid for _, pid in tiers}) == 1
    for tier, pid in tiers:
        assert not has_ended(pid)
        tier.close()
    assert has_ended(pid) and compiler._child is None


def test_machines_in_threads_each_get_their_own_answers() -> None:
    compiler = CompileWorker(make_compile)
    found: dict[int, list[object]] = {}

    def ask(first: int) -> None:
        client = connect(compiler)
        wanted = [first + 4 * number for number in range(40)]
        for entry in wanted:
            client.submit(request(entry))
        got = wait_for_all(client, 40)
        found[first] = [answer == (entry, region(entry)) for entry, answer in zip(wanted, got, strict=True)]
        client.close()

    threads = [threading.Thread(target=ask, args=(0x1000 * number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(all(answers) for answers in found.values())
    assert compiler._child is None


def test_a_forked_process_has_a_compiler_and_an_arena_of_its_own(only_handlers: Path) -> None:
    machine = loop_machine()
    machine.run(fuel=30_000)
    compiler = pid_of(shared_worker())
    tier = machine.tier
    assert isinstance(tier, RegionTier)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert shared_worker()._child is None
            with pytest.raises(RuntimeError, match="forked"):
                tier.compile_now(Gva(0x8004 + 8))
            mine = loop_machine(cpu="arm926")  # whose regions the parent has not kept
            check_run(mine)
            assert pid_of(shared_worker()) != compiler
            mine.tier.close()
            assert shared_worker()._child is None
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert pid_of(shared_worker()) == compiler and not has_ended(compiler)
    check_run(machine)
    machine.tier.close()


def test_closing_frees_processes_descriptors_and_mappings(only_handlers: Path) -> None:
    def held() -> tuple[list[str], int]:
        maps = Path("/proc/self/maps").read_text().splitlines()
        ours = sorted(line.split("/")[-1] for line in maps if "memfd:dbt-arena" in line or "memfd:dbt-code" in line)
        descriptors = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return ours, sum(name.startswith("pipe:") or "dbt-arena" in name for name in descriptors)

    def size() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0])

    gc.collect()  # machines of other tests that nobody has closed
    loop_machine().tier.close()
    before, pages = held(), size()
    machines = [loop_machine() for _ in range(3)]
    for machine in machines:
        check_run(machine)
    assert held() != before
    for machine in machines:
        machine.tier.close()
        machine.tier.close()
    assert held() == before
    assert size() - pages < 3 * (1 << 20 >> 12) + (16 << 20 >> 12), "code pages and tables are gone"
    with pytest.raises(RuntimeError, match="closed"):
        machines[0].tier.run(1)


# -- the end of the parent ----------------------------------------------------------------------------


@pytest.mark.parametrize("last", [8, HANG])
def test_a_killed_parent_leaves_no_child(last: int) -> None:
    """Not even one that compiles."""
    script = (
        "import time\n"
        "from tests.regions.compilers import *\n"
        "workers = [CompileWorker(make_compile) for _ in range(3)]\n"
        "clients = [connect(compiler) for compiler in workers]\n"
        "for client in clients: client.submit(request(4))\n"
        "for client in clients: wait_for_all(client, 1)\n"
        f"for client in clients: client.submit(request({last}))\n"
        "print(*(compiler._child.pid for compiler in workers), flush=True)\n"
        "time.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 3
    time.sleep(0.2)
    assert not any(has_ended(pid) for pid in children)
    parent.kill()
    parent.wait()
    wait_until(lambda: all(has_ended(pid) for pid in children), "the end of all children")
    parent.stdout.close()
