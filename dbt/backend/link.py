"""Linking: a relocatable object in, position-independent code out; with the decoder's rows, an image."""

from __future__ import annotations

import array
import io
import struct

from dbt.backend.image import ENTRY_POINTS, Image
from dbt.backend.predecode import NO_HOLE, ROW, Candidate, DecodeTable

_RELATIVE = {2, 4}  # R_X86_64_PC32, R_X86_64_PLT32


class LinkError(ValueError):
    """The object needs something that an image cannot have."""


def link_object(object_bytes: bytes) -> tuple[bytes, dict[str, int]]:
    """Lay out the sections that are loaded, resolve relocations between them: code and symbols."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.relocation import RelocationSection
    from elftools.elf.sections import SymbolTableSection

    elf = ELFFile(io.BytesIO(object_bytes))
    placed: dict[int, int] = {}
    code = bytearray()
    for number, section in enumerate(elf.iter_sections()):
        flags, kind = section["sh_flags"], section["sh_type"]
        if not flags & 2 or kind not in ("SHT_PROGBITS", "SHT_NOBITS") or not section["sh_size"]:
            continue
        if section.name.startswith(".eh_frame"):
            continue
        if flags & 1:
            raise LinkError(f"section {section.name} is writable")
        code.extend(b"\xcc" * (-len(code) % max(section["sh_addralign"], 1)))
        placed[number] = len(code)
        code.extend(section.data())
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        raise LinkError("the object has no symbol table")
    symbols = {
        symbol.name: placed[symbol["st_shndx"]] + symbol["st_value"]
        for symbol in table.iter_symbols()
        if symbol["st_shndx"] in placed and symbol["st_info"]["type"] != "STT_SECTION"
    }
    for section in elf.iter_sections():
        if not isinstance(section, RelocationSection) or section["sh_info"] not in placed:
            continue
        base = placed[section["sh_info"]]
        for relocation in section.iter_relocations():
            symbol = table.get_symbol(relocation["r_info_sym"])
            if symbol["st_shndx"] not in placed or relocation["r_info_type"] not in _RELATIVE:
                raise LinkError(f"relocation {relocation['r_info_type']} against {symbol.name!r}")
            target = placed[symbol["st_shndx"]] + symbol["st_value"] + relocation["r_addend"]
            at = base + relocation["r_offset"]
            struct.pack_into("<i", code, at, target - at)
    return bytes(code), symbols


def link_image(object_bytes: bytes, rows: list[Candidate], table: DecodeTable, guard_names: list[str]) -> Image:
    """An image from the compiled handlers and the decoder's rows."""
    code, symbols = link_object(object_bytes)
    packed = bytearray()
    for row in rows:
        holes = [*row.holes, NO_HOLE, NO_HOLE][:2]
        pairs = [byte for pair in row.pc_operands for byte in pair]
        packed += ROW.pack(
            row.mask, row.value, *holes[0], *holes[1], symbols[row.handler], symbols[row.fill],
            row.has_condition, len(row.pc_operands), *pairs, *[0] * (8 - len(pairs)),
        )  # fmt: skip
    lines = [f"{symbols[name]} {name}" for name in ENTRY_POINTS]
    lines += [f"{symbols[row.handler]} {row.handler} {row.name}" for row in rows]
    return Image(
        code,
        array.array("I", table.index).tobytes(),
        array.array("H", table.pool).tobytes(),
        bytes(packed),
        array.array("I", [symbols[name] for name in guard_names]).tobytes(),
        "\n".join(lines).encode(),
    )
