"""The A32 instruction set: importing this package fills its registry."""

from isa.arm import architecture
from isa.arm.a32 import (
    block_transfer,
    branch,
    cp14,
    cp15,
    data_processing,
    exceptions,
    generic_timer,
    load_store,
    media,
    multiply,
    performance_monitors,
    status,
)
from isa.arm.a32.registry import A32, INDEX
from isa.ir.registry import Insn

__all__ = ["DECODER", "INDEX", "REGISTRY", "Insn"]

_MODULES = (
    architecture, block_transfer, branch, cp14, cp15, data_processing, exceptions, generic_timer, load_store, media,
    multiply, performance_monitors, status,
)  # fmt: skip

REGISTRY: list[Insn] = A32.insns
DECODER = A32.build_decoder()
