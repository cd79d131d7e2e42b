"""Pages that are mapped to be read alone: a store there is a data abort, in every tier and whichever way it takes."""

from __future__ import annotations

import random
import struct
from contextlib import suppress
from typing import Any

import pytest

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.exits import LeaveGuest
from dbt.hypervisor.cluster import Cluster, ClusterEnd
from dbt.hypervisor.xen.foreign_pages import Status
from dbt.hypervisor.xen.grant_table import GrantError
from dbt.memory.virtual import BadAddress
from dbt.vm.state import state_hash
from isa.arm.faults import Fault
from tests.xen.attackers import OTHER_PLACE, PAGE, PERMIT, PLACE, READ_ONLY, SECRET, Guest, host_of
from tests.xen.guests import RAM, SELF
from tests.xen.pairs import boot, boot_code, hypercall, sleepers

#: Where the guest notes its aborts: DFSR, DFAR, LR, and how many there have been.
SEEN = RAM + 0x70000
#: Page tables that map the same RAM twice, by sections.
TABLES, ALIAS = RAM + 0x80000, 0x50000000 - RAM
_WRITE = 1 << 11
#: What is tried, and where it aborts. R8 is the page's address.
STORES = {
    "str r5, [r8, #4]": 4,
    "strb r5, [r8, #7]": 7,
    "strh r5, [r8, #10]": 10,
    "str r5, [r8, #13]": 13,
    "str r5, [r8, #-2]": 0,
    "strh r5, [r8, #-1]": 0,
    "str r5, [r9, #-3]": 4093,
    "str r5, [r8], #4": 0,
    "strt r5, [r8]": 0,
    "strd r4, r5, [r8, #16]": 16,
    "stm r8!, {r0-r3}": 0,
    "stmdb r9!, {r0-r3}": 4080,
    "stmdb r6!, {r0-r3}": 0,
    ".word 0xe1981f9f, 0xe1882f95": 0,  # ldrex r1, [r8] ; strex r2, r5, [r8]
    ".word 0xe1d81f9f, 0xe1c82f95": 0,  # ldrexb, strexb
    ".word 0xe1b80f9f, 0xe1a82f94": 0,  # ldrexd, strexd
    ".word 0xe1081095": 0,  # swp r1, r5, [r8]
    ".word 0xe1481095": 0,  # swpb
    ".word 0xf96d0513": 0,  # srsdb sp!, #19
}
ROUNDS = 400


def reader(with_mmu: bool) -> str:
    """Return a guest that has stored to a page often, maps another one there, and tries all stores, the first often."""
    mmu = f"""
    ldr r0, ={TABLES:#x} ; ldr r1, ={RAM | 0xC02:#x} ; add r2, r0, #{RAM >> 18} ; str r1, [r2]
    ldr r2, =0x39000c02 ; str r2, [r0, #{0x390 * 4}] ; ldr r2, =0x38000c02 ; str r2, [r0, #{0x380 * 4}]
    add r2, r0, #{(RAM + ALIAS) >> 18} ; str r1, [r2]
    mcr p15, #0, r0, c2, c0, #0 ; mov r1, #1 ; mcr p15, #0, r1, c3, c0, #0 ; mcr p15, #0, r0, c8, c7, #0
    mrc p15, #0, r0, c1, c0, #0 ; orr r0, r0, #1 ; mcr p15, #0, r0, c1, c0, #0 ; .word 0xf57ff06f
    """
    tries = "\n".join(f"    {store} ; add r10, r10, #16" for store in STORES)
    return f"""
    ldr r0, =vectors ; mcr p15, #0, r0, c12, c0, #0 ; ldr r10, ={SEEN:#x}
    mrc p15, #0, r0, c1, c0, #0 ; orr r0, r0, #{1 << 10} ; mcr p15, #0, r0, c1, c0, #0
    {mmu if with_mmu else ""}
    ldr r8, ={PLACE + (ALIAS if with_mmu else 0):#x} ; add r9, r8, #4096 ; add r6, r8, #8 ; mov sp, r6
    ldr r5, =0x1234567 ; ldr r4, =0x89abcde ; mov r0, r4 ; mov r1, r4 ; mov r2, r4 ; mov r3, r4
    mov r7, #{ROUNDS} ; bl fill
    {hypercall(20, 0, "map", 1)}
    mov r7, #{ROUNDS} ; bl fill ; add r10, r10, #16
    {tries}
    {hypercall(20, 1, "unmap", 1)} ; str r5, [r8] ; ldr r7, [r8] ; ldr r0, =0x84000008 ; .word 0xe1400070
fill: str r5, [r8] ; subs r7, r7, #1 ; bne fill ; bx lr
aborted: mrc p15, #0, r11, c5, c0, #0 ; str r11, [r10] ; mrc p15, #0, r11, c6, c0, #0 ; str r11, [r10, #4]
    str lr, [r10, #8] ; add sp, sp, #1 ; str sp, [r10, #12] ; subs pc, lr, #4
    .ltorg ; .balign 32
vectors: b . ; b . ; b . ; b . ; b aborted ; b . ; b . ; b .
    .balign 8
map: .word {PLACE:#x}, 0, 6, 8, 1, 0, 0, 0
unmap: .word {PLACE:#x}, 0, 0, 0, 0, 0xffff
"""


