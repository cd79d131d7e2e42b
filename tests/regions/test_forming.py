"""Forming regions, without running them."""

from __future__ import annotations

from dbt.frontend.region import Limits, RegionFormer
from isa.a32 import DECODER
from tests.assembler import assemble
from tests.oracle.case import CODE
from tests.regions.oracle import CaseCode

# A loop over a call of a function that is longer than what is looked at.
LONG_CALLEE = "main: bl callee; subs r5, r5, #1; bne main; svc 0; callee: " + "add r0, r0, #1; " * 60 + "bx lr"


def test_a_loop_whose_callee_is_out_of_reach_has_a_region() -> None:
    data = assemble(LONG_CALLEE, CODE)
    words = tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
    region = RegionFormer(DECODER.decode, CaseCode(words), limits=Limits(reach=40)).form(CODE)
    assert region is not None
    assert CODE in region.code_words()
