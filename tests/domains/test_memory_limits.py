"""What a domain's RAM may take of the host, and asking its guest for some of it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole, Console
from dbt.hypervisor import Clock, DomainState, Host
from dbt.hypervisor.carrier import Carrier
from dbt.memory.contents import stored, touched
from tests.assembler import assemble
from tests.domains.guests import boot

#: The host may give more memory at once than a guest stores to, and then figures are none of the guest's.
_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = pytest.mark.skipif(
    _LARGE_PAGES.exists() and "[always]" in _LARGE_PAGES.read_text(), reason="the host always gives large pages"
)
RATE = 10_000_000
_RAM = 4 << 20
#: What the guest "grower" has in the end, and a page for its code.
_GROWN = 513 * 4096


def growing() -> Machine:
    return boot("grower", "threaded", _RAM)(CaptureConsole())


def test_own_memory_is_what_was_stored_to() -> None:
    with growing() as machine:
        machine.run(fuel=3_000_000)
        assert machine.own_memory.size() == sum(size for _, size in touched(machine.ram)) == _GROWN
        assert not machine.own_memory.exceeds(_GROWN)
        assert machine.own_memory.exceeds(_GROWN - 1)


def test_a_clone_has_only_what_it_has_stored_to_itself() -> None:
    with growing() as machine:
        machine.run(fuel=3_000_000)
        with machine.fork(console=CaptureConsole()) as clone:
            assert clone.own_memory.size() == 0 and not clone.own_memory.exceeds(0)
            clone.run(fuel=300_000)
            size = sum(size for _, size in stored(clone.ram))
            assert 0 < size < _GROWN and clone.own_memory.exceeds(size - 1) and not clone.own_memory.exceeds(size)


def test_it_is_noticed_where_the_dirty_log_is_emptied_between() -> None:
    with growing() as machine:
        machine.run(fuel=300_000)
        limit = machine.own_memory.size() + 100 * 4096
        assert not machine.own_memory.exceeds(limit)
        machine.run(fuel=300_000)
        with machine.checkpoint():
            machine.run(fuel=1_000_000)
            assert machine.own_memory.exceeds(limit)


def test_a_domain_with_too_much_is_crashed_and_others_go_on(carrier: Carrier) -> None:
    with Host(1, Clock.LOCKSTEP, RATE, carrier=carrier) as host:
        domain = host.define("a", boot("grower", memory=_RAM), memory=1 << 20)
        other = host.define("b", boot("grower", memory=_RAM), memory=_GROWN)
        domain.start()
        other.start()
        host.run(periods=8)
        assert [one.state for one in (domain, other)] == [DomainState.CRASHED, DomainState.RUNNING]
        assert "bytes of the host, and its limit of memory is 1048576" in domain.reason
        other.set_limits(memory=_GROWN - 4096)
        host.run(periods=1)
        assert other.state is DomainState.CRASHED


#: Tells of each change of the balloon's target, which it writes to the UART in pages, a byte for each 256.
_BALLOON = """
    ldr r4, =0x0a003e00 ; ldr r6, =0x09000000
    mov r0, #3 ; str r0, [r4, #0x70] ; mov r0, #1 ; str r0, [r4, #0x24] ; str r0, [r4, #0x20]
    mov r0, #11 ; str r0, [r4, #0x70] ; mov r0, #15 ; str r0, [r4, #0x70]
    mov r5, #0
1:  ldr r0, [r4, #0x100] ; cmp r0, r5 ; beq 1b
    mov r5, r0 ; mov r0, r0, lsr #8 ; str r0, [r6]
    b 1b
"""


def with_balloon(console: Console) -> Machine:
    machine = Machine(16 << 20, console=console, cpu="cortex-a15", devices=["balloon"])
    machine.load_bytes(assemble(_BALLOON, 0x40008000), 0x40008000)
    return machine


def test_a_guest_is_asked_for_the_rest_of_its_memory(carrier: Carrier) -> None:
    with Host(1, Clock.LOCKSTEP, RATE, carrier=carrier) as host:
        domain = host.define("a", with_balloon)
        domain.start()
        host.run(periods=1)
        domain.set_memory(12 << 20)
        host.run(periods=1)
        assert domain.console.output == b"\4"
        domain.set_memory(5 << 20)
        host.run(periods=1)
        assert domain.console.output == b"\4\x0b"
        with pytest.raises(ValueError, match="a multiple of 4096 bytes of memory, and this one at most 16777216"):
            domain.set_memory(17 << 20)
        other = host.define("b", boot("spinner"))
        other.start()
        with pytest.raises(ValueError, match="the machine has no balloon"):
            other.set_memory(1 << 19)


@pytest.mark.parametrize("memory", [0, -1, 1.5, True])
def test_limits_that_make_no_sense_are_refused(memory: int) -> None:
    with Host() as host, pytest.raises(ValueError, match="the limit of memory of the domain a is"):
        host.define("a", boot("spinner"), memory=memory)


def test_domains_share_what_is_equal_between_two_runs() -> None:
    with Host(1, Clock.LOCKSTEP, RATE) as host:
        domains = [host.define(name, boot("grower", memory=_RAM)) for name in "ab"]
        for domain in domains:
            domain.start()
        host.run(periods=8)
        hashes, before = [one.state_hash() for one in domains], [one.machine.own_memory.size() for one in domains]
        report = host.share_memory()
        assert [one.state_hash() for one in domains] == hashes
        saved = sum(before) - sum(one.machine.own_memory.size() for one in domains)
        assert report.runs > 2 and saved >= _GROWN
        icount = min(one.icount for one in domains)
        host.run(periods=1)
        assert min(one.icount for one in domains) > icount
