"""Programs with labels, literal pools and data: the words of GNU as, or both refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt.abi.addresses import Gva
from dbt.assembler.program import assemble_program
from dbt.assembler.source import AssemblyError
from tests.assembly.gnu import BASE, assemble_by_gnu, needs_gnu, random_program


def words(text: str, base: int = BASE) -> list[int]:
    data = assemble_program(text, Gva(base))
    return [int.from_bytes(data[place : place + 4], "little") for place in range(0, len(data), 4)]


def complaint(text: str) -> str:
    with pytest.raises(AssemblyError) as error:
        assemble_program(text, Gva(BASE))
    return f"{error.value.line}: {error.value}"


@needs_gnu
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_random_programs(tmp_path: Path, first: int) -> None:
    refused = 0
    for seed in range(first, first + 50):
        text = random_program(seed)
        expected = assemble_by_gnu(text, tmp_path)
        try:
            made: bytes | None = assemble_program(text, Gva(BASE))
        except AssemblyError:
            made = None
        assert made == expected, f"random_program({seed}):\n{text}"
        refused += made is None
    assert 5 < refused < 40


CONSTRUCTS = (
    ".macro move to, from=#7, count=1\n.rept \\count\nmov \\to, \\from\n.endr\n.endm\nmove r1\nmove r2, r3\n"
    "move from=r4, to=r5, count=3\n",
    ".macro text label, string\n\\label: .asciz \"\\string\"\n.endm\ntext a, \"b, c: \\\"d\\\"\"\n"
    "text e, f\n.align\n",
    '.macro move from, to="r1"\nmov \\to, \\from\n.endm\nmove "r2"\nmove from="r3", to="r4"\n',
    '.irp value, "1, 2", 3\n.word \\value\n.endr\n',
    ".macro spin\nloop\\@: b loop\\@\n.endm\nspin\nspin\n",
    ".irp register, r0, r1, r2\nmov \\register, #1\n.endr\n",
    ".equ wide, 1\n.if wide\nmov r0, #1\n.else\nfrob\n.endif\n",
    ".equ wide, 1\n.ifndef wide\nfrob\n.elseif wide == 1\nmov r1, #2\n.endif\n",
    ".if 0\n.if 1\nfrob\n.endif\n.elseif 2 > 1\nnop\n.else\nfrob\n.endif\n",
    "1: b 1f\n b 1b\n1: b 1b\n b 2f\n2:\n",
    "x = 3; y = x << 2 | 1\n.set x, 4\nmov r0, #x\n mov r1, #y\n.set x, 5\n mov r2, #x\n",
    "mov r0, #later\n.equ later, 9\n",
    ".word 1 + 2 * 3, 7 / -2, -7 % 3, 1 | 2 + 4, ~0, 'a', '\\n', 0x10, 010, 0b11, (1 + 2) * 3, 5 - 3 - 1, 1 << 4 - 1\n",
    ".word 2 > 1, 2 == 1, 1 && 2, 0 || 0, !3, 16 >> 1\n",
    ".ascii \"a\\tb\\\"\\\\\\101\\x42;@//\"\n.asciz \"x\", \"y\"\n.string \"z\"\n.align\n nop\n",
    "nop @ one ; two\nnop // three\n/* four\n five */ nop\n  # six; seven\nnop; nop\n",
    ".byte 1, -1, 255\n.hword 0xffff, -2\n.balign 4, 0xee\n.quad 0x123456789abcdef0, -1\n.fill 3, 2, 0x1234\n.align\n",
    "nop\n.org 0x20\nnop\n.space 8, 0xff\n.skip 4\n.zero 4\n",
    "a: b: nop\nc: ldr r0, =a\nldr r1, =b + 4\nldr r2, =a\n.ltorg\nldr r3, =a\n",
    "ldr r4, =0x10000001\nldr r5, =268435457\n",
    "ldrne r0, =0xff\nldr r1, =-2\nldr r2, =0xff0000ff\nldr pc, =0x8000\n",
    "ldr r0, =.\nldr r1, =.\n.word ., .\n",
    "ldr r0, [r1, #end - start]\nstart: .space 12\nend: mov r0, #(end - start) / 4\n mov r0, r1, lsl #end - start\n",
    "cmp r0, #'a'; cmp r0, #','; cmp r0, #']'; cmp r0, #'@'\n",
    "Blne there; BEQ there; There: there: blx r1\n",
)  # fmt: skip


@needs_gnu
@pytest.mark.parametrize("text", CONSTRUCTS)
def test_constructs(tmp_path: Path, text: str) -> None:
    text = f".syntax unified\n{text}"
    expected = assemble_by_gnu(text, tmp_path)
    assert expected is not None
    assert assemble_program(text, Gva(BASE)).hex(" ", 4) == expected.hex(" ", 4)


def test_halves_of_an_address() -> None:
    assert words("movw r0, #:lower16:sym; movt r0, #:upper16:sym; sym: nop") == [0xE3000008, 0xE3400001, 0xE320F000]


def test_an_address_as_a_target() -> None:
    assert words("b 0x8000; bl 0x10000; ldr r0, 0x10010") == [0xEAFFDFFE, 0xEBFFFFFD, 0xE59F0000]


def test_alignment_fills_up_with_instructions_that_every_processor_has() -> None:
    assert words("nop; .align 4; nop") == [0xE320F000, *[0xE1A00000] * 3, 0xE320F000]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ldr r7, =0x12345678\nnop\n.space 0x1400", "1: the literal pool is"),
        ("nop\nadr r0, far\n.space 0x1010\nfar:", "2: the offset 0x100c"),
        ("ldrd r0, r1, far\n.space 0x200\nfar:", "1: far is 508 bytes"),
        ("ldrh r0, far\n.space 0x200\nfar:", "1: far is 508 bytes"),
        ("far:\n.space 0x1000\nldr r0, far", "3: far is 4104 bytes"),
        ("vldr d0, far\n.space 0x404\nfar:", "1: far is 1024"),
        ("vldr d0, far\n.hword 0\nfar:", "1: far is 2 bytes from the PC, which is no multiple of 4"),
        ("far:\n.space 0x2000000\nb far", "3: the branch goes to 0x10000"),
        ("b far\n.hword 0\nfar:", "1: the branch goes to 0x10006, which is not aligned"),
        ("add r0, r0, #far\nfar:", "1: far is an address"),
        ("mov r0, far\nfar:", "1: far is a symbol"),
        ("ldr r0, [r1, far]\nfar:", "1: far is a symbol"),
        ("ldr r0, [r1, frob]", "1: frob is no register"),
        ("ldr r0, [r1, #-2147483648]", "1: the offset is out of range"),
        ("mov r0, #:upper16:far\nfar:", "1: :lower16: is for movw"),
        ("movw r0, #:upper16:far\nfar:", "1: :lower16: is for movw"),
        ("nop\n.word nowhere", "2: the symbol nowhere is not defined"),
        ("b 1f\n1:\nb 2b", "3: the symbol 2f or 2b"),
        ("ldr r0, =nowhere", "1: the symbol nowhere"),
        ("a: nop\na: nop", "2: the symbol a is defined twice"),
        ("a = 1\na: nop", "2: the symbol a is defined twice"),
        (".frob 3", "1: there is no directive .frob"),
        (".data\n.word 1", "1: .data: a flat program has one section"),
        (".thumb", "1: .thumb: the instruction set is A32"),
        ('.incbin "/etc/passwd"', "1: there is no directive .incbin"),
        (".byte 256", "1: 0x100 does not fit into 8 bits"),
        (".hword far\nfar:", "1: far is an address"),
        (".word 0x123456789", "1: 0x123456789 does not fit"),
        (".byte 1\nnop", "2: the instruction is at 0x10001"),
        ("add r0, r0, #0x101", "1: "),
        ("mov r0, #-", "1: '-' is no expression"),
        ("ldrb r0, =1", "1: only ldr has a constant"),
        (".word 1 / 0", "1: division by zero"),
        (".word " + "(" * 1000, "1: the expression is nested too deeply"),
        (".word " + "-" * 1000 + "1", "1: the expression is nested too deeply"),
        (".word 1 << 100", "1: a shift by 100"),
        (".space 0x40000000", "1: 1073741824 is no number of bytes"),
        (".space -1", "1: -1 is no number"),
        (".space later\n.equ later, 1", "1: the symbol later"),
        (".org 8\n.org 4", "2: .org does not go back"),
        (".align 20", "1: 20 is no alignment"),
        (".if 1\nnop", "None: an .if has no .endif"),
        (".endif", "1: "),
        (".rept 3\nnop", "1: .rept has no .endr"),
        (".rept 1000000\nnop\n.endr", "1: the program has more than"),
        (".macro m\nm\nm\n.endm\nm", "5: more than 100 macros are in each other"),
        (".macro m a\nmov r0, \\a\n.endm\nnop\nm nowhere", "5: "),
        ("µ: nop", "1: "),
        ("frob µ", "1: "),
        ("'", "1: there is no such instruction"),
        ("mov r0, 'a", "1: there is no such instruction"),
        ('add r0, r0, "', "1: there is no such instruction"),
        ('.ascii "abc', "1: "),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, what: str) -> None:
    assert complaint(text).startswith(what)


def test_text_that_is_not_ascii() -> None:
    assert words("@ 5 µs\nnop // ±1\n /* é */ nop") == [0xE320F000] * 2
    assert assemble_program('.asciz "é"', Gva(BASE)) == "é\0\0".encode()
