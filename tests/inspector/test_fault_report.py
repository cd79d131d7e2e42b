"""What a fault's message says of where it came from."""

from __future__ import annotations

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.vm.options import TIERS, TierName
from tests.assembler import assemble
from tests.vm.programs import BASE, make_elf

RAM = 1 << 20
#: main calls middle, which calls inner, as GCC has frames: R11 points to the saved LR.
GCC = """
    mov r11, #0 ; b main
    inner: push {r11, lr} ; add r11, sp, #4 ; ldr r3, =0x40000000 ; blx r3
    middle: push {r4, r11, lr} ; add r11, sp, #8 ; bl inner
    main: push {r11, lr} ; add r11, sp, #4 ; bl middle
    .ltorg
"""
#: Likewise as LLVM has them: R11 points to the caller's R11.
LLVM = """
    mov r11, #0 ; b main
    inner: push {r11, lr} ; mov r11, sp ; ldr r3, =0x40000000 ; blx r3
    middle: push {r11, lr} ; mov r11, sp ; bl inner
    main: push {r11, lr} ; mov r11, sp ; bl middle
    .ltorg
"""


def message_of(source: str, tier: TierName = "reference", symbols: dict[str, tuple[int, int]] | None = None) -> str:
    code = assemble(source, BASE)
    with Machine(RAM, tier, jit="off", console=CaptureConsole()) as machine:
        machine.load_bytes(make_elf(code, BASE, symbols=symbols))
        result = machine.run(timeout=60)
        assert result.reason is StopReason.FAULT
        assert "\n" not in result.message and result.message.endswith(".")
        return result.message


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("source", [GCC, LLVM], ids=["GCC", "LLVM"])
def test_a_wild_jump_says_who_called(source: str, tier: TierName) -> None:
    symbols = {"inner": (BASE + 8, 16), "middle": (BASE + 24, 12), "main": (BASE + 36, 12)}
    message = message_of(source, tier, symbols)
    assert "jump to 0x40000000" in message
    assert "called from 0x00008014 (inner+0xc: blx r3), as LR says" in message
    assert "The frames on the stack lead to middle+0x8 < main+0x8." in message
    assert "SP" not in message


def test_a_wild_jump_without_frames() -> None:
    message = message_of("mov r11, #3 ; ldr r0, =0x40000000 ; mov lr, #0x1000 ; bx r0")
    assert "LR is 0x00001000, which is no return address" in message and "frames" not in message


def test_a_stack_that_has_run_over() -> None:
    message = message_of("mov sp, #16 ; loop: push {r0, r1} ; b loop")
    assert "write of 4 bytes at 0xfffffff8" in message
    assert "SP is 0x00000000" not in message  # the write below it was the one that failed, and 0 is RAM
    message = message_of("mov sp, #0x60000000 ; push {r0}")
    assert "SP is 0x60000000, outside the RAM" in message


def test_frames_that_go_round_in_a_circle() -> None:
    message = message_of(
        """
            mov r11, #0x10000 ; str r11, [r11, #-4] ; adr r1, back ; str r1, [r11] ; bl on
            back: nop
            on: udf #0
        """
    )
    assert "called from" in message or "frames" in message


@pytest.mark.parametrize(
    ("source", "cpu", "said"),
    [
        ("movt r3, #0xedfe", "arm926", "ARMv7 has this instruction, and the processor is older: choose another one"),
        ("rev r0, r1", "arm926", "ARMv6 has this instruction"),
        (".word 0xe710f211", "cortex-a8", "ARMv7 with the Virtualization Extensions has this instruction"),
        (".word 0xe7f000f0", "arm926", "It may be data"),
        (".word 0xee077a90", "cortex-a15", "floating point"),
    ],
)
def test_an_instruction_that_only_newer_processors_have(source: str, cpu: str, said: str) -> None:
    with Machine(RAM, "reference", cpu=cpu, board="versatile", console=CaptureConsole()) as machine:
        machine.load_bytes(assemble(source, BASE), BASE)
        result = machine.run(timeout=60)
    assert result.reason is StopReason.FAULT and "undefined instruction" in result.message
    assert said in result.message
