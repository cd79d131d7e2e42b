"""Hot lists: what one run writes down is what the next one reads, and nothing else in a file does harm."""

from __future__ import annotations

import random
import struct

import pytest

from dbt.abi.addresses import Gpa, Gva, Hva, MappedPage
from dbt.abi.layout import OPS_PER_PAGE, PAGE_SIZE, TARGET_ENTRIES
from dbt.engine.hot_list import MAGIC, MOST_REQUESTS, HotList
from dbt.engine.messages import CompileRequest, PageNotice, TargetNotice, WrongMessage, pack_forget
from tests.codecache.samples import CONTEXT

PAGES = (MappedPage(0xC0000, 8), MappedPage(0xC0001, 9))
OTHERS = (MappedPage(0xC0000, 8),)


def notices(count: int = 3) -> list[PageNotice | TargetNotice]:
    data = random.Random(count)
    pages = [PageNotice(page, data.randbytes(PAGE_SIZE), data.randbytes(OPS_PER_PAGE)) for page in range(8, 8 + count)]
    return [*pages, TargetNotice(data.randbytes(8 * TARGET_ENTRIES))]


def requests(*pages: tuple[MappedPage, ...] | None) -> list[CompileRequest]:
    return [
        CompileRequest(Gpa(0x8000 + 4 * number), Gva(0xC0008000 + 4 * number), CONTEXT, which, False, b"words")
        for number, which in enumerate(pages)
    ]


def test_a_list_is_read_as_it_was_written() -> None:
    wanted = requests(PAGES, PAGES, OTHERS, None, None, PAGES, PAGES)
    found = HotList.unpack(HotList(Hva(0x7F0012340000), notices(), wanted).pack())
    assert found.code_pages_address == 0x7F0012340000
    assert found.requests == wanted
    assert list(found.changes()) == notices()
    assert list(found.changes()) == []
    found.forget_told()
    assert list(found.changes()) == notices()


def test_a_page_map_is_written_once_for_all_that_follow_each_other_with_it() -> None:
    pages = tuple(MappedPage(number, number + 1) for number in range(1000))
    sizes = [len(HotList(Hva(0), [], requests(*[pages] * count)).pack()) for count in (1, 2, 3)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] < 300


def test_only_so_many_requests_are_written_and_read() -> None:
    data = HotList(Hva(0), [], requests(*[None] * (MOST_REQUESTS + 10))).pack()
    assert len(HotList.unpack(data).requests) == MOST_REQUESTS
    one = HotList(Hva(0), [], requests(None)).pack()
    rest = one[len(HotList(Hva(0), [], []).pack()) :]
    with pytest.raises(WrongMessage):
        HotList.unpack(data + rest)


def test_what_is_no_list_is_refused() -> None:
    whole = HotList(Hva(0), notices(1), requests(PAGES)).pack()
    empty = HotList(Hva(0), [], []).pack()
    head = struct.pack("<I", 0xFFFFFFFF)
    for data in (b"", MAGIC, whole[1:], whole[:-1], b"DBTHOT00" + whole[8:], whole + head, whole + pack_forget(0)):
        with pytest.raises(WrongMessage):
            HotList.unpack(data)
    with pytest.raises(WrongMessage):
        HotList.unpack(empty + empty[len(MAGIC) :])  # a second machine


def test_damage_is_refused_or_gives_a_list_of_the_same_form() -> None:
    """A checksum finds damage before. This is about bytes that somebody has put there."""
    whole = HotList(Hva(0), notices(1), requests(PAGES, PAGES, None)).pack()
    chosen = random.Random(5)
    refused = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chosen.randrange(1, 4)):
            at = chosen.randrange(len(data))
            # Most of a list is the content of pages, where any byte will do.
            at = chosen.choice((at, at % 64, len(data) - 1 - at % 600))
            data[at] = chosen.randrange(256)
        try:
            found = HotList.unpack(bytes(data))
        except WrongMessage:
            refused += 1
            continue
        assert all(isinstance(request, CompileRequest) for request in found.requests)
        assert all(isinstance(notice, (PageNotice, TargetNotice)) for notice in found.changes())
        HotList.unpack(found.pack())
    assert refused > 300
