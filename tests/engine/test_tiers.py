"""What every tier promises: exact budgets, precise exits, devices, self-modifying code."""

from __future__ import annotations

from functools import partial

import pytest

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.exits import Budget, DataAbort, PrefetchAbort, SupervisorCall, Undefined, VmExit
from dbt.engine.reference import ReferenceTier
from dbt.engine.threaded import ThreadedTier
from isa.arm.faults import Fault
from tests.assembler import assemble
from tests.oracle.bare import BareMachine, MakeTier
from tests.oracle.programs import EagerRegionTier, EagerStitchedTier

ENTRY = 0x8000
DEVICE = 0x1000_0000
FACTORIES: dict[str, MakeTier] = {
    "reference": ReferenceTier,
    "threaded": ThreadedTier,
    "stitched": EagerStitchedTier,
    "warm": partial(ThreadedTier, stitch=True),
    "regions": EagerRegionTier,
}


class Recorder:
    """A device whose reads count up; it remembers every access in order."""

    def __init__(self) -> None:
        self.accesses: list[tuple[str, int, int, int]] = []

    def native_device(self, gpa: Gpa) -> None:
        return None

    def private(self, number: int) -> None:
        return None

    def covers(self, gpa: int, size: int) -> bool:
        return gpa >= DEVICE and gpa + size <= DEVICE + 0x1000

    def read(self, gpa: int, size: int) -> int:
        value = len(self.accesses) + 1
        self.accesses.append(("read", gpa - DEVICE, size, value))
        return value

    def write(self, gpa: int, size: int, value: int) -> None:
        self.accesses.append(("write", gpa - DEVICE, size, value))


class Guest(BareMachine):
    """One CPU with 1 MiB of RAM, a device, and a tier."""

    def __init__(self, tier: str, source: str = "") -> None:
        self.device = Recorder()
        super().__init__(FACTORIES[tier], 1 << 20, self.device)
        self.write(ENTRY, source)
        self.cpu.r[15] = ENTRY

    def write(self, address: int, source: str) -> None:
        if source:
            self.memory.write_ram(Gpa(address), assemble(source, address))

    def run(self, budget: int = 1 << 40) -> VmExit:
        return self.tier.run(budget)[0]


@pytest.fixture(params=list(FACTORIES))
def tier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


LOOP = """
    mov r0, #0
    mov r1, #300
    mov r2, #0x10000
loop:
    add r0, r0, r1, ror #3
    eors r3, r0, r1, lsl #3
    strmi r3, [r2], #4
    ldrpl r4, [r2, #-4]
    adds r5, r4, r0
    addcs r6, r6, #1
    bl sub
    subs r1, r1, #1
    bne loop
    svc #7
sub:
    push {r4, r5, lr}
    umull r4, r5, r0, r1
    addvs r7, r4, r5
    pop {r4, r5, pc}
"""


def test_a_budget_is_exact_and_runs_can_be_cut_anywhere(tier: str) -> None:
    whole, cut = Guest(tier, LOOP), Guest(tier, LOOP)
    whole.cpu.r[13] = cut.cpu.r[13] = 0x20000
    assert whole.tier.run(2500) == (Budget(Gva(whole.cpu.r[15])), 2500)
    left, step = 2500, 1
    while left:
        step = min(step * 2 % 97 + 1, left)
        assert cut.tier.run(step) == (Budget(Gva(cut.cpu.r[15])), step)
        left -= step
    assert whole.state_hash() == cut.state_hash()


def test_tiers_agree_at_every_instruction() -> None:
    guests = [Guest(tier, LOOP) for tier in FACTORIES]
    for guest in guests:
        guest.cpu.r[13] = 0x20000
    for icount in range(600):
        assert len({guest.state_hash() for guest in guests}) == 1, f"after {icount} instructions"
        assert len({guest.tier.run(1) for guest in guests}) == 1
    assert len({guest.state_hash() for guest in guests}) == 1


