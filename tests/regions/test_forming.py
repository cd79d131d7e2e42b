"""Forming regions, without running them."""

from __future__ import annotations

from dbt.abi.addresses import Gva
from dbt.backend.compile_record import CompileRecorder, read_compile_record
from dbt.frontend.forming import BACKLOG, Limits, Region, RegionFormer
from dbt.frontend.optimizations import ALL, Optimizations
from isa.arm.a32 import DECODER
from tests.assembler import assemble
from tests.oracle.cases import CODE, CaseCode

# A loop over a call of a function that is longer than what is looked at.
LONG_CALLEE = "main: bl callee; subs r5, r5, #1; bne main; svc 0; callee: " + "add r0, r0, #1; " * 60 + "bx lr"


def test_a_loop_whose_callee_is_out_of_reach_has_a_region() -> None:
    data = assemble(LONG_CALLEE, CODE)
    words = tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
    region = RegionFormer(DECODER.decode, CaseCode(words), limits=Limits(reach=40)).form(Gva(CODE))
    assert region.blocks
    assert CODE in region.code_words()


class KnownCode(CaseCode):
    """``entries``: where other regions are entered; ``all_covered``: other regions have the code already."""

    def __init__(self, source: str, entries: tuple[int, ...] = (), all_covered: bool = False) -> None:
        data = assemble(source, CODE)
        super().__init__(tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)))
        self.entries = entries
        self.all_covered = all_covered

    def entered(self, gva: Gva) -> bool:
        return gva in self.entries

    def covered(self, gva: Gva) -> bool:
        return self.all_covered


def form(code: KnownCode, optimizations: Optimizations = ALL, limits: Limits | None = None) -> Region:
    region = RegionFormer(DECODER.decode, code, optimizations).form(Gva(CODE), limits)
    assert region.blocks
    return region


# A function that calls one that is too large to be copied, and goes in a circle.
CALLER = (
    "main: push {lr}; loop: bl callee; subs r5, r5, #1; bne loop; pop {pc}; callee: "
    + "add r0, r0, #1; " * 40
    + "bx lr"
)
LOOP, BACK, CALLEE = CODE + 4, CODE + 8, CODE + 20


def test_a_region_is_entered_at_its_functions() -> None:
    assert list(form(KnownCode(CALLER), limits=BACKLOG).entries) == [CODE, CALLEE]
    assert list(form(KnownCode(CALLER)).entries) == [CODE]
    assert list(form(KnownCode(CALLER), Optimizations.without("entries"), BACKLOG).entries) == [CODE]


def test_a_function_that_another_region_is_entered_at_is_not_compiled_again_and_comes_back_to_an_entry() -> None:
    region = form(KnownCode(CALLER, (CALLEE,)), limits=BACKLOG)
    assert CALLEE not in region.code_words() and BACK in region.code_words()
    assert list(region.entries) == [CODE, BACK]
    assert CALLEE in form(KnownCode(CALLER, (CALLEE,)), Optimizations.without("sharing"), BACKLOG).code_words()
    assert CALLEE in form(KnownCode(CALLER, (CALLEE,))).code_words()


def test_the_compile_record_says_what_became_of_a_call_that_is_not_followed() -> None:
    """It is the call to that function, and not one whose target nobody has seen."""
    code = KnownCode(CALLER, (CALLEE,))
    for region, why in (
        (form(code, limits=BACKLOG), "another region is entered there, and control comes back from it"),
        (form(code, Optimizations.without("calls")), "calls are not followed"),
    ):
        summary = read_compile_record(CompileRecorder(region, True, 0.0).finish(b""))
        edges = [edge for block in summary["blocks"] for edge in block["edges"] if edge["kind"] == "call"]
        assert edges == [{"kind": "call", "to": None, "pc": CALLEE, "why": why}]


def test_where_a_region_has_the_code_but_is_not_entered_the_next_is_entered_after_calls_and_at_loops() -> None:
    assert set(form(KnownCode(CALLER, all_covered=True), limits=BACKLOG).entries) == {CODE, LOOP, BACK, CALLEE}


def test_what_is_near_is_compiled_though_another_region_is_entered_there() -> None:
    code = KnownCode("main: " + "add r0, r0, #1; " * 20 + "cmp r0, #0; beq main; " + "add r1, r1, #1; " * 20 + "b main")
    far = CODE + 4 * 22
    code.entries = (far,)
    assert far in form(code, limits=BACKLOG).code_words()
    assert far not in form(code, limits=Limits(near=20)).code_words()


def test_a_region_made_in_backlog_mode_is_smaller() -> None:
    code = KnownCode("main: " + "add r0, r0, #1; cmp r0, #0; beq main; " * 200 + "b main")
    assert BACKLOG.insns - 64 < form(code, limits=BACKLOG).insns <= BACKLOG.insns < form(code).insns
