"""``dbt disasm``: prints the code of a program with addresses and symbols."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator

from dbt.abi.addresses import Gpa, Gva
from dbt.board.boards import MAX_MEMORY
from dbt.board.loader import Segment, read_file, read_image
from dbt.cli.status import CommandError, Status
from dbt.cli.values import optional, parse_gpa, parse_gva
from dbt.inspector.disassembly import disassembler
from dbt.inspector.symbols import SymbolTable
from dbt.memory.ram import RamLayout


def disassemble(program: str | None, code: str | None, base: str | None, start: str | None, stop: str | None) -> int:
    """Print the executable segments, or those addresses of them, to standard output."""
    if (program is None) == (code is None):
        raise CommandError("give either a program or -c HEX. See `dbt disasm --help`.", Status.USAGE)
    address = optional(parse_gpa, "--base", base)
    first = optional(parse_gva, "--start", start)
    last = optional(parse_gva, "--stop", stop)
    if code is not None:
        image = read_image(_parse_words(code), "-c", RamLayout.of(MAX_MEMORY), address or Gpa(0))
        symbols = SymbolTable()
    else:
        assert program is not None
        data = read_file(program)
        image = read_image(data, program, RamLayout.of(MAX_MEMORY), address)
        symbols = SymbolTable(data if image.is_elf else b"")
    places = [segment for segment in image.segments if segment.executable]
    if not any(_overlaps(segment, first, last) for segment in places):
        there = ", ".join(f"[{s.gva:#x}, {s.gva + len(s.data):#x})" for s in places) or "nowhere"
        raise CommandError(f"there is no code between --start and --stop: it is in {there}.", Status.USAGE)
    for segment in places:
        sys.stdout.writelines(_lines(segment, symbols, first, last))
    sys.stdout.flush()
    return Status.DONE


def _overlaps(segment: Segment, start: Gva | None, stop: Gva | None) -> bool:
    return (stop is None or segment.gva < stop) and (start is None or start < segment.gva + len(segment.data))


def _parse_words(code: str) -> bytes:
    """Return the words of a text such as ``e3a00001 e12fff1e``."""
    try:
        words = [int(word.removeprefix("0x"), 16) for word in code.replace(",", " ").split()]
        return b"".join(word.to_bytes(4, "little") for word in words)
    except (ValueError, OverflowError):
        message = f"-c {code!r}: write words of up to eight hexadecimal digits, for example e3a00001"
        raise CommandError(message, Status.USAGE) from None


def _lines(segment: Segment, symbols: SymbolTable, start: Gva | None, stop: Gva | None) -> Iterator[str]:
    """Yield a line for each word. The mapping symbols of an ELF file distinguish data from code (IHI 0044, 5.5.5)."""
    to_text = disassembler()
    first = segment.gva if start is None else max(segment.gva, start & ~3)
    last = segment.gva + len(segment.data) // 4 * 4
    labels = {symbol.address: symbol.name for symbol in reversed(symbols.symbols)}
    kinds = symbols.mapping
    places = [place for place, _ in kinds]
    for gva in map(Gva, range(first, last if stop is None else min(last, stop), 4)):
        if gva in labels:
            yield f"\n{gva:08x} <{labels[gva]}>:\n"
        offset = gva - segment.gva
        word = int.from_bytes(segment.data[offset : offset + 4], "little")
        index = bisect_right(places, gva) - 1
        text = to_text(word, gva) if index < 0 or kinds[index][1] == "a" else f".word {word:#010x}"
        yield f"{gva:08x}:  {word:08x}  {text}\n"