def test_a_budget_of_zero_retires_nothing(tier: str) -> None:
    guest = Guest(tier, "svc #1")
    assert guest.tier.run(0) == (Budget(Gva(ENTRY)), 0)
    assert guest.tier.run(1) == (SupervisorCall(Gva(ENTRY), 1), 0)


def test_a_fault_leaves_the_instruction_undone(tier: str) -> None:
    guest = Guest(tier, "mov r1, #0x8000000 \n mov r0, #5 \n ldr r0, [r1, #4]!")
    assert guest.tier.run(100) == (DataAbort(Gva(ENTRY + 8), Gva(0x8000004), 4, False, Fault.EXTERNAL), 2)
    assert (guest.cpu.r[0], guest.cpu.r[1], guest.cpu.r[15]) == (5, 0x8000000, ENTRY + 8)


def test_a_block_transfer_that_faults_midway_changes_no_register(tier: str) -> None:
    guest = Guest(tier, "ldm r0!, {r1, r2, r3}")
    guest.cpu.r[0] = 0xFFFF8
    assert guest.run() == DataAbort(Gva(ENTRY), Gva(0x100000), 4, False, Fault.EXTERNAL)
    assert list(guest.cpu.r[:4]) == [0xFFFF8, 0, 0, 0]


def test_an_unaligned_block_transfer_is_an_alignment_fault(tier: str) -> None:
    guest = Guest(tier, "ldm r0, {r1, r2}")
    guest.cpu.r[0] = 0x10002
    assert guest.run() == DataAbort(Gva(ENTRY), Gva(0x10002), 4, False, Fault.ALIGNMENT)


@pytest.mark.parametrize("address", [0x10001, 0x10002, 0x10FFD, 0x10FFE, 0x10FFF])
def test_unaligned_accesses_work_across_pages(tier: str, address: int) -> None:
    guest = Guest(tier, "str r1, [r0] \n ldr r2, [r0] \n strh r3, [r0] \n ldrsh r4, [r0] \n svc #0")
    guest.cpu.r[0], guest.cpu.r[1], guest.cpu.r[3] = address, 0x81828384, 0xF1F2
    assert guest.run() == SupervisorCall(Gva(ENTRY + 16), 0)
    assert (guest.cpu.r[2], guest.cpu.r[4]) == (0x81828384, 0xFFFFF1F2)
    assert guest.memory.read_ram(Gpa(address), 4) == bytes.fromhex("f2f18281")


def test_an_unaligned_store_over_the_end_of_ram_stores_nothing(tier: str) -> None:
    guest = Guest(tier, "str r1, [r0]")
    guest.cpu.r[0], guest.cpu.r[1] = 0xFFFFE, 0xFFFFFFFF
    assert guest.run() == DataAbort(Gva(ENTRY), Gva(0x100000), 1, True, Fault.EXTERNAL)
    assert guest.memory.read_ram(Gpa(0xFFFFC), 4) == bytes(4)


def test_code_runs_over_page_borders(tier: str) -> None:
    guest = Guest(tier)
    guest.write(0x8FFC, "add r0, r0, #1 \n add r0, r0, #2 \n b 0x9ffc")
    guest.write(0x9FFC, "bl 0xc000 \n svc #3")
    guest.write(0xC000, "mov r1, pc \n bx lr")
    guest.cpu.r[15] = 0x8FFC
    assert guest.run() == SupervisorCall(Gva(0xA000), 3)
    assert (guest.cpu.r[0], guest.cpu.r[1], guest.cpu.r[14]) == (3, 0xC008, 0xA000)


def test_leaving_ram_is_a_prefetch_abort(tier: str) -> None:
    guest = Guest(tier)
    guest.write(0xFFFFC, "mov r0, #1")
    guest.cpu.r[15] = 0xFFFFC
    assert guest.tier.run(10) == (PrefetchAbort(Gva(0x100000)), 1)
    assert guest.cpu.r[15] == 0x100000


def test_an_unknown_word_is_undefined_even_conditionally(tier: str) -> None:
    guest = Guest(tier)
    guest.memory.write_ram(Gpa(ENTRY), (0xE7F000F0).to_bytes(4, "little"))
    assert guest.run() == Undefined(Gva(ENTRY))


