"""Stitched code in use: where it goes when it leaves its page, linking its edges, and dropping it."""

from __future__ import annotations

from collections.abc import Callable

from dbt.abi.exits import ExitCode, Heat
from dbt.abi.layout import (
    CODE_PAGE_STRIDE_SHIFT,
    EDGE_ARRIVALS,
    HOT,
    HOT_ARRIVALS,
    MAX_STITCH_DELAY,
    NOT_STITCHABLE,
    OP_COVERED,
    OP_HOTNESS,
    OP_ORIGINAL,
    OP_SHIFT,
    OP_SIZE_SHIFT,
    OPS_PER_PAGE,
    PAGE_SHIFT,
    PAGE_SIZE,
    STITCH_ARRIVALS,
    STITCHED,
    WARM,
    WAS_WARM,
)
from dbt.abi.stitching import ARENA_START, LISTED
from dbt.backend.builder import Builder, HandlerBuilder, Value, define
from dbt.backend.dispatch import bypass, dispatch, find_ops
from dbt.backend.stencils import Special
from dbt.backend.stitch_workspace import StitchedPage, Workspace, in_image, op_place

# -- dropping ----------------------------------------------------------------------------------


def _unstitch_page() -> Builder:
    """``unstitch_page(cpu, page)``: let the ops of a page have the handlers of the image again.

    Only code of the page itself jumps to its blocks directly. Such code is not executed at this moment, because what
    stitched code cannot do, a handler does, and after it control goes on by way of the ops.
    """
    f = define("unstitch_page", {"page": "i64"}, attributes="noinline")
    w = Workspace(f)
    page = StitchedPage(f, w, f["page"])
    image = f.load_native("image", "ptr")
    with f.count(0, OPS_PER_PAGE, type_="i64") as number:
        op = page.op(number)
        marks = op.at(OP_COVERED)
        with f.when(marks.load("i8").has(STITCHED)):
            f.store(marks.load("i8") & (0xFF - STITCHED - WAS_WARM), marks)
            with f.when(w.holds(op.load("ptr"))):
                f.store(image.at(op.at(OP_ORIGINAL).load("i32")), op)
    f.ret()
    return f


def _drop_stitched() -> Builder:
    """``drop_stitched(cpu)``: drop all stitched code, so that its memory can be used again."""
    f = define("drop_stitched", {}, attributes="noinline")
    w = Workspace(f)
    with f.count(0, w.get("pages"), type_="i64") as entry:
        page = w.array("page_list").element("i32", entry).load("i32").to("i64")
        rewrites = w.array("rewrites").at(page)
        f.store(rewrites.load("i8") & (LISTED - 1), rewrites)
        f.call("unstitch_page", f.cpu, page)
    log, used = w.get("stencil_log", "ptr"), w.get("used")
    with f.when(log.ne(0)), f.count(0, used << 1, 8, "i64") as at:
        f.store(f.value("i64", 0), log.at(at))
    w.increase("dropped_bytes", used - ARENA_START)
    w.set("first_block", w.get("blocks"))
    for name, value in (("pages", 0), ("counters", 0), ("used", ARENA_START)):
        w.set(name, value)
    w.increase("resets")
    f.ret()
    return f


def _stitched_word_changes() -> Builder:
    """``stitched_word_changes(cpu, gpa)``: drop the stitched code of a page, of which one word is written over."""
    f = define("stitched_word_changes", {"gpa": "i64"}, attributes="noinline")
    w = Workspace(f)
    page = f["gpa"] >> PAGE_SHIFT
    f.call("unstitch_page", f.cpu, page)
    rewrites = w.array("rewrites").at(page)
    count = rewrites.load("i8")
    with f.when((count & (LISTED - 1)).ult(MAX_STITCH_DELAY)):
        f.store(count + 1, rewrites)
    w.increase("dropped")
    f.ret()
    return f


# -- handlers ----------------------------------------------------------------------------------


def _stitch_if_due(f: HandlerBuilder, w: Workspace, op: Value, arrivals: int) -> None:
    """Stitch the code at an op after each so many arrivals, more if its page was written over."""
    page, _ = op_place(f, op)
    count = op.at(OP_HOTNESS).load("i16").to("i32")
    delay = (w.array("rewrites").at(page).load("i8") & (LISTED - 1)).to("i32")
    period = f.value("i32", arrivals) << delay
    refused = op.at(OP_COVERED).load("i8").has(NOT_STITCHABLE)
    with f.when((count & (period - 1)).eq(0) & in_image(f, op.load("ptr")) & ~refused):
        f.call("stitch", f.cpu, op)


def _warm(name: str, every: int) -> HandlerBuilder:
    """``name``: stitch the code at this op if that is due, leave if it is hot, and else go to its handler.

    It is hot after each so many arrivals. Where there is stitched code, the tier only hears of many arrivals.
    """
    f = HandlerBuilder(name)
    op = f["op"]
    count = op.at(OP_HOTNESS).load("i16")
    is_warm = count.eq(WARM)
    many = (count & (HOT_ARRIVALS - 1)).eq(WARM)
    with f.when(f.load_native("stitcher").ne(0)):
        w = Workspace(f)
        _stitch_if_due(f, w, op, STITCH_ARRIVALS)
        counts_itself = w.holds(op.load("ptr")) if every == HOT else f.value("i1", 0)
        with f.when(many & ~counts_itself, likely=False):
            _leave_hot(f, op, is_warm.choose(int(Heat.WARM), int(Heat.OFTEN), "i64"))
        dispatch(f, op)
    with f.when((count & (every - 1)).eq(WARM), likely=False):
        _leave_hot(f, op, is_warm.choose(int(Heat.WARM), many.choose(int(Heat.VERY_HOT), int(Heat.HOT), "i64")))
    dispatch(f, op)
    return f


