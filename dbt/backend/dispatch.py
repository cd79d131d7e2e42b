"""Entering native code, going from page to page in it, and leaving it.

The code reaches everything through CpuState, so it has no external symbol and no absolute address, and its image can
be kept on disk. Functions have the handlers' signature (:mod:`dbt.backend.convention`) unless it is said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

from dbt.abi.cpu import NEVER
from dbt.abi.exits import ExitCode
from dbt.abi.layout import (
    CODE_PAGE_SIZE,
    OP_HOTNESS,
    OP_ORIGINAL,
    OP_SHIFT,
    PAGE_SHIFT,
    PAGE_SIZE,
    STITCH_ARRIVALS,
    WORD_IN_PAGE,
)
from dbt.backend.builder import Builder, HandlerBuilder, Value, define
from dbt.backend.convention import tail_call
from dbt.backend.lower import FLAGS

#: Writes what is done with the op (a pointer) at which control continues.
Then = Callable[[HandlerBuilder, Value], None]
#: The clock of Python's :func:`time.monotonic`, by its number on Linux.
_CLOCK_MONOTONIC = 1


# -- leaving -----------------------------------------------------------------------------------


def save_state(f: HandlerBuilder) -> None:
    """Store the flags and the budget in CpuState, where Python finds them."""
    for name in FLAGS:
        f.store(f[name], f.state(name))
    f.store_native("budget", f["budget"])


def op_address(f: HandlerBuilder) -> Value:
    """Return the GVA of this op's instruction."""
    offset = (f["op"].to("i64") & (CODE_PAGE_SIZE - 1)) >> OP_SHIFT
    return f.load_native("page_gva") + offset.to("i32")


def _leave() -> HandlerBuilder:
    """``leave``: return to the caller of ``enter``, with the address of this op in R15."""
    f = HandlerBuilder("leave")
    save_state(f)
    f.store_pc(op_address(f))
    f.ret()
    return f


def _leave_budget() -> HandlerBuilder:
    """``leave_budget``: leave because the slice has ended, unless it may go on. Before its end, let the events that are
    due happen, take an interrupt if one can be, and go on.
    """
    f = HandlerBuilder("leave_budget")
    at_event = f.load_native("tick_end").slt(f.load_native("slice_end"))
    at_end = ~at_event & f.load_native("slice_end").slt(f.load_native("slice_limit"))
    with f.when((at_event | at_end) & f.load_native("native_exceptions").ne(0)):
        save_state(f)
        f.store_pc(op_address(f))
        goes_on = f.variable("i1", at_event)
        with f.when(at_end):
            goes_on.set(f.call("prolong_slice", f.cpu, result="i1"))
        with f.when(goes_on.get()), f.when(f.call("ring_due", f.cpu, result="i1")):
            f.call("bound_slice", f.cpu, f.value("i32", 0))  # ``resume`` takes an interrupt
            # Budgets tell instructions apart, and now there is another.
            f.store_native("last_exception", NEVER)
            f.tail_to("resume")
    f.exit(ExitCode.BUDGET)
    f.tail_to("leave")
    return f


def _prolong_slice() -> Builder:
    """``prolong_slice(cpu)``: put the end of the slice further back, if the host's clock allows it. Return whether it
    did. CpuState has the budget, which is used up.

    To leave, and to come back from Python, takes as long as 50,000 instructions of compiled code.
    """
    f = define("prolong_slice", {}, "i1", "noinline")
    time = Value(f, f.emit_entry("alloca [2 x i64]"), "ptr")  # a struct timespec
    f.call(f.load_native("host_clock", "ptr"), f.value("i32", _CLOCK_MONOTONIC), time, result="i32")
    ns = time.load("i64") * 1_000_000_000 + time.at(8).load("i64")
    with f.when(~ns.slt(f.load_native("look_at"))):
        f.ret(f.value("i1", 0))
    end, limit = f.load_native("slice_end") + f.load_native("slice_length"), f.load_native("slice_limit")
    f.store_native("slice_end", end.slt(limit).choose(end, limit))
    f.ret(f.value("i1", 1))
    return f


def leaving_before(name: str, code: ExitCode) -> HandlerBuilder:
    """Return a handler that leaves in front of its instruction, which does not retire."""
    f = HandlerBuilder(name)
    with f.when(f["budget"].eq(0)):
        f.tail_to("leave_budget")
    f.exit(code)
    f.tail_to("leave")
    return f


# -- going on somewhere ------------------------------------------------------------------------


def _goto(name: str, then: Then) -> HandlerBuilder:
    """``name``: continue at the GVA in exit_args[0], whose code page may have to be found first."""
    f = HandlerBuilder(name)
    then(f, find_ops(f, f.load_native("exit_args")))
    return f


