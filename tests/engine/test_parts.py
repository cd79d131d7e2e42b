"""The small parts of the region tier: the arena, the queue of hot code, and the messages to the compiler."""

from __future__ import annotations

import ctypes
import random

import pytest

from dbt.abi.addresses import Gpa, Gva, Hva, MappedPage
from dbt.abi.layout import TARGET_ENTRIES, WORD_CHANGES, WORD_EXECUTED
from dbt.backend.block_flows import BlockFlows
from dbt.backend.compiled import Refused
from dbt.codecache.region_store import StoreCounts
from dbt.engine.arena import COUNTERS_SIZE, CodeArena, FreeSpace, lease_arena
from dbt.engine.hot_queue import COLD_AFTER, HotQueue
from dbt.engine.messages import (
    CompileRequest,
    CompileResult,
    MachineNotice,
    Notice,
    PageNotice,
    TargetNotice,
    WrongMessage,
    framed,
    pack_forget,
    pack_machine,
    pack_page,
    pack_request,
    pack_result,
    pack_targets,
    take_messages,
    unpack_notice,
    unpack_result,
)
from dbt.engine.mirror import CodeMirror
from tests.codecache.samples import CONTEXT, region

# -- the arena ----------------------------------------------------------------------------------------


def test_free_space_is_handed_out_once_and_comes_together_again() -> None:
    rng = random.Random(5)
    space, taken = FreeSpace(1000), dict[int, int]()
    for _ in range(3000):
        if taken and rng.random() < 0.5:
            start = rng.choice(list(taken))
            space.give_back(start, taken.pop(start))
        else:
            size = rng.randint(1, 120)
            found = space.take(size)
            if found is None:
                used = sorted(taken.items())
                ends = [0, *(start + size for start, size in used)]
                gaps = [start - end for end, (start, _) in zip(ends, [*used, (1000, 0)], strict=True)]
                assert max(gaps) < size
            else:
                assert all(found + size <= start or start + length <= found for start, length in taken.items())
                assert found >= 0 and found + size <= 1000
                taken[found] = size
    for start, size in taken.items():
        space.give_back(start, size)
    assert space.take(1000) == 0


def test_equal_code_is_placed_once_and_freed_with_its_last_user() -> None:
    arena = CodeArena(4096)
    first, again, other = arena.place(b"abc"), arena.place(b"abc"), arena.place(b"xyz")
    assert first == again and other is not None and other != first
    assert arena.place(bytes(4000)) is None
    assert first is not None
    arena.release(first)
    assert arena.place(b"abc") == first
    arena.release(first)
    arena.release(first)
    last = arena.place(b"def")
    assert last is not None and last.address == first.address
    arena.release(last)
    arena.release(other)
    whole = arena.place(bytes(4000))
    assert whole is not None and whole.address == first.address
    arena.close()


