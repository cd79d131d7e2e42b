"""Memory of a process that goes back to what a file has, in native code, which writes to no memory of Python meanwhile.

See :mod:`dbt.hypervisor.process.originals`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from mmap import MADV_DONTNEED, MAP_PRIVATE, PROT_READ, PROT_WRITE

from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.backend.builder import Builder, Value, define

_WORD = 8
_MAP_FIXED = 0x10
_FAILED = -1


def _put_into_file() -> Builder:
    """``put_into_file(_, address, size, copy, file, offset, mmap)``: copy memory to ``copy``, where the file is mapped
    from ``offset`` on, and map the file there instead. ``mmap`` is the C library's. Return what that returns.
    """
    parameters = {"address": "ptr", "size": "i64", "copy": "ptr", "file": "i32", "offset": "i64", "mmap": "ptr"}
    f = define("put_into_file", parameters, "i64", "noinline")
    address, size = f["address"], f["size"]
    with f.count(0, size, PAGE_SIZE, "i64") as at:
        f.copy_page(address.at(at), f["copy"].at(at))
    f.ret(f.call(f["mmap"], address, size, *_private(f), f["file"], f["offset"], result="i64"))
    return f


@contextmanager
def _equal_pages(f: Builder) -> Iterator[tuple[Value, Value]]:
    """Execute the body with each page whose byte in ``marks`` is not 0 and which is equal to the one of ``original``:
    with its number and its address. Its byte is 0 afterwards.
    """
    at = f.variable("i64", 0)
    with f.count(0, f["pages"], type_="i64") as number, f.when(f["marks"].at(number).load("i8").ne(0)):
        page, original = f["address"].at(number << PAGE_SHIFT), f["original"].at(number << PAGE_SHIFT)
        at.set(0)
        with f.repeat() as loop:
            offset = at.get()
            with f.when(offset.uge(PAGE_SIZE)):
                yield number, page
                f.store(f.value("i8", 0), f["marks"].at(number))  # which may be in that page
                loop.leave()
            with f.when(page.at(offset).load("i64").ne(original.at(offset).load("i64"))):
                loop.leave()
            at.set(offset + _WORD)


def _drop_equal() -> Builder:
    """``drop_equal(_, address, pages, marks, original, madvise)``: give back the pages of :func:`_equal_pages`. Return
    how many these are. ``madvise`` is the C library's.

    Precondition: the memory is mapped from the file that ``original`` shows.
    """
    parameters = {"address": "ptr", "pages": "i64", "marks": "ptr", "original": "ptr", "madvise": "ptr"}
    f = define("drop_equal", parameters, "i64", "noinline")
    dropped = f.variable("i64", 0)
    with _equal_pages(f) as (_, page):
        f.call(f["madvise"], page, f.value("i64", PAGE_SIZE), f.value("i32", MADV_DONTNEED), result="i32")
        dropped.set(dropped.get() + 1)
    f.ret(dropped.get())
    return f


def _map_equal() -> Builder:
    """``map_equal(_, address, pages, marks, original, file, offset, mmap)``: map ``file`` instead of the pages of
    :func:`_equal_pages`. ``original`` shows it from ``offset`` on. Return how many these are. ``mmap`` is the C
    library's.
    """
    parameters = {"address": "ptr", "pages": "i64", "marks": "ptr", "original": "ptr"}
    f = define("map_equal", {**parameters, "file": "i32", "offset": "i64", "mmap": "ptr"}, "i64", "noinline")
    mapped = f.variable("i64", 0)
    with _equal_pages(f) as (number, page):
        offset = f["offset"] + (number << PAGE_SHIFT)
        done = f.call(f["mmap"], page, f.value("i64", PAGE_SIZE), *_private(f), f["file"], offset, result="i64")
        with f.when(done.eq(_FAILED)):  # the process has as many mappings as it may have; what was there is there
            f.ret(mapped.get())
        mapped.set(mapped.get() + 1)
    f.ret(mapped.get())
    return f


def _private(f: Builder) -> tuple[Value, Value]:
    """Return protection and flags of memory that shows a file until it is stored to, at a fixed address."""
    return f.value("i32", PROT_READ | PROT_WRITE), f.value("i32", MAP_PRIVATE | _MAP_FIXED)


def originals_text() -> str:
    """Return the LLVM text of this module's definitions."""
    return "".join(function().text() for function in (_put_into_file, _drop_equal, _map_equal))
