"""Devices in native code: accesses to their registers, their lines, and the events of the timeline.

What a device does is compiled from its own methods (:mod:`dbt.backend.device_methods`). This module finds the device,
and afterwards the end of the slice: an access can raise an interrupt line or set an alarm.

- ``device_read(cpu, gpa, size) -> {value, made}`` and ``device_write(cpu, gpa, size, value) -> made`` make an access as
  :class:`dbt.devices.registers.WordRegisters` does, if the device is in the table of :mod:`dbt.abi.device_windows`.
- ``drive_line(cpu, line, level)`` sets the level of the line whose words are at ``line``.
- ``sample_level(cpu, sample)`` returns the level of what has its words at ``sample``.
- ``ring_due(cpu) -> done`` rings the alarms that are due. It stops at one that only Python can ring: its class
  has no method ``rings``, or has a property ``may_ring`` that is False now.
- ``await_interrupt(cpu) -> done`` lets time pass, from one event to the next, until an interrupt line is up or a
  hypervisor has an event for its domain's kernel, if a guest may wait in native code. Time may have passed also if it
  returns 0: then the guest still waits, or Python has to ring.
- ``bound_slice(cpu, takeable)`` lets the budget end where native code has to look next: at the next event, with the
  slice, and after the present instruction if interrupts are ``takeable``.
- ``read_private(cpu, number) -> {value, made}`` and ``write_private(cpu, number, low, high) -> made`` access a register
  of a private peripheral (:mod:`isa.arm.private`).

In all of them CpuState has the budget before the present instruction is retired.
"""

from __future__ import annotations

from collections.abc import Callable

from dbt.abi.cpu import Charged
from dbt.abi.device_windows import BASE, DEVICE, DEVICE_CLASS, KEY, WINDOW_WORDS, WINDOWS
from dbt.abi.layout import PAGE_SHIFT
from dbt.abi.timeline import ALARM_WORDS, COUNT, FIRST_ALARM, ORDER, TICK, UNSET
from dbt.abi.timeline import DEVICE as ALARM_DEVICE
from dbt.abi.timeline import DEVICE_CLASS as ALARM_CLASS
from dbt.backend.builder import Builder, Value, define
from dbt.backend.charging import charge_event
from dbt.backend.device_methods import ANSWER, DeviceMethods, class_called, classes, now
from dbt.backend.hypercalls import hypercalls
from dbt.devices.registers import WordRegisters
from dbt.devices.shared import CPU, HYPERVISOR_CLASS, PRIVATE_CLASSES, WORD_BYTES
from isa.arm.private import NUMBERS_OF_EACH

#: Later than this, in ticks, Python serves all devices. Until then no product of theirs exceeds 64 bits.
_LATEST_SHIFT = 55
#: The same for private peripherals, which count nanoseconds.
_LATEST_PRIVATE_SHIFT = 52
#: After so many events without an interrupt Python goes on, which hears Ctrl-C: a guest may wait for ever.
_EVENTS_OF_A_WAIT = 64
_NUMBER_BITS = NUMBERS_OF_EACH.bit_length() - 1


def _word(pointer: Value, number: int) -> Value:
    return pointer.at(WORD_BYTES * number).load("i64")


def _for_each(
    f: Builder, methods: DeviceMethods, method: str, class_number: Value, call: Callable[[str], None]
) -> None:
    """Make a call for the class of that number, given the name of its function, if it has the method."""
    for number, cls in classes():
        if hasattr(cls, method):
            with f.when(class_number.eq(number)):
                call(methods.function(cls, method))


def _drive_line(methods: DeviceMethods) -> Builder:
    f = define("drive_line", {"line": "ptr", "level": "i64"})
    target, number = _word(f["line"], 0), _word(f["line"], 2)
    with f.when(target.eq(CPU)):
        lines, bit = f.load_native("interrupt_lines"), number.to("i32")
        f.store_native("interrupt_lines", f["level"].ne(0).choose(lines | bit, lines & ~bit))
        f.ret()

    def drive(function: str) -> None:
        f.call(function, f.cpu, f["line"].at(WORD_BYTES).load("ptr"), number, f["level"], result="i64")
        f.ret()

    _for_each(f, methods, "drive", target, drive)
    f.ret()
    return f


def _sample_level(methods: DeviceMethods) -> Builder:
    f = define("sample_level", {"sample": "ptr"}, "i64")

    def sample(function: str) -> None:
        f.ret(f.call(function, f.cpu, f["sample"].at(WORD_BYTES).load("ptr"), result="i64"))

    _for_each(f, methods, "sampled_level", _word(f["sample"], 0), sample)
    f.ret(f.value("i64", 0))
    return f


