"""Domains that share a host: exact shares, the same schedule again, and nobody harms anybody."""

from __future__ import annotations

import pytest

from dbt import CaptureConsole, Machine, Net
from dbt.host.console import Console
from dbt.hypervisor import Clock, DomainState, Host, LatencyClass, LogEntry
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.domains.guests import boot
from tests.vm.ping_pong import BASE, CODE, FRAME, FRAME_AT

#: Periods of a million units, so that tests are short.
RATE = 10_000_000
SHARES = {"spinner": 1, "branch": 2, "memory": 4}


def host_with(
    guests: dict[str, int], clock: Clock = Clock.LOCKSTEP, cores: int = 1, caps: dict[str, float] | None = None
) -> Host:
    host = Host(cores, clock, RATE, log=True)
    for name, weight in guests.items():
        host.define(name, boot(name), weight=weight, cap=(caps or {}).get(name)).start()
    return host


def test_counts_are_exactly_as_the_weights_at_the_end_of_each_period() -> None:
    with host_with(SHARES) as host:
        for _ in range(10):
            host.run(periods=1)
            used = {name: period.instructions for name, period in host.reports[-1].domains.items()}
            assert used["branch"] == 2 * used["spinner"]
            assert used["memory"] == 4 * used["spinner"]
            assert sum(used.values()) > RATE // 10 - 14
        assert [report.number for report in host.reports] == list(range(10))


def test_counts_are_within_one_slice_at_any_moment() -> None:
    with host_with(SHARES) as host:
        host.run(periods=5)
        assert host.log is not None
        done = dict.fromkeys(SHARES, 0)
        for entry in host.log:
            done[entry.name] += entry.instructions
            for name, weight in SHARES.items():
                assert abs(done[name] - sum(done.values()) * weight / 7) <= RATE // 100 + 35