def _leave_hot(f: HandlerBuilder, op: Value, heat: Value) -> None:
    f.exit(ExitCode.HOT, op, heat)
    f.tail_to("leave", op=op)


def _numbered_op(f: HandlerBuilder) -> Value:
    """Return the op whose number is in the place of the op."""
    return f.load_native("code_pages", "ptr").at(f["op"].to("i64") << OP_SIZE_SHIFT)


def _bypass_op() -> HandlerBuilder:
    """``bypass_op``: go to the image's handler of the op with this number."""
    f = HandlerBuilder("bypass_op")
    bypass(f, _numbered_op(f))
    return f


def _stitched_hot() -> HandlerBuilder:
    """``stitched_hot``: leave because the block of the op with this number is warm, and later because it is hot.

    The offset of its counter from CpuState is in exit_args[0]. What it counts is in exit_args[1]; it is added to the
    threshold, so that the block is executed before it is hot again.
    """
    f = HandlerBuilder("stitched_hot")
    w = Workspace(f)
    op = _numbered_op(f)
    again = w.get("hot") + f.load_native("exit_args", element=1)
    f.store(again.to("i32"), f.cpu.at(f.load_native("exit_args")))
    marks = op.at(OP_COVERED)
    was_warm = marks.load("i8").has(WAS_WARM)
    f.store(marks.load("i8") | WAS_WARM, marks)
    _leave_hot(f, op, was_warm.choose(int(Heat.VERY_HOT), int(Heat.WARM), "i64"))
    return f


def _arrive_by_edge(f: HandlerBuilder, w: Workspace, op: Value, linked: Callable[[Value], None]) -> None:
    """Count the arrival at an op from stitched code. Once it is stitched, the body links the jump; then go to it."""
    hotness = op.at(OP_HOTNESS)
    count = hotness.load("i16") + 1
    f.store(count, hotness)
    resets = w.get("resets")
    with f.when((count & (EDGE_ARRIVALS - 1)).eq(0) & op.load("ptr").ne(f.function("decode"))):
        _stitch_if_due(f, w, op, EDGE_ARRIVALS)
        with f.when(w.has_room_for_stubs() & w.get("resets").eq(resets) & ~in_image(f, op.load("ptr"))):
            linked(f.load_native("exit_args", element=1))
    dispatch(f, op)


def _stitched_edge() -> HandlerBuilder:
    """``stitched_edge``: come from stitched code to the op with this number, in the same page."""
    f = HandlerBuilder("stitched_edge")
    w = Workspace(f)
    op = _numbered_op(f)

    def linked(site: Value) -> None:
        handler = op.load("ptr")
        with f.when(w.holds(handler)):
            w.link(site, w.offset_of(handler))
        with f.when(~w.holds(handler)):  # a region
            w.argument(0, f["op"].to("i64").to("i32"))
            w.link(site, w.get("used"))
            w.emit(Special.ENTER)

    _arrive_by_edge(f, w, op, linked)
    return f


def _stitched_cross() -> HandlerBuilder:
    """``stitched_cross``: come from stitched code to the GVA in exit_args[0], which is in another page."""
    f = HandlerBuilder("stitched_cross")
    w = Workspace(f)
    target = f.load_native("exit_args")
    before = f.load_native("page_gva")
    op = find_ops(f, target)

    def linked(site: Value) -> None:
        word = target & (PAGE_SIZE - 1)
        w.argument(0, f.load_native("page_gva") - before)
        w.argument(1, (word << OP_SHIFT).to("i32"))
        w.argument(2, word.to("i32"))
        w.link(site, w.get("used"))
        w.emit(Special.CROSS)

    _arrive_by_edge(f, w, op, linked)
    return f


def _divert_head() -> Builder:
    """``divert_head(cpu, op)``: let the block of an op, if it has one, go to whatever handler the op has.

    Called when the op is about to have a region's code: jumps of stitched code go to the block directly. If there is no
    room for that, all stitched code is dropped. Precondition: no guest code is being executed.
    """
    f = define("divert_head", {"op": "ptr"}, attributes="noinline")
    w = Workspace(f)
    handler = f["op"].load("ptr")
    with f.when(w.holds(handler)):
        with f.when(~w.has_room_for_stubs()):
            f.call("drop_stitched", f.cpu)
            f.ret()
        page, number = op_place(f, f["op"])
        stub = w.get("used")
        w.argument(0, (page << CODE_PAGE_STRIDE_SHIFT - OP_SIZE_SHIFT | number).to("i32"))
        w.emit(Special.ENTER)
        end = w.get("used")
        w.set("fixups", 0)
        w.set("used", w.offset_of(handler))
        w.emit(Special.JUMP)
        w.link(w.array("fixup_list").load("i64"), stub)
        w.set("used", end)
    f.ret()
    return f


def stitched_code_text() -> str:
    """Return the LLVM text of this module's definitions."""
    functions: list[Builder] = [
        _unstitch_page(),
        _drop_stitched(),
        _stitched_word_changes(),
        _divert_head(),
        _warm("warm", HOT),
        _warm("warm_arrival", HOT_ARRIVALS),
        _bypass_op(),
        _stitched_hot(),
        _stitched_edge(),
        _stitched_cross(),
    ]
    return "".join(f.text() for f in functions)
