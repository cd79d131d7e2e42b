"""Disassembly of words, by capstone. It is imported when it is first used, because that takes 70 ms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from dbt.abi.addresses import Gva

#: Takes a word and its address.
Disassemble = Callable[[int, Gva], str]


@cache
def disassembler() -> Disassemble:
    """Return a function that disassembles a word, given its address. A word that is no instruction becomes
    ``.word``.
    """
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_ARM | capstone.CS_MODE_LITTLE_ENDIAN)

    def disassemble(word: int, address: Gva) -> str:
        for _, _, mnemonic, operands in engine.disasm_lite(word.to_bytes(4, "little"), address, 1):
            return f"{mnemonic} {operands}".rstrip()
        return f".word {word:#010x}"

    return disassemble


def disassemble_place(place: Mapping[str, Any]) -> str:
    """Return the instruction of a place of the statistics, which have its ``address`` and ``word`` in hexadecimal.

    Traces of earlier versions have the text itself, as ``instruction``.
    """
    if "instruction" in place:
        return str(place["instruction"])
    return disassembler()(int(place["word"], 16), Gva(int(place["address"], 16)))
