"""What earlier runs left is compiled while the guest runs. Whatever a list says, the guest's state is the same."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa, Gva, Hva, MappedPage
from dbt.abi.layout import OPS_PER_PAGE, PAGE_SIZE, TARGET_ENTRIES
from dbt.codecache.handlers import image_key
from dbt.codecache.hot_list_store import HotListStore
from dbt.engine.hot_list import HotList
from dbt.engine.messages import CompileRequest, PageNotice, TargetNotice, pack_forget
from dbt.engine.region_tier import RegionTier
from dbt.engine.unfinished import write_down_unfinished_work
from dbt.engine.worker import CompileClient
from dbt.frontend.context import TranslationContext
from dbt.frontend.optimizations import Optimizations
from dbt.host.console import CaptureConsole
from dbt.memory.ram import RamLayout
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from isa.arm.state import SCTLR_M
from tests.assembler import assemble
from tests.vm.programs import BASE, EXIT, make_elf
from tests.waiting import BOUND_S

MEMORY = 1 << 20
SLICE = 400_000
#: Two loops and two functions, for ever.
CODE = assemble("""
    start: ldr r4, =30000
    outer: mov r0, r4 ; bl mix ; add r5, r5, r0 ; subs r4, r4, #1 ; bne outer
    ldr r4, =30000
    other: bl fold ; subs r4, r4, #1 ; bne other
    b start
    mix: eor r0, r0, r0, ror #7 ; add r0, r0, #13 ; bx lr
    fold: eor r5, r5, r5, lsl #5 ; eor r6, r6, r5, lsr #3 ; bx lr
""")
WORDS = CODE.ljust(PAGE_SIZE, b"\0")


def machine(**options: object) -> Machine:
    made = Machine(MEMORY, console=CaptureConsole(), **options)  # type: ignore[arg-type]
    made.load_bytes(make_elf(CODE))
    return made


def context() -> TranslationContext:
    with machine(jit="off") as made:
        assert isinstance(made.tier, RegionTier)
        return made.tier.context


def request(gpa: int, under: TranslationContext, pages: tuple[MappedPage, ...] | None = None) -> CompileRequest:
    return CompileRequest(Gpa(gpa), Gva(gpa), under, pages, False, CODE[:32])


def executed(words: bytes, page: int = BASE >> 12) -> PageNotice:
    return PageNotice(page, words, b"\1" * OPS_PER_PAGE)


def honest(under: TranslationContext) -> HotList:
    return HotList(Hva(0), [executed(WORDS)], [request(BASE + 4, under), request(BASE + 4 * 7, under)])


def with_other_code(under: TranslationContext) -> HotList:
    """Code that was another when it was written down: here subtractions were additions."""
    words = assemble("ldr r4, =7 \n outer: mov r0, r4 ; add r0, r0, #1 ; subs r4, r4, #1 ; bne outer ; b .")
    return HotList(Hva(0), [executed(words.ljust(PAGE_SIZE, b"\0"))], [request(BASE + 4, under)])


def with_random_content(under: TranslationContext) -> HotList:
    data = random.Random(3)
    notices: list[PageNotice | TargetNotice] = [
        PageNotice(data.randrange(1 << 20), data.randbytes(PAGE_SIZE), data.randbytes(OPS_PER_PAGE)) for _ in range(4)
    ]
    notices += [executed(data.randbytes(PAGE_SIZE)), TargetNotice(data.randbytes(8 * TARGET_ENTRIES))]
    return HotList(Hva(0x123456789), notices, [request(BASE + 4 * number, under) for number in range(10)])


def with_strange_addresses(under: TranslationContext) -> HotList:
    strange = [request(gpa, under) for gpa in (0, 2, BASE + 5, MEMORY - 4, MEMORY, 0x8000_0000, 0xFFFF_FFFF)]
    pages = (MappedPage(0xFFFFF, 0xFFFFF), MappedPage(8, 0xFFFFFFFF))
    virtual = [request(gpa, under._replace(has_mmu=True), pages) for gpa in (BASE, 0xFFFF_F000)]
    return HotList(Hva(0), [executed(WORDS), executed(WORDS, 0xFFFFF), executed(WORDS, 0)], strange + virtual)


def with_other_contexts(under: TranslationContext) -> HotList:
    others = [under._replace(checks_alignment=True), under._replace(has_mmu=True)]
    return HotList(Hva(0), [executed(WORDS)], [request(BASE + 4, other) for other in others])


@pytest.mark.parametrize(
    "lie", [honest, with_other_code, with_random_content, with_strange_addresses, with_other_contexts]
)
def test_whatever_a_list_says_the_state_is_the_same(
    lie: Callable[[TranslationContext], HotList], only_handlers: Path
) -> None:
    with machine(jit="off") as made:
        identity = made.program_identity
    HotListStore(image_key()).save(identity, [lie(context()).pack(), lie(context()).pack()])
    with machine() as guest:
        deadline = time.monotonic() + BOUND_S
        guest.run(fuel=SLICE)
        regions = guest.tier.regions
        assert regions is not None and regions.left, "the list is not used: this test tests nothing"
        while regions.left:
            assert time.monotonic() < deadline
            guest.run(fuel=SLICE)
            regions = guest.tier.regions
            assert regions is not None
        guest.run(fuel=SLICE)
        if lie is honest:
            assert regions.counts.earlier or regions.counts.loaded
        with machine(tier="threaded") as other:
            other.run(fuel=guest.icount)
            assert state_hash(guest) == state_hash(other)


def test_a_machine_that_is_closed_leaves_what_it_had_asked_for(
    only_handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next machine has it compiled first, also that of another process."""
    # On a host that gives this process little time the compiler may be done before the guest has executed its share.
    monkeypatch.setattr(CompileClient, "poll", lambda client: [])
    store = HotListStore(image_key())
    with machine() as guest:
        identity = guest.program_identity
        assert store.load(identity) == []
        guest.run(fuel=200_000)
        regions = guest.tier.regions
        assert regions is not None and regions.worker.pending
    (part,) = store.load(identity)
    found = HotList.unpack(part)
    assert {request.gpa for request in found.requests} >= {BASE + 4}
    assert all(request.context == context() and not request.backlog for request in found.requests)
    with machine() as guest:
        guest.run(fuel=200_000)
        regions = guest.tier.regions
        assert regions is not None and regions.left == len(found.requests) and not regions.worker.pending
    assert len(store.load(identity)) == 1, "what is left stays"


