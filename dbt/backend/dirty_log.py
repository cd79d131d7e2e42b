"""The dirty log in native code: entering a page of RAM before the first store to it in an epoch.

Stores that hit a shadow page table need not look: an entry for stores is filled only for a page that is in the log, and
an epoch begins by nulling them. See :mod:`dbt.memory.dirty_log`.
"""

from __future__ import annotations

from dbt.abi.layout import DIRTY_CONTENT, DIRTY_COUNT, DIRTY_PAGES, PAGE_LOGGED, PAGE_SHIFT
from dbt.backend.builder import Builder, define


def _log_page() -> Builder:
    """``log_page(cpu, gpa)``: enter the page of RAM at a GPA into the dirty log, with its content if that is kept.

    Nothing changes if the page is there already. The log has room for every page.
    """
    f = define("log_page", {"gpa": "i64"}, attributes="noinline")
    page = f["gpa"] >> PAGE_SHIFT
    flags = f.page_flags_pointer(page)
    with f.when(flags.load("i8").has(PAGE_LOGGED)):
        f.ret()
    f.store(flags.load("i8") | PAGE_LOGGED, flags)
    log = f.load_native("dirty_log", "ptr")
    count = log.at(DIRTY_COUNT).load("i64")
    f.store(page.to("i32"), log.at(DIRTY_PAGES).element("i32", count))
    content = log.at(DIRTY_CONTENT).load("ptr")
    with f.when(content.ne(0)):
        f.copy_page(f.load_native("ram_host", "ptr").at(page << PAGE_SHIFT), content.at(count << PAGE_SHIFT))
    f.store(count + 1, log.at(DIRTY_COUNT))
    f.ret()
    return f


def _undo_stores() -> Builder:
    """``undo_stores(cpu)``: give the pages in the log the contents that they had, and take them out of the log.

    Precondition: the contents are kept. The last page comes first: of a page that is there twice, the older content
    counts.
    """
    f = define("undo_stores", {}, attributes="noinline")
    log = f.load_native("dirty_log", "ptr")
    content, count = log.at(DIRTY_CONTENT).load("ptr"), log.at(DIRTY_COUNT).load("i64")
    with f.count(0, count, type_="i64") as number:
        at = count - number - 1
        page = log.at(DIRTY_PAGES).element("i32", at).load("i32").to("i64")
        f.copy_page(content.at(at << PAGE_SHIFT), f.load_native("ram_host", "ptr").at(page << PAGE_SHIFT))
        flags = f.page_flags_pointer(page)
        f.store(flags.load("i8") & (0xFF - PAGE_LOGGED), flags)
    f.store(f.value("i64", 0), log.at(DIRTY_COUNT))
    f.ret()
    return f


def dirty_log_text() -> str:
    """Return the LLVM text of this module's definitions."""
    return _log_page().text() + _undo_stores().text()