def test_code_that_counts_is_placed_for_each_user_with_counters_of_its_own() -> None:
    flows = BlockFlows(2, ((1, 4),), ())
    arena = CodeArena(4096)
    placed = [arena.place(b"\xe9abcd", flows) for _ in range(2)]
    for one in placed:
        assert one is not None and one.counters is not None
        code, counters = ctypes.string_at(one.address, 5), (ctypes.c_uint64 * 2).from_address(one.counters)
        assert one.address + 1 + int.from_bytes(code[1:], "little", signed=True) == one.counters + 4
        assert list(counters) == [0, 0]
        counters[0] = counters[1] = 5  # which the next user must not see
    first, second = placed
    assert first is not None and second is not None and first.counters != second.counters
    arena.release(first)
    again = arena.place(b"\xe9abcd", flows)
    assert again == first and again.counters is not None
    assert (ctypes.c_uint64 * 2).from_address(again.counters)[0] == 0
    assert arena.place(b"\xe9abcd", BlockFlows(COUNTERS_SIZE // 8, (), ())) is None  # there are not so many
    plain = arena.place(b"\xe9abcd")
    assert plain is not None and plain.counters is None
    arena.close()


def test_the_arena_is_one_for_all_and_ends_with_its_last_lease() -> None:
    first, second = lease_arena(), lease_arena()
    address = first.place(b"abc")
    assert address is not None and second.place(b"abc") == address  # and the same code
    assert second.place(b"xyz") != address
    first.close()
    first.close()
    assert second.place(b"abc") == address
    second.close()


# -- the queue ----------------------------------------------------------------------------------------


def asked(gpa: int) -> CompileRequest:
    return CompileRequest(Gpa(gpa), Gva(gpa), CONTEXT)


def test_the_hottest_comes_first_and_of_these_the_most_recent() -> None:
    queue = HotQueue()
    for number in range(5):
        queue.add(asked(number), now=number)
    queue.heat(Gpa(1), now=10)
    queue.heat(Gpa(99), now=10)  # does not wait
    assert [queue.take().gpa for _ in range(len(queue))] == [1, 4, 3, 2, 0]


def test_what_is_not_hot_any_more_is_dropped() -> None:
    queue = HotQueue()
    queue.add(asked(4), now=0)
    queue.add(asked(8), now=0)
    queue.heat(Gpa(8), now=1000)
    assert queue.drop_cold(COLD_AFTER) == []
    assert queue.drop_cold(COLD_AFTER + 1) == [4]
    assert queue.take().gpa == 8 and not len(queue)


# -- messages -----------------------------------------------------------------------------------------

PAGE = PageNotice(5, bytes(range(256)) * 16, bytes([WORD_EXECUTED, WORD_CHANGES]) * 512)
TARGETS = TargetNotice(bytes(range(256)) * (TARGET_ENTRIES // 32))
REQUESTS = [
    CompileRequest(Gpa(0x8000), Gva(0x8000), CONTEXT, named=b"abc"),
    CompileRequest(Gpa(0x8000), Gva(0xC0008000), CONTEXT, (MappedPage(0xC0008, 8), MappedPage(1, 2)), backlog=True),
    CompileRequest(Gpa(0xFFFFFFFC), Gva(0), CONTEXT, ()),
]
NOTICES: list[tuple[bytes, Notice]] = [
    (pack_machine(7, notice), notice)
    for notice in (MachineNotice(Hva(1 << 47), True, {"A": "b=c", "D": "\udcff"}), MachineNotice(Hva(0), False, {}))
]
NOTICES += [(pack_page(7, PAGE), PAGE), (pack_targets(7, TARGETS), TARGETS), (pack_forget(7), None)]
NOTICES += [(pack_request(7, 3, request), (3, request)) for request in REQUESTS]
RESULTS = [CompileResult(9, 0.25, answer, StoreCounts(1, 2, 3, 4)) for answer in (Refused("why"), region(0x8000))]


def test_messages_come_out_as_they_went_in_however_they_are_cut() -> None:
    received, found = bytearray(), []
    for byte in range(0, len(stream := b"".join(packed for packed, _ in NOTICES)), 777):
        received += stream[byte : byte + 777]
        found += [unpack_notice(body) for body in take_messages(received)]
    assert found == [(7, notice) for _, notice in NOTICES]
    assert not received
    bodies = list(take_messages(bytearray(b"".join(map(pack_result, RESULTS)))))
    assert list(map(unpack_result, bodies)) == RESULTS


def test_whatever_else_comes_is_refused() -> None:
    with pytest.raises(WrongMessage):
        list(take_messages(bytearray(b"\xff\xff\xff\xff")))
    rng = random.Random(1)
    for packed, unpack in [
        *((packed, unpack_notice) for packed, _ in NOTICES),
        *((pack_result(r), unpack_result) for r in RESULTS),
    ]:
        body = bytearray(packed[4:])
        for _ in range(300):
            wrong = body[: rng.randrange(len(body))] if rng.random() < 0.3 else bytearray(body)
            for _ in range(rng.randint(0, 3)):
                if wrong:
                    wrong[rng.randrange(len(wrong))] = rng.randrange(256)
            try:
                unpack(bytes(wrong))
            except WrongMessage:
                continue
    assert framed(b"ab") == b"\2\0\0\0ab"


def test_a_mirror_knows_what_it_was_told() -> None:
    here, between, beside = Gva(0x5000), Gva(0x5001), Gva(0x5004)
    mapped, mapped_beside = Gva(0xC0000000), Gva(0xC0000004)
    mirror = CodeMirror(Hva(0x1_0000_0000))
    assert mirror.executed(here) is mirror.word(here) is mirror.constant(here) is None
    mirror.set_page(PAGE)
    assert (mirror.executed(here), mirror.executed(beside)) == (0x03020100, None)
    assert [mirror.constant(gva) for gva in (here, beside, between)] == [0x03020100, None, None]
    mirror.set_page_map({0xC0000: 5})
    assert (mirror.executed(mapped), mirror.executed(here)) == (0x03020100, None)
    op = 5 << 16 | 32
    mirror.set_targets(TargetNotice((op | 0xABCD << 32).to_bytes(8, "little").ljust(8 * TARGET_ENTRIES, b"\0")))
    assert [mirror.targets(gva) for gva in (mapped_beside, mapped, beside)] == [[0xABCD], [], []]
