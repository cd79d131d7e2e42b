"""The contract of the carriers: what becomes of domains is the same, in one process or with one for each machine."""

from __future__ import annotations

from threading import Event, Thread

import pytest

from dbt import Machine
from dbt.host.console import Console
from dbt.hypervisor import Clock, Domain, DomainState, Host, LifecycleError, LogEntry
from dbt.hypervisor.carrier import Carrier
from tests.domains.guests import boot, entropy, ping_pong

#: Periods of a million units, so that tests are short.
RATE = 10_000_000
SHARES = {"spinner": 1, "branch": 2, "memory": 4}


def host(carrier: Carrier) -> Host:
    return Host(1, Clock.LOCKSTEP, RATE, seed=7, carrier=carrier)


def host_with(carrier: Carrier, guests: dict[str, int], cores: int = 1, caps: dict[str, float] | None = None) -> Host:
    made = Host(cores, Clock.LOCKSTEP, RATE, log=True, carrier=carrier)
    for name, weight in guests.items():
        made.define(name, boot(name), weight=weight, cap=(caps or {}).get(name)).start()
    return made


def started(made: Host, guest: str = "memory", name: str = "a") -> Domain:
    domain = made.define(name, boot(guest))
    domain.start()
    return domain


def failing(console: Console) -> Machine:
    raise OSError("no such kernel")


def test_counts_are_exactly_as_the_weights_at_the_end_of_each_period(carrier: Carrier) -> None:
    with host_with(carrier, SHARES) as host:
        for _ in range(10):
            host.run(periods=1)
            used = {name: period.instructions for name, period in host.reports[-1].domains.items()}
            assert used["branch"] == 2 * used["spinner"]
            assert used["memory"] == 4 * used["spinner"]
            assert sum(used.values()) > RATE // 10 - 14
        assert [report.number for report in host.reports] == list(range(10))


def test_counts_are_within_one_slice_at_any_moment(carrier: Carrier) -> None:
    with host_with(carrier, SHARES) as host:
        host.run(periods=5)
        assert host.log is not None
        done = dict.fromkeys(SHARES, 0)
        for entry in host.log:
            done[entry.name] += entry.instructions
            for name, weight in SHARES.items():
                assert abs(done[name] - sum(done.values()) * weight / 7) <= RATE // 100 + 35


