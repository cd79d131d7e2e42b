"""What a user is told of a kernel that is never heard of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.board.boards import VIRT
from dbt.host.console import CaptureConsole
from dbt.host.output_queue import OutputQueue
from dbt.vm.result import StopReason
from dbt.vm.silent_kernel import PATIENCE, SilentKernel
from tests.assembler import assemble

SPIN = "1: subs r0, r0, #1 ; b 1b"
UART = {"versatile": 0x101F1000, "virt": 0x09000000}
LONG = 1 << 26


def kernel(tmp_path: Path, code: str, board: str, **options: Any) -> Machine:
    path = tmp_path / "kernel"
    made = Machine(16 << 20, tier="threaded", console=CaptureConsole(), board=board, **options)
    path.write_bytes(assemble(code, made.options.board_model.ram_base + 0x10000))
    made.load_kernel(path)
    return made


@pytest.mark.parametrize("board", UART)
def test_a_kernel_that_spins_is_explained(tmp_path: Path, board: str) -> None:
    with kernel(tmp_path, SPIN, board, cpu="cortex-a8") as silent:
        assert not silent.run(fuel=1000).advice  # which says nothing about it yet
        result = silent.run(fuel=LONG)
        assert result.reason is StopReason.FUEL and result.message.startswith("the fuel is used up")
        assert f"The board is {board}, the processor cortex-a8" in result.advice
        assert f"earlycon=pl011,{UART[board]:#x}" in result.advice and f"--board {board}" not in result.advice


@pytest.mark.parametrize("board", UART)
@pytest.mark.parametrize("way", ["uart", "semihosting"])
def test_a_kernel_that_has_written_something_is_not(tmp_path: Path, board: str, way: str) -> None:
    write = f"ldr r1, ={UART[board]:#x} ; str r1, [r1]" if way == "uart" else "mov r0, #3 ; mov r1, pc ; svc 0x123456"
    with kernel(tmp_path, f"{write} ; {SPIN}", board, semihosting=True) as heard:
        assert not heard.run(fuel=LONG).advice


def test_a_program_is_not_explained() -> None:
    with Machine(1 << 20, tier="threaded", console=CaptureConsole()) as program:
        program.load_bytes(assemble(SPIN, 0x8000), 0x8000)
        assert not program.run(fuel=LONG).advice


@pytest.mark.parametrize(("code", "reason"), [("udf #0", StopReason.FAULT), ("1: b 1b", StopReason.HALTED)])
def test_a_kernel_that_ends_silently_is_explained(tmp_path: Path, code: str, reason: StopReason) -> None:
    with kernel(tmp_path, code, "versatile") as silent:
        result = silent.run(fuel=LONG)
        assert result.reason is reason and "the processor arm926" in result.advice


def test_nobody_knows_what_a_restored_kernel_has_written(tmp_path: Path) -> None:
    with kernel(tmp_path, SPIN, "virt") as silent:
        silent.run(fuel=1000)
        with silent.save() as state, Machine.restore(state, tier="threaded", console=CaptureConsole()) as again:
            assert not again.run(fuel=LONG).advice


def test_a_notice_comes_once_after_a_long_time() -> None:
    lines: list[str] = []
    output = OutputQueue(CaptureConsole())
    silence = SilentKernel(VIRT, output, lines.append)
    silence.begin_run(0)
    for icount in (LONG, PATIENCE, 2 * PATIENCE):
        silence.look(icount, "cortex-a15", lambda: "0x40008000 (b #0x40008000)")
    (line,) = lines
    assert line.startswith(f"after {PATIENCE} instructions the kernel is at 0x40008000 (b #0x40008000).")
    assert "The board is virt, the processor cortex-a15" in line
    output.write(b"x")
    silence.look(PATIENCE, "cortex-a15", lambda: "")
    assert len(lines) == 1
