"""Code pages that machines share as long as nothing is decoded in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbt import Machine
from dbt.abi.layout import CODE_PAGE_STRIDE
from dbt.engine.initial_ops import SIZE
from dbt.engine.native import NativeCode
from dbt.vm.options import TierName
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.engine.mapped_memory import mapped_kb

#: It executes a little of each of the first 200 pages, writes over the code of each, and begins again.
_GUEST = assemble("""
    start:  mov     r4, #0x10000 ; ldr r5, page ; ldr r6, page + 4 ; mov r7, #200
    next:   stmia   r4, {r5, r6} ; mov r8, r4
    mov     lr, pc
    mov     pc, r4
            add     r5, r5, #1 ; add r4, r4, #4096 ; subs r7, r7, #1 ; bne next
            add     r9, r9, r0 ; b start
    page:   add     r0, r0, #1 ; mov pc, lr
""")


@pytest.fixture
def shared() -> Iterator[NativeCode]:
    native = NativeCode.share(print)
    native.share_initial_ops()
    yield native
    assert native.initial_ops is not None
    native.initial_ops.close()
    native.initial_ops = None
    native.close()


def run(tier: TierName, memory: int = 4 << 20, rests: bool = False) -> tuple[str, int]:
    with Machine(memory, tier=tier, jit="off") as machine:
        machine.load_bytes(_GUEST, base=0, entry=0)
        for _ in range(10):
            machine.run(fuel=1500)
            if rests:
                machine.tier.rest(deep=True)
        return state_hash(machine), own_kb()


def own_kb() -> int:
    """Return what this process has copies of, of what is mapped from the file, in KiB."""
    return mapped_kb("dbt-initial-ops", "Anonymous")


@pytest.mark.parametrize("tier", ["threaded", "stitched", "auto"])
def test_a_machine_with_shared_code_pages_does_the_same(tier: TierName, request: pytest.FixtureRequest) -> None:
    expected, without = run(tier)
    assert without == 0
    request.getfixturevalue("shared")
    found, own = run(tier)
    assert found == expected
    assert 200 * 4 <= own < 200 * 12  # of the 36 KiB that a code page has
    found, own = run(tier, rests=True)
    assert found == expected
    assert own == 0


def test_memory_larger_than_the_file(shared: NativeCode) -> None:
    memory = 3 * (SIZE // CODE_PAGE_STRIDE << 12) + (1 << 20)
    base = memory - (1 << 19)
    with Machine(memory, tier="threaded") as machine:
        machine.load_bytes(assemble("mov r0, #5 ; 1: add r0, r0, #1 ; b 1b"), base=base, entry=base)
        machine.run(fuel=101)
        assert machine.r[0] == 55
