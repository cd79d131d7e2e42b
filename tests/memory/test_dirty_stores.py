"""Every kind of store, in every tier, with the MMU and without: the pages that it writes are in the dirty log."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dbt.abi.addresses import Gpa, Gva
from dbt.memory.virtual import VirtualMemory
from isa.arm.state import SCTLR_M, Mode
from tests.assembler import assemble
from tests.oracle.programs import ENTRY, KINDS, SmallMachine

PAGE = 0x1000
#: The data: two pages that lie side by side, by virtual addresses too. Beneath an MMU they are at VIRTUAL.
DATA, VIRTUAL = 0x10000, 0x0010_0000
L1, L2, DATA_L2 = 0x4000, 0x3000, 0x3400
ANY = 0xFF2  # a small page to which everybody may store
SWAPPED = 1  # the two pages lie the other way round in virtual memory

#: The instruction, where R8 points to, as an offset from the data, and which of the two pages it writes.
STORES = {
    "str": ("str r0, [r8]", 0, {0}),
    "strb": ("strb r0, [r8, #3]", PAGE - 4, {0}),
    "strh": ("strh r0, [r8]", PAGE, {1}),
    "strd": ("strd r2, r3, [r8]", PAGE - 8, {0}),
    "strt": ("strt r0, [r8]", PAGE, {1}),
    "unaligned": ("str r0, [r8]", 5, {0}),
    "unaligned across pages": ("str r0, [r8]", PAGE - 2, {0, 1}),
    "unaligned halfword across pages": ("strh r0, [r8]", PAGE - 1, {0, 1}),
    "stm": ("stmia r8, {r0-r3}", 0, {0}),
    "stm across pages": ("stmia r8, {r0-r3}", PAGE - 8, {0, 1}),
    "push across pages": ("mov r13, r8 ; push {r0-r5}", PAGE + 8, {0, 1}),
    "two that are checked together": ("str r0, [r8, #-4] ; str r1, [r8]", PAGE, {0, 1}),
    "strex": ("ldrex r1, [r8] ; strex r2, r0, [r8]", 0, {0}),
    "strex that fails": ("clrex ; strex r2, r0, [r8]", 0, set()),
    "strexd": ("ldrexd r2, r3, [r8] ; strexd r1, r2, r3, [r8]", PAGE, {1}),
    "swp": ("swp r1, r0, [r8]", PAGE, {1}),
    "swpb": ("swpb r1, r0, [r8]", 7, {0}),
    "condition that fails": ("cmp r8, r8 ; strne r0, [r8]", 0, set()),
}
MAPPINGS = ("no MMU", "MMU", "MMU, swapped", "MMU, user")


def machine(kind: str, name: str, mapping: str) -> SmallMachine:
    """Return a machine that repeats a store for ever."""
    insns, offset, _ = STORES[name]
    code = assemble(f"loop: add r0, r0, #1 ; {insns} ; add r4, r4, r0 ; b loop", ENTRY)
    made = SmallMachine(kind, code)
    made.cpu.r[8] = (DATA if mapping == "no MMU" else VIRTUAL) + offset
    if mapping != "no MMU":
        words = {L1: L2 | 1, L1 + 4: DATA_L2 | 1}
        words |= {L2 + 4 * page: page * PAGE | ANY for page in range(0x20)}
        for page in range(2):
            words[DATA_L2 + 4 * page] = DATA + (page ^ (mapping == "MMU, swapped")) * PAGE | ANY
        for address, word in words.items():
            made.memory.write_ram(Gpa(address), word.to_bytes(4, "little"))
        made.cpu["ttbr0"], made.cpu["dacr"] = L1, 1
        made.cpu["sctlr"] |= SCTLR_M
    if mapping == "MMU, user":
        made.cpu.switch_mode(Mode.USER)
    return made


def pages_of(name: str, mapping: str) -> list[int]:
    swap = mapping == "MMU, swapped"
    return sorted((DATA // PAGE) + (page ^ swap) for page in STORES[name][2])


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"measured", "async"}))
def test_the_pages_of_a_store(kind: str, name: str, mapping: str) -> None:
    """The store is hot, so its pages are in the shadow page tables, when each epoch begins."""
    made, expected = machine(kind, name, mapping), pages_of(name, mapping)
    for _ in range(3):
        made.advance(2000)
        epoch = made.memory.begin_epoch(keeps_contents=True)
        assert epoch.dirty_pages() == []
        then = made.state_hash()
        registers = made.cpu.keep()
        made.advance(99)
        assert epoch.dirty_pages() == expected
        now = made.state_hash()
        made.memory.roll_back(epoch)
        registers()
        assert made.state_hash() == then
        made.advance(99)
        assert made.state_hash() == now and epoch.dirty_pages() == expected
        epoch.close()
    assert not made.exits
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_two_mappings_of_a_page(kind: str) -> None:
    """The page is stored to by one address, and then by another that was hot before the epoch began."""
    made = machine(kind, "str", "MMU")
    word = DATA | ANY
    made.memory.write_ram(Gpa(DATA_L2 + 4 * 5), word.to_bytes(4, "little"))
    for address in (VIRTUAL, VIRTUAL + 5 * PAGE, DATA, VIRTUAL + 5 * PAGE):
        made.cpu.r[8] = address
        made.advance(500)
        epoch = made.memory.begin_epoch()
        made.advance(50)
        assert epoch.dirty_pages() == [DATA // PAGE]
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_with_code(kind: str) -> None:
    """Stores beside code, and stores to code, which the guest then executes."""
    code = assemble(
        """
        loop: add r0, r0, #1 ; str r0, data ; and r1, r0, #0xff ; orr r1, r1, r9 ; str r1, patch
        patch: add r2, r2, #0 ; b loop
        data: .word 0
    """,
        ENTRY,
    )
    made = SmallMachine(kind, code)
    made.cpu.r[9] = 0xE2822000
    for _ in range(3):
        made.advance(1000)
        epoch = made.memory.begin_epoch(keeps_contents=True)
        then, registers = made.state_hash(), made.cpu.keep()
        for _ in range(3):
            made.advance(333)
            now = made.state_hash()
            assert epoch.dirty_pages() == [ENTRY // PAGE]
            made.memory.roll_back(epoch)
            registers()
            assert made.state_hash() == then
            made.advance(333)
            assert made.state_hash() == now
            made.memory.roll_back(epoch)
            registers()
        epoch.close()
    made.close()


WRITERS: dict[str, Callable[[SmallMachine], None]] = {
    "the hypervisor": lambda made: made.memory.write_ram(Gpa(DATA + 4), b"written"),
    "a debugger by virtual address": lambda made: VirtualMemory(made.memory).write(Gva(VIRTUAL + 4), b"written"),
    "the reference evaluator": lambda made: made.memory.store(Gva(VIRTUAL + 4), 4, 1, Gva(0)),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
def test_writes_that_are_not_the_guests(kind: str, writer: str) -> None:
    made = machine(kind, "condition that fails", "MMU")
    made.advance(100)
    epoch = made.memory.begin_epoch(keeps_contents=True)
    then = made.state_hash()
    WRITERS[writer](made)
    assert epoch.dirty_pages() == [DATA // PAGE] and made.state_hash() != then
    made.memory.roll_back(epoch)
    assert made.state_hash() == then
    made.close()
