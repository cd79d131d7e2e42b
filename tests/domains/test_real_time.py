"""Domains whose time is the host's. Nothing here says how fast the host is: only what may not be exceeded."""

from __future__ import annotations

from resource import RUSAGE_THREAD, getrusage
from threading import Thread, Timer
from time import monotonic, monotonic_ns, process_time

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.hypervisor import Clock, DomainState, Host
from dbt.hypervisor.carrier import Outcome, Terms, execute
from dbt.hypervisor.credit import CreditScheduler
from dbt.hypervisor.pace import RealPace
from dbt.hypervisor.waits import GuestTime, Waits
from dbt.vm.meter import CHARGES
from dbt.vm.result import StopReason
from tests.assembler import assemble
from tests.domains.guests import GUESTS, boot

RATE = 10_000_000


def test_a_timer_rings_no_faster_than_in_real_time() -> None:
    with Host(1, Clock.REAL, RATE) as host:
        ticker = host.define("ticker", boot("ticker"))
        ticker.start()
        began = monotonic()
        while ticker.machine.cpu.r[6] < 10:
            host.run(periods=1)
        assert ticker.machine.cpu.r[6] <= (monotonic() - began) * 100 + 1


def test_a_guest_that_computes_has_the_hosts_time() -> None:
    """Whatever the host does: it is never ahead, and at most a millisecond behind after the first slice of a turn."""
    with Machine(1 << 20, insn_ns=0.1, console=CaptureConsole()) as machine:
        machine.load_bytes(assemble(GUESTS["memory"], 0), 0)
        origin, ahead = monotonic_ns(), 0
        while machine.icount < 100_000_000:
            began = monotonic_ns()
            outcome = execute(machine, Terms(10_000_000, 10.0, True, origin, ahead))
            assert outcome.reason is StopReason.FUEL and outcome.ahead is not None
            assert outcome.ahead >= ahead  # it is more only if the guest has lost time, because the host stood still
            ahead = outcome.ahead
            guest = machine.timeline.nanoseconds + ahead
            assert began - origin - 1_000_000 <= guest <= monotonic_ns() - origin


def _ticks_in_a_turn(period_us: int, units: int, instructions: int | None = None) -> tuple[int, Outcome]:
    """Return how often a timer has rung in one turn of a guest that waits for it, and the outcome."""
    with Machine(1 << 20, console=CaptureConsole()) as machine:
        machine.load_bytes(assemble(GUESTS["ticker"].replace("=10000", f"={period_us}"), 0), 0)
        origin = monotonic_ns()
        outcome = execute(machine, Terms(units, 60.0, False, origin, 0, instructions))
        assert outcome.instructions == machine.icount and outcome.now == machine.vcpu.now()
        assert machine.timeline.nanoseconds <= monotonic_ns() - origin
        return machine.cpu.r[6], outcome


def test_waits_that_are_over_by_the_hosts_clock_take_no_turns() -> None:
    """The host takes longer to notice a wait than this timer's period is. A second is not over so soon."""
    ticks, outcome = _ticks_in_a_turn(10, 100 * CHARGES.wait)
    assert 50 <= ticks <= 100
    assert ticks * CHARGES.wait <= outcome.charged + outcome.instructions < 102 * CHARGES.wait
    ticks, outcome = _ticks_in_a_turn(1_000_000, 100 * CHARGES.wait)
    assert ticks == 0 and outcome.reason is StopReason.WAITING and outcome.wait_ns is not None


def test_waits_within_a_turn_end_with_the_domains_instructions() -> None:
    ticks, outcome = _ticks_in_a_turn(10, 1000 * CHARGES.wait, instructions=60)
    assert ticks > 1 and outcome.instructions == 60 and outcome.reason is StopReason.FUEL


def test_a_host_whose_domains_wait_sleeps() -> None:
    with Host(1, Clock.REAL, RATE) as host:
        host.define("sleeper", boot("sleeper")).start()
        host.run(periods=3)  # the instruction by which it waits is paid
        cpu, began = process_time(), monotonic()
        host.run(periods=5)
        took = monotonic() - began
        assert took >= 0.4
        assert process_time() - cpu < took / 2