def _find_device(f: Builder, failed: Value) -> tuple[Value, Value, Value]:
    """Return class and block of the device at a GPA, and the offset in it. Return ``failed`` if there is none."""
    page = f["gpa"] >> PAGE_SHIFT
    number = page + (page >> 3) * 3 + (page >> 12) * 9 & (WINDOWS - 1)
    entry = f.native("windows").element("i64", number * WINDOW_WORDS)
    known = _word(entry, KEY).eq(page + 1) & (now(f) >> _LATEST_SHIFT).eq(0)
    with f.when(~known):
        f.ret(failed)
    return _word(entry, DEVICE_CLASS), entry.at(WORD_BYTES * DEVICE).load("ptr"), f["gpa"] - _word(entry, BASE)


def _count_access(f: Builder) -> None:
    f.store_native("device_answers", f.load_native("device_answers") + 1)
    charge_event(f, Charged.ACCESS, 1)
    f.call("bound_slice", f.cpu, f.load_native("interrupt_lines") & ~f.load_state("psr"))


def _functions_of_words(methods: DeviceMethods, access: str) -> dict[str, bool]:
    """Return the functions that read or write a word, and whether they make narrow accesses as well. A class that does
    these in its own way does them in Python.
    """
    return {
        methods.function(cls, f"{access}_word"): getattr(cls, access) is getattr(WordRegisters, access)
        for _, cls in classes()
        if issubclass(cls, WordRegisters)
    }


