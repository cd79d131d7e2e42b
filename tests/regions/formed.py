"""Regions of assembly text, as they are formed if all of it was executed."""

from __future__ import annotations

from dbt.abi.addresses import Gva
from dbt.frontend.forming import Region, RegionFormer
from isa.arm.a32 import DECODER
from tests.assembler import assemble
from tests.oracle.cases import CODE, CaseCode


def region_of(source: str) -> Region:
    """Return the region that begins with the first instruction, which is at CODE."""
    words = memoryview(assemble(source, CODE)).cast("I").tolist()
    return RegionFormer(DECODER.decode, CaseCode(tuple(words))).form(Gva(CODE))
