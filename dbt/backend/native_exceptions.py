"""Exceptions that are taken without leaving native code, where the guest has a handler for them.

What an exception does to the guest is a routine (:mod:`isa.arm.exceptions`); here is when it is taken.
"""

from __future__ import annotations

from dbt.abi.exits import ExitCode
from dbt.abi.layout import PAGE_RAM
from dbt.backend.builder import Builder, HandlerBuilder, Value, define
from dbt.backend.dispatch import op_address, save_state
from isa.arm.state import PSR_F, SCTLR_M
from isa.arm.vectors import VECTORS, ExceptionKind


def _has_handler() -> Builder:
    """``has_handler(cpu, offset)``: whether an exception is to be taken here, by the offset of its vector.

    With the MMU on the guest is taken to know what it does; else something must be at the vector.
    """
    f = define("has_handler", {"offset": "i32"}, "i1", "noinline")
    no, yes = f.value("i1", 0), f.value("i1", 1)
    with f.when(f.load_native("native_exceptions").eq(0)):
        f.ret(no)
    with f.when(f.load_state("sctlr").has(SCTLR_M)):
        f.ret(yes)
    vector = f.call("vector_base", f.cpu, result="i64") + f["offset"].to("i64")
    with f.when(f.page_flags(vector).has(PAGE_RAM)):
        f.ret(f.load_native("ram_host", "ptr").at(vector).load("i32").ne(0))
    f.ret(no)
    return f


def _enter(f: Builder, kind: ExceptionKind, address: Value) -> None:
    """Enter the handler of an exception at an address, and count it."""
    vector = VECTORS[kind]
    mode, offset, masks = (f.value("i32", int(number)) for number in (vector.mode, vector.offset, vector.masks))
    f.call("enter_exception", f.cpu, mode, offset, address + vector.link, masks)
    number = vector.offset >> 2
    f.store_native("exceptions", f.load_native("exceptions", element=number) + 1, number)


def _fault() -> HandlerBuilder:
    """``fault``: what a memory access left at this op for; a data abort is taken, everything else leaves.

    One that is taken again with no instruction retired in between would go on for ever.
    """
    kind = ExceptionKind.DATA_ABORT
    f = HandlerBuilder("fault")
    abort = f.load_native("exit_kind").eq(int(ExitCode.DATA_ABORT))
    with f.when(abort & f.load_native("last_exception").ne(f["budget"])):
        handled = f.call("has_handler", f.cpu, f.value("i32", VECTORS[kind].offset), result="i1")
        with f.when(handled):
            save_state(f)
            f.store_native("last_exception", f["budget"])
            pc = op_address(f)
            gva, _, write, status = (f.load_native("exit_args", element=n).to("i32") for n in range(4))
            f.call("report_data_abort", f.cpu, gva, status, write)
            _enter(f, kind, pc)
            f.tail_to("resume")
    f.tail_to("leave")
    return f


def _supervisor_call() -> HandlerBuilder:
    """``supervisor_call``: take an SVC, which is retired by it, or leave. That of semihosting always leaves."""
    kind = ExceptionKind.SUPERVISOR_CALL
    f = HandlerBuilder("supervisor_call")
    with f.when(f.load_native("exit_args").ne(f.load_native("semihosting_svc"))):
        handled = f.call("has_handler", f.cpu, f.value("i32", VECTORS[kind].offset), result="i1")
        with f.when(handled):
            save_state(f)
            f.store_native("budget", f["budget"] - 1)
            _enter(f, kind, op_address(f))
            f.tail_to("resume")
    f.tail_to("leave")
    return f


def _interrupt() -> Builder:
    """``interrupt(cpu, takeable)``: take the interrupt and count it. See the routine ``take_interrupt``."""
    f = define("interrupt", {"takeable": "i32"}, attributes="noinline")
    f.call("take_interrupt", f.cpu, f["takeable"])
    fiq, irq = (VECTORS[kind].offset >> 2 for kind in (ExceptionKind.FIQ, ExceptionKind.IRQ))
    count = f.native("exceptions").element("i64", f["takeable"].has(PSR_F).choose(fiq, irq, "i64"))
    f.store(count.load("i64") + 1, count)
    f.ret()
    return f


def native_exceptions_text() -> str:
    """All definitions of this module."""
    return "".join(f.text() for f in (_has_handler(), _fault(), _supervisor_call(), _interrupt()))
