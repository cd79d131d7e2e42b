"""Breakpoints and watchpoints of a debugger in native code.

Both are at virtual addresses, under whatever page tables the guest has when it comes there. Each virtual page has a
word, its *debug page*, which says what a debugger wants of it. Without a debugger there are no debug pages.

- An op with a breakpoint has the mark BREAKPOINT and is never decoded. So no region and no stitched code is made from
  it, and ``decode`` leaves. Ops belong to physical pages: they get the marks when the code table is filled for a
  virtual page with breakpoints, for which native code leaves (ARM). Where no breakpoint is, nothing is slower.
- A page with a watched byte is never entered into the shadow page tables for the kind of access that is watched. So
  each such access takes the slow path, which leaves if it touches a watched byte (WATCH).
"""

from __future__ import annotations

from dbt.abi.exits import ExitCode
from dbt.abi.layout import (
    DEBUG_ARMED,
    DEBUG_BREAKS,
    DEBUG_PAGE_SIZE,
    PAGE_SHIFT,
    WATCHPOINT_WORDS,
)
from dbt.backend.builder import Builder, Value, define
from dbt.backend.dispatch import leaving_before

#: Results of ``watch_state``; 0 means that nothing of the page is watched.
WATCHED_PAGE, WATCHED_BYTES = 1, 2


def _debug_page(pages: Value, gva: Value) -> Value:
    """Return the word of the page of a GVA (an i32)."""
    return pages.at((gva >> PAGE_SHIFT).to("i64") * DEBUG_PAGE_SIZE).load("i32")


def watch_state(f: Builder, gva: Value, size: Value, kind: int) -> Value:
    """Return how much of an access is watched, an i32. ``kind`` is DEBUG_LOADS or DEBUG_STORES; sizes are i32.

    Precondition: the access touches two pages at most.
    """
    state = f.variable("i32", 0)
    with f.when(f.load_native("debug_pages").ne(0), likely=False):
        state.set(f.call("find_watch", f.cpu, gva, size, f.value("i32", kind), result="i32"))
    return state.get()


def _find_watch() -> Builder:
    """``find_watch(cpu, gva, size, kind)``: return what :func:`watch_state` does. There are debug pages."""
    f = define("find_watch", {"gva": "i32", "size": "i32", "kind": "i32"}, "i32", "noinline")
    first, last, kind = f["gva"], f["gva"] + f["size"] - 1, f["kind"]
    pages = f.load_native("debug_pages", "ptr")
    with f.when(((_debug_page(pages, first) | _debug_page(pages, last)) & kind).eq(0)):
        f.ret(f.value("i32", 0))
    with f.count(0, f.load_native("watch_count")) as number:
        watch = f.native("watches").element("i32", number * WATCHPOINT_WORDS)
        low, high, kinds = (watch.element("i32", word).load("i32") for word in range(WATCHPOINT_WORDS))
        # An access may wrap around the address space. A watched range does not.
        touches = (low - first).ult(f["size"]) | ~(first - low).ugt(high - low)
        with f.when((kinds & kind).ne(0) & touches):
            f.ret(f.value("i32", WATCHED_BYTES))
    f.ret(f.value("i32", WATCHED_PAGE))
    return f


def arm_breakpoints(f: Builder, gva: Value, gpa: Value, nothing: Value) -> None:
    """Leave, with the result ``nothing``, if the code page of a GPA (an i64) is to get breakpoints of a GVA's page."""
    pages = f.load_native("debug_pages", "ptr")
    with f.when(pages.ne(0), likely=False):
        wanted = _debug_page(pages, gva)
        armed = (wanted & DEBUG_ARMED).eq((gpa >> PAGE_SHIFT).to("i32") + 1)
        with f.when((wanted & DEBUG_BREAKS).ne(0) & ~armed):
            f.exit(ExitCode.ARM, gva.to("i64"), gpa)
            f.ret(nothing)


def debug_points_text() -> str:
    """Return the LLVM text of this module's definitions."""
    break_point = leaving_before("break_point", ExitCode.BREAK)
    return _find_watch().text() + break_point.text()
