"""The content of RAM, page by page, without a look at pages that were never touched.

Of which pages the host has anything, in memory or swapped out, the kernel's page map tells.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from dbt.abi.addresses import Gpa, Hva
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.memory.ram import Ram, RamRegion

_PAGE_MAP = "/proc/self/pagemap"
_ZERO_PAGE = bytes(PAGE_SIZE)
#: The size in bytes of the pieces in which pages are examined.
_CHUNK = 64 << 10
_ZERO_CHUNK = bytes(_CHUNK)
_SET = re.compile(rb"\x01+|[^\x00\x01]+")
#: The last byte of an entry of the page map: whether the page is in memory, whether it is swapped out, and whether it
#: is one of the file that RAM was mapped from, because nothing has been stored to it.
_PRESENT, _SWAPPED, _OF_FILE = 0x80, 0x40, 0x20
_OWN = bytes(bool(byte & (_PRESENT | _SWAPPED) and not byte & _OF_FILE) for byte in range(256))


#: The page map of this process, if it was opened by :func:`keep_page_map_open`.
_KEPT: list[int] = []


def keep_page_map_open() -> None:
    """Open the page map of this process now, because it cannot do so later. A forked process must not use it."""
    _KEPT.append(os.open(_PAGE_MAP, os.O_RDONLY | os.O_CLOEXEC))


def nonzero_pages(ram: Ram) -> Iterator[tuple[Gpa, bytes]]:
    """Yield GPA and content of each page of RAM that is not all zeros, in the order of their addresses."""
    for start, size in touched(ram):
        for chunk_start in range(start, start + size, _CHUNK):
            chunk = bytes(ram.bytes[chunk_start : min(chunk_start + _CHUNK, start + size)])
            if chunk == _ZERO_CHUNK:
                continue
            for offset in range(0, len(chunk), PAGE_SIZE):
                page = chunk[offset : offset + PAGE_SIZE]
                if page != _ZERO_PAGE:
                    yield Gpa(chunk_start + offset), page


def stored(ram: Ram) -> Iterator[tuple[Gpa, int]]:
    """Yield GPA and size in bytes of the parts of RAM that may differ from the file that it was mapped from."""
    for region in ram.layout.regions:
        pages = own_pages(Hva(ram.address + region.base), region.size, _PAGE_MAP)
        for first, end in _detached(ram, region):
            pages[first:end] = b"\1" * (end - first)
        yield from _parts(region.base, pages)


def own_parts(ram: Ram) -> Iterator[tuple[Gpa, int]]:
    """Yield GPA and size in bytes of the parts of RAM that the host keeps for it alone: not what it shows of a file."""
    for region in ram.layout.regions:
        yield from _parts(region.base, own_pages(Hva(ram.address + region.base), region.size, _PAGE_MAP))


def touched(ram: Ram, page_map: str = _PAGE_MAP) -> Iterator[tuple[Gpa, int]]:
    """Yield GPA and size in bytes of the parts of RAM that the host has pages for, in the order of their addresses.

    All other pages are zero. Where there is no ``page_map``, all of RAM is one such part.
    """
    if ram.home is not None:
        for start, size in ram.home.data():
            yield Gpa(start), size
        return
    for region in ram.layout.regions:
        own = own_pages(Hva(ram.address + region.base), region.size, page_map)
        pages = own[:]
        for start, end in () if ram.file is None else ram.file.parts_within(region.base, region.end):
            first, count = start - region.base >> PAGE_SHIFT, end - start >> PAGE_SHIFT
            pages[first : first + count] = b"\1" * count
        base = region.base >> PAGE_SHIFT
        for first, end in _detached(ram, region):
            pages[first:end] = own[first:end]
            if ram.is_pooled(base + first):
                pages[first:end] = b"\1" * (end - first)
        yield from _parts(region.base, pages)


def _detached(ram: Ram, region: RamRegion) -> Iterator[tuple[int, int]]:
    """Yield the runs of pages of a region that show nothing of the file any more, counted from its first page."""
    base = region.base >> PAGE_SHIFT
    for run in _SET.finditer(ram.detached, base, region.end >> PAGE_SHIFT):
        yield run.start() - base, run.end() - base


def _parts(base: Gpa, pages: bytearray) -> Iterator[tuple[Gpa, int]]:
    """Yield GPA and size of the runs of pages whose byte is not 0, where the first page is at ``base``."""
    for run in _SET.finditer(pages):
        yield Gpa(base + (run.start() << PAGE_SHIFT)), (run.end() - run.start()) << PAGE_SHIFT


def own_pages(address: Hva, size: int, page_map: str = _PAGE_MAP) -> bytearray:
    """Return a byte for each page. It is not 0 if this process has the page, and not a page of a file, in memory or
    swapped out.
    """
    count = size >> PAGE_SHIFT
    try:
        fd = os.dup(_KEPT[0]) if _KEPT else os.open(page_map, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return bytearray(b"\1" * count)
    try:
        entries = bytearray()
        first = address >> PAGE_SHIFT
        while len(entries) < 8 * count:
            entries += os.pread(fd, 8 * count - len(entries), 8 * first + len(entries))
    finally:
        os.close(fd)
    return entries[7::8].translate(_OWN)