def _device_read(methods: DeviceMethods) -> Builder:
    f = define("device_read", {"gpa": "i64", "size": "i64"}, ANSWER)
    failed = Value(f, "zeroinitializer", ANSWER)
    class_number, device, offset = _find_device(f, failed)
    takes_narrow_reads = _functions_of_words(methods, "read")

    def read(function: str) -> None:
        if not takes_narrow_reads[function]:
            with f.when(f["size"].ne(4)):
                f.ret(failed)
        answer = f.call(function, f.cpu, device, offset & -4, result=ANSWER)
        with f.when(~Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 1"), "i1")):
            f.ret(failed)
        word = Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 0"), "i64")
        value = word >> ((offset & 3) << 3) & ~(f.value("i64", -1) << (f["size"] << 3))
        _count_access(f)
        f.ret(Value(f, f.emit(f"insertvalue {ANSWER} {{i64 0, i1 true}}, i64 {value}, 0"), ANSWER))

    _for_each(f, methods, "read_word", class_number, read)
    f.ret(failed)
    return f


def _device_write(methods: DeviceMethods) -> Builder:
    f = define("device_write", {"gpa": "i64", "size": "i64", "value": "i64"}, "i1")
    failed, done = f.value("i1", 0), f.value("i1", 1)
    class_number, device, offset = _find_device(f, failed)
    value = f["value"] & ~(f.value("i64", -1) << (f["size"] << 3))
    takes_narrow_writes = _functions_of_words(methods, "write")

    def write(function: str) -> None:
        if not takes_narrow_writes[function]:
            with f.when(f["size"].ne(4)):
                f.ret(failed)
        with f.when((offset & 3).eq(0)):
            answer = f.call(function, f.cpu, device, offset, value, result=ANSWER)
            with f.when(~Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 1"), "i1")):
                f.ret(failed)
        _count_access(f)
        f.ret(done)

    _for_each(f, methods, "write_word", class_number, write)
    f.ret(failed)
    return f


def _find_private(f: Builder, kind: int) -> tuple[Value, Value]:
    """Return whether native code serves the private peripherals of a kind, and the block of the one there is."""
    block = f.load_native("private", element=kind)
    return block.ne(0) & (now(f) >> _LATEST_PRIVATE_SHIFT).eq(0), f.load_native("private", "ptr", kind)


def _each_private(f: Builder, methods: DeviceMethods, method: str, call: Callable[[str, Value, Value], None]) -> None:
    """Make a call for the peripheral that has the number: its function, its block, and the register's number there."""
    for kind, name in enumerate(PRIVATE_CLASSES):
        with f.when((f["number"] >> _NUMBER_BITS).eq(kind)):
            served, block = _find_private(f, kind)
            with f.when(served):
                f.store_native("device_answers", f.load_native("device_answers") + 1)
                charge_event(f, Charged.ACCESS, 1)
                call(methods.function(class_called(name), method), block, (f["number"] & NUMBERS_OF_EACH - 1).to("i64"))


def _read_private(methods: DeviceMethods) -> Builder:
    f = define("read_private", {"number": "i32"}, "{i32, i1}")

    def read(function: str, block: Value, number: Value) -> None:
        value = f.call(function, f.cpu, block, number, result="i64").to("i32")
        f.ret(Value(f, f.emit(f"insertvalue {{i32, i1}} {{i32 0, i1 true}}, i32 {value}, 0"), "{i32, i1}"))

    _each_private(f, methods, "read_register", read)
    f.ret(Value(f, "zeroinitializer", "{i32, i1}"))
    return f


def _write_private(methods: DeviceMethods) -> Builder:
    f = define("write_private", {"number": "i32", "low": "i32", "high": "i32"}, "i1")

    def write(function: str, block: Value, number: Value) -> None:
        f.call(function, f.cpu, block, number, f["low"].to("i64"), f["high"].to("i64"), result="i64")
        f.call("bound_slice", f.cpu, f.load_native("interrupt_lines") & ~f.load_state("psr"))
        f.ret(f.value("i1", 1))

    _each_private(f, methods, "write_register", write)
    f.ret(f.value("i1", 0))
    return f


def _next_alarm(f: Builder) -> tuple[Value, Value]:
    """Return the tick of the next event, UNSET if there is none, and the record of its alarm."""
    words = f.load_native("timeline", "ptr")
    first = words.at(WORD_BYTES * FIRST_ALARM)
    best, order, record = f.variable("i64", UNSET), f.variable("i64", 0), f.variable("ptr", first)
    with f.count(0, _word(words, COUNT), type_="i64") as number:
        here = first.element("i64", number * ALARM_WORDS)
        tick, place = _word(here, TICK), _word(here, ORDER)
        earlier = tick.slt(best.get()) | (tick.eq(best.get()) & place.slt(order.get()))
        best.set(earlier.choose(tick, best.get()))
        order.set(earlier.choose(place, order.get()))
        record.set(earlier.choose(here, record.get()))
    return best.get(), record.get()


def _ring_due(methods: DeviceMethods) -> Builder:
    f = define("ring_due", {}, "i1", "noinline")
    asking = {
        methods.function(cls, "rings"): methods.function(cls, "may_ring")
        for _, cls in classes()
        if hasattr(cls, "may_ring")
    }
    with f.repeat() as loop:
        tick, record = _next_alarm(f)
        with f.when(now(f).slt(tick)):
            loop.leave()
        class_number = _word(record, ALARM_CLASS)
        rung = f.variable("i1", 0)

        def ring(function: str) -> None:
            device = record.at(WORD_BYTES * ALARM_DEVICE).load("ptr")
            if function in asking:
                with f.when(f.call(asking[function], f.cpu, device, result="i64").eq(0)):
                    f.ret(f.value("i1", 0))
            f.store(f.value("i64", UNSET), record.at(WORD_BYTES * TICK))
            f.call(function, f.cpu, device, result="i64")
            f.store_native("events_rung", f.load_native("events_rung") + 1)
            rung.set(1)

        _for_each(f, methods, "rings", class_number, ring)
        with f.when(~rung.get()):
            f.ret(f.value("i1", 0))
    f.ret(f.value("i1", 1))
    return f


def _bound_slice() -> Builder:
    f = define("bound_slice", {"takeable": "i32"}, attributes="noinline")
    tick, end = now(f), f.load_native("slice_end")
    next_tick, _ = _next_alarm(f)
    end = next_tick.slt(end).choose(next_tick, end)
    soon = f["takeable"].ne(0) | ~tick.slt(end)
    end = soon.choose(tick + 1, end)
    f.store_native("tick_end", end)
    f.store_native("budget", end - tick)
    f.ret()
    return f


def _await_interrupt(methods: DeviceMethods) -> Builder:
    f = define("await_interrupt", {}, "i1", "noinline")
    no, yes = f.value("i1", 0), f.value("i1", 1)
    # Input that is there may be what the guest waits for.
    with f.when(f.load_native("native_waits").eq(0) | ~now(f).slt(f.load_native("input_due"))):
        f.ret(no)
    with f.count(0, f.value("i64", _EVENTS_OF_A_WAIT), type_="i64"):
        woken, domain = f.variable("i1", f.load_native("interrupt_lines").ne(0)), f.load_native("domain", "ptr")
        with f.when(domain.ne(0)):
            has_upcall = methods.function(class_called(HYPERVISOR_CLASS), "has_upcall")
            woken.set(woken.get() | f.call(has_upcall, f.cpu, domain, result="i64").ne(0))
        with f.when(woken.get()):
            f.call("bound_slice", f.cpu, f.value("i32", 0))  # ``resume`` takes an interrupt
            f.store_native("waits", f.load_native("waits") + 1)
            f.ret(yes)
        next_tick, _ = _next_alarm(f)
        with f.when(next_tick.eq(UNSET)):
            f.ret(no)
        ahead = next_tick - now(f)
        with f.when(f.value("i64", 0).slt(ahead)):
            for name in ("waited", "tick_end", "slice_end", "slice_limit"):
                f.store_native(name, f.load_native(name) + ahead)
        with f.when(~f.call("ring_due", f.cpu, result="i1")):
            f.ret(no)
    f.ret(no)
    return f


def device_access_text() -> str:
    """Return the LLVM text of this module's definitions, and of the devices' methods."""
    methods = DeviceMethods()
    functions = [
        _drive_line(methods),
        _sample_level(methods),
        _device_read(methods),
        _device_write(methods),
        _read_private(methods),
        _write_private(methods),
        _ring_due(methods),
        _bound_slice(),
        _await_interrupt(methods),
        *hypercalls(methods),
    ]
    return "".join(f.text() for f in functions) + methods.text()
