"""The whole instruction set: importing this module fills the registry."""

from isa.arm import callouts, vmsa
from isa.arm.a32 import block_transfer, branch, cp15, data_processing, exceptions, load_store, media, multiply, status
from isa.ir.spec import REGISTRY, Insn, build_decoder

__all__ = ["DECODER", "REGISTRY", "Insn"]

_ROOMS = (
    block_transfer, branch, callouts, cp15, data_processing, exceptions, load_store, media, multiply, status, vmsa,
)  # fmt: skip

DECODER = build_decoder()
