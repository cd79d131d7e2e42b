"""Hypercalls that native code does, and nobody can tell: random calls and stores of a guest end alike in every tier."""

from __future__ import annotations

import random
import struct

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.host.console import CaptureConsole
from dbt.hypervisor.xen.domain import NotHot
from dbt.hypervisor.xen.event_queues import PORTS
from dbt.hypervisor.xen.interface import CONSOLE_PAGE
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import EXIT, MODES
from tests.xen.guests import ARGUMENTS, RAM, Caller, domain_machine

CODE, TABLE, ANSWERS, PORT = RAM + 0x20000, RAM + 0x40000, RAM + 0x80000, RAM + 0x30000
CONTROL, ARRAY = RAM + 0x60000, RAM + 0x61000
SHARED, VCPU_INFO = 0x39004000, RAM + 0x62108
#: Does what a table says, a record of four words each: R12, R0, R1, and a word for the place that R1 is the address of;
#: or a store, where R12 is 0. Answers go to ANSWERS. The handler of the interrupt notes what it was, and clears the
#: upcall two times out of three, so that it comes again. It polls the timer so that something else happens as well.
_GUEST = f"""
    b start ; b . ; b . ; b . ; b . ; b .
irq:
    push {{r0-r3, r12}}
    ldr r1, =0x03002000 ; ldr r2, [r1, #0xc] ; str r2, [r11], #4 ; ldr r3, [r9] ; str r3, [r11], #4
    add r7, r7, #1 ; tst r7, #3 ; movne r3, #0 ; strbne r3, [r9] ; strne r3, [r9, #8]
    tst r7, #7 ; streq r3, [r8, #48] ; str r2, [r1, #0x10]
    pop {{r0-r3, r12}} ; subs pc, lr, #4
start:
    adr r0, start ; bic r0, r0, #0xff ; mcr p15, #0, r0, c12, c0, #0
    cps #0x12 ; ldr sp, ={RAM + 0x70000:#x} ; cps #0x13
    ldr r1, =0x03001000 ; mov r0, #1 ; str r0, [r1] ; mov r0, #0x80000000 ; str r0, [r1, #0x100]
    ldr r1, =0x03002000 ; mov r0, #1 ; str r0, [r1] ; mov r0, #0xf0 ; str r0, [r1, #4]
    ldr r10, ={TABLE:#x} ; ldr r11, ={ANSWERS:#x} ; ldr r9, [r10], #4 ; ldr r8, ={SHARED:#x} ; mov r7, #0
    cpsie i
next:
    ldm r10!, {{r4, r5, r6, r12}} ; mov r0, r5 ; mov r1, r6
    cmp r4, #0 ; beq store
    cmp r4, #255 ; beq end
    cmp r6, #0x40000000 ; blo call ; tst r6, #3 ; streq r12, [r6]
call:
    mov r12, r4 ; .word 0xe140ea71
    str r0, [r11], #4 ; add r5, r5, #1
    b next
store: str r12, [r6] ; b next
end: cpsid i ; mov r2, #0 ; {EXIT}
    .ltorg
"""
Record = tuple[int, int, int, int]


def random_records(chance: random.Random, count: int, places: list[int]) -> list[Record]:
    """Return calls, most of which are hot. ``places`` are where the guest writes nonsense, or something good."""
    records: list[Record] = []
    for _ in range(count):
        port = chance.choice((1, 2, 3, 4, 5, 6, 7, 8, 3, 4, 5, 6, 0, 1023, 1024, 1 << 31))
        handle = chance.choice((PORT, PORT, PORT, PORT, PORT + 4, PORT + 0xFFE, PORT + 1, 0x10, 0x03001000, RAM - 4))
        match chance.randrange(12):
            case 0 | 1:
                value = chance.choice((0, 0, chance.getrandbits(32), 0xFFFFFFFF, 1 << 29, 1 << 30, 1 << 31, 3 << 29))
                records.append((0, 0, chance.choice(places), value))
            case 2:  # to shut down and to poll, with arguments that are not there; yield, and others
                command = chance.choice((0, 0, 2, 3, 5, 77))
                records.append((29, command, 0x10 if command in (2, 3) else PORT, 0))
            case 3 if not chance.randrange(6):
                records.append((32, chance.choice((3, 6, 7, 5, 13)), PORT, port))
            case _:
                records.append((32, chance.choice((4, 4, 4, 9, 9)), handle, port))
    return records


def prepared(tier: str, jit: str, fifo: bool, moved: bool, records: list[Record], code: str = _GUEST) -> Machine:
    machine = domain_machine(tier, jit=jit, semihosting=True)
    machine.load_bytes(assemble(code, CODE), CODE, CODE)
    caller = Caller(machine)
    if moved:
        assert caller.call(24, 10, 0, caller.put("QII", VCPU_INFO >> 12, VCPU_INFO & 0xFFF, 0)) == 0
    if fifo:
        assert caller.events(11, "QIIB7x", CONTROL >> 12, 0, 0, 0) == 0
        assert caller.events(12, "Q", ARRAY >> 12) == 0
    near = caller.open()
    caller.bind(near)
    caller.open()  # bound to by nobody
    assert caller.events(7, "II", 0, 0) == 0  # an IPI
    assert caller.events(1, "III", 0, 0, 0) == 0  # VIRQ_TIMER
    info = VCPU_INFO if moved else SHARED
    table = struct.pack("<I", info) + b"".join(struct.pack("<4I", *one) for one in records)
    machine.memory.write_ram(Gpa(TABLE), table + struct.pack("<4I", 255, 0, 0, 0))
    return machine