def test_another_program_in_the_same_machine_has_a_list_of_its_own(only_handlers: Path) -> None:
    store = HotListStore(image_key())
    with machine() as guest:
        first = guest.program_identity
        guest.load_bytes(make_elf(assemble("mov r1, #0 \n 1: add r1, r1, #1 ; eor r2, r2, r1 ; b 1b")))
        second = guest.program_identity
        assert first != second
        guest.run(fuel=200_000)
    assert store.load(first) == [] and len(store.load(second)) == 1


def test_a_machine_without_a_program_leaves_nothing(only_handlers: Path) -> None:
    with Machine(MEMORY, console=CaptureConsole()) as guest:
        guest.write(BASE, CODE)
        guest.pc = BASE
        assert guest.program_identity == b""
        guest.run(fuel=200_000)
    assert not list(only_handlers.glob("*/*.hot"))


def test_what_other_machines_want_is_left_to_them(only_handlers: Path) -> None:
    """A run with other options would have its regions compiled for nothing."""
    store = HotListStore(image_key())
    under = context()
    others = (
        under._replace(ram=RamLayout.of(1 << 24)),
        under._replace(architecture=7),
        under._replace(compile_records=True),
        under._replace(optimizations=Optimizations.without("literals")),
    )
    wanted = [request(BASE + 4, other) for other in others]
    with machine() as guest:
        identity = guest.program_identity
        store.save(identity, [HotList(Hva(0), [executed(WORDS)], [*wanted, request(BASE + 4, under)]).pack()])
        guest.run(fuel=SLICE)
        regions = guest.tier.regions
        assert regions is not None and regions.left == 1
    parts = [HotList.unpack(part) for part in store.load(identity)]
    assert [one for part in parts for one in part.requests if one.context != under] == wanted


