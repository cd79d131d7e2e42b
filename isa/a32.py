"""The whole instruction set: importing this module fills the registry."""

from isa import (
    block_transfer,
    branch,
    coprocessor,
    data_processing,
    exceptions,
    load_store,
    media,
    multiply,
    status,
)
from isa.spec import REGISTRY, Insn, build_decoder

__all__ = ["DECODER", "REGISTRY", "Insn"]

_ROOMS = (
    block_transfer, branch, coprocessor, data_processing, exceptions, load_store, media, multiply, status,
)  # fmt: skip

DECODER = build_decoder()
