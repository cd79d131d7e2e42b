"""Event channels: bits and queues, the upcall as a level that nothing is lost of, polling, closing and using again."""

from __future__ import annotations

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import EXIT, MODES
from tests.xen.guests import ARRAY, CONTROL, RAM, SELF, Caller, domain_machine, use_queues

_PENDING, _MASKED, _LINKED = 1 << 31, 1 << 30, 1 << 29
SHARED = 0x39004000


def byte(machine: Machine, at: int) -> int:
    return machine.memory.read_ram(Gpa(at), 1)[0]


def word(caller: Caller, port: int) -> int:
    return caller.get("I", (ARRAY << 12) + 4 * port)[0]


def head(caller: Caller, queue: int) -> int:
    return caller.get("I", (CONTROL << 12) + 8 + 4 * queue)[0]


def test_bits() -> None:
    """An event sets the bit of its port, that of the word of bits, and the upcall; a masked one only the first."""
    with domain_machine() as machine:
        caller = Caller(machine)
        near = caller.open()
        far = caller.bind(near)
        pending, mask = SHARED + 48, SHARED + 48 + 512
        assert byte(machine, pending + far // 8) >> far % 8 & 1, "binding makes an event pending"
        caller.put("48x512x", at=SHARED)
        caller.put("B", 1 << near % 8, at=mask + near // 8)
        assert caller.events(4, "I", far) == 0
        assert byte(machine, pending + near // 8) == 1 << near % 8 and byte(machine, SHARED) == 0
        assert caller.events(9, "I", near) == 0
        assert (byte(machine, SHARED), byte(machine, SHARED + 8)) == (1, 1)


def test_queues_keep_the_order() -> None:
    with domain_machine() as machine:
        caller = Caller(machine)
        use_queues(caller)
        pairs = [(near := caller.open(), caller.bind(near)) for _ in range(3)]
        ports = [near for near, _ in pairs]
        for _, far in pairs:  # the events that binding makes
            caller.put("I", 0, at=(ARRAY << 12) + 4 * far)
        caller.put("I16x48x", 0, at=CONTROL << 12)
        for port, far in (pairs[2], pairs[0], pairs[1], pairs[0]):
            assert caller.events(4, "I", far) == 0
            assert word(caller, port) & _PENDING
        assert head(caller, 7) == ports[2]
        assert word(caller, ports[2]) & 0x1FFFF == ports[0]
        assert word(caller, ports[0]) & 0x1FFFF == ports[1]
        assert word(caller, ports[1]) & (_LINKED | 0x1FFFF) == _LINKED
        assert caller.get("I", CONTROL << 12)[0] == 1 << 7


def test_a_port_with_another_priority_is_in_another_queue() -> None:
    with domain_machine() as machine:
        caller = Caller(machine)
        use_queues(caller)
        near = caller.open()
        far = caller.bind(near)
        assert caller.events(13, "II", near, 3) == 0
        assert caller.events(13, "II", near, 16) == -22
        assert caller.events(4, "I", far) == 0
        assert head(caller, 3) == near


def test_an_event_before_its_page_is_not_lost() -> None:
    with domain_machine() as machine:
        caller = Caller(machine)
        assert caller.events(11, "QIIB7x", CONTROL, 0, 0, 0) == 0
        near = caller.open()
        far = caller.bind(near)
        assert caller.events(4, "I", far) == 0
        assert caller.events(12, "Q", ARRAY) == 0
        assert word(caller, near) & (_PENDING | _LINKED) == _PENDING | _LINKED


def test_a_port_in_a_queue_is_not_used_again() -> None:
    with domain_machine() as machine:
        caller = Caller(machine)
        use_queues(caller)
        near = caller.open()
        far = caller.bind(near)
        assert caller.events(4, "I", far) == 0
        assert caller.events(3, "I", near) == 0
        assert caller.events(5, "HxxI16x", SELF, far) == 0
        assert caller.get("HxxIIIII")[2:5] == (1, 0, 1), "the other end may be bound again"
        assert caller.open() != near
        caller.put("I", 0, at=(ARRAY << 12) + 4 * near)
        assert caller.open() == near
        assert caller.events(3, "I", near) == 0 and caller.events(3, "I", near) == -22


def test_a_guest_that_writes_nonsense_into_its_queues() -> None:
    with domain_machine() as machine:
        caller = Caller(machine)
        use_queues(caller)
        near = caller.open()
        far = caller.bind(near)
        for value in (0xFFFFFFFF, _LINKED | 0x1FFFF, _LINKED, 0x1FFFF, 0):
            caller.put("1024I", *[value] * 1024, at=ARRAY << 12)
            caller.put("18I", *[value] * 18, at=CONTROL << 12)
            assert caller.events(4, "I", far) == 0 and caller.events(9, "I", near) == 0


#: Sends itself an event, by two ports of its own, and counts upcalls. R9 says how often the handler is to leave the
#: upcall pending. R10 counts interrupts, R11 those that were none.
_UPCALLS = f"""
    b start ; b . ; b . ; b . ; b . ; b .
irq:
    push {{r0-r3, r12}}
    ldr r1, =0x03002000 ; ldr r2, [r1, #0xc] ; ldr r3, =1023 ; cmp r2, r3 ; addeq r11, r11, #1 ; beq done
    add r10, r10, #1 ; ldr r3, ={SHARED:#x} ; subs r9, r9, #1 ; movlt r0, #0 ; strblt r0, [r3] ; strlt r0, [r3, #8]
    str r2, [r1, #0x10]
done: pop {{r0-r3, r12}} ; subs pc, lr, #4
start:
    adr r0, start ; bic r0, r0, #0xff ; mcr p15, #0, r0, c12, c0, #0
    cps #0x12 ; ldr sp, ={RAM + 0x80000:#x} ; cps #0x13
    ldr r1, =0x03001000 ; mov r0, #1 ; str r0, [r1] ; mov r0, #0x80000000 ; str r0, [r1, #0x100]
    ldr r1, =0x03002000 ; mov r0, #1 ; str r0, [r1] ; mov r0, #0xf0 ; str r0, [r1, #4]
    mov r10, #0 ; mov r11, #0 ; mov r9, #0
    adr r1, unbound ; mov r0, #6 ; mov r12, #32 ; .word 0xe140ea71 ; ldr r4, [r1, #4]
    adr r2, interdomain ; str r4, [r2, #4] ; mov r1, r2 ; mov r0, #0 ; .word 0xe140ea71 ; ldr r5, [r1, #8]
    cpsie i ; nop ; nop ; mov r6, r10
    mov r9, #2 ; adr r1, port ; str r5, [r1] ; mov r0, #4 ; .word 0xe140ea71 ; nop ; nop ; mov r7, r10
    cpsid i ; ldr r3, ={SHARED:#x} ; mov r0, #1 ; strb r0, [r3] ; mov r0, #0 ; strb r0, [r3] ; cpsie i ; nop ; nop
    mov r8, r10 ; mov r2, #0 ; {EXIT}
    .balign 8
unbound: .word 0x7ff07ff0, 0
interdomain: .word 0x7ff0, 0, 0
port: .word 0
    .ltorg
"""


def test_the_upcall_is_a_level() -> None:
    """One interrupt for the event of binding. Then as many as the handler leaves it pending, and none for a byte that
    the guest has set and cleared.
    """
    ends = set()
    for tier, jit in MODES:
        with domain_machine(tier, jit=jit, semihosting=True) as machine:
            machine.load_bytes(assemble(_UPCALLS, RAM + 0x10000), RAM + 0x10000, RAM + 0x10000)
            result = machine.run(fuel=100_000)
            assert result.reason is StopReason.EXITED, result.message
            assert (machine.r[6], machine.r[7], machine.r[8], machine.r[11]) == (1, 4, 4, 0)
            ends.add((result.icount, state_hash(machine)))
    assert len(ends) == 1


@pytest.mark.parametrize("tier", ["reference", "threaded", "auto"])
def test_a_poll_ends_with_its_time(tier: str) -> None:
    code = f"""
        adr r1, poll ; ldr r2, =ports ; str r2, [r1] ; mov r0, #3 ; mov r12, #29 ; .word 0xe140ea71
        mov r4, r0 ; mrrc p15, #1, r5, r6, c14 ; mov r2, #0 ; {EXIT} ; .ltorg ; .balign 8
    poll: .word 0, 0, 1, 0, 5000000, 0
    ports: .word 1
    """
    with domain_machine(tier, semihosting=True) as machine:
        machine.load_bytes(assemble(code, RAM + 0x10000), RAM + 0x10000, RAM + 0x10000)
        result = machine.run(fuel=10_000)
        assert result.reason is StopReason.EXITED, result.message
        assert machine.r[4] == 0 and 5_000_000 <= machine.timeline.now * 10 < 5_010_000