def pair(code: str, tier: Any) -> tuple[Cluster, Guest]:
    """Return two domains, of which the first grants a page to be read. The second is about to execute code."""
    cluster = Cluster({}, domains_us=20)
    cluster.add("domain 1", boot("sleeper"))
    cluster.add("domain 2", boot_code(code, tier))
    owner = Guest(cluster, 1)
    owner.write(PAGE, SECRET * 1024)
    owner.grant(8, 2, flags=PERMIT | READ_ONLY)
    return cluster, owner


@pytest.mark.parametrize("with_mmu", [False, True])
def test_a_store_aborts(with_mmu: bool) -> None:
    """Whatever makes it, however often it was made before there was such a page, and by each address of the page."""
    ends = set()
    for tier in ("reference", "threaded", "stitched", "auto"):
        cluster, owner = pair(reader(with_mmu), tier)
        with cluster:
            assert cluster.run(timeout=60) is ClusterEnd.IDLE
            assert owner.read(PAGE, 4096) == SECRET * 1024 and owner.flags(8) == PERMIT | READ_ONLY
            machine = cluster["domain 2"].machine
            assert machine.r[7] == machine.r[5] and machine.r[8] - PLACE == with_mmu * ALIAS, "it is its own page again"
            seen = struct.iter_unpack("<4I", machine.read(SEEN, 16 * (1 + len(STORES))))
            for number, ((status, address, _, count), offset) in enumerate(
                zip(seen, [0, *STORES.values()], strict=True)
            ):
                assert (status, count) == (_WRITE | Fault.EXTERNAL, ROUNDS + number)
                assert address == machine.r[8] + offset
            ends.add(state_hash(machine))
    assert len(ends) == 1, "in every tier the same"


#: Has a page mapped to be read, and stores there again and again.
_STUBBORN = f"""
    ldr r0, =vectors ; mcr p15, #0, r0, c12, c0, #0
    ldr r8, ={PLACE:#x} ; mov r7, #0 ; mov r9, #0
    {hypercall(20, 0, "map", 1)}
again: str r8, [r8] ; add r7, r7, #1 ; b again
aborted: add r9, r9, #1 ; subs pc, lr, #4
    .ltorg ; .balign 32
vectors: b . ; b . ; b . ; b . ; b aborted ; b . ; b . ; b .
map: .word {PLACE:#x}, 0, 6, 8, 1, 0, 0, 0
"""


@pytest.mark.parametrize("tier", ["reference", "threaded"])
def test_it_holds_where_the_machine_goes_on_from(tier: str) -> None:
    """In a saved state, back in time before and after the page was mapped, when its grant ends, and after a reset."""
    cluster, owner = pair(_STUBBORN, tier)
    with cluster:
        cluster.keep_history(0.0001)
        machine = cluster["domain 2"].machine
        machine.write(PLACE, b"mine")
        start = cluster.now_ns
        cluster.run(seconds=0.0003)
        assert 0 < machine.r[7] == machine.r[9] and machine.read(PLACE, 4) == SECRET
        with cluster.save() as state, state.restore() as other:
            other.run(seconds=0.0001)
            again = other["domain 2"].machine
            assert machine.r[7] < again.r[7] == again.r[9] and again.read(PLACE, 4) == SECRET
        there = cluster.now_ns
        cluster.go_back(start)
        machine.write(PLACE, b"mine")
        cluster.run(seconds=0.0003)
        assert 0 < machine.r[7] == machine.r[9] and cluster.now_ns == there
        owner.grant(8, 2, flags=0)
        cluster.run(seconds=0.0001)
        assert machine.r[7] == machine.r[9] and machine.read(PLACE, 4096) == bytes(4096)
        machine.reset()
        cluster.run(seconds=0.0001)
        assert machine.r[9] == 0 < machine.r[7] and machine.read(PLACE, 4) == struct.pack("<I", PLACE), "not mapped"


