"""Hypercalls in native code: those that a guest makes often.

What they do is compiled from the hypervisor's own classes (:mod:`dbt.backend.device_methods`). This module has how they
are called, and how they get at their arguments. In all functions CpuState has the budget before the instruction is
retired.

- ``hypercall(cpu, immediate) -> done`` does the hypercall of an HVC, if the machine is a domain of a hypervisor whose
  class (:data:`dbt.devices.shared.HYPERVISOR_CLASS`) does it in its method ``answer_hot``. Otherwise nothing has
  changed, but that time may have passed in which the guest waits.
- ``locate_argument(cpu, gva, size, as_user)`` returns the GPA of ``size`` bytes of RAM, or -1 if they are not in one
  page that the caller can read.
- ``first_used(cpu, gpa, end)`` returns the GPA of the first word of RAM from ``gpa`` on that is not 0, or ``end``.
"""

from __future__ import annotations

from typing import Any

from dbt.abi.layout import PAGE_RAM, PAGE_SHIFT, PAGE_SIZE
from dbt.backend.builder import R15, Builder, Value, define
from dbt.backend.device_methods import ANSWER, DeviceMethods, class_called
from dbt.devices.shared import HYPERVISOR_CLASS, NONE
from isa.arm.faults import FAULT_MASK, PARTIAL, AccessKind

_NUMBER = 12
_ARGUMENTS = 4


def _register(f: Builder, number: int) -> Value:
    return f.cpu.at(R15 - 4 * (15 - number))


def _locate_argument() -> Builder:
    f = define("locate_argument", {"gva": "i64", "size": "i64", "as_user": "i64"}, "i64", "noinline")
    none = f.value("i64", NONE)
    gva, as_user = f["gva"], f["as_user"].ne(0)
    with f.when(((gva & (PAGE_SIZE - 1)) + f["size"]).ugt(PAGE_SIZE)):
        f.ret(none)
    table = as_user.choose(f.load_native("user_read_table", "ptr"), f.load_native("read_table", "ptr"))
    entry = table.element("ptr", gva >> PAGE_SHIFT).load("ptr")
    with f.when(entry.ne(0)):
        f.ret(entry.at(gva).to("i64") - f.load_native("ram_host"))
    kind = as_user.choose(int(AccessKind.USER), 0, "i32")
    walked = f.call("translate", f.cpu, gva.to("i32"), kind, result="i64")
    gpa, status = walked & 0xFFFFFFFF, walked >> 32
    with f.when((status & (FAULT_MASK | PARTIAL)).ne(0) | ~f.page_flags(gpa).has(PAGE_RAM)):
        f.ret(none)
    f.ret(gpa)
    return f


def _first_used() -> Builder:
    f = define("first_used", {"gpa": "i64", "end": "i64"}, "i64", "noinline")
    at, ram = f.variable("i64", f["gpa"]), f.load_native("ram_host", "ptr")
    with f.repeat() as loop:
        with f.when(~at.get().slt(f["end"])):
            f.ret(f["end"])
        with f.when(ram.at(at.get()).load("i32").ne(0)):
            loop.leave()
        at.set(at.get() + 4)
    f.ret(at.get())
    return f


def _hypercall(methods: DeviceMethods) -> Builder:
    cls: Any = class_called(HYPERVISOR_CLASS)
    f = define("hypercall", {"immediate": "i64"}, "i1", "noinline")
    failed = f.value("i1", 0)
    domain = f.load_native("domain", "ptr")
    with f.when(domain.eq(0) | f["immediate"].ne(cls.HYPERCALL_IMMEDIATE)):
        f.ret(failed)
    arguments = [_register(f, number).load("i32").to("i64") for number in (_NUMBER, *range(_ARGUMENTS))]
    lines = f.load_native("interrupt_lines").to("i64")
    answer = f.call(methods.function(cls, "answer_hot"), f.cpu, domain, *arguments, lines, result=ANSWER)
    with f.when(~Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 1"), "i1")):
        f.ret(failed)
    result = Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 0"), "i64")
    with f.when(result.eq(cls.WAITS)), f.when(~f.call("await_interrupt", f.cpu, result="i1")):
        f.ret(failed)
    f.store(result.to("i32"), _register(f, 0))
    f.store_native("hypercalls", f.load_native("hypercalls") + 1)
    f.ret(f.value("i1", 1))
    return f


def hypercalls(methods: DeviceMethods) -> list[Builder]:
    """Return the functions of this module."""
    return [_locate_argument(), _first_used(), _hypercall(methods)]