# -- devices -----------------------------------------------------------------------------------


def test_device_accesses_happen_once_and_in_order(tier: str) -> None:
    guest = Guest(
        tier,
        "ldr r1, [r0] \n strb r1, [r0, #4] \n ldm r0, {r2, r3, r4} \n stm r0, {r3, r4} \n ldrsb r5, [r0] \n svc #0",
    )
    guest.cpu.r[0] = DEVICE
    assert guest.tier.run(100) == (SupervisorCall(Gva(ENTRY + 20), 0), 5)
    assert guest.device.accesses == [
        ("read", 0, 4, 1), ("write", 4, 1, 1),
        ("read", 0, 4, 3), ("read", 4, 4, 4), ("read", 8, 4, 5),
        ("write", 0, 4, 4), ("write", 4, 4, 5),
        ("read", 0, 1, 8),
    ]  # fmt: skip
    assert list(guest.cpu.r[1:6]) == [1, 3, 4, 5, 8]


def test_a_device_loop_retires_each_instruction_once(tier: str) -> None:
    guest = Guest(tier, "mov r1, #10 \n again: ldr r2, [r0] \n subs r1, r1, #1 \n bne again \n svc #0")
    guest.cpu.r[0] = DEVICE
    assert guest.tier.run(1000) == (SupervisorCall(Gva(ENTRY + 16), 0), 31)
    assert len(guest.device.accesses) == 10


# -- self-modifying code -----------------------------------------------------------------------


def test_a_store_to_an_instruction_executed_before_takes_effect(tier: str) -> None:
    guest = Guest(
        tier,
        """
        adr r0, target
        ldr r1, patch
        mov r4, #0
        again:
        target: mov r2, #1
        add r4, r4, r2
        cmp r2, #1
        streq r1, [r0]
        beq again
        svc #0
        patch: .word 0xe3a02064
        """,
    )
    assert guest.run() == SupervisorCall(Gva(ENTRY + 32), 0)
    assert guest.cpu.r[4] == 1 + 100


def test_a_store_to_the_next_instruction_takes_effect(tier: str) -> None:
    guest = Guest(tier, "mov r5, #2 \n loop: str r1, [r0] \n mov r2, #1 \n subs r5, r5, #1 \n bne loop \n svc #0")
    guest.cpu.r[0], guest.cpu.r[1] = ENTRY + 8, int.from_bytes(assemble("mov r2, #9"), "little")
    assert guest.run() == SupervisorCall(Gva(ENTRY + 20), 0)
    assert guest.cpu.r[2] == 9


def test_a_byte_of_an_instruction_can_be_written(tier: str) -> None:
    guest = Guest(tier, "mov r5, #2 \n loop: mov r2, #1 \n strb r1, [r0] \n subs r5, r5, #1 \n bne loop \n svc #0")
    guest.cpu.r[0], guest.cpu.r[1] = ENTRY + 4, 77
    guest.run()
    assert guest.cpu.r[2] == 77


def test_the_hypervisors_writes_take_effect(tier: str) -> None:
    guest = Guest(tier, "loop: add r0, r0, #1 \n b loop")
    guest.run(1000)
    guest.write(ENTRY, "add r0, r0, #0x10000")
    guest.run(1000)
    assert guest.cpu.r[0] == 500 + (500 << 16)


def test_data_beside_code_does_not_undo_the_code() -> None:
    guest = Guest("threaded", "mov r1, #100 \n loop: str r1, [pc, #24] \n subs r1, r1, #1 \n bne loop \n svc #0")
    guest.run()
    guest.cpu.r[1], guest.cpu.r[15] = 1, ENTRY + 4
    guest.run(1)
    tier = guest.tier
    assert isinstance(tier, ThreadedTier)
    assert [place for place in range(0, 24, 4) if not tier.is_decoded(Gpa(ENTRY + place))] == [20]
    assert int.from_bytes(guest.memory.read_ram(Gpa(ENTRY + 4 + 8 + 24), 4), "little") == 1