#: With the MMU on, three loops with calls. Then the MMU is off, and the guest ends.
UNDER_MMU = assemble(f"""
    ldr r0, =0x4000 ; ldr r1, =0xC02 ; str r1, [r0] ; mcr p15, #0, r0, c2, c0, #0
    mov r1, #1 ; mcr p15, #0, r1, c3, c0, #0
    mrc p15, #0, r8, c1, c0, #0 ; orr r7, r8, #{SCTLR_M} ; mcr p15, #0, r7, c1, c0, #0
    mov r4, #9984 ; one: bl mix ; subs r4, r4, #1 ; bne one
    mov r4, #9984 ; two: bl fold ; bl mix ; subs r4, r4, #1 ; bne two
    mov r4, #9984 ; three: add r5, r5, r4 ; subs r4, r4, #1 ; bne three
    mcr p15, #0, r8, c1, c0, #0 ; mcr p15, #0, r0, c8, c7, #0
    {EXIT}
    mix: eor r0, r0, r0, ror #7 ; add r0, r0, #13 ; bx lr
    fold: eor r5, r5, r5, lsl #5 ; eor r6, r6, r5, lsl #3 ; bx lr
""")


def test_what_was_hot_under_the_mmu_is_left_though_the_mmu_is_off_at_the_end(
    only_handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Linux ends so, and what its programs had in memory is no longer mapped then."""
    monkeypatch.setattr("dbt.engine.region_tier._IN_FLIGHT", 0)  # all of it waits
    with Machine(MEMORY, console=CaptureConsole()) as guest:
        guest.load_bytes(make_elf(UNDER_MMU))
        identity = guest.program_identity
        assert guest.run(fuel=SLICE).reason is StopReason.EXITED
        assert not guest.cpu["sctlr"] & SCTLR_M
    (part,) = HotListStore(image_key()).load(identity)
    found = HotList.unpack(part)
    assert len(found.requests) >= 3
    page = MappedPage(BASE >> 12, BASE >> 12)
    assert all(request.context.has_mmu and request.pages == (page,) for request in found.requests)
    assert [notice.page for notice in found.changes() if isinstance(notice, PageNotice)] == [page.physical]


#: A loop, which is written over before the guest comes to another one that does not end.
WRITTEN_OVER = assemble("""
    ldr r4, =2000000
    first: eor r5, r5, r4, ror #3 ; add r5, r5, r5, lsr #5 ; subs r4, r4, #1 ; bne first
    adr r1, first ; mov r2, #0 ; str r2, [r1] ; str r2, [r1, #4]
    second: add r6, r6, #1 ; b second
""")


def test_what_had_to_wait_is_left_as_it_was_though_it_is_written_over(
    only_handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel's decompressor is such code. The next run has it compiled from the copy."""
    monkeypatch.setattr("dbt.engine.region_tier._IN_FLIGHT", 0)  # all of it waits
    monkeypatch.setenv("DBT_HOT_AFTER", "4096")
    first = BASE + 4
    with Machine(MEMORY, console=CaptureConsole()) as guest:
        guest.load_bytes(make_elf(WRITTEN_OVER))
        identity = guest.program_identity
        guest.run(fuel=8_100_000)
        assert guest.read(first, 4) == bytes(4)
    lists = [HotList.unpack(part) for part in HotListStore(image_key()).load(identity)]
    (found,) = [one for one in lists if first in [request.gpa for request in one.requests]]
    (page,) = [one for one in found.changes() if isinstance(one, PageNotice) and one.page == BASE >> 12]
    assert page.words.startswith(WRITTEN_OVER[:24])
    with Machine(MEMORY, console=CaptureConsole()) as guest:
        guest.load_bytes(make_elf(WRITTEN_OVER))
        deadline = time.monotonic() + BOUND_S
        guest.run(fuel=100_000)
        while (regions := guest.tier.regions) is not None and regions.left:
            assert time.monotonic() < deadline
            guest.run(fuel=1000)
        assert regions is not None and regions.counts.earlier + regions.counts.loaded >= 1


@pytest.mark.parametrize("delivered", [False, True])
def test_what_the_compiler_has_not_learned_of_is_left_when_the_process_ends(
    delivered: bool, only_handlers: Path
) -> None:
    """The compiler finishes what it has been sent. The pipe may have had no room for more while it started."""
    with machine() as guest:
        guest.run(fuel=200_000)
        assert isinstance(guest.tier, RegionTier)
        pending, child = guest.tier.compiler.unanswered, guest.tier.compiler._worker._child
        assert pending and child is not None and not child.has_unsent
        if not delivered:
            child.put(pack_forget(99))
        write_down_unfinished_work()
        parts = [HotList.unpack(part) for part in HotListStore(image_key()).load(guest.program_identity)]
    left = [request for part in parts for request in part.requests]
    assert {request.gpa in [one.gpa for one in left] for request in pending} == {not delivered}
