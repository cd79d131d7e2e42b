"""Devices that native code serves by their own methods, and nobody can tell."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.abi.device_windows import window_word
from dbt.engine.observer import Observer
from dbt.engine.tier import JitMode
from dbt.host.console import CaptureConsole
from dbt.vm.machine import TierName
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.devices.register_cases import FILES, IDS, devices_of, parse, under_dbt
from tests.long import LONG
from tests.vm.programs import BASE, EXIT, MODES, TIERS

#: Reads what it can of the timers and counters, in all widths, until timer 0 has counted to its limit; then waits for
#: timer 1 to interrupt, looks at it and at the counters again, and sets it anew, by a store of several words of which
#: the third brings the next event nearer. R8 is a sum of all that was read.
_POLLS = f"""
    ldr r6, =0x101e2000 ; ldr r0, =0xffffffff ; str r0, [r6] ; mov r1, #0xc2 ; str r1, [r6, #8]
    ldr r7, =0x10000000 ; mov r8, #0 ; mov r11, #3
again:
    ldr r3, [r6, #4]
wait:
    ldr r4, [r6, #4] ; sub r5, r3, r4 ; add r8, r4, r8, ror #3
    ldr r2, [r7, #0x5c] ; eor r8, r2, r8, ror #5
    ldrh r2, [r7, #0x5e] ; add r8, r8, r2
    ldrb r2, [r6, #5] ; add r8, r8, r2, lsl #7
    ldm r6, {{r0, r1, r2}} ; add r8, r8, r1, ror #9
    cmp r5, #200 ; blo wait
    mov r0, #70 ; mov r1, #0 ; mov r2, #0xe3 ; add r9, r6, #0x20 ; stm r9, {{r0, r1, r2, r3}}
expect:
    ldr r2, [r7, #0x5c] ; eor r8, r2, r8, ror #1
    ldr r2, [r6, #0x30] ; ldr r0, [r6, #0x34] ; add r8, r8, r0 ; cmp r2, #0 ; beq expect
    str r2, [r6, #0x2c] ; ldr r2, [r6, #0x30] ; add r8, r8, r2, lsl #20
    ldr r2, [r7, #0x24] ; add r8, r8, r2
    subs r11, r11, #1 ; bne again
    mov r2, #0 ; {EXIT}
"""


@pytest.mark.parametrize("fuel", [1 << 40, 997, 10_007])
def test_every_tier_reads_the_same(fuel: int) -> None:
    """Cut into slices of any length, each of which forgets what is known."""
    ends = set()
    for tier, jit in MODES:
        machine = Machine(1 << 20, tier=tier, jit=jit, console=CaptureConsole())
        machine.load_bytes(assemble(_POLLS, BASE), BASE)
        while (result := machine.run(fuel=fuel)).reason is StopReason.FUEL:
            pass
        assert result.exit_code == 0
        ends.add((result.icount, machine.r[8], state_hash(machine)))
        if tier != "reference" and fuel > 1000:
            assert machine.cpu.native("device_answers") > 1000
    assert len(ends) == 1


# -- sequences of accesses -----------------------------------------------------------------------

_VIC, _TIMERS, _UART, _UART1, _CLOCK, _SYSTEM = 0x10140000, 0x101E2000, 0x101F1000, 0x101F2000, 0x101E8000, 0x10000000
#: Where accesses are made: base, and bytes from there.
_REGISTERS = (
    *((_VIC, 0x40), (_VIC, 0x240), (_VIC, 0x1000), (_TIMERS, 0x40), (_TIMERS, 0x40), (_TIMERS, 0x1000)),
    *((_UART, 0x4C), (_UART, 0x1000), (_UART1, 0x4C), (_CLOCK, 0x20), (_SYSTEM, 0x90)),
)
#: Makes the accesses of a table at 0x20000: address, what (an index of the branches: 0 ends), value, and how often it
#: counts down afterwards. Answers go to 0x80000. IRQs are taken: the handler counts them, masks what is pending, and
#: makes the next 50 accesses without.
_SEQUENCE = f"""
    mov r0, #0x18 ; ldr r1, =0xe51ff004 ; str r1, [r0] ; adr r1, handler ; str r1, [r0, #4]
    ldr r10, =0x20000 ; ldr r11, =0x80000 ; mov r9, #0 ; ldr r8, =0x10140000
    msr cpsr_c, #0x53
next:
    ldm r10!, {{r4, r5, r6, r7}} ; mov r0, #0
    cmp r5, #1 ; blo end ; ldrbeq r0, [r4]
    cmp r5, #2 ; ldrheq r0, [r4]
    cmp r5, #3 ; ldreq r0, [r4]
    cmp r5, #4 ; strbeq r6, [r4]
    cmp r5, #5 ; strheq r6, [r4]
    cmp r5, #6 ; streq r6, [r4]
    cmp r5, #7 ; ldmeq r4, {{r0, r1}} ; addeq r0, r0, r1
    cmp r5, #8 ; stmeq r4, {{r6, r7}}
    cmp r5, #9 ; swpeq r0, r6, [r4]
    str r0, [r11], #4
1:  subs r7, r7, #1 ; bpl 1b
    tst r10, #0x1f0 ; msreq cpsr_c, #0x53
    b next
end:
    msr cpsr_c, #0xd3 ; mov r2, #0 ; ldr sp, =0x7000 ; {EXIT}
handler:
    add r9, r9, #1 ; ldr r12, [r8] ; str r12, [r11], #4 ; str r12, [r8, #0x14]
    mrs r12, spsr ; orr r12, r12, #0x80 ; msr spsr_c, r12
    subs pc, lr, #4
"""
_LOADS, _STORES = {1: 1, 2: 2, 4: 3}, {1: 4, 2: 5, 4: 6}
_TABLE, _ANSWERS, _RECORD = 0x20000, 0x80000, 16


def run_sequence(
    accesses: list[tuple[int, int, int, int]], tier: TierName, jit: JitMode, console: bytes, fuel: int
) -> Machine:
    """Make the accesses, in slices of at most ``fuel`` instructions."""
    machine = Machine(1 << 20, tier=tier, jit=jit, console=CaptureConsole(console))
    machine.load_bytes(assemble(_SEQUENCE, BASE), BASE)
    table = b"".join(struct.pack("<4I", *access) for access in accesses) + bytes(_RECORD)
    machine.memory.write_ram(Gpa(_TABLE), table)
    while (result := machine.run(fuel=fuel)).reason is StopReason.FUEL and machine.icount < 10_000_000:
        pass
    assert result.exit_code == 0
    return machine


def random_accesses(random: Random, count: int) -> list[tuple[int, int, int, int]]:
    accesses: list[tuple[int, int, int, int]] = []
    for number in range(count):
        if number % 60 == 0:  # a timer interrupts again
            accesses += [(_VIC + 0x10, 6, 0xFFFFFFFF, 0), (_VIC + 0xC, 6, 0, 0), (_VIC + 0x30, 6, 0, 0)]
            accesses += [(_TIMERS, 6, 4, 0), (_TIMERS + 8, 6, 0xE2, 0)]
        base, limit = random.choice(_REGISTERS)
        size = random.choice((1, 2, 4, 4, 4, 4))
        what = random.choice((_LOADS[size], _STORES[size]))
        offset = random.randrange(0, limit, size)
        if size == 4 and offset < limit - 8 and not random.randrange(8):
            what = random.choice((7, 8, 9))
        if base == _SYSTEM and offset & ~3 == 0x40:
            what = _LOADS[size]  # it would reset the board
        values = random.getrandbits(32), random.getrandbits(8), random.randrange(300), 1 << random.randrange(32), 0xE2
        accesses.append((base + offset, what, random.choice(values), random.choice((0, 0, 1, 7, 100, 1000))))
    return accesses


@pytest.mark.parametrize("seed", range(12 if LONG else 3))
def test_every_tier_answers_the_same(seed: int) -> None:
    """With interrupts, which come where the same access raised them, and with input to the UART."""
    random = Random(seed)
    accesses, console = random_accesses(random, 2000), random.randbytes(random.choice((0, 5, 300)))
    ends = set()
    for tier, jit in MODES:
        fuel = random.choice((10_000_000, 1009, 97))
        with run_sequence(accesses, tier, jit, console, fuel) as machine:
            answers = machine.memory.read_ram(Gpa(_ANSWERS), 0x4000)
            output = bytes(machine.console.output) if isinstance(machine.console, CaptureConsole) else b""
            ends.add((machine.icount, machine.r[9], answers, output, state_hash(machine)))
            assert machine.r[9] > 10
            assert tier == "reference" or machine.cpu.native("device_answers") > 1000
    assert len(ends) == 1


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_guest_reads_what_qemu_answers(path: Path, tier: TierName) -> None:
    text = path.read_text()
    accesses = list(parse(text))
    found, native = under_dbt(accesses, path.parent.name, devices_of(text), tier)
    assert found == [access.value for access in accesses if access.is_read]
    served = path.stem in ("pl011", "pl031", "pl190", "sp804", "sysregs", "gic", "gic-interrupts", "gic-places")
    assert native > len(accesses) // 2 if served and tier != "reference" else native < len(accesses) // 2


def test_output_keeps_its_order_however_much_there_is_in_a_slice() -> None:
    """Bytes to the UART, more than its ring holds, between characters that semihosting writes."""
    source = f"""
        ldr r4, =0x101f1000 ; mov r5, #0 ; mov r7, #0
    part:
        ldr r6, =9001
    1:  strb r5, [r4] ; add r5, r5, #1 ; subs r6, r6, #1 ; bne 1b
        push {{r5}} ; mov r1, sp ; mov r0, #3 ; svc 0x123456 ; pop {{r5}}
        add r7, r7, #1 ; cmp r7, #3 ; blo part
        mov r2, #0 ; {EXIT}
    """
    part = [number % 256 for number in range(3 * 9001)]
    wanted = b"".join(bytes([*part[at : at + 9001], (at + 9001) % 256]) for at in (0, 9001, 18002))
    for tier, jit in MODES:
        with Machine(1 << 20, tier=tier, jit=jit, console=CaptureConsole()) as machine:
            machine.load_bytes(assemble(source, BASE), BASE)
            assert machine.run().exit_code == 0
            assert isinstance(machine.console, CaptureConsole) and bytes(machine.console.output) == wanted
            assert tier == "reference" or machine.memory.device_accesses < 20


def test_the_devices_of_the_board_have_entries_of_their_own() -> None:
    with Machine(1 << 20, tier="threaded", console=CaptureConsole()) as machine:
        bus = machine.board.bus
        served = [window for window in bus.windows if bus.native_device(window.base) is not None]
        assert {"VIC", "UART0", "UART1", "UART2", "timers 0 and 1", "clock", "system registers"} <= {
            window.name for window in served
        }
        assert len({window_word(window.base) for window in served}) == len(served)


# -- single accesses -----------------------------------------------------------------------------


class Accesses(Observer):
    def __init__(self) -> None:
        self.found: list[int] = []

    def device_accessed(self, gpa: Gpa, size: int, value: int, write: bool) -> None:
        self.found.append(gpa)


def test_each_word_of_a_store_is_written_once() -> None:
    """The third brings the next event nearer, so that the slice has fewer instructions than before."""
    accesses = Accesses()
    machine = Machine(1 << 20, tier="threaded", console=CaptureConsole(), observer=accesses)
    code = f"""
        ldr r6, =0x101e2000 ; mov r0, #2 ; mov r1, #0 ; mov r2, #0xe3 ; stm r6, {{r0, r1, r2, r3}}
        mov r2, #0 ; {EXIT}
    """
    machine.load_bytes(assemble(code, BASE), BASE)
    assert machine.run().exit_code == 0
    assert accesses.found == [0x101E2000, 0x101E2004, 0x101E2008, 0x101E200C]


def test_a_write_to_any_device_is_noticed() -> None:
    """The timer is stopped and loaded anew while its value is polled."""
    code = f"""
        ldr r6, =0x101e2000 ; mov r0, #100 ; str r0, [r6] ; mov r1, #0xc2 ; str r1, [r6, #8]
        ldr r2, [r6, #4] ; ldr r2, [r6, #4]
        mov r1, #0 ; str r1, [r6, #8] ; ldr r10, [r6, #4] ; ldr r4, [r6, #4]
        mov r1, #77 ; str r1, [r6] ; ldr r5, [r6, #4] ; ldr r7, [r6, #4]
        mov r2, #0 ; {EXIT}
    """
    for tier in TIERS:
        machine = Machine(1 << 20, tier=tier, console=CaptureConsole())
        machine.load_bytes(assemble(code, BASE), BASE)
        assert machine.run(fuel=100).exit_code == 0
        assert (machine.r[10], machine.r[4], machine.r[5], machine.r[7]) == (99, 99, 77, 77)
