"""A kernel in user mode that does not keep to it: what it tries in vain, as guest code and by hypercalls."""

from __future__ import annotations

from typing import Any

import pytest

from dbt.abi.addresses import Gpa
from dbt.hypervisor.xen.interface import Errno
from dbt.hypervisor.xen.pv.page_types import LEAF
from dbt.vm.result import StopReason
from tests.assembler import assemble
from tests.vm.programs import make_elf
from tests.xen.guests import RAM, SELF, domain_machine
from tests.xen.pv import KERNEL_ROOT, KERNEL_TABLE, LEAF_PAGE, PAGE, READ, WRITE, minios

#: It maps RAM at 0xc0000000: its tables for reading, the rest for writing. Then, in user mode, it does what ``attack``
#: is. R9 is the kind of exception that it gets for it, or 100 for none, and R10 the status of an abort.
_ATTACKER = f"""
    ldr r0, ={LEAF_PAGE} ; ldr r1, ={RAM} ; mov r2, #256 ; ldr r5, ={KERNEL_ROOT}
    next: ldr r3, ={WRITE & ~1} ; sub r4, r1, r5 ; cmp r4, #{LEAF_PAGE + PAGE - KERNEL_ROOT} ; bhs other
    ldr r3, ={READ & ~1}
    other: orr r3, r3, r1 ; str r3, [r0], #4 ; add r1, r1, #4096 ; subs r2, r2, #1 ; bne next
    ldr r0, ={KERNEL_ROOT + 4 * 0xC00} ; ldr r1, ={LEAF_PAGE | KERNEL_TABLE} ; str r1, [r0]
    adr r0, beginning ; mov r12, #48 ; .word 0xe140ea71
    b .
    beginning: .word {KERNEL_ROOT}, 0x80000000 + high, 0xc0080000, 0x80000000 + traps
    traps: mov r9, r0 ; ldr r10, [r1, #72] ; b off
    off: ldr r1, =0xc0080000 ; mov r0, #0 ; str r0, [r1] ; mov r0, #2 ; mov r12, #29 ; svc #0
    b .
    high: ATTACK
    mov r9, #100 ; b off
"""


@pytest.mark.parametrize(
    ("attack", "kind", "status"),
    [
        ("mov r3, #1", 100, None),
        ("ldr r0, =0xc0030000 ; str r0, [r0]", 3, 15),  # its own table
        ("ldr r0, =0xc0023ffc ; str r0, [r0]", 3, 15),  # the root: the slot of the hypervisor
        ("ldr r0, =0xffff1ff4 ; ldr r0, [r0]", 3, 15),  # the monitor's words
        ("ldr r0, =0xffff0000 ; ldr r0, [r0]", 3, 15),
        ("ldr r0, =0xffff3000 ; ldr r0, [r0]", 3, 15),  # the interrupt controller
        ("ldr pc, =0xffff0400", 2, 15),
        ("ldr pc, =0x39009400", 2, None),
        ("mcr p15, #0, r0, c2, c0, #0", 0, None),
        ("mcr p15, #0, r0, c3, c0, #0", 0, None),
        ("mrc p15, #0, r0, c1, c0, #0", 0, None),
        (".word 0xe140ea71", 0, None),  # HVC
        ("mcr p15, #0, r0, c8, c7, #0", 0, None),
        ("cpsid i ; msr cpsr_c, #0xd3 ; mcr p15, #0, r0, c3, c0, #0", 0, None),
        ("mov r0, #128 ; mov r12, #53 ; svc #0 ; mov r10, r0", 100, -Errno.EINVAL & 15),  # a table that has no number
        ("mov r0, #3 ; mov r12, #53 ; svc #0 ; mov r10, r0", 100, -Errno.EINVAL & 15),
        # A process of the kernel's choice is in user mode, and has nothing of the kernel's.
        (
            "ldr r1, =0xffe00000 ; mov r0, #0xd3 ; adr r2, high ; str r2, [r1, #60] ; str r0, [r1, #64]"
            " ; mov r12, #51 ; svc #0",
            2,
            11,
        ),
    ],
)
@pytest.mark.parametrize("tier", ["reference", "threaded"])
def test_a_kernel_has_no_privilege(tier: Any, attack: str, kind: int, status: int | None) -> None:
    text = _ATTACKER.replace("ATTACK", attack)
    with domain_machine(tier=tier) as machine:
        machine.load_bytes(make_elf(assemble(text, RAM + 0x8000), base=RAM + 0x8000))
        result = machine.run(fuel=100_000)
        assert result.reason is StopReason.EXITED, result
        assert machine.cpu.r[9] == kind
        if status is not None:
            assert machine.cpu.r[10] & 15 == status


#: A page that is mapped at 0xc0090000, and the descriptor that says so.
_PAGE, _DESCRIPTOR = RAM + 0x90000, LEAF_PAGE + 4 * 0x90


def _entry(number: int, *args: int | str) -> str:
    """Return an entry of a multicall as words."""
    return ", ".join(f"{word}, 0" for word in (number, 0, *args, *[0] * (6 - len(args))))


#: Writes to the page, and then, with one hypercall: maps it for reading alone, makes it a table, and has the hypervisor
#: write there.
_ALL_AT_ONCE = f"""
    ldr r1, =0xc0090000 ; mov r0, #0 ; str r0, [r1]
    ldr r0, =0x80000000 + calls ; mov r1, #3 ; mov r12, #13 ; svc #0 ; mov r9, #100 ; b off
    .ltorg ; .balign 8
calls: .word {_entry(49, "0x80000000 + update", 1, 0, SELF)}
    .word {_entry(50, "0x80000000 + pin", 1, 0, SELF)}
    .word {_entry(17, 1, 0xC0090000)}
update: .word {_DESCRIPTOR}, 0, {READ | _PAGE}, 0
pin: .word 0, 0, {_PAGE // PAGE}, 0, 0, 0
"""


@pytest.mark.parametrize("tier", ["reference", "threaded", "stitched"])
def test_a_hypercall_writes_as_the_tables_are_now(tier: Any) -> None:
    """Not as they were when the guest was there last: the TLB is flushed at the end of all calls."""
    with domain_machine(tier=tier) as machine:
        code = assemble(_ATTACKER.replace("ATTACK", _ALL_AT_ONCE), RAM + 0x8000)
        machine.load_bytes(make_elf(code, base=RAM + 0x8000))
        assert machine.run(fuel=100_000).reason is StopReason.EXITED and machine.cpu.r[9] == 100
        domain = machine.board.hypervisor
        assert domain is not None and domain.pv.pages.type_of(_PAGE) == LEAF
        assert not any(machine.memory.read_ram(Gpa(_PAGE), PAGE)), "no table is written to"


def test_arguments_are_accessed_as_in_user_mode() -> None:
    """A hypercall does not write for the kernel what that cannot write itself."""
    with minios(tier="threaded") as machine:
        machine.run(fuel=1_000_000)
        domain = machine.board.hypervisor
        assert domain is not None and domain.pv.is_on
        root = domain.pv.root - RAM + 0xC0000000
        for handle in (root, 0xFFFF1FF0, 0xFFFF0000):
            before = machine.memory.read_ram(Gpa(domain.pv.root), PAGE)
            assert domain.call(18, [1, 16, handle, 0, 0]) in (0, -Errno.EFAULT)
            assert domain.call(17, [5, handle, 0, 0, 0]) == -Errno.EFAULT
            assert machine.memory.read_ram(Gpa(domain.pv.root), PAGE) == before