def test_a_host_looks_at_nothing_while_nothing_happens() -> None:
    with Host(1, Clock.REAL, RATE) as host:
        sleeper = host.define("sleeper", boot("sleeper"))
        sleeper.start()
        host.run(periods=3)
        sleeps = getrusage(RUSAGE_THREAD).ru_nvcsw
        host.run(timeout=0.5)
        assert getrusage(RUSAGE_THREAD).ru_nvcsw - sleeps <= 5
        timer = Timer(0.1, sleeper.pause)  # a call is heard at once, although nothing else would end the wait
        timer.start()
        began = monotonic()
        host.run(timeout=60)
        assert sleeper.state is DomainState.PAUSED
        assert monotonic() - began < 30
        timer.join()


@pytest.mark.parametrize("cores", [1, 2])
def test_a_cap_holds_for_each_period_of_the_host(cores: int) -> None:
    with Host(cores, Clock.REAL, RATE) as host:
        host.define("capped", boot("memory"), cap=0.01).start()
        host.define("mmio", boot("mmio"), cap=0.02).start()
        began = monotonic()
        host.run(periods=4)
        assert monotonic() - began >= 0.3
        used = [report.domains for report in host.reports]
        assert all(period["capped"].instructions <= RATE // 1000 for period in used)
        assert all(period["mmio"].units <= RATE // 500 for period in used)
        assert sum(period["capped"].instructions for period in used) > 0
        assert all(period["capped"].extra == period["mmio"].extra == 0 for period in used)


def test_a_part_of_a_core_is_cpu_time_and_exact_in_units() -> None:
    with Host(1, Clock.REAL, RATE) as host:
        host.define("half", boot("memory"), core_time=0.5).start()
        began = monotonic()
        host.run(periods=20)
        took = monotonic() - began
        used = [report.domains["half"] for report in host.reports]
        assert all(period.most is not None and period.units + period.extra <= period.most for period in used)
        assert sum(period.host_ns for period in used) <= (took + 0.1) * 0.5e9
        assert sum(period.units + period.extra for period in used) > RATE  # units take less than the nominal rate says
        host.domains["half"].set_limits(core_time=1.0)
        host.run(periods=1)
        host.run(periods=1)
        assert host.reports[-1].domains["half"].most is None


def test_what_is_left_of_the_hosts_time_is_extra() -> None:
    """A million units are executed at once, and the period lasts 100 ms."""
    with Host(1, Clock.REAL, RATE) as host:
        host.define("memory", boot("memory")).start()
        host.run(periods=5)
        assert all(report.domains["memory"].units <= RATE // 10 for report in host.reports)
        assert sum(report.domains["memory"].extra for report in host.reports) > 0


def test_what_is_typed_is_answered_beside_others_that_compute() -> None:
    with Host(2, Clock.REAL, 1_000_000_000) as host:
        for number in range(8):
            host.define(f"spinner {number}", boot("spinner")).start()
        echo = host.define("echo", boot("echo"))
        echo.start()
        thread = Thread(target=host.run)
        thread.start()
        try:
            for number in range(10):
                echo.console.send(b"%d" % number)
                assert echo.console.wait_for(b"%d" % number, 60)
        finally:
            host.stop()
            thread.join(60)
        assert echo.state in (DomainState.BLOCKED, DomainState.RUNNING)


def test_time_stands_still_between_runs() -> None:
    with Host(1, Clock.REAL, RATE) as host:
        pace = RealPace(CreditScheduler(1, 100, 10, in_order=False, paced=True), Waits(), print, print, RATE)
        assert pace.host_ns() == 0
        pace.begin()
        pace.end()
        assert pace.host_ns() == pace.host_ns() > 0
        host.run(periods=1)


def test_periods_that_the_host_slept_through_are_skipped() -> None:
    scheduler = CreditScheduler(1, 100, 10, in_order=False, paced=True)
    scheduler.set_time(1234)
    scheduler.begin_period()
    scheduler.skip_periods(1234)
    assert scheduler.period_end == 1300


def test_a_guest_that_is_behind_waits_less_and_one_that_is_ahead_is_not_delayed() -> None:
    time = GuestTime()
    assert time.lag(1000, 0) == 0
    assert time.lag(2000, 400) == 600
    assert time.lag(2000, 5000) == 0  # it is ahead, and that is where it is from now on
    assert time.lag(2500, 5100) == 400
    assert time.lag(10_000_000_000, 5100) == 1_000_000_000
    assert time.noticeable_lag(10_000_000_000, 1_000_004_100) == 0
    time.forget()
    assert time.lag(20_000_000_000, 5100) == 0
