"""Words as assembly text, by capstone. Importing that takes 70 ms, so it waits until someone looks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

Disassemble = Callable[[int, int], str]


@cache
def disassembler() -> Disassemble:
    """A function from a word and its address to its text, ``.word`` if it is not an instruction."""
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_ARM | capstone.CS_MODE_LITTLE_ENDIAN)

    def disassemble(word: int, address: int) -> str:
        for _, _, mnemonic, operands in engine.disasm_lite(word.to_bytes(4, "little"), address, 1):
            return f"{mnemonic} {operands}".rstrip()
        return f".word {word:#010x}"

    return disassemble
