"""Hypercalls in native code: those that a guest makes with each event.

``hypercall(cpu, immediate) -> done`` does the hypercall of an HVC, if the machine is a domain of a hypervisor and the
hypervisor's class (:data:`dbt.devices.shared.HYPERVISOR_CLASS`) answers it in its method ``answer_hot``. Otherwise
nothing has changed. CpuState has the budget before the instruction is retired.
"""

from __future__ import annotations

from typing import Any

from dbt.abi.layout import PAGE_RAM, PAGE_SHIFT
from dbt.backend.builder import R15, Builder, Value, define
from dbt.backend.device_methods import ANSWER, DeviceMethods, class_called
from dbt.devices.shared import HYPERVISOR_CLASS
from isa.arm.faults import FAULT_MASK, AccessKind

_NUMBER, _COMMAND, _HANDLE = 12, 0, 1


def _register(f: Builder, number: int) -> Value:
    return f.cpu.at(R15 - 4 * (15 - number))


def _argument(f: Builder, gva: Value, as_user: Value) -> Value:
    """Return the word (i64) at an address, read with the caller's translation and rights, or 0 where there is none.

    A word that is not aligned is left to Python, because two pages may have it.
    """
    found = f.variable("i64", 0)
    table = as_user.choose(f.load_native("user_read_table", "ptr"), f.load_native("read_table", "ptr"))
    entry = table.element("ptr", gva >> PAGE_SHIFT).load("ptr")
    known = entry.ne(0)
    with f.when(known):
        found.set(entry.at(gva.to("i64")).load("i32").to("i64"))
    with f.when(~known, likely=False):
        walked = f.call("translate", f.cpu, gva, as_user.choose(int(AccessKind.USER), 0, "i32"), result="i64")
        gpa = walked & 0xFFFFFFFF
        is_there = (walked >> 32 & FAULT_MASK).eq(0) & f.page_flags(gpa).has(PAGE_RAM)
        with f.when(~is_there):
            f.ret(f.value("i1", 0))
        found.set(f.load_native("ram_host", "ptr").at(gpa).load("i32").to("i64"))
    return found.get()


def hypercall(methods: DeviceMethods) -> Builder:
    cls: Any = class_called(HYPERVISOR_CLASS)
    f = define("hypercall", {"immediate": "i64"}, "i1", "noinline")
    failed = f.value("i1", 0)
    domain = f.load_native("domain", "ptr")
    with f.when(domain.eq(0) | f["immediate"].ne(cls.HYPERCALL_IMMEDIATE)):
        f.ret(failed)
    number, command = (_register(f, register).load("i32").to("i64") for register in (_NUMBER, _COMMAND))
    handle = _register(f, _HANDLE).load("i32")
    argument = f.variable("i64", 0)
    with f.when(number.eq(cls.EVENTS_OP)):
        with f.when((handle & 3).ne(0)):
            f.ret(failed)
        as_user = f.call(methods.function(cls, "is_deprivileged"), f.cpu, domain, result="i64").ne(0)
        argument.set(_argument(f, handle, as_user))
    lines = f.load_native("interrupt_lines").to("i64")
    function = methods.function(cls, "answer_hot")
    answer = f.call(function, f.cpu, domain, number, command, argument.get(), lines, result=ANSWER)
    with f.when(~Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 1"), "i1")):
        f.ret(failed)
    result = Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 0"), "i64").to("i32")
    f.store(result, _register(f, _COMMAND))
    f.store_native("hypercalls", f.load_native("hypercalls") + 1)
    f.ret(f.value("i1", 1))
    return f
