"""The source lines of a program's addresses, from DWARF (section .debug_line), by pyelftools."""

from __future__ import annotations

import hashlib
import os
from pathlib import PurePosixPath
from typing import Any

from dbt.abi.addresses import Gva


def line_table(path: str, checksum: str) -> list[tuple[Gva, tuple[str, int]]]:
    """Return addresses in order, each with the file and the line that begin there. Line 0 means that there is none.

    The list is empty if the file does not exist, has another SHA-256, is no ELF file, or has no debug information. It
    is also empty if pyelftools, which is an extra, is not installed.
    """
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ModuleNotFoundError:
        return []
    try:
        if not os.path.isfile(path):
            return []  # the path comes from the trace
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != checksum:
                return []
            try:
                file.seek(0)
                return sorted(_lines(ELFFile(file)))
            except ELFError:
                return []
    except OSError:
        return []


def _lines(elf: Any) -> list[tuple[Gva, tuple[str, int]]]:
    found: list[tuple[Gva, tuple[str, int]]] = []
    if not elf.has_dwarf_info():
        return found
    dwarf = elf.get_dwarf_info()
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            continue
        files = program["file_entry"]
        first = 0 if program["version"] >= 5 else 1
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            number = state.file - first
            name = files[number].name.decode(errors="replace") if 0 <= number < len(files) else "?"
            line = 0 if state.end_sequence else state.line
            found.append((Gva(state.address), (PurePosixPath(name).name, line)))
    return found
