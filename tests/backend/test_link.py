"""Linking: what is read of an object is what pyelftools reads of it, and what cannot be linked is refused."""

from __future__ import annotations

import io
import re
import struct

import pytest

pytest.importorskip("elftools")

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from dbt.backend import build
from dbt.backend.build import generate_code
from dbt.backend.elfobject import RELA, ElfObject
from dbt.backend.link import LinkError, link_object, link_objects
from dbt.backend.llvm import compile_object
from dbt.frontend.optimizations import PASSES
from tests.long import long_only

#: Code with a constant in memory, a jump table and a call.
TEXT = """
    target triple = "x86_64-unknown-linux-gnu"
    define hidden i32 @callee(i32 %x) noinline { ret i32 %x }
    define hidden <4 x i32> @vector(<4 x i32> %x) {
      %y = add <4 x i32> %x, <i32 1, i32 2, i32 3, i32 4> ret <4 x i32> %y
    }
    define hidden i32 @caller(i32 %x, i32 %y) {
      switch i32 %x, label %other [ i32 0, label %a i32 1, label %b i32 2, label %c i32 3, label %d i32 4, label %a ]
      a: %1 = call i32 @callee(i32 %y) ret i32 %1
      b: %2 = mul i32 %y, 77 ret i32 %2
      c: %3 = udiv i32 %y, 11 ret i32 %3
      d: %4 = xor i32 %y, 12345 ret i32 %4
      other: ret i32 -1
    }
"""


@pytest.fixture(scope="module")
def handlers() -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "link_image", lambda objects, *others: objects[-1])
        object_bytes = build.build_image()
    assert isinstance(object_bytes, bytes)
    return object_bytes


@pytest.fixture(scope="module")
def small() -> bytes:
    return compile_object(TEXT, PASSES, 2)


@pytest.mark.parametrize("name", [pytest.param("handlers", marks=long_only), "small"])
def test_an_object_is_read_as_by_pyelftools(name: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(name)
    mine, theirs = ElfObject(data), ELFFile(io.BytesIO(data))
    assert len(mine.sections) == theirs.num_sections() > 5
    for section, other in zip(mine.sections, theirs.iter_sections(), strict=True):
        assert [value for field, value in section._asdict().items() if field != "type"] == [
            value for field, value in other.header.items() if field != "sh_type"
        ]
        assert mine.contents(section) == other.data()
    table = theirs.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    symbols = list(table.iter_symbols())  # slowly: it parses each anew
    known = {"STT_SECTION": 3, "STT_FUNC": 2, "STT_NOTYPE": 0, "STT_FILE": 4, "STT_OBJECT": 1}
    special = {"SHN_UNDEF": 0, "SHN_ABS": 0xFFF1}
    assert [(s.type, s.section, s.value) for s in mine.symbols] == [
        (known[s["st_info"]["type"]], special.get(s["st_shndx"], s["st_shndx"]), s["st_value"]) for s in symbols
    ]
    names = [s.name for s in symbols if s["st_info"]["type"] != "STT_SECTION"]
    assert [s.name for s in mine.symbols if s.type != 3] == names
    relocations = 0
    for section, other in zip(mine.sections, theirs.iter_sections(), strict=True):
        assert (section.type == RELA) == isinstance(other, RelocationSection)
        if isinstance(other, RelocationSection):
            found = list(mine.relocations(section))
            assert found == [
                (r["r_offset"], r["r_info_type"], mine.symbols[r["r_info_sym"]], r["r_addend"])
                for r in other.iter_relocations()
            ]
            relocations += len(found)
    assert relocations


def test_relocations_are_resolved(small: bytes) -> None:
    """Where each relocation is, there is the distance to what it names."""
    code, symbols = link_object(small)
    assert {"callee", "vector", "caller"} <= symbols.keys()
    assert len(set(symbols.values())) == len(symbols) and all(0 <= at < len(code) for at in symbols.values())
    calls = [at for at in range(len(code) - 5) if code[at] in (0xE8, 0xE9)]
    targets = [at + 5 + struct.unpack_from("<i", code, at + 1)[0] for at in calls]
    assert symbols["callee"] in targets
    assert struct.pack("<4i", 1, 2, 3, 4) in code and code.index(struct.pack("<4i", 1, 2, 3, 4)) % 16 == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("@data = global i32 1 define hidden ptr @f() { ret ptr @data }", "writable"),
        ("declare hidden i32 @other() define hidden i32 @f() { %x = call i32 @other() ret i32 %x }", "'other'"),
        ("@data = external hidden global i32 define hidden ptr @f() { ret ptr @data }", "'data'"),
    ],
)
def test_what_an_image_cannot_have_is_refused(more: str, words: str) -> None:
    with pytest.raises(LinkError, match=words):
        link_object(compile_object(more, (), 2))


def test_objects_refer_to_each_other() -> None:
    first = compile_object(
        "declare hidden i32 @two() define hidden i32 @one() { %x = call i32 @two() ret i32 %x }", (), 2
    )
    second = compile_object(
        "declare hidden i32 @one() define hidden i32 @two() { %x = call i32 @one() ret i32 %x }", (), 2
    )
    code, symbols = link_objects([first, second])
    jumps = {
        at + 5 + struct.unpack_from("<i", code, at + 1)[0] for at in range(len(code) - 4) if code[at] in (0xE8, 0xE9)
    }
    assert symbols["one"] < symbols["two"] and set(symbols.values()) <= jumps
    with pytest.raises(LinkError, match="no object has 'two'"):
        link_objects([first])


def test_handlers_are_divided_between_modules() -> None:
    code = generate_code()
    defined = [set(re.findall(r"^define [^@]*@([\w.]+)", text, re.MULTILINE)) for text in code.texts]
    assert len(defined) == 2 and not defined[0] & defined[1]
    assert {row.handler for row in code.rows} <= defined[0] | defined[1]
    assert 0.8 < len(code.texts[0]) / len(code.texts[1]) < 1.25


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"MZ" + bytes(100)])
def test_no_object(data: bytes) -> None:
    with pytest.raises(ValueError, match="no relocatable"):
        link_object(data)