@pytest.mark.parametrize("seed", range(8))
def test_every_tier_does_the_same(seed: int) -> None:
    chance = random.Random(seed)
    fifo, moved = bool(seed & 1), bool(seed & 2)
    places = [SHARED + 48, SHARED + 48 + 512, SHARED + 8, CONTROL, CONTROL + 8 + 28, *range(ARRAY, ARRAY + 32, 4)]
    records = random_records(chance, 600, places if seed & 4 else places[:3])
    ends = set()
    for tier, jit in MODES:
        fuel = chance.choice((1_000_000, 997, 53))
        with prepared(tier, jit, fifo, moved, records) as machine:
            while (result := machine.run(fuel=fuel)).reason is StopReason.FUEL and machine.icount < 200_000:
                pass
            assert result.reason is StopReason.EXITED, result.message
            done = machine.cpu.native("hypercalls")
            assert done > 60 if tier != "reference" else not done
            answers = machine.memory.read_ram(Gpa(ANSWERS), 0x4000)
            ends.add((result.icount, answers, state_hash(machine), machine.vcpu.event_counts["hypercall"]))
    assert len(ends) == 1


def test_it_goes_on_from_saved_states() -> None:
    """The count of calls is one of all, whoever has done them."""
    records = random_records(random.Random(77), 300, [SHARED + 48])
    ends = set()
    with prepared("auto", "sync", True, True, records) as machine:
        machine.run(fuel=2500)
        assert machine.cpu.native("hypercalls") > 20
        with machine.save() as state, machine.fork() as child, Machine.restore(state, tier="reference") as again:
            checkpoint = machine.checkpoint()
            for one in (machine, child, again):
                assert one.run(fuel=1_000_000).reason is StopReason.EXITED
                ends.add((one.icount, state_hash(one), one.vcpu.event_counts["hypercall"]))
            machine.rollback(checkpoint)
            assert machine.run(fuel=1_000_000).reason is StopReason.EXITED
            ends.add((machine.icount, state_hash(machine), machine.vcpu.event_counts["hypercall"]))
    assert len(ends) == 1


@pytest.mark.parametrize("fifo", [False, True])
def test_what_is_hot_gives_what_the_whole_call_gives(fifo: bool) -> None:
    """Every command at every kind of port, on two domains beside each other."""
    with (
        prepared("reference", "off", fifo, False, []) as first,
        prepared("reference", "off", fifo, False, []) as second,
    ):
        done = 0
        for command in range(16):
            for port in (0, 1, 2, 3, 4, 5, 6, 7, PORTS - 1, PORTS, 0xFFFFFFFF):
                caller, hot = Caller(first), Caller(second)
                hot.put("I", 0)
                before = state_hash(second)
                try:
                    found = hot.domain.answer_hot(32, command, hot.put("I", port), 0, 0, 0)
                except NotHot:
                    hot.put("I", 0)
                    assert state_hash(second) == before
                    continue
                assert found == caller.events(command, "I", port)
                caller.put("I", 0)
                hot.put("I", 0)
                assert state_hash(first) == state_hash(second), (command, port)
                done += 1
        assert done == 11
        assert hot.domain.answer_hot(29, 0, 0, 0, 0, 0) == hot.domain.answer_hot(29, 1, 0, 0, 0, 0x80) == 0
        before = state_hash(second)
        assert hot.domain.answer_hot(29, 1, 0, 0, 0, 0) == hot.domain.WAITS  # which is more than any result
        assert state_hash(second) == before
        for number, command in ((29, 2), (29, 3), (18, 0), (18, 1), (12, 0), (49, ARGUMENTS)):
            with pytest.raises(NotHot):
                hot.domain.answer_hot(number, command, 0, 0, 0, 0)


def test_native_code_leaves_pages_with_code_alone() -> None:
    """The guest executes what is in its event array, and sends: the words change, and so does what is executed."""
    records: list[Record] = [(32, 4, PORT, 4)] * 40
    ends = set()
    for tier, jit in MODES:
        with prepared(tier, jit, True, False, records) as machine:
            caller = Caller(machine)
            body = assemble(f"b {ARRAY + 32:#x} ; " * 7 + f"nop ; nop ; b {CODE + 24 + 48:#x}", ARRAY)
            machine.memory.write_ram(Gpa(ARRAY + 32), body[32:40] + assemble(f"ldr pc, ={CODE:#x}", ARRAY + 40))
            caller.put("I", 0xE51FF004, at=ARRAY + 40)
            caller.put("I", CODE, at=ARRAY + 44)
            machine.cpu.r[15] = ARRAY + 32
            machine.run(fuel=3)
            machine.cpu.r[15] = CODE
            result = machine.run(fuel=100_000)
            assert result.reason is StopReason.EXITED, result.message
            ends.add((result.icount, state_hash(machine)))
    assert len(ends) == 1


