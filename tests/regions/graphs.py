"""Regions whose control-flow graphs have every form, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from dbt.abi.addresses import Gva
from dbt.frontend.forming import Block, GuestInsn, Place, Region
from isa.arm.a32 import DECODER
from isa.ir.queries import branches_of

NOP = 0xE1A00000  # mov r0, r0
COUNT = 8


def insn(pc: int) -> GuestInsn:
    decoded = DECODER.decode(NOP)
    assert decoded is not None
    uops = decoded.record_word(NOP)
    return GuestInsn(Gva(pc), NOP, decoded, uops, branches_of(uops))


@st.composite
def regions(draw: st.DrawFn) -> Region:
    """Blocks of one to five instructions that go on at up to two others, or outside."""
    places = [Place(Gva(0x1000 * number)) for number in range(COUNT)]
    outside = Place(Gva(0xF0000))
    anywhere = st.sampled_from([*places, outside])
    blocks = {}
    for place in places:
        insns = [insn(place.pc + 4 * n) for n in range(draw(st.integers(1, 5)))]
        blocks[place] = Block(place, insns, next=draw(anywhere), back=draw(st.none() | anywhere))
    entries = draw(st.sets(st.sampled_from(places), max_size=2)) | {places[0]}
    return Region(Gva(0), blocks, {place.pc: place for place in sorted(entries, key=lambda place: place.pc)})
