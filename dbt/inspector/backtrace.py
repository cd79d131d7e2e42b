"""Backtraces: the callers, by the frames that a compiler has put on the stack.

A32 code keeps a chain of frames in R11 if it was compiled so (-fno-omit-frame-pointer, or without optimization). GCC
lets R11 point to the saved LR, with the caller's R11 below; LLVM and the APCS let it point to the caller's R11, with LR
above. The words show which of both it is: a return address follows a BL or BLX, and a caller's frame is higher up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gva

if TYPE_CHECKING:
    from dbt.inspector.inspector import Inspector

_LIMIT = 8


def is_return_address(inspector: Inspector, gva: Gva) -> bool:
    """Return True if the instruction before ``gva`` is a call."""
    if gva & 3 or gva < 4:
        return False
    word = inspector.peek_code(Gva(gva - 4))
    if word is None:
        return False
    is_bl = word & 0x0F000000 == 0x0B000000 and word >> 28 != 15
    is_blx = word & 0x0FFFFFF0 == 0x012FFF30 or word & 0xFE000000 == 0xFA000000
    follows_move = word & 0x0E1FF000 == 0x001FF000  # a write to the PC, after mov lr, pc
    return is_bl or is_blx or follows_move


def frames(inspector: Inspector, registers: Sequence[int]) -> list[Gva]:
    """Return the return addresses of at most 8 callers, the nearest first. There are none if frames cannot be
    followed.
    """
    found: list[Gva] = []
    frame = registers[11]
    while len(found) < _LIMIT and frame and not frame & 3:
        at, above, below = (inspector.word_at(Gva(frame + offset & 0xFFFFFFFF)) for offset in (0, 4, -4))
        if at is not None and below is not None and is_return_address(inspector, Gva(at)):
            back, caller = at, below
        elif at is not None and above is not None and is_return_address(inspector, Gva(above)):
            back, caller = above, at
        else:
            break
        found.append(Gva(back))
        if caller <= frame:  # the stack grows down, so a caller's frame is higher up
            break
        frame = caller
    return found