@pytest.mark.parametrize("clock", [Clock.LOCKSTEP, Clock.FREE])
def test_two_cores_give_the_fair_shares_that_remain(clock: Clock) -> None:
    """The largest weight would be more than a core. The others share what is left, by their weights."""
    with host_with({"memory": 4, "spinner": 1, "branch": 2}, Clock.LOCKSTEP, cores=2) as host:
        host.run(periods=5)
        for report in host.reports:
            units = {name: period.units for name, period in report.domains.items()}
            assert units["memory"] == RATE // 10
            assert units["branch"] == 2 * units["spinner"]
            assert sum(units.values()) >= 2 * (RATE // 10) - 6


@pytest.mark.parametrize("cores", [1, 2])
def test_a_cap_is_not_exceeded_by_one_instruction(cores: int) -> None:
    with host_with({"spinner": 1, "mmio": 1, "undefined": 1}, cores=cores, caps={"spinner": 0.1234567}) as host:
        host.run(periods=20)
        for report in host.reports:
            assert report.domains["spinner"].instructions == int(0.1234567 * (RATE // 10))


def test_a_domain_alone_gets_no_more_than_its_cap() -> None:
    with host_with({"memory": 1}, caps={"memory": 0.25}) as host:
        host.run(periods=8)
        assert [report.domains["memory"].instructions for report in host.reports] == [RATE // 40] * 8


def test_a_cap_on_charges_holds_too() -> None:
    with host_with({"mmio": 1, "spinner": 1}, caps={"mmio": 0.05}) as host:
        host.run(periods=20)
        assert all(report.domains["mmio"].units <= RATE // 200 for report in host.reports)
        assert sum(report.domains["mmio"].units for report in host.reports) > 0.9 * 20 * RATE // 200


MIXED = {"spinner": 3, "mmio": 5, "ticker": 2, "undefined": 1, "flushes": 7, "uart": 2, "sleeper": 1}


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_a_rerun_in_lockstep_makes_the_same_schedule(cores: int) -> None:
    def schedule() -> tuple[list[LogEntry], dict[str, str]]:
        with host_with(MIXED, cores=cores) as host:
            host.run(periods=10)
            assert host.log is not None
            return list(host.log), {name: state_hash(domain.machine) for name, domain in host.domains.items()}

    first, second = schedule(), schedule()
    assert first == second
    assert len(first[0]) > 50


def test_a_noisy_neighbour_changes_nothing_for_another_domain() -> None:
    """Its instructions in each period are the same, and so is its state."""

    def victim(neighbour: str) -> tuple[list[int], str]:
        with Host(1, Clock.LOCKSTEP, RATE) as host:
            host.define("victim", boot("memory"), weight=2).start()
            host.define("neighbour", boot(neighbour), weight=1).start()
            host.run(periods=10)
            instructions = [report.domains["victim"].instructions for report in host.reports]
            return instructions, state_hash(host.domains["victim"].machine)

    quiet = victim("branch")
    for noisy in ("memory", "mmio", "undefined", "flushes", "uart"):
        assert victim(noisy) == quiet, noisy


@pytest.mark.parametrize("guest", ["crashes", "thumb"])
@pytest.mark.parametrize("cores", [1, 2])
def test_a_guest_that_crashes_takes_nobody_with_it(guest: str, cores: int) -> None:
    with host_with({guest: 1, "memory": 1}, cores=cores) as host:
        host.run(periods=3)
        crashed, other = host.domains[guest], host.domains["memory"]
        assert crashed.state is DomainState.CRASHED
        assert "instruction" in crashed.reason
        assert crashed.machine.pc >= 0  # it is there to be looked at
        assert other.state is DomainState.RUNNING
        assert host.reports[-1].domains["memory"].instructions == RATE // 10


@pytest.mark.parametrize("cores", [1, 2])
def test_an_error_of_the_host_in_one_domain_reaches_no_other(cores: int) -> None:
    class Broken(Exception):
        pass

    def breaking(console: Console) -> Machine:
        machine = boot("mmio")(console)

        def fail(gpa: int, size: int, value: int) -> None:
            raise Broken("no more")

        machine.board.bus.write = fail  # type: ignore[method-assign]
        machine.memory.bus.write = fail  # type: ignore[method-assign]
        return machine

    with Host(cores, Clock.LOCKSTEP, RATE) as host:
        host.define("broken", breaking).start()
        host.define("sound", boot("memory")).start()
        host.run(periods=3)
        assert host.domains["broken"].state is DomainState.CRASHED
        assert host.domains["broken"].reason == "Broken: no more"
        assert host.reports[-1].domains["sound"].instructions == RATE // 10


def test_ctrl_c_is_the_callers_and_no_crash() -> None:
    def interrupted(console: Console) -> Machine:
        machine = boot("mmio")(console)
        write = machine.memory.bus.write
        pressed = iter([True])

        def press(gpa: int, size: int, value: int) -> None:
            if next(pressed, False):
                raise KeyboardInterrupt
            write(gpa, size, value)  # type: ignore[arg-type]

        machine.memory.bus.write = press  # type: ignore[method-assign]
        return machine

    with Host(1, Clock.LOCKSTEP, RATE) as host:
        host.define("a", interrupted).start()
        host.define("b", boot("memory")).start()
        with pytest.raises(KeyboardInterrupt):
            host.run(periods=3)
        assert [domain.state for domain in host.domains.values()] == [DomainState.RUNNING] * 2
        host.run(periods=1)
        assert host.reports[-1].domains["b"].instructions > 0


def test_blocked_domains_cost_nothing() -> None:
    """A hundred of them leave the schedule of the others as it is without them."""

    def turns(sleepers: int) -> list[tuple[str, int]]:
        with Host(1, Clock.LOCKSTEP, RATE, log=True) as host:
            for number in range(sleepers):
                host.define(f"sleeper {number}", boot("sleeper")).start()
            host.run(periods=5)  # each has to pay for the instruction by which it waits
            assert host.log is not None
            before = len(host.log)
            host.define("memory", boot("memory")).start()
            host.define("spinner", boot("spinner")).start()
            host.run(periods=3)
            assert all(host.domains[f"sleeper {n}"].state is DomainState.BLOCKED for n in range(sleepers))
            entries = host.log[before:]
            return [(entry.name, entry.instructions) for entry in entries]

    assert turns(100) == turns(0)


def test_a_guest_that_waits_is_woken_at_its_time() -> None:
    """Its timer rings every 10 ms of its time, which is 10 ms of the host's: ten times in a period."""
    with host_with({"ticker": 1, "memory": 1}) as host:
        host.run(periods=20)
        rings = host.domains["ticker"].machine.cpu.r[6]
        assert 195 <= rings <= 200
        assert host.reports[-1].domains["memory"].instructions > 0.7 * RATE // 10


@pytest.mark.parametrize("guest", ["ticker", "mmio", "undefined", "memory"])
def test_a_guest_does_what_it_does_in_a_machine_alone(guest: str) -> None:
    """Turns, waits and neighbours are nothing to it: after as many instructions its state is the same."""
    with host_with({guest: 2, "spinner": 1, "flushes": 3}) as host, boot(guest)(CaptureConsole()) as alone:
        host.run(periods=8)
        domain = host.domains[guest]
        domain.pause()
        domain.machine.run(fuel=100)  # so that it does not stand in a WFI
        alone.run(fuel=domain.machine.icount)
        assert state_hash(domain.machine) == state_hash(alone)


def test_time_passes_while_everybody_waits() -> None:
    with host_with({"ticker": 1, "sleeper": 1}) as host:
        host.run(periods=20)
        assert 195 <= host.domains["ticker"].machine.cpu.r[6] <= 200


def test_what_is_typed_is_answered_before_others_compute() -> None:
    with host_with({f"{name}": 1 for name in ("spinner", "branch", "memory")}) as host:
        echo = host.define("echo", boot("echo"))
        echo.start()
        host.run(periods=1)
        assert echo.state is DomainState.BLOCKED
        assert host.log is not None
        before = len(host.log)
        echo.console.send(b"hello")
        host.run(periods=1)
        assert echo.console.output == b"hello"
        assert [entry.name for entry in host.log[before:]].index("echo") == 0


def test_a_batch_domain_is_not_boosted() -> None:
    with host_with({"spinner": 1}) as host:
        echo = host.define("echo", boot("echo"), latency=LatencyClass.BATCH)
        echo.start()
        host.run(periods=1)
        assert host.log is not None
        echo.console.send(b"hello")
        before = len(host.log)
        host.run(periods=1)
        names = [entry.name for entry in host.log[before:]]
        assert names[0] == "spinner" or "spinner" in names[:2]
        assert echo.console.output == b"hello"


def test_guests_that_end_give_everything_back() -> None:
    with host_with({"exits": 1, "memory": 1}) as host:
        host.run(periods=1)
        ended = host.domains["exits"]
        assert (ended.state, ended.exit_code) == (DomainState.DEFINED, 0)
        ended.start()
        host.run(periods=1)
        assert ended.state is DomainState.DEFINED
        assert ended.usage.turns == 2


def test_a_run_ends_when_nobody_can_run_any_more() -> None:
    with host_with({"exits": 1, "crashes": 1}) as host:
        host.run()
        assert [domain.state for domain in host.domains.values()] == [DomainState.DEFINED, DomainState.CRASHED]


def test_a_guest_that_resets_itself_is_booted_again() -> None:
    with host_with({"resets": 1}) as host:
        host.run(periods=2)
        domain = host.domains["resets"]
        assert domain.state is DomainState.RUNNING
        assert domain.usage.turns > 5


def ping_pong(console: Console) -> Machine:
    machine = Machine(1 << 20, "threaded", console=console, cpu="cortex-a15", nets=[Net("hub:domains")])
    machine.load_bytes(assemble(CODE, BASE), BASE)
    machine.write(FRAME_AT, FRAME.ljust(60, b"\0"))
    return machine


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_domains_at_a_hub_play_the_same_game_again(cores: int) -> None:
    """In lockstep, frames that are sent on one core while another executes come at the same instruction again."""

    def game() -> tuple[list[LogEntry], list[int | None]]:
        with Host(cores, Clock.LOCKSTEP, RATE, log=True) as host:
            for number in range(2):
                host.define(f"player {number}", ping_pong, weight=number + 1).start()
            host.define("spinner", boot("spinner")).start()
            host.run(periods=120)
            assert host.log is not None
            return list(host.log), [domain.exit_code for domain in host.domains.values()]

    first = game()
    assert 20 in first[1]
    assert game() == first


def test_domains_at_a_hub_play_as_fast_as_it_goes() -> None:
    with Host(2, Clock.FREE, RATE) as host:
        for number in range(2):
            host.define(f"player {number}", ping_pong).start()
        host.run(periods=200)
        assert 20 in [domain.exit_code for domain in host.domains.values()]


@pytest.mark.parametrize("noisy", ["mmio", "undefined", "flushes"])
def test_the_guard_makes_weights_hold_for_the_hosts_time(noisy: str) -> None:
    """Beside a loop in registers, each takes as much of the host's CPU as its weight says, within 5 %."""
    with Host(1, Clock.FREE, 100_000_000) as host:
        host.define("spinner", boot("spinner"), weight=1).start()
        host.define("noisy", boot(noisy), weight=1).start()
        host.run(periods=10)  # what it measures first is code that is not compiled yet
        before = {name: domain.usage.host_ns for name, domain in host.domains.items()}
        host.run(periods=60)
        took = {name: domain.usage.host_ns - before[name] for name, domain in host.domains.items()}
        assert 0.95 < took["spinner"] / took["noisy"] < 1.05
