"""Exceptions that are taken in native code, because the guest has a handler for them, and waits for interrupts.

What an exception does to the guest is a routine (:mod:`isa.arm.exceptions`). This module decides when it is taken.
"""

from __future__ import annotations

from dbt.abi.cpu import NEVER, Charged
from dbt.abi.exits import ExitCode
from dbt.abi.layout import PAGE_RAM
from dbt.backend.builder import Builder, HandlerBuilder, Value, define
from dbt.backend.charging import charge_event
from dbt.backend.dispatch import op_address, save_state
from isa.arm.state import PSR_F, SCTLR_M
from isa.arm.vectors import VECTORS, ExceptionKind


def _has_handler() -> Builder:
    """``has_handler(cpu, offset)``: return 1 if the exception with that vector offset is to be taken here, else 0.

    With the MMU on, the guest is assumed to have handlers. With it off, the word at the vector must not be 0.
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


def _enter(f: Builder, kind: ExceptionKind, address: Value, retires: bool) -> None:
    """Enter the handler of an exception that is taken at an address, and count the exception.

    If the instruction does not retire, the slice must not end before another one has: its tick would not tell whether
    the exception has been taken.
    """
    vector = VECTORS[kind]
    mode, offset, masks = (f.value("i32", int(number)) for number in (vector.mode, vector.offset, vector.masks))
    f.call("enter_exception", f.cpu, mode, offset, address + vector.link, masks)
    number = vector.offset >> 2
    f.store_native("exceptions", f.load_native("exceptions", element=number) + 1, number)
    charge_event(f, Charged.EXCEPTION, 0 if retires else 1)


def _fault() -> HandlerBuilder:
    """``fault``: handle the fault for which a memory access left at this op. Only a data abort is taken here.

    Everything else leaves, as does an abort that repeats without a retired instruction: it would go on for ever. When
    ``aborts_left`` has come to 0, one abort leaves as well, so that the machine can see whether they ever end.
    """
    kind = ExceptionKind.DATA_ABORT
    f = HandlerBuilder("fault")
    abort = f.load_native("exit_kind").eq(int(ExitCode.DATA_ABORT))
    may_take = f.load_native("last_exception").ne(f["budget"]) & f.load_native("aborts_left").ne(0)
    with f.when(abort & may_take):
        handled = f.call("has_handler", f.cpu, f.value("i32", VECTORS[kind].offset), result="i1")
        with f.when(handled):
            save_state(f)
            f.store_native("last_exception", f["budget"])
            f.store_native("aborts_left", f.load_native("aborts_left") - 1)
            pc = op_address(f)
            gva, _, write, status = (f.load_native("exit_args", element=n).to("i32") for n in range(4))
            f.call("report_data_abort", f.cpu, gva, status, write)
            _enter(f, kind, pc, retires=False)
            f.tail_to("resume")
    f.tail_to("leave")
    return f


def _supervisor_call() -> HandlerBuilder:
    """``supervisor_call``: take an SVC, which retires it, or leave. The SVC of semihosting always leaves."""
    kind = ExceptionKind.SUPERVISOR_CALL
    f = HandlerBuilder("supervisor_call")
    with f.when(f.load_native("exit_args").ne(f.load_native("semihosting_svc"))):
        handled = f.call("has_handler", f.cpu, f.value("i32", VECTORS[kind].offset), result="i1")
        with f.when(handled):
            save_state(f)
            f.store_native("budget", f["budget"] - 1)
            _enter(f, kind, op_address(f), retires=True)
            f.tail_to("resume")
    f.tail_to("leave")
    return f


def _hypervisor_call() -> HandlerBuilder:
    """``hypervisor_call``: have an HVC done by native code, which retires it, or leave."""
    f = HandlerBuilder("hypervisor_call")
    with f.when(f.load_native("native_exceptions").ne(0)):
        save_state(f)
        with f.when(f.call("hypercall", f.cpu, f.load_native("exit_args"), result="i1")):
            f.store_native("budget", f.load_native("budget") - 1)  # which is another one if the guest has waited
            charge_event(f, Charged.ACCESS, 0)
            f.store_pc(op_address(f) + 4)
            f.tail_to("resume")
    f.tail_to("leave")
    return f


def _wait_for_interrupt() -> HandlerBuilder:
    """``wait_for_interrupt``: complete a WFI if native code can let time pass until an interrupt comes, or leave."""
    f = HandlerBuilder("wait_for_interrupt")
    with f.when(f.load_native("native_exceptions").ne(0)):
        save_state(f)
        with f.when(f.call("await_interrupt", f.cpu, result="i1")):
            f.store_native("budget", f.load_native("budget") - 1)
            f.store_native("last_exception", NEVER)  # budgets tell instructions apart, and now there is another
            f.store_pc(op_address(f) + 4)
            f.tail_to("resume")
    f.tail_to("leave")
    return f


def _interrupt() -> Builder:
    """``interrupt(cpu, takeable)``: take an interrupt and count it. See the routine ``take_interrupt``."""
    f = define("interrupt", {"takeable": "i32"}, attributes="noinline")
    f.call("take_interrupt", f.cpu, f["takeable"])
    fiq, irq = (VECTORS[kind].offset >> 2 for kind in (ExceptionKind.FIQ, ExceptionKind.IRQ))
    count = f.native("exceptions").element("i64", f["takeable"].has(PSR_F).choose(fiq, irq, "i64"))
    f.store(count.load("i64") + 1, count)
    charge_event(f, Charged.EXCEPTION, 1)  # what has been interrupted does not retire
    f.ret()
    return f


def _read_lines() -> Builder:
    """``read_lines(cpu)``: return the interrupt lines that are up, for the callout of this name."""
    f = define("read_lines", {}, "i32")
    f.ret(f.load_native("interrupt_lines"))
    return f


def native_exceptions_text() -> str:
    """Return the LLVM text of this module's definitions."""
    functions = (
        _has_handler(),
        _fault(),
        _supervisor_call(),
        _hypervisor_call(),
        _wait_for_interrupt(),
        _interrupt(),
        _read_lines(),
    )
    return "".join(f.text() for f in functions)
