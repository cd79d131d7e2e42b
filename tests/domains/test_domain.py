"""The life of a domain: legal transitions only, saving, and clones with an identity of their own."""

from __future__ import annotations

import socket
from itertools import product
from pathlib import Path
from threading import Event, Thread

import pytest

from dbt import Machine, Net
from dbt.abi.addresses import Gpa
from dbt.host.console import Console
from dbt.hypervisor import Clock, Domain, DomainState, Host, LatencyClass, LifecycleError, Limits
from dbt.hypervisor.console_ring import ConsoleRing
from dbt.hypervisor.lifecycle import TRANSITIONS, Lifecycle
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.domains.guests import boot

RATE = 10_000_000


def host() -> Host:
    return Host(1, Clock.LOCKSTEP, RATE, seed=7)


def started(made: Host, guest: str = "memory", name: str = "a") -> Domain:
    domain = made.define(name, boot(guest))
    domain.start()
    return domain


@pytest.mark.parametrize(("old", "new"), list(product(DomainState, DomainState)))
def test_only_legal_transitions_are_made(old: DomainState, new: DomainState) -> None:
    ways = {DomainState.DEFINED: [DomainState.DEFINED]}
    while old not in ways:  # the shortest way there
        ways |= {to: [*way, to] for at, way in list(ways.items()) for to in TRANSITIONS[at] if to not in ways}
    life = Lifecycle("a")
    for state in ways[old][1:]:
        life.to(state)
    if new in TRANSITIONS[old]:
        life.to(new)
        assert life.state is new
    else:
        with pytest.raises(LifecycleError, match=f"is {old.value} and cannot become {new.value}"):
            life.to(new)
        assert life.state is old


def test_what_cannot_be_done_says_what_state_it_needs() -> None:
    with host() as made:
        domain = made.define("a", boot("memory"))
        for action in (domain.pause, domain.resume, domain.save, domain.destroy, lambda: domain.clone("b")):
            with pytest.raises(LifecycleError, match="the domain a, which is defined: it has to be"):
                action()
        domain.start()
        with pytest.raises(LifecycleError, match="cannot start the domain a, which is running"):
            domain.start()
        assert list(made.domains) == ["a"]


def test_a_paused_guest_stands_still() -> None:
    with host() as made:
        domain, other = started(made), started(made, name="b")
        made.run(periods=1)
        domain.pause()
        before = state_hash(domain.machine)
        made.run(periods=2)
        assert state_hash(domain.machine) == before
        assert made.reports[-1].domains["b"].units == RATE // 10
        domain.resume()
        made.run(periods=1)
        assert made.reports[-1].domains["a"].units == RATE // 20
        assert other.state is DomainState.RUNNING


def test_a_guest_that_was_paused_while_it_waited_waits_for_the_rest() -> None:
    with host() as made:
        domain = started(made, "ticker")
        made.run(periods=1)
        domain.pause()
        rings = domain.machine.cpu.r[6]
        made.run(periods=10)
        assert domain.machine.cpu.r[6] == rings
        domain.resume()
        made.run(periods=10)
        assert rings + 97 <= domain.machine.cpu.r[6] <= rings + 100


def test_a_saved_domain_goes_on_where_it_was() -> None:
    with host() as made:
        domain, plain = started(made), started(made, name="b")
        made.run(periods=2)
        domain.save()
        assert domain.state is DomainState.SAVED
        with pytest.raises(LifecycleError):
            _ = domain.machine
        domain.start()
        made.run(periods=2)
        assert domain.usage.instructions == plain.usage.instructions
        assert state_hash(domain.machine) == state_hash(plain.machine)


def test_a_saved_domain_can_be_destroyed() -> None:
    with host() as made:
        domain = started(made)
        made.run(periods=1)
        domain.save()
        domain.destroy()
        assert domain.state is DomainState.DEFINED
        domain.start()
        assert domain.machine.icount == 0


def test_a_domain_without_a_machine_can_be_forgotten() -> None:
    with host() as made:
        domain = started(made)
        with pytest.raises(ValueError, match="destroy it before"):
            made.undefine("a")
        domain.destroy()
        made.undefine("a")
        assert not made.domains
        assert started(made).state is DomainState.RUNNING


def test_a_machine_that_cannot_be_made_leaves_the_domain_as_it_was() -> None:
    def failing(console: Console) -> Machine:
        raise OSError("no such kernel")

    with host() as made:
        domain = made.define("a", failing)
        with pytest.raises(OSError, match="no such kernel"):
            domain.start()
        assert domain.state is DomainState.DEFINED


