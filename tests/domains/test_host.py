"""Domains that share a host: exact shares, the same schedule again, and nobody harms anybody."""

from __future__ import annotations

import pytest

from dbt import CaptureConsole, Machine
from dbt.host.console import Console
from dbt.hypervisor import Clock, DomainState, Host, LatencyClass
from dbt.hypervisor.carrier import Outcome, Terms
from dbt.vm.state import state_hash
from tests.domains.guests import boot, ping_pong

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


def test_a_domain_alone_gets_no_more_than_its_cap() -> None:
    with host_with({"memory": 1}, caps={"memory": 0.25}) as host:
        host.run(periods=8)
        assert [report.domains["memory"].instructions for report in host.reports] == [RATE // 40] * 8


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


@pytest.mark.parametrize("cores", [1, 2])
def test_a_turn_that_cannot_be_carried_out_is_a_crash_of_one_domain(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong between host and machine, nobody waits for the end of that turn."""
    with Host(cores, Clock.LOCKSTEP, RATE) as host:
        broken, sound = host.define("broken", boot("memory")), host.define("sound", boot("memory"))
        broken.start()
        sound.start()

        def execute(terms: Terms) -> Outcome:
            raise OverflowError("a number that no message has")

        monkeypatch.setattr(broken.vm, "execute", execute)
        host.run(periods=2, timeout=60)
        assert broken.state is DomainState.CRASHED
        assert broken.reason == "OverflowError: a number that no message has"
        assert sound.usage.instructions > 0


@pytest.mark.parametrize("limit", ["instructions", "memory"])
def test_limits_that_no_other_process_understands_are_refused(limit: str) -> None:
    with Host(1) as host, pytest.raises(ValueError, match=f"limit of {limit} of the domain a is 18446744073709551616"):
        host.define("a", boot("memory"), **{limit: 1 << 64})  # type: ignore[arg-type]


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


def test_a_run_ends_when_nobody_can_run_any_more() -> None:
    with host_with({"exits": 1, "crashes": 1}) as host:
        host.run()
        assert [domain.state for domain in host.domains.values()] == [DomainState.DEFINED, DomainState.CRASHED]


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
        host.run(periods=240)  # half a second: what disturbs the host for 5 ms must not be 3 % of it
        took = {name: domain.usage.host_ns - before[name] for name, domain in host.domains.items()}
        assert 0.95 < took["spinner"] / took["noisy"] < 1.05
