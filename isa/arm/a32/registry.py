"""The registry of the A32 instructions: 32 bits each, under a condition where they have one."""

from __future__ import annotations

from collections.abc import Mapping

from isa.arm.a32.decoding import A32Index
from isa.arm.operands import ALWAYS, UNCONDITIONAL, condition_holds
from isa.arm.recorder import Recorder
from isa.ir.registry import Registry
from isa.ir.uop import Uop

INDEX = A32Index()


def _condition(u: Recorder, known: Mapping[str, int]) -> Uop | None:
    cond = known.get("cond", ALWAYS)
    return None if cond == ALWAYS else condition_holds(u, cond)


A32 = Registry(Recorder, _condition, INDEX, reserved={"cond": UNCONDITIONAL}, lengths=(4,), oldest=4)
insn = A32.insn