def test_a_machine_has_no_real_time_of_its_own() -> None:
    def paced(console: Console) -> Machine:
        return Machine(1 << 20, console=console, realtime=True)

    with host() as made, pytest.raises(ValueError, match="realtime=True"):
        made.define("a", paced).start()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"weight": 0}, "weight"),
        ({"weight": 1 << 16}, "weight"),
        ({"weight": 1.5}, "weight"),
        ({"cap": 0}, "cap"),
        ({"cap": 1.5}, "cap"),
        ({"cap": "half"}, "cap"),
        ({"latency": "normal"}, "latency"),
    ],
)
def test_limits_that_make_no_sense_are_refused(arguments: dict[str, object], text: str) -> None:
    with host() as made:
        with pytest.raises(ValueError, match=text):
            made.define("a", boot("memory"), **arguments)  # type: ignore[arg-type]
        assert not made.domains
        domain = made.define("a", boot("memory"))
        with pytest.raises(ValueError, match=text):
            domain.set_limits(**{"weight": 1, **arguments})  # type: ignore[arg-type]
        assert domain.limits.weight == 256
        with pytest.raises(ValueError, match="a domain a already"):
            made.define("a", boot("memory"))


@pytest.mark.parametrize(
    "arguments", [{"cores": 0}, {"rate": -1}, {"slice_ms": 200}, {"seed": -1}, {"period_ms": True}, {"clock": "fast"}]
)
def test_hosts_that_make_no_sense_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\d|fast|True"):
        Host(**arguments)  # type: ignore[arg-type]


def test_limits_can_be_changed() -> None:
    with host() as made:
        domain = started(made)
        started(made, name="b")
        made.run(periods=1)
        domain.set_limits(weight=768, latency=LatencyClass.BATCH)
        made.run(periods=1)
        assert made.reports[-1].domains["a"].units == 750_000
        domain.set_limits(cap=0.1)
        made.run(periods=1)
        assert made.reports[-1].domains["a"].units == 100_000
        assert domain.limits == Limits(768, 0.1, LatencyClass.BATCH)


@pytest.mark.parametrize("cores", [1, 2])
def test_other_threads_control_domains_while_the_host_runs(cores: int) -> None:
    with Host(cores, Clock.FREE, RATE) as made:
        domain = made.define("a", boot("memory"))
        echo = made.define("echo", boot("echo"))
        domain.start()
        echo.start()
        over = Event()

        def control() -> None:
            for _ in range(20):
                domain.pause()
                assert domain.machine.icount == domain.machine.icount
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


def test_a_host_can_be_stopped_and_run_again() -> None:
    with host() as made:
        domain = started(made)
        thread = Thread(target=made.run)
        thread.start()
        with pytest.raises(RuntimeError, match="running already"):
            while thread.is_alive():
                made.run(periods=0)
        made.stop()
        thread.join(60)
        assert not thread.is_alive()
        before = domain.usage.instructions
        made.run(periods=1)
        assert domain.usage.instructions > before


def test_shutdown_presses_the_power_key_of_a_guest_that_waits() -> None:
    def waiting(console: Console) -> Machine:
        machine = Machine(1 << 20, board="virt", console=console, tier="threaded")
        machine.load_bytes(assemble("1: wfi ; b 1b"), base=0x40000000)
        return machine

    with host() as made:
        domain = made.define("a", waiting)
        domain.start()
        made.run(periods=2)
        assert domain.state is DomainState.BLOCKED
        assert "GPIO" not in domain.machine.board.bus.save()
        domain.shutdown()
        made.run(periods=1)
        assert "GPIO" in domain.machine.board.bus.save()
        other = started(made, name="b")
        with pytest.raises(ValueError, match="no power key"):
            other.shutdown()


# -- clones ----------------------------------------------------------------------------------------

#: It asks the entropy device of the board virt for 64 bytes, again and again, and adds them up in R7. Its queue is at
#: 0x40010000. It is in the slot before the last
#: one, which the network card has.
ENTROPY = """
    ldr r8, =0x0a003c00
    mov r0, #1 ; str r0, [r8, #0x70] ; mov r0, #3 ; str r0, [r8, #0x70]
    mov r0, #1 ; str r0, [r8, #0x24] ; str r0, [r8, #0x20]
    mov r0, #11 ; str r0, [r8, #0x70]
    mov r0, #0 ; str r0, [r8, #0x30] ; mov r0, #8 ; str r0, [r8, #0x38]
    ldr r9, =0x40010000
    str r9, [r8, #0x80] ; add r0, r9, #0x100 ; str r0, [r8, #0x90] ; add r0, r9, #0x200 ; str r0, [r8, #0xa0]
    mov r0, #1 ; str r0, [r8, #0x44]
    mov r0, #15 ; str r0, [r8, #0x70]
    add r10, r9, #0x400 ; str r10, [r9] ; mov r0, #64 ; str r0, [r9, #8] ; mov r0, #2 ; str r0, [r9, #12]
    mov r6, #0
again:
    add r6, r6, #1
    add r11, r9, #0x100 ; strh r6, [r11, #2] ; mov r0, #0 ; str r0, [r8, #0x50]
    add r11, r9, #0x200
wait: ldrh r0, [r11, #2] ; cmp r0, r6 ; bne wait
    mov r1, #0
sum: ldr r0, [r10, r1] ; add r7, r0, r7, ror #7 ; add r1, r1, #4 ; cmp r1, #64 ; bne sum
    b again
"""


