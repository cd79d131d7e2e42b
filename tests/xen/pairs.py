"""Guests of two domains that talk by an event channel and a page that one of them grants to the other."""

from __future__ import annotations

from dbt import Machine
from dbt.host.console import Console
from dbt.hypervisor.carrier import Boot
from dbt.hypervisor.cluster import Cluster
from dbt.vm.options import TierName
from tests.assembler import assemble
from tests.xen.guests import MEMORY, RAM

BASE = RAM + 0x8000
#: The page that domain 1 grants, by which entry of its table, and where domain 2 has it.
PAGE, REFERENCE, MAPPED = RAM + 0x40000, 8, RAM + 0x50000
#: The first port that a guest opens: the toolstack has bound two.
PORT = 3
ROUNDS = 40
_SHARED = 0x39004000
_GRANTS = 0x38000000


def hypercall(number: int, command: int, argument: str = "", count: int = 0) -> str:
    """Make a hypercall with a command, the address of a structure, and a count."""
    address = f"ldr r1, ={argument} ; " if argument else ""
    return f"mov r12, #{number} ; mov r0, #{command} ; {address}mov r2, #{count} ; .word 0xe140ea71"


#: Waits until the port is pending, and says that it is not any more.
_WAIT = f"""
wait:
    {hypercall(29, 3, "poll")}
    ldr r1, ={_SHARED + 48:#x} ; ldr r2, [r1] ; tst r2, #{1 << PORT} ; beq wait
    bic r2, r2, #{1 << PORT} ; str r2, [r1] ; bx lr
    .ltorg ; .balign 8
poll: .word ports, 0, 1, 0, 0, 0
ports: .word {PORT}
"""
#: Where guests note what they have seen of each other.
SEEN = RAM + 0x60000
#: Meets the other side in 200 rounds, at times that drift apart. Each waits until the other one has been there, too.
_MEET = f"""
meet: mov r7, #1
round: ldr r1, =4099 ; mul r0, r7, r1 ; ldr r1, =0x7ff ; and r0, r0, r1
1: subs r0, r0, #1 ; bpl 1b
    str r7, [r8] ; mcr p15, #0, r0, c7, c10, #5 ; ldr r0, [r9]
    ldr r1, ={SEEN:#x} ; str r0, [r1, r7, lsl #2]
2: ldr r0, [r9] ; cmp r0, r7 ; blo 2b
    add r7, r7, #1 ; cmp r7, #200 ; bls round
3: wfi ; b 3b
    .ltorg
"""
CODE = {
    # Grants the page to domain 2, puts numbers there, and adds up what comes back in R11.
    "front": f"""
    {hypercall(12, 7, "physmap")}
    ldr r1, ={_GRANTS + 8 * REFERENCE:#x} ; ldr r0, ={PAGE >> 12:#x} ; str r0, [r1, #4]
    ldr r0, =0x20001 ; str r0, [r1]
    {hypercall(32, 6, "unbound")}
    mov r10, #0 ; mov r11, #0 ; ldr r8, ={PAGE:#x}
next: bl wait
    ldr r0, [r8, #4] ; add r11, r11, r0 ; add r10, r10, #1 ; cmp r10, #{ROUNDS} ; bhi end
    str r10, [r8] ; {hypercall(32, 4, "ports")} ; b next
end: mov r9, r1 ; {hypercall(32, 3, "ports")}
    ldr r1, ={_GRANTS + 8 * REFERENCE:#x} ; ldr r7, [r1]
    ldr r0, =0x84000008 ; .word 0xe1400070
    .ltorg ; .balign 8
physmap: .word 0x7ff0, 1, 0, 0, {_GRANTS >> 12:#x}, 0
unbound: .word 0x27ff0, 0
{_WAIT}""",
    # Binds to the port of domain 1, maps the page, and answers each number N with 3 * N, until it is told 40.
    "back": f"""
again: {hypercall(32, 0, "interdomain")} ; cmp r0, #0 ; bne again
    {hypercall(20, 0, "map", 1)} ; ldr r1, =map ; ldrh r9, [r1, #18]
    ldr r8, ={MAPPED:#x} ; mov r10, #0
next: {hypercall(32, 4, "ports")}
    bl wait
    ldr r0, [r8] ; add r10, r10, #1 ; add r1, r0, r0, lsl #1 ; str r1, [r8, #4] ; cmp r0, #{ROUNDS} ; bne next
    {hypercall(32, 4, "ports")}
    ldr r1, =map ; ldr r0, [r1, #20] ; ldr r1, =unmap ; str r0, [r1, #16]
    {hypercall(20, 1, "unmap", 1)} ; ldr r1, =unmap ; ldrh r7, [r1, #20] ; ldr r11, [r8]
    ldr r0, =0x84000008 ; .word 0xe1400070
    .ltorg ; .balign 8
interdomain: .word 1, {PORT}, 0
map: .word {MAPPED:#x}, 0, 2, {REFERENCE}, 1, 0, 0, 0
unmap: .word {MAPPED:#x}, 0, 0, 0, 0, 0xffff
{_WAIT}""",
    # Dekker's way: says in which round it is, in a word of its own, and looks in which the other one is.
    "one": f"""
    {hypercall(12, 7, "physmap")}
    ldr r1, ={_GRANTS + 8 * REFERENCE:#x} ; ldr r0, ={PAGE >> 12:#x} ; str r0, [r1, #4]
    ldr r0, =0x20001 ; str r0, [r1] ; ldr r8, ={PAGE:#x} ; add r9, r8, #4 ; b meet
    .ltorg ; .balign 8
physmap: .word 0x7ff0, 1, 0, 0, {_GRANTS >> 12:#x}, 0
{_MEET}""",
    "other": f"""
again: {hypercall(20, 0, "map", 1)} ; ldr r1, =map ; ldrsh r0, [r1, #18] ; cmp r0, #0 ; bne again
    ldr r9, ={MAPPED:#x} ; add r8, r9, #4 ; b meet
    .ltorg ; .balign 8
map: .word {MAPPED:#x}, 0, 2, {REFERENCE}, 1, 0, 0, 0
{_MEET}""",
    # Waits for ever.
    "sleeper": "1: wfi ; b 1b",
}


def boot(name: str, tier: TierName = "threaded") -> Boot:
    """Return the function that makes a machine with the guest of that name."""
    return boot_code(CODE[name], tier)


def boot_code(text: str, tier: TierName) -> Boot:
    """Return the function that makes a machine with a guest of which this is the code."""
    code = assemble(text, BASE)

    def make(console: Console) -> Machine:
        machine = Machine(
            MEMORY, tier, console=console, jit="sync" if tier == "auto" else "off", cpu="cortex-a15", board="xen"
        )
        machine.load_bytes(code, BASE)
        return machine

    return make


def domains(guests: str = "front back", tier: TierName = "threaded", cores: int = 1, quantum_us: int = 20) -> Cluster:
    """Return a cluster whose machines are domains of one host, named by their guests, with numbers from 1 on."""
    cluster = Cluster({}, cores=cores, domains_us=quantum_us)
    for guest in guests.split():
        cluster.add(guest, boot(guest, tier))
    return cluster


def sleepers(count: int) -> Cluster:
    """Return a cluster of domains that do nothing by themselves."""
    cluster = Cluster({}, domains_us=20)
    for number in range(1, count + 1):
        cluster.add(f"domain {number}", boot("sleeper"))
    return cluster
