"""Assembly text to machine code, for tests."""

from __future__ import annotations

import re
from functools import lru_cache

CONDITIONAL_CALL = re.compile(r"\bbl(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)(?= )")


@lru_cache
def assemble(text: str, address: int = 0x8000) -> bytes:
    """The A32 code of ``text`` at ``address``."""
    code = _assemble(text, address)
    if CONDITIONAL_CALL.search(text) is None:
        return code
    # Keystone makes of BL with a condition a branch to itself; of B, what it should be.
    jumps = _assemble(CONDITIONAL_CALL.sub(r"b\1", text), address)
    words = bytearray(code)
    for place in range(0, len(code) - 3, 4):
        if code[place : place + 3] == b"\xfe\xff\xff" and code[place + 3] >> 4 != 14 and code[place + 3] & 15 == 11:
            words[place : place + 3] = jumps[place : place + 3]
    return bytes(words)


def _assemble(text: str, address: int) -> bytes:
    from keystone import KS_ARCH_ARM, KS_MODE_ARM, Ks

    code, _ = Ks(KS_ARCH_ARM, KS_MODE_ARM).asm(text, address, True)
    assert isinstance(code, bytes)
    return code
