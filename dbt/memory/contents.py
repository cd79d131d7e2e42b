"""The content of RAM, page by page, without a look at pages that were never touched.

Of which pages the host has anything, in memory or swapped out, the kernel's page map tells.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from dbt.abi.addresses import Gpa, Hva
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.memory.ram import Ram

_PAGE_MAP = "/proc/self/pagemap"
_ZERO_PAGE = bytes(PAGE_SIZE)
#: The size in bytes of the pieces in which pages are examined.
_CHUNK = 64 << 10
_ZERO_CHUNK = bytes(_CHUNK)
#: The last byte of an entry of the page map: whether the page is in memory, and whether it is swapped out.
_PRESENT_OR_SWAPPED = 0xC0
_KEEP_THOSE_BITS = bytes(byte & _PRESENT_OR_SWAPPED for byte in range(256))


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


def touched(ram: Ram, page_map: str = _PAGE_MAP) -> Iterator[tuple[Gpa, int]]:
    """Yield GPA and size in bytes of the parts of RAM that the host has pages for, in the order of their addresses.

    All other pages are zero. Where there is no ``page_map``, all of RAM is one such part.
    """
    for region in ram.layout.regions:
        pages = _private_pages(Hva(ram.address + region.base), region.size, page_map)
        for run in re.finditer(rb"[^\0]+", pages):
            yield Gpa(region.base + (run.start() << PAGE_SHIFT)), (run.end() - run.start()) << PAGE_SHIFT


def _private_pages(address: Hva, size: int, page_map: str) -> bytearray:
    """Return a byte for each page. It is not 0 if this process has the page in memory or swapped out."""
    count = size >> PAGE_SHIFT
    try:
        fd = os.open(page_map, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return bytearray(b"\1" * count)
    try:
        entries = bytearray()
        first = address >> PAGE_SHIFT
        while len(entries) < 8 * count:
            entries += os.pread(fd, 8 * count - len(entries), 8 * first + len(entries))
    finally:
        os.close(fd)
    return entries[7::8].translate(_KEEP_THOSE_BITS)