@pytest.mark.parametrize("clock", [Clock.LOCKSTEP, Clock.FREE])
def test_two_cores_give_the_fair_shares_that_remain(carrier: Carrier, clock: Clock) -> None:
    """The largest weight would be more than a core. The others share what is left, by their weights."""
    with host_with(carrier, {"memory": 4, "spinner": 1, "branch": 2}, cores=2) as host:
        host.run(periods=5)
        for report in host.reports:
            units = {name: period.units for name, period in report.domains.items()}
            assert units["memory"] == RATE // 10
            assert units["branch"] == 2 * units["spinner"]
            assert sum(units.values()) >= 2 * (RATE // 10) - 6


@pytest.mark.parametrize("cores", [1, 2])
def test_a_cap_is_not_exceeded_by_one_instruction(carrier: Carrier, cores: int) -> None:
    with host_with(
        carrier, {"spinner": 1, "mmio": 1, "undefined": 1}, cores=cores, caps={"spinner": 0.1234567}
    ) as host:
        host.run(periods=20)
        for report in host.reports:
            assert report.domains["spinner"].instructions == int(0.1234567 * (RATE // 10))


def test_a_cap_on_charges_holds_too(carrier: Carrier) -> None:
    with host_with(carrier, {"mmio": 1, "spinner": 1}, caps={"mmio": 0.05}) as host:
        host.run(periods=20)
        assert all(report.domains["mmio"].units <= RATE // 200 for report in host.reports)
        assert sum(report.domains["mmio"].units for report in host.reports) > 0.9 * 20 * RATE // 200


MIXED = {"spinner": 3, "mmio": 5, "ticker": 2, "undefined": 1, "flushes": 7, "uart": 2, "sleeper": 1}


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_a_rerun_in_lockstep_makes_the_same_schedule(carrier: Carrier, cores: int) -> None:
    def schedule() -> tuple[list[LogEntry], dict[str, str]]:
        with host_with(carrier, MIXED, cores=cores) as host:
            host.run(periods=10)
            assert host.log is not None
            return list(host.log), {name: domain.state_hash() for name, domain in host.domains.items()}

    first, second = schedule(), schedule()
    assert first == second
    assert len(first[0]) > 50


def test_a_noisy_neighbour_changes_nothing_for_another_domain(carrier: Carrier) -> None:
    """Its instructions in each period are the same, and so is its state."""

    def victim(neighbour: str) -> tuple[list[int], str]:
        with Host(1, Clock.LOCKSTEP, RATE, carrier=carrier) as host:
            host.define("victim", boot("memory"), weight=2).start()
            host.define("neighbour", boot(neighbour), weight=1).start()
            host.run(periods=10)
            instructions = [report.domains["victim"].instructions for report in host.reports]
            return instructions, host.domains["victim"].state_hash()

    quiet = victim("branch")
    for noisy in ("memory", "mmio", "undefined", "flushes", "uart"):
        assert victim(noisy) == quiet, noisy


@pytest.mark.parametrize("guest", ["crashes", "thumb"])
@pytest.mark.parametrize("cores", [1, 2])
def test_a_guest_that_crashes_takes_nobody_with_it(carrier: Carrier, guest: str, cores: int) -> None:
    with host_with(carrier, {guest: 1, "memory": 1}, cores=cores) as host:
        host.run(periods=3)
        crashed, other = host.domains[guest], host.domains["memory"]
        assert crashed.state is DomainState.CRASHED
        assert "instruction" in crashed.reason
        assert crashed.registers()[15] >= 0  # it is there to be looked at
        assert other.state is DomainState.RUNNING
        assert host.reports[-1].domains["memory"].instructions == RATE // 10


def test_a_guest_that_waits_is_woken_at_its_time(carrier: Carrier) -> None:
    """Its timer rings every 10 ms of its time, which is 10 ms of the host's: ten times in a period."""
    with host_with(carrier, {"ticker": 1, "memory": 1}) as host:
        host.run(periods=20)
        rings = host.domains["ticker"].registers()[6]
        assert 195 <= rings <= 200
        assert host.reports[-1].domains["memory"].instructions > 0.7 * RATE // 10


def test_what_is_typed_is_answered_before_others_compute(carrier: Carrier) -> None:
    with host_with(carrier, {f"{name}": 1 for name in ("spinner", "branch", "memory")}) as host:
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


def test_guests_that_end_give_everything_back(carrier: Carrier) -> None:
    with host_with(carrier, {"exits": 1, "memory": 1}) as host:
        host.run(periods=1)
        ended = host.domains["exits"]
        assert (ended.state, ended.exit_code) == (DomainState.DEFINED, 0)
        ended.start()
        host.run(periods=1)
        assert ended.state is DomainState.DEFINED
        assert ended.usage.turns == 2


def test_a_guest_that_resets_itself_is_booted_again_and_charged(carrier: Carrier) -> None:
    with host_with(carrier, {"resets": 1, "memory": 1}) as host:
        host.run(periods=100)
        domain = host.domains["resets"]
        assert domain.state is DomainState.RUNNING
        assert domain.usage.turns == 3  # each reset is two seconds of a core, of which it has the half
        assert host.reports[-1].domains["memory"].instructions == RATE // 20


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_domains_at_a_hub_play_the_same_game_again(carrier: Carrier, cores: int) -> None:
    """In lockstep, frames that are sent on one core while another executes come at the same instruction again."""

    def game() -> tuple[list[LogEntry], list[int | None]]:
        with Host(cores, Clock.LOCKSTEP, RATE, log=True, carrier=carrier) as host:
            for number in range(2):
                host.define(f"player {number}", ping_pong, weight=number + 1).start()
            host.define("spinner", boot("spinner")).start()
            host.run(periods=120)
            assert host.log is not None
            return list(host.log), [domain.exit_code for domain in host.domains.values()]

    first = game()
    assert 20 in first[1]
    assert game() == first


def test_what_cannot_be_done_says_what_state_it_needs(carrier: Carrier) -> None:
    with host(carrier) as made:
        domain = made.define("a", boot("memory"))
        for action in (domain.pause, domain.resume, domain.save, domain.destroy, lambda: domain.clone("b")):
            with pytest.raises(LifecycleError, match="the domain a, which is defined: it has to be"):
                action()
        domain.start()
        with pytest.raises(LifecycleError, match="cannot start the domain a, which is running"):
            domain.start()
        assert list(made.domains) == ["a"]


def test_a_paused_guest_stands_still(carrier: Carrier) -> None:
    with host(carrier) as made:
        domain, other = started(made), started(made, name="b")
        made.run(periods=1)
        domain.pause()
        before = domain.state_hash()
        made.run(periods=2)
        assert domain.state_hash() == before
        assert made.reports[-1].domains["b"].units == RATE // 10
        domain.resume()
        made.run(periods=1)
        assert made.reports[-1].domains["a"].units == RATE // 20
        assert other.state is DomainState.RUNNING


def test_a_guest_that_was_paused_while_it_waited_waits_for_the_rest(carrier: Carrier) -> None:
    with host(carrier) as made:
        domain = started(made, "ticker")
        made.run(periods=1)
        domain.pause()
        rings = domain.registers()[6]
        made.run(periods=10)
        assert domain.registers()[6] == rings
        domain.resume()
        made.run(periods=10)
        assert rings + 97 <= domain.registers()[6] <= rings + 100


def test_a_saved_domain_goes_on_where_it_was(carrier: Carrier) -> None:
    with host(carrier) as made:
        domain, plain = started(made), started(made, name="b")
        made.run(periods=2)
        domain.save()
        assert domain.state is DomainState.SAVED
        with pytest.raises(LifecycleError):
            domain.registers()
        domain.start()
        made.run(periods=2)
        assert domain.usage.instructions == plain.usage.instructions
        assert domain.state_hash() == plain.state_hash()


def test_a_saved_domain_can_be_destroyed(carrier: Carrier) -> None:
    with host(carrier) as made:
        domain = started(made)
        made.run(periods=1)
        domain.save()
        domain.destroy()
        assert domain.state is DomainState.DEFINED
        domain.start()
        assert domain.icount == 0


def test_a_domain_without_a_machine_can_be_forgotten(carrier: Carrier) -> None:
    with host(carrier) as made:
        domain = started(made)
        with pytest.raises(ValueError, match="destroy it before"):
            made.undefine("a")
        domain.destroy()
        made.undefine("a")
        assert not made.domains
        assert started(made).state is DomainState.RUNNING


def test_a_machine_that_cannot_be_made_leaves_the_domain_as_it_was(carrier: Carrier) -> None:
    with host(carrier) as made:
        domain = made.define("a", failing)
        with pytest.raises(OSError, match="no such kernel"):
            domain.start()
        assert domain.state is DomainState.DEFINED


@pytest.mark.parametrize("cores", [1, 2])
def test_other_threads_control_domains_while_the_host_runs(carrier: Carrier, cores: int) -> None:
    with Host(cores, Clock.FREE, RATE, carrier=carrier) as made:
        domain = made.define("a", boot("memory"))
        echo = made.define("echo", boot("echo"))
        domain.start()
        echo.start()
        over = Event()

        def control() -> None:
            for _ in range(20):
                domain.pause()
                assert domain.icount == domain.icount
                domain.resume()
            clone = domain.clone("b")
            clone.resume()
            clone.destroy()
            echo.console.send(b"ping")
            assert echo.console.wait_for(b"ping", 60)
            domain.destroy()
            echo.destroy()
            over.set()

        thread = Thread(target=control)
        thread.start()
        made.run(timeout=120)  # until nobody can run any more
        thread.join(60)
        assert over.is_set()
        assert {one.state for one in made.domains.values()} == {DomainState.DEFINED}


def draws(made: Host, count: int) -> list[int]:
    """What each of so many clones has added up after a period."""
    template = made.define("template", entropy)
    template.start()
    made.run(periods=1)
    assert template.registers()[6] > 1
    template.pause()
    clones = [template.clone(f"clone {number}") for number in range(count)]
    sums = []
    for clone in clones:
        clone.resume()
        made.run(periods=1)
        assert clone.state is DomainState.RUNNING
        sums.append(clone.registers()[7])
        clone.pause()
    return sums


def test_clones_draw_different_numbers_and_the_same_ones_again(carrier: Carrier) -> None:
    with host(carrier) as made:
        sums = draws(made, 10)
    assert len(set(sums)) == 10
    with host(carrier) as again:
        assert draws(again, 10) == sums
    with Host(1, Clock.LOCKSTEP, RATE, seed=8, carrier=carrier) as other:
        assert not set(draws(other, 10)) & set(sums)


def test_clones_share_what_neither_stores_to_and_go_their_own_ways(carrier: Carrier) -> None:
    with host(carrier) as made:
        domain = started(made)
        made.run(periods=1)
        clone = domain.clone("b")
        clone.write(0x20000, b"only here")
        assert domain.read(0x20000, 9) != b"only here"
        clone.resume()
        domain.pause()
        before = clone.icount
        made.run(periods=1)
        assert clone.icount - before == RATE // 10


def test_a_clone_needs_a_name_of_its_own(carrier: Carrier) -> None:
    with host(carrier) as made:
        domain = started(made)
        with pytest.raises(ValueError, match="a domain a already"):
            domain.clone("a")
        assert list(made.domains) == ["a"]