def find_ops(f: HandlerBuilder, target: Value) -> Value:
    """Return the op at a GVA (an i64), and make its page the current one. Leave if there is no code for it."""
    gva = target.to("i32")
    ops = f.variable("ptr", f.load_native("code_table", "ptr").element("ptr", target >> PAGE_SHIFT).load("ptr"))
    with f.when(ops.get().eq(0), likely=False):
        ops.set(f.call("fill_code", f.cpu, gva, result="ptr"))
        with f.when(ops.get().eq(0)):
            with f.when(f["budget"].eq(0)):
                f.exit(ExitCode.BUDGET)
            save_state(f)
            f.store_pc(gva & -4)
            f.ret()
    f.store_native("page_gva", gva & -PAGE_SIZE)
    return ops.get().at((target & WORD_IN_PAGE) << OP_SHIFT)


def dispatch(f: HandlerBuilder, op: Value) -> None:
    """Call the handler of an op."""
    f.tail(op.load("ptr"), op=op)


def bypass(f: HandlerBuilder, op: Value) -> None:
    """Call the handler of an op. If a region is entered there, call the handler that the region has replaced."""
    handler, image = op.load("ptr"), f.load_native("image", "ptr")
    distance = handler.to("i64") - image.to("i64")
    with f.when(distance.ult(f.load_native("image_size"))):
        f.tail(handler, op=op)
    f.tail(image.at(op.at(OP_ORIGINAL).load("i32")), op=op)


def _count_arrival(warm: str) -> Then:
    """Count the arrival at an op. Every few arrivals the handler ``warm`` goes on, else the op's handler."""

    def then(f: HandlerBuilder, op: Value) -> None:
        hotness = op.at(OP_HOTNESS)
        count = hotness.load("i16") + 1
        f.store(count, hotness)
        with f.when((count & (STITCH_ARRIVALS - 1)).eq(0), likely=False):
            f.tail_to(warm, op=op)
        dispatch(f, op)

    return then


def _sentinel() -> HandlerBuilder:
    """``sentinel``: the handler of the op behind the last one of a page. It continues in the next page."""
    f = HandlerBuilder("sentinel")
    f.store_native("exit_args", (f.load_native("page_gva") + PAGE_SIZE).to("i64"))
    f.tail_to("goto")
    return f


# -- coming in ---------------------------------------------------------------------------------


def _enter() -> Builder:
    """``enter(cpu)``: run from R15 until an exit. An ordinary C function."""
    f = define("enter", {})
    f.do(tail_call("@reload", op="null", budget="0", n="0", z="0", c="0", v="0", reads="null", writes="null")
         .removeprefix("musttail "))  # fmt: skip
    f.ret()
    return f


def _resume() -> HandlerBuilder:
    """``resume``: continue at R15 under the mode, tables and masks that are in force now. All state is in CpuState.

    An interrupt is taken first, if one can be.
    """
    f = HandlerBuilder("resume")
    takeable = f.load_native("interrupt_lines") & ~f.load_state("psr")
    with f.when(takeable.ne(0)):
        with f.when(f.load_native("budget").eq(0) | f.load_native("native_exceptions").eq(0)):
            f.exit(ExitCode.BUDGET)
            f.ret()
        f.call("interrupt", f.cpu, takeable)
    f.tail_to("reload")
    return f


def _reload() -> HandlerBuilder:
    """``reload``: do as ``resume``, but take no interrupt, because an instruction may have to be completed."""
    f = HandlerBuilder("reload")
    f.call("choose_tables", f.cpu)
    flags = {name: f.load_state(name) for name in FLAGS}
    f.store_native("exit_args", f.load_pc().to("i64"))
    f.tail_to(
        "goto",
        budget=f.load_native("budget"),
        reads=f.load_native("read_table", "ptr"),
        writes=f.load_native("write_table", "ptr"),
        **flags,
    )
    return f


def dispatch_text() -> str:
    """Return the LLVM text of this module's definitions."""
    functions = [
        _leave(),
        _leave_budget(),
        _prolong_slice(),
        leaving_before("undefined", ExitCode.UNDEFINED),  # the handler of words that are no instruction
        _goto("goto", dispatch),
        # To a loop's head or a function in another page.
        _goto("goto_counted", _count_arrival("warm")),
        # From the end of a region: an op at which control arrives often is worth a region of its own.
        _goto("arrive", _count_arrival("warm_arrival")),
        _goto("bypass", bypass),
        _sentinel(),
        _enter(),
        _resume(),
        _reload(),
    ]
    return "".join(f.text() for f in functions)
