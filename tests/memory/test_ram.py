"""RAM in several places: a guest sees the same of it in every tier, and a layout that makes no sense is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.exits import Budget, DataAbort, PrefetchAbort, SupervisorCall, VmExit
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram, RamLayout, RamRegion
from isa.arm.faults import Fault
from tests.assembler import assemble
from tests.oracle.bare import BareMachine
from tests.oracle.programs import KINDS

LOW, HIGH, TOP = 0x0001_0000, 0x4000_0000, 0xFFFF_F000
REGIONS = (
    RamRegion(Gpa(TOP), 0x1000),
    RamRegion(Gpa(HIGH), 0x10000),
    RamRegion(Gpa(HIGH + 0x10000), 0x1000, read_only=True),
    RamRegion(Gpa(HIGH + 0x11000), 0x1000),
    RamRegion(Gpa(LOW), 0x1000),
)
ROM = HIGH + 0x10000


class Sparse(BareMachine):
    """A CPU with RAM where ``regions`` say, and code at ``entry``."""

    def __init__(self, kind: str, code: bytes, entry: int = HIGH, regions: Sequence[RamRegion] = REGIONS) -> None:
        super().__init__(KINDS[kind], regions)
        self.memory.write_ram(Gpa(entry), code)
        self.cpu.r[15] = entry

    def run(self, fuel: int = 1_000_000) -> VmExit:
        """Up to the first exit that is no end of a budget."""
        for _ in range(1000):
            exit_, retired = self.tier.run(fuel)
            fuel -= retired
            if not isinstance(exit_, Budget) or not fuel:
                return exit_
        raise AssertionError("it makes no progress")

    def word(self, gpa: int) -> int:
        return int.from_bytes(self.memory.read_ram(Gpa(gpa), 4), "little")


@pytest.mark.parametrize("kind", KINDS)
def test_loops_over_every_region(kind: str) -> None:
    """Hot loops that load from and store to each region, one of them read-only, and code that runs high up."""
    code = assemble(f"""
        mov r0, #0; mov r6, #2000
        outer: ldr r1, low; ldr r2, high; ldr r3, rom; ldr r4, top; mov r5, #8
        inner: ldr r7, [r1], #4; ldr r8, [r2], #4; ldr r9, [r3], #4; ldr r10, [r4], #4
        add r0, r0, r7; add r0, r0, r8, lsl #1; add r0, r0, r9, lsl #2; add r0, r0, r10
        str r0, [r1, #0x100]; str r0, [r2, #0x100]; str r0, [r3, #0x100]; str r0, [r4, #0x100]
        strb r0, [r3]; strh r6, [r3]
        subs r5, r5, #1; bne inner; subs r6, r6, #1; bne outer; svc #0
        low: .word {LOW}; high: .word {HIGH + 0x8000}; rom: .word {ROM}; top: .word {TOP}
    """)
    machine = Sparse(kind, code)
    expected = 0
    for number in range(8):
        for base, factor in ((LOW, 1), (HIGH + 0x8000, 2), (ROM, 4), (TOP, 1)):
            machine.memory.write_ram(Gpa(base + 4 * number), (number * 77 + factor).to_bytes(4, "little"))
            expected += (number * 77 + factor) * factor
    assert machine.run() == SupervisorCall(Gva(HIGH + len(code) - 20), 0)
    assert machine.cpu.r[0] == expected * 2000 % (1 << 32)
    assert machine.word(LOW + 0x120) == machine.word(TOP + 0x120) == machine.cpu.r[0]
    assert machine.memory.read_ram(Gpa(ROM + 0x20), 0x200) == bytes(0x200)
    reference = Sparse("reference", code)
    for number in range(8):
        for base, factor in ((LOW, 1), (HIGH + 0x8000, 2), (ROM, 4), (TOP, 1)):
            reference.memory.write_ram(Gpa(base + 4 * number), (number * 77 + factor).to_bytes(4, "little"))
    reference.run()
    assert machine.state_hash() == reference.state_hash()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("address", [0, LOW - 4, LOW + 0x1000, HIGH - 4, HIGH + 0x12000, TOP - 4])
@pytest.mark.parametrize("insn", ["ldr r0, [r1]", "str r0, [r1]", "ldmia r1, {r2, r3}", "stmia r1, {r2, r3}"])
def test_beside_the_regions_there_is_nothing(kind: str, address: int, insn: str) -> None:
    machine = Sparse(kind, assemble(insn))
    machine.cpu.r[1] = address
    exit_ = machine.run()
    write = insn.startswith("st")
    assert exit_ == DataAbort(Gva(HIGH), Gva(address), 4, write, Fault.EXTERNAL)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("address", [0, LOW + 0x1000, HIGH + 0x12000, 0x8000_0000])
def test_code_beside_the_regions_is_a_prefetch_abort(kind: str, address: int) -> None:
    machine = Sparse(kind, assemble("bx r1"))
    machine.cpu.r[1] = address
    assert machine.run() == PrefetchAbort(Gva(address))


@pytest.mark.parametrize("kind", KINDS)
def test_unaligned_accesses_across_regions(kind: str) -> None:
    """Into a read-only region only the bytes before it are stored; over the end of the last one nothing is."""
    machine = Sparse(kind, assemble("str r0, [r1]; ldr r2, [r1]; str r0, [r3]; ldr r4, [r3]; str r0, [r5]"))
    machine.cpu.r[0] = 0x44332211
    machine.cpu.r[1] = ROM - 2
    machine.cpu.r[3] = ROM + 0x1000 - 1
    machine.cpu.r[5] = HIGH + 0x12000 - 2
    exit_ = machine.run()
    assert isinstance(exit_, DataAbort) and exit_.gva == HIGH + 0x12000 and exit_.pc == HIGH + 16
    assert (machine.cpu.r[2], machine.cpu.r[4]) == (0x2211, 0x44332200)
    assert machine.memory.read_ram(Gpa(HIGH + 0x12000 - 2), 2) == bytes(2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_ends_in_a_hole(kind: str) -> None:
    """A hot store loop, and a hot load loop, that run over the end of their region stop there exactly."""
    for insn in ("str r0, [r1], #4", "ldr r2, [r1], #4", "stmia r1!, {r2, r3}", "ldmia r1!, {r2, r3}"):
        machine = Sparse(kind, assemble(f"loop: {insn}; add r0, r0, #1; b loop"))
        machine.cpu.r[1] = HIGH + 0x2000
        exit_ = machine.run()
        words = 2 if "mia" in insn else 1
        end = ROM if insn.startswith("st") else HIGH + 0x12000
        if insn.startswith("st"):  # What is read-only takes stores without effect.
            end = HIGH + 0x12000
        assert isinstance(exit_, DataAbort) and exit_.gva == end, insn
        assert machine.cpu.r[0] == (end - HIGH - 0x2000) // 4 // words


@pytest.mark.parametrize("kind", KINDS)
def test_one_region_that_does_not_begin_at_zero(kind: str) -> None:
    region = RamRegion(Gpa(0x8000_0000), 0x20000)
    code = assemble("""
        ldr r1, base; mov r2, #0x4000
        loop: ldr r3, [r1, #4]; add r3, r3, r2; str r3, [r1, #4]!; ldrb r4, [r1, #-3]; add r0, r0, r4
        subs r2, r2, #1; bne loop
        add r1, r1, #0x10000; ldr r0, [r1]
        base: .word 0x80000100
    """)
    machine = Sparse(kind, code, 0x8000_0000, [region])
    exit_ = machine.run()
    assert exit_ == DataAbort(Gva(0x8000_0000 + 40), Gva(0x8002_0100), 4, False, Fault.EXTERNAL)
    other = Sparse("reference", code, 0x8000_0000, [region])
    other.run()
    assert machine.state_hash() == other.state_hash()


@pytest.mark.parametrize("kind", KINDS)
def test_code_in_a_read_only_region_that_tries_to_change_itself(kind: str) -> None:
    code = assemble("""
        mov r0, pc; mov r2, #300
        loop: str r1, [r0, #-4]; add r3, r3, #1; subs r2, r2, #1; bne loop; svc #0
    """)
    machine = Sparse(kind, code, ROM)
    assert machine.run() == SupervisorCall(Gva(ROM + 24), 0)
    assert machine.cpu.r[3] == 300
    assert machine.memory.read_ram(Gpa(ROM), len(code)) == code


# -- the layout itself ---------------------------------------------------------------------------


def region(base: int, size: int) -> RamRegion:
    return RamRegion(Gpa(base), size)


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        (0, "not a positive multiple"),
        (-4096, "not a positive multiple"),
        (4097, "not a positive multiple"),
        (8 << 30, "does not fit into the guest's 32-bit"),
        ((), "at least one region"),
        ((region(0x1001, 0x1000),), "cannot begin at 0x1001"),
        ((region(-0x1000, 0x2000),), "cannot begin"),
        ((region(0xFFFFF000, 0x2000),), "does not fit"),
        ((region(0, 0x3000), region(0x2000, 0x1000)), "overlap"),
        ((region(0x2000, 0x1000), region(0, 0x3000)), "overlap"),
        ((region(0, 0x1000), region(0, 0x1000)), "overlap"),
    ],
)
def test_what_is_no_layout(memory: int | Sequence[RamRegion], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RamLayout.of(memory)


def test_regions_are_in_order() -> None:
    layout = RamLayout.of(REGIONS)
    assert [found.base for found in layout.regions] == [LOW, HIGH, ROM, HIGH + 0x11000, TOP]
    assert layout == RamLayout(tuple(reversed(REGIONS)))
    assert (layout.end, layout.size, layout.flat) == (1 << 32, 0x14000, None)
    assert RamLayout.of(0x3000).flat == region(0, 0x3000)
    assert layout.covers(Gpa(HIGH), 0x12000) and not layout.covers(Gpa(HIGH), 0x12001)
    assert layout.covers(Gpa(TOP), 0x1000) and not layout.covers(Gpa(TOP + 1), 0x1000) and not layout.covers(Gpa(-1), 1)


def test_untouched_ram_costs_no_memory() -> None:
    """Three gigabytes of RAM are addresses until somebody writes there."""

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    before = resident()
    ram = Ram([RamRegion(Gpa(0), 1 << 30), RamRegion(Gpa(0x80000000), 0x80000000)])
    ram.bytes[0xFFFFFFFF] = 1
    assert resident() - before < 8 << 20
    ram.close()


def test_the_hypervisor_writes_to_what_is_read_only() -> None:
    memory = GuestMemory(Ram(REGIONS))
    memory.write_ram(Gpa(ROM + 0xFFE), b"abcd")
    assert memory.read_ram(Gpa(ROM + 0xFFE), 4) == b"abcd"
    for gpa, size in ((ROM + 0x1FFE, 4), (0, 1), (LOW - 1, 2), (-1, 1), (1 << 32, 1)):
        with pytest.raises(ValueError, match="is not within the RAM"):
            memory.read_ram(Gpa(gpa), size)
        with pytest.raises(ValueError, match="is not within the RAM"):
            memory.write_ram(Gpa(gpa), bytes(size))
