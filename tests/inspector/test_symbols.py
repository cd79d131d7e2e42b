"""Names for addresses, and never an error from a damaged table."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from dbt.abi.addresses import Gva
from dbt.inspector.symbols import Symbol, SymbolTable
from tests.vm.programs import BASE, exiting, make_elf

SYMBOLS = {"main": (BASE, 8), "$a": (BASE, 0), "tail": (BASE + 16, 0), "_start": (BASE, 0)}
ELF = make_elf(exiting(0), symbols=SYMBOLS)


def test_an_address_is_described_by_the_symbol_before_it() -> None:
    table = SymbolTable(ELF)
    assert table.describe(Gva(BASE)) == "main"
    assert table.describe(Gva(BASE + 4)) == "main+0x4"
    assert table.describe(Gva(BASE + 0x12)) == "tail+0x2"


def test_an_address_outside_every_symbol_is_a_number() -> None:
    table = SymbolTable(ELF)
    assert table.describe(Gva(BASE - 4)) == hex(BASE - 4)
    assert table.describe(Gva(BASE + 8)) == hex(BASE + 8)  # beyond main, before tail
    assert table.describe(Gva(0x40000000)) == "0x40000000"


def test_mapping_symbols_are_kept_apart() -> None:
    assert SymbolTable(ELF).mapping == [(BASE, "a")]


def test_without_symbols_every_address_is_a_number() -> None:
    assert SymbolTable(make_elf(exiting(0))).describe(Gva(BASE)) == hex(BASE)
    assert SymbolTable(b"no ELF file").describe(Gva(BASE)) == hex(BASE)


def test_a_name_does_not_command_the_terminal() -> None:
    assert SymbolTable(make_elf(exiting(0), symbols={"a\x1b[2Jb": (BASE, 8)})).describe(Gva(BASE)) == "a?[2Jb"
    assert SymbolTable.of([Symbol(Gva(BASE), "a\rb", 8)]).describe(Gva(BASE)) == "a?b"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(4, len(ELF) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_table_means_fewer_names(changes: list[tuple[int, int]]) -> None:
    data = bytearray(ELF)
    for place, value in changes:
        data[place] = value
    assert SymbolTable(bytes(data)).describe(Gva(BASE))


def test_names_that_overlap_without_end_are_none() -> None:
    """Each of 20,000 symbols has a name of a megabyte, in a table of one megabyte."""
    size = 1 << 20
    table = b"".join(struct.pack("<IIIBBH", number, BASE, 4, 2, 0, 1) for number in range(20_000))
    header = bytearray(b"\x7fELF".ljust(52, b"\0"))
    struct.pack_into("<32xI10xHH", header, 0, 52, 40, 3)
    header[:4] = b"\x7fELF"
    start = 52 + 3 * 40
    sections = struct.pack("<10I", *10 * [0])
    sections += struct.pack("<10I", 0, 2, 0, 0, start, len(table), 2, 0, 0, 0)
    sections += struct.pack("<10I", 0, 3, 0, 0, start + len(table), size, 0, 0, 0, 0)
    elf = bytes(header) + sections + table + b"a" * (size - 1) + b"\0"
    assert SymbolTable(elf).symbols == []
    few = elf.replace(table, table[: 16 * 10] + bytes(len(table) - 16 * 10))  # the others are undefined
    assert len(SymbolTable(few).symbols) == 10
