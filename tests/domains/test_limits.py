"""Limits of domains: instructions, and what their devices do in a second of the guest's time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dbt import Machine, Net
from dbt.host.console import Console
from dbt.host.network import HubEnd
from dbt.hypervisor import Clock, DiskLimits, Domain, DomainState, Host, LifecycleError, NetLimits, Rate
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.domains.guests import boot
from tests.vm.ping_pong import BASE, FRAME, FRAME_AT

RATE = 1_000_000
SIZE = 1250
#: Starts the network card and sends frames as fast as it can. R8 counts them.
SENDER = f"""
    ldr r4, =0x0a003e00 ; ldr r6, =0x40090000
    mov r0, #3 ; str r0, [r4, #0x70] ; mov r0, #1 ; str r0, [r4, #0x24] ; str r0, [r4, #0x20]
    mov r0, #11 ; str r0, [r4, #0x70]
    mov r0, #1 ; str r0, [r4, #0x30] ; mov r0, #8 ; str r0, [r4, #0x38]
    str r6, [r4, #0x80] ; add r7, r6, #0x1000 ; str r7, [r4, #0x90] ; add r7, r7, #0x1000 ; str r7, [r4, #0xa0]
    mov r0, #1 ; str r0, [r4, #0x44]
    ldr r0, =0x400a0000 ; str r0, [r6] ; ldr r1, ={SIZE + 12} ; str r1, [r6, #8]
    mov r0, #15 ; str r0, [r4, #0x70]
    mov r8, #0 ; add r1, r6, #0x1000 ; add r2, r6, #0x2000
send:
    add r8, r8, #1 ; strh r8, [r1, #2] ; mov r0, #1 ; str r0, [r4, #0x50]
sent:
    ldrh r0, [r2, #2] ; cmp r0, r8 ; bne sent
    b send
"""


def sender(console: Console) -> Machine:
    """A machine with RAM from 0x40000000 on, whose instructions take a microsecond."""
    machine = Machine(
        1 << 20, "auto", console=console, jit="off", cpu="cortex-a15", nets=[Net("hub:limits")], insn_ns=1000
    )
    machine.load_bytes(assemble(SENDER, BASE), BASE)
    machine.write(FRAME_AT, FRAME.ljust(SIZE, b"\0"))
    return machine


@contextmanager
def listening(host: Host, **limits: object) -> Iterator[tuple[Domain, HubEnd]]:
    listener = HubEnd("limits")
    try:
        domain = host.define("sender", sender, **limits)  # type: ignore[arg-type]
        domain.start()
        yield domain, listener
    finally:
        listener.close()


def megabits(domain: Domain, host: Host, listener: HubEnd, periods: int = 10) -> float:
    """Return how many megabits come in a second of the guest's time, in so many periods."""
    listener.receive()
    began = domain.machine.timeline.now
    host.run(periods=periods)
    timeline = domain.machine.timeline
    bits = sum(8 * len(frame) for frame in listener.receive())
    return bits / ((timeline.now - began) / timeline.ticks_per_second) / 1_000_000


def test_a_megabit_a_second_is_a_megabit_a_second() -> None:
    """The lecture's container. What comes in nearly seven seconds of it is within 1 % of as many megabits."""
    with Host(1, Clock.LOCKSTEP, RATE) as host, listening(host, nets=NetLimits(sent=Rate(1_000_000))) as (one, hub):
        assert 0.99 < megabits(one, host, hub, 100) < 1.01
        assert one.machine.timeline.now > 6 * one.machine.timeline.ticks_per_second


def test_limits_stay_with_saved_domains_and_clones_and_can_be_changed() -> None:
    with Host(1, Clock.LOCKSTEP, RATE) as host, listening(host, nets=NetLimits(sent=Rate(1_000_000))) as (one, hub):
        host.run(periods=1)
        one.save()
        one.start()
        assert 0.9 < megabits(one, host, hub) < 1.1
        clone = one.clone("clone")
        one.pause()
        clone.resume()
        assert 0.9 < megabits(clone, host, hub) < 1.1
        clone.set_limits(nets=NetLimits(sent=Rate(2_000_000)))
        assert 1.8 < megabits(clone, host, hub) < 2.1
        clone.set_limits(nets=NetLimits())
        assert megabits(clone, host, hub) > 10


def test_a_limited_guest_goes_the_same_way_from_a_saved_state() -> None:
    with Host(1, Clock.LOCKSTEP, RATE) as host, listening(host, nets=NetLimits(sent=Rate(1_000_000))) as (one, _):
        host.run(periods=3)
        one.pause()
        with one.machine.save() as state, Machine.restore(state, nets=[Net("none")]) as other:
            for machine in (one.machine, other):
                machine.run(fuel=123_457)
            assert state_hash(one.machine) == state_hash(other)


@pytest.mark.parametrize("guest", ["spinner", "mmio", "ticker"])
def test_a_domain_is_paused_when_its_instructions_are_used_up(guest: str) -> None:
    with Host(1, Clock.LOCKSTEP, 10 * RATE) as host:
        domain = host.define("a", boot(guest), instructions=12_345)
        other = host.define("b", boot("spinner"))
        domain.start()
        other.start()
        host.run(periods=60 if guest == "ticker" else 3)
        while domain.state is DomainState.BLOCKED or domain.state is DomainState.RUNNING:
            host.run(periods=100)
        assert domain.state is DomainState.PAUSED
        assert domain.usage.instructions == domain.machine.icount == 12_345
        assert "its limit of instructions is used up" in domain.reason
        with pytest.raises(LifecycleError, match="cannot go on: its limit of instructions"):
            domain.resume()
        domain.set_limits(instructions=12_346)
        domain.resume()
        while domain.state is not DomainState.PAUSED:
            host.run(periods=1)
        assert domain.machine.icount == 12_346


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"instructions": 0}, "limit of instructions of the domain a is 0"),
        ({"instructions": 1.5}, "limit of instructions of the domain a is 1.5"),
        ({"nets": 5}, "limits disks by a DiskLimits"),
        ({"disks": DiskLimits(bytes=Rate(0))}, "the limit of bytes is Rate"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, object], said: str) -> None:
    with Host() as host, pytest.raises(ValueError, match=said):
        host.define("a", boot("spinner"), **limits)  # type: ignore[arg-type]
    with Host() as host, pytest.raises(TypeError, match="a domain has no limit 'speed'"):
        host.define("a", boot("spinner"), speed=3)  # type: ignore[call-arg]