def test_nothing_else_writes_there() -> None:
    """Neither hypercalls nor back ends nor a debugger: what they wrote would be lost."""
    cluster, owner = pair("1: wfi ; b 1b", "threaded")
    with cluster:
        reader = Guest(cluster, 2)
        status, handle = reader.map(1, 8, flags=6)
        machine = cluster["domain 2"].machine
        assert status == 0
        for place in (PLACE, PLACE - 2):
            assert reader.call(17, 1, place) == -14, "the answer of xen_version"
            assert reader.call(17, 0, place) != -14, "which has none in memory"
        assert reader.copy((PLACE + 0x2000 >> 12, SELF, 0), (PLACE >> 12, SELF, 0), 4, 0) == Status.BAD_PAGE
        assert reader.call(24, 10, 0, reader.put("QII", PLACE >> 12, 0, 0)) == -22, "the processor's information"
        assert reader.events(11, "QIIB7x", PLACE >> 12, 0, 0, 0) == -22, "the control block of queues"
        reader.grant(9, 0, PLACE)
        with pytest.raises(GrantError, match="not the guest's"):
            reader.domain.grants.write(9, 0, b"late")
        with pytest.raises(GrantError, match="not the guest's"):
            reader.domain.grants.hold(9, False)
        for at in (PLACE, PLACE - 2, PLACE + 4095):
            with pytest.raises(ValueError, match="may not write"):
                machine.write(at, b"late")
            with pytest.raises(BadAddress):
                machine.inspector.write_virtual(Gva(at), b"late")
        assert reader.read(PLACE - 2, 4098) == bytes(2) + SECRET * 1024 == bytes(2) + owner.read(PAGE, 4096)
        assert reader.unmap(handle) == 0
        machine.write(PLACE, b"mine")
        assert reader.read(PLACE, 4) == b"mine"


def _try(guest: Guest, draw: random.Random) -> None:
    """Do something with a page that may be another domain's, to change it."""
    place = draw.choice((PLACE, OTHER_PLACE))
    owner, at = draw.choice((1, 1, 2, 3)), place + draw.randrange(0, 4096, 4)
    match draw.randrange(11):
        case 0 | 1 | 2:
            guest.map(owner, draw.choice((8, 9)), place, draw.choice((2, 6, 6)))
        case 3:
            guest.unmap(draw.randrange(3), place)
        case 4:
            guest.copy((PAGE >> 12, SELF, 0), (draw.choice((8, place >> 12)), draw.choice((owner, SELF)), 0), 64, 2)
        case 5:
            guest.grant(9, draw.choice((0, 2, 3)), place)
            with suppress(GrantError):
                guest.domain.grants.write(9, 0, b"by a back end")
        case 6 if guest.domain.reservation.is_lent(Gpa(place)):  # else the guest's own page is there for ever
            guest.call(12, 7, guest.put("HHIQQ", SELF, 0, draw.randrange(2), draw.randrange(2), place >> 12))
        case 7:
            guest.put("Q", place >> 12, at=RAM + 0x20000)
            guest.call(12, draw.choice((1, 6)), guest.put("QQIIHxxxxxx", RAM + 0x20000, 1, 0, 0, SELF))
        case 8 if guest.domain.reservation.is_lent(Gpa(place)):
            guest.call(24, 10, 0, guest.put("QII", place >> 12, 0, 0))
            guest.events(11, "QIIB7x", place >> 12, 0, 0, 0)
            guest.call(24, 5, 0, guest.put("Q", at))
            guest.domain.processor.gets_core()
        case 9:
            guest.call(17, 1, at)
        case _:
            with suppress(LeaveGuest):
                guest.machine.memory.store(Gva(at - draw.randrange(4)), 4, draw.getrandbits(32), Gva(0))


def test_two_guests_cannot_write_what_they_may_read() -> None:
    """By mapping it again or elsewhere, passing it on, ballooning, or having the hypervisor write there."""
    draw = random.Random(23)
    with sleepers(3) as cluster:
        victim, *attackers = (Guest(cluster, number) for number in (1, 2, 3))
        victim.write(PAGE, SECRET * 1024)
        for number in (2, 3):
            victim.grant(6 + number, number, flags=PERMIT | READ_ONLY)
        before = victim.read(RAM, 1 << 20)
        mapped = 0
        for number in range(3000):
            guest = draw.choice(attackers)
            _try(guest, draw)
            guarded = {page << 12 for page in guest.machine.memory.ram.dirty_log.refusing}
            found = [one for _, one in guest.domain.foreign.items()]
            assert guarded == {one.page for one in found if not one.writes}
            mapped += any(one.domain == 1 for one in found)
            if number % 50 == 0:
                host_of(cluster).stand_together()
                assert victim.read(RAM, 1 << 20)[: PAGE - RAM] == before[: PAGE - RAM]
                assert victim.read(PAGE, 4096) == SECRET * 1024
                for one in found:
                    if one.domain == 1 and not one.is_revoked:
                        assert guest.read(one.page, 4096) == SECRET * 1024
        assert mapped > 300
        with cluster.save() as state, state.restore() as again:
            assert again.hashes() == cluster.hashes()
