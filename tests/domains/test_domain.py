"""The life of a domain: legal transitions only, saving, and clones with an identity of their own."""

from __future__ import annotations

import socket
from itertools import product
from pathlib import Path
from threading import Thread

import pytest

from dbt import Machine, Net
from dbt.abi.addresses import Gpa
from dbt.host.console import Console
from dbt.hypervisor import Clock, Domain, DomainState, Host, LatencyClass, LifecycleError, Limits
from dbt.hypervisor.console_ring import ConsoleRing
from dbt.hypervisor.lifecycle import TRANSITIONS, Lifecycle
from tests.assembler import assemble
from tests.domains.guests import boot, entropy

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