def test_arguments_are_read_with_the_translation_of_the_caller() -> None:
    """One on a page that is not mapped is -EFAULT in each tier, and one that is mapped is read where it is."""
    code = f"""
        ldr r0, ={RAM + 0x8000:#x} ; mcr p15, #0, r0, c2, c0, #0 ; mov r0, #1 ; mcr p15, #0, r0, c3, c0, #0
        mcr p15, #0, r0, c8, c7, #0 ; mrc p15, #0, r0, c1, c0, #0 ; orr r0, r0, #1 ; mcr p15, #0, r0, c1, c0, #0
        mov r4, #0 ; mov r8, #3
    again:
        mov r0, #4 ; ldr r1, =0x50010000 ; mov r12, #32 ; .word 0xe140ea71 ; add r4, r4, r0
        mov r0, #4 ; ldr r1, =0x60010000 ; mov r12, #32 ; .word 0xe140ea71 ; add r5, r5, r0
        subs r8, r8, #1 ; bne again
        mov r2, #0 ; {EXIT} ; .ltorg
    """
    ends = set()
    for tier, jit in MODES:
        with prepared(tier, jit, False, False, [], code) as machine:
            caller = Caller(machine)
            caller.put("I", 4, at=ARGUMENTS)
            for section, to in ((0x400, 0x400), (0x500, 0x400), (0x000, 0x000)):
                caller.put("I", to << 20 | 0xC02, at=RAM + 0x8000 + 4 * section)
            result = machine.run(fuel=10_000)
            assert result.reason is StopReason.EXITED, result.message
            assert (machine.r[4], machine.r[5]) == (0, -3 * 14 & 0xFFFFFFFF)
            ends.add((result.icount, state_hash(machine)))
    assert len(ends) == 1


def test_the_console_gets_the_same_bytes() -> None:
    """Pieces of all sizes, from places that cross pages and that are not there, so many that the ring overflows."""
    chance = random.Random(5)
    records: list[Record] = []
    for _ in range(120):
        at = chance.choice((RAM + 0x90000, RAM + 0x90FF0, RAM + 0x91001, 0x10, RAM + 0xFFFF8, 0xFFFFFFF0))
        records.append((18, 0, chance.choice((0, 1, 7, 64, 500, 4000, 4096, 4097, 9000)), at))
    code = _GUEST.replace("mov r12, r4 ; .word", "mov r2, r12 ; mov r1, r6 ; mov r12, r4 ; .word")
    ends = set()
    for tier, jit in MODES:
        with prepared(tier, jit, False, False, records, code) as machine:
            machine.memory.write_ram(Gpa(RAM + 0x90000), random.Random(6).randbytes(0x4000))
            result = machine.run(fuel=1_000_000)
            assert result.reason is StopReason.EXITED, result.message
            assert isinstance(machine.console, CaptureConsole) and len(machine.console.output) > 100_000
            answers = machine.memory.read_ram(Gpa(ANSWERS), 0x1000)
            ends.add((result.icount, state_hash(machine), answers, bytes(machine.console.output)))
            assert (machine.cpu.native("hypercalls") > 20) == (tier != "reference")
    assert len(ends) == 1


@pytest.mark.parametrize("fifo", [False, True])
def test_the_ring_of_the_console_gives_the_same_bytes(fifo: bool) -> None:
    """Indices go around, lie, and say more than the ring holds. Sometimes the port is another one, or none."""
    chance = random.Random(7)
    records: list[Record] = [(0, 0, CONSOLE_PAGE + 4 * at, chance.getrandbits(32)) for at in range(256, 768)]
    taken, written = CONSOLE_PAGE + 3072 + 8, CONSOLE_PAGE + 3072 + 12
    place = 0xFFFFFF00
    for _ in range(250):
        place = place + chance.choice((0, 1, 16, 16, 16, 16, 700, 2048)) & 0xFFFFFFFF
        records.append((0, 0, written, place if chance.randrange(30) else chance.getrandbits(32)))
        if not chance.randrange(30):
            records.append((0, 0, taken, chance.getrandbits(32)))
        if not chance.randrange(60):
            records.append((32, 3, PORT, chance.choice((1, 2))))  # it closes the console's port, or XenStore's
        records.append((32, 4, PORT, chance.choice((1, 1, 1, 1, 1, 2, 3))))
    ends = set()
    for tier, jit in MODES:
        with prepared(tier, jit, fifo, False, records) as machine:
            result = machine.run(fuel=1_000_000)
            assert result.reason is StopReason.EXITED, result.message
            assert isinstance(machine.console, CaptureConsole) and len(machine.console.output) > 5_000
            ends.add((result.icount, state_hash(machine), bytes(machine.console.output)))
            assert (machine.cpu.native("hypercalls") > 20) == (tier != "reference")
    assert len(ends) == 1
