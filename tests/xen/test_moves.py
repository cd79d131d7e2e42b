"""A guest that uses Xen's interface all the time is saved, forked, moved and replayed as any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt import Machine
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.migration.sides import WAYS, outgoing, place_of, receiving
from tests.xen.guests import RAM, Caller, domain_machine
from tests.xen.pairs import hypercall
from tests.xen.store_client import HOME

_BASE = RAM + 0x10000
#: Sends itself events by two ports, polls for them, and gives a page back and takes it again.
_GUEST = f"""
    {hypercall(32, 6, "unbound")} ; ldr r1, =unbound ; ldr r4, [r1, #4] ; ldr r1, =interdomain ; str r4, [r1, #4]
    {hypercall(32, 0, "interdomain")} ; ldr r1, =interdomain ; ldr r5, [r1, #8] ; ldr r1, =port ; str r5, [r1]
    ldr r1, =ports ; str r4, [r1] ; mov r10, #0
next:
    {hypercall(32, 4, "port")} ; {hypercall(29, 3, "poll")}
    ldr r1, =0x39004030 ; ldr r2, [r1] ; add r11, r2, r11, ror #3 ; mov r2, #0 ; str r2, [r1]
    {hypercall(12, 1, "extents")} ; {hypercall(12, 6, "extents")} ; add r11, r11, r0
    ldr r1, ={RAM + 0x40000:#x} ; str r11, [r1] ; add r10, r10, #1 ; b next
    .ltorg ; .balign 8
unbound: .word 0x7ff07ff0, 0
interdomain: .word 0x7ff0, 0, 0
port: .word 0
    .balign 8
poll: .word ports, 0, 1, 0, 0, 0
extents: .word frames, 0, 1, 0, 0, 0, 0x7ff0, 0
frames: .word {RAM + 0x40000 >> 12:#x}, 0
ports: .word 0
"""


def loaded(tier: str = "threaded") -> Machine:
    machine = domain_machine(tier)
    machine.load_bytes(assemble(_GUEST, _BASE), _BASE, _BASE)
    return machine


def running(fuel: int = 10_007) -> Machine:
    machine = loaded()
    assert machine.run(fuel=fuel).reason is StopReason.FUEL
    assert machine.r[10] > 10
    return machine


@pytest.mark.parametrize("way", WAYS)
def test_a_domain_is_moved(way: str, tmp_path: Path) -> None:
    machine = running()
    before = state_hash(machine)
    with running() as alone, receiving(place_of(way, tmp_path)) as there:
        outgoing(machine, there, way).run()
        with there.machine() as moved:
            assert state_hash(moved) == before
            for one in (moved, alone):
                one.run(fuel=50_000)
            assert state_hash(moved) == state_hash(alone)


def test_saved_and_forked_ones_go_on_alike() -> None:
    for fuel in range(10_000, 10_040):
        with running(fuel) as machine, machine.save() as state, machine.fork() as child:
            with Machine.restore(state, tier="reference") as again:
                ends = set()
                for one in (machine, child, again):
                    one.run(fuel=1000)
                    ends.add(state_hash(one))
            assert len(ends) == 1, fuel


def test_what_the_toolstack_writes_is_replayed(tmp_path: Path) -> None:
    """At the same instruction, in another tier."""
    with loaded() as machine:
        recorder = Recorder(machine.input_source, str(tmp_path / "run"), identify(machine, "1.0"))
        machine.attach_input(recorder)
        machine.write_store("control/shutdown", "poweroff")
        result = machine.run(fuel=10_000)
        recorder.end(machine, result)
        ends = state_hash(machine)
    with loaded("reference") as again:
        source = Replay(read_recording(str(tmp_path / "run")), identify(again, "1.0"))
        again.attach_input(source)
        found = source.compare(again, again.run(source.fuel(0, None)), lambda _: None)
        assert (found.reason, found.icount) == (result.reason, result.icount)
        assert state_hash(again) == ends
        assert Caller(again).domain.store.server.tree.values[f"{HOME}/control/shutdown"] == b"poweroff"
