"""Assembly text to machine code, for tests."""

from __future__ import annotations

from functools import lru_cache


@lru_cache
def assemble(text: str, address: int = 0x8000) -> bytes:
    """The A32 code of ``text`` at ``address``."""
    from keystone import KS_ARCH_ARM, KS_MODE_ARM, Ks

    code, _ = Ks(KS_ARCH_ARM, KS_MODE_ARM).asm(text, address, True)
    assert isinstance(code, bytes)
    return code
