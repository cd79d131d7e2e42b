"""Assembly text to machine code, for tests."""

from __future__ import annotations

from functools import lru_cache

from dbt.abi.addresses import Gva
from dbt.cli.asm import encode


@lru_cache
def assemble(text: str, base: int = 0x8000) -> bytes:
    """The A32 code of ``text`` at ``base``. Newlines or semicolons separate statements."""
    return encode(text, Gva(base), "a test")