def entropy(console: Console) -> Machine:
    machine = Machine(1 << 20, board="virt", devices=["rng"], nets=[Net("none")], console=console, tier="stitched")
    machine.load_bytes(assemble(ENTROPY, 0x40000000), base=0x40000000)
    return machine


def draws(made: Host, count: int) -> list[int]:
    """What each of so many clones has added up after a period."""
    template = made.define("template", entropy)
    template.start()
    made.run(periods=1)
    assert template.machine.cpu.r[6] > 1
    template.pause()
    clones = [template.clone(f"clone {number}") for number in range(count)]
    sums = []
    for clone in clones:
        clone.resume()
        made.run(periods=1)
        assert clone.state is DomainState.RUNNING
        sums.append(clone.machine.cpu.r[7])
        clone.pause()
    return sums


def test_clones_draw_different_numbers_and_the_same_ones_again() -> None:
    with host() as made:
        sums = draws(made, 10)
    assert len(set(sums)) == 10
    with host() as again:
        assert draws(again, 10) == sums
    with Host(1, Clock.LOCKSTEP, RATE, seed=8) as other:
        assert not set(draws(other, 10)) & set(sums)


def test_clones_have_identities_of_their_own() -> None:
    with host() as made:
        template = made.define("template", entropy)
        template.start()
        made.run(periods=1)
        clones = [template.clone(f"clone {number}", wall_clock=2_000_000_000) for number in range(5)]
        assert {clone.state for clone in clones} == {DomainState.PAUSED}
        assert len({clone.uuid for clone in [*clones, template]}) == 6
        addresses = {clone.machine.options.nets[0].mac for clone in clones}
        assert len(addresses) == 5
        assert all(address[0] & 3 == 2 for address in addresses)  # unicast, locally administered
        for clone in clones:
            slots = clone.machine.board.bus.save()["virtio slots"]
            assert repr(clone.machine.options.nets[0].mac) in repr(slots)
            seconds = clone.machine.memory.read_device(Gpa(0x09010000), 4)
            assert 0 <= seconds - 2_000_000_000 <= 1
        assert len({clone.machine.options.rng_seed for clone in [*clones, template]}) == 6


def test_clones_share_what_neither_stores_to_and_go_their_own_ways() -> None:
    with host() as made:
        domain = started(made)
        made.run(periods=1)
        clone = domain.clone("b")
        clone.machine.write(0x20000, b"only here")
        assert domain.machine.read(0x20000, 9) != b"only here"
        clone.resume()
        domain.pause()
        before = clone.machine.icount
        made.run(periods=1)
        assert clone.machine.icount - before == RATE // 10


def test_a_clone_is_at_the_same_hub_and_nowhere_else(tmp_path: Path) -> None:
    def connected(console: Console) -> Machine:
        ends = [Net("hub:clones"), Net(f"unix:{tmp_path}/end")]
        machine = Machine(1 << 20, "threaded", board="virt", console=console, nets=ends)
        machine.load_bytes(assemble("1: b 1b"), base=0x40000000)
        return machine

    with host() as made, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/end")
        server.listen()
        domain = made.define("a", connected)
        domain.start()
        clone = domain.clone("b")
        assert [net.end for net in clone.machine.options.nets] == ["hub:clones", "none"]
        other = domain.clone("c", nets=[Net("none"), Net("hub:others")])
        assert [net.end for net in other.machine.options.nets] == ["none", "hub:others"]
        addresses = {net.mac for one in (clone, other) for net in one.machine.options.nets}
        assert len(addresses) == 4


def test_a_clone_needs_a_name_of_its_own() -> None:
    with host() as made:
        domain = started(made)
        with pytest.raises(ValueError, match="a domain a already"):
            domain.clone("a")
        assert list(made.domains) == ["a"]


# -- the console -------------------------------------------------------------------------------------


def test_a_console_keeps_its_last_bytes() -> None:
    ring = ConsoleRing(16)
    for number in range(10):
        ring.write(b"%d bytes\n" % number)
    assert ring.output == (b"".join(b"%d bytes\n" % number for number in range(10)))[-16:]
    assert ring.written == 80
    data, position = ring.read_from(75)
    assert (data, position) == (b"ytes\n", 80)
    assert ring.read_from(80) == (b"", 80)


def test_what_is_typed_is_bounded() -> None:
    ring = ConsoleRing()
    ring.send(bytes(1 << 20))
    with pytest.raises(ValueError, match="no room"):
        ring.send(b"x")
    assert ring.read(10) == bytes(10)
    ring.send(b"x")
