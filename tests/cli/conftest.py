"""Programs on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.assembler import assemble
from tests.vm.programs import BASE, EXIT, exiting, make_elf

HELLO = f"""
    adr r1, text
    mov r0, #4
    svc 0x123456
    mov r2, #3
    {EXIT}
    b .
    text: .asciz "hello\\n"
"""


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """Says hello and exits with 3."""
    path = tmp_path / "hello.elf"
    path.write_bytes(make_elf(assemble(HELLO)))
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """``spin: b spin``."""
    path = tmp_path / "endless.elf"
    path.write_bytes(make_elf(assemble("nop; b ."), symbols={"spin": (BASE, 8)}))
    return path


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """Writes ``!``, and then ``spin: b spin``."""
    path = tmp_path / "ready.elf"
    code = assemble("adr r1, text; mov r0, #3; svc 0x123456; b spin; text: .word 33; spin: nop; b .")
    path.write_bytes(make_elf(code, symbols={"spin": (BASE + 20, 8)}))
    return path


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Reads from nowhere in ``main``."""
    path = tmp_path / "faulty.elf"
    path.write_bytes(make_elf(assemble("ldr r0, =0xdeadbee0; ldr r1, [r0]"), symbols={"main": (BASE, 8)}))
    return path


@pytest.fixture
def command_line(tmp_path: Path) -> Path:
    """Prints its command line."""
    path = tmp_path / "args.elf"
    text = f"""
        adr r1, block ; mov r0, #0x15 ; svc 0x123456
        adr r1, buffer ; mov r0, #4 ; svc 0x123456
        mov r2, #0
        {EXIT}
        b .
        .align 2
        block: .word buffer, 200
        buffer: .space 200
    """
    path.write_bytes(make_elf(assemble(text)))
    return path


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """Copies standard input to standard output, a character at a time."""
    path = tmp_path / "echo.elf"
    text = f"""
        loop: mov r0, #7 ; svc 0x123456
        cmn r0, #1 ; beq done
        sub r1, sp, #4 ; str r0, [r1] ; mov r0, #3 ; svc 0x123456
        b loop
        done: mov r2, #0
        {EXIT}
        b .
    """
    path.write_bytes(make_elf(assemble(text)))
    return path


@pytest.fixture
def exit_5(tmp_path: Path) -> Path:
    """A flat binary that exits with 5."""
    path = tmp_path / "exit5.bin"
    path.write_bytes(exiting(5))
    return path
