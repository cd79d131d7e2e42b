"""The slow path of a memory access: alignment, misses of the shadow page tables, devices, and writes beside code.

``slow_load<size>(cpu, gva, aligned, user) -> {value, ok}`` and ``slow_store<size>(cpu, gva, value,
aligned, user) -> ok``. If not ok, CpuState says why, and the instruction leaves. It has changed nothing but RAM that
it is going to write again.

A device access is completed as KVM does it. The instruction leaves, Python answers, the answer is kept in
``mmio_value``, and the instruction runs again. It then finds the answers to the accesses that were made already.

Most accesses need no Python: :mod:`dbt.backend.device_access` makes them by the device's own methods. This serves only
instructions with one access, which need no latch. All others must be aligned.

An access that crosses pages is done byte by byte, as the reference tier does it. One that is not aligned and not in RAM
alone may be left to the reference evaluator.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbt.abi.exits import ExitCode
from dbt.abi.layout import (
    DEBUG_LOADS,
    DEBUG_STORES,
    PAGE_HAS_CODE,
    PAGE_LOGGED,
    PAGE_RAM,
    PAGE_REFUSES,
    PAGE_SHIFT,
    PAGE_SIZE,
    PAGE_WRITABLE,
    READ,
    USER_TABLES,
    WRITE,
)
from dbt.backend.builder import Builder, Value, define
from dbt.backend.debug_points import WATCHED_BYTES, watch_state
from dbt.backend.device_methods import ANSWER
from isa.arm.faults import FAULT_MASK, PARTIAL, AccessKind, Fault
from isa.arm.state import SCTLR_A, SCTLR_M

_LOADED = "{i32, i1}"


@dataclass(frozen=True, slots=True, eq=False)
class _Access:
    """An access whose function is being written. ``failed`` is the function's result if the instruction leaves."""

    f: Builder
    size: int
    write: bool
    failed: Value

    @classmethod
    def begin(cls, size: int, write: bool) -> _Access:
        flavour = {"aligned": "i1", "user": "i1"}
        if write:
            f = define(f"slow_store{size}", {"gva": "i32", "value": "i32", **flavour}, "i1")
            return cls(f, size, write, f.value("i1", 0))
        f = define(f"slow_load{size}", {"gva": "i32", **flavour}, _LOADED)
        return cls(f, size, write, Value(f, "zeroinitializer", _LOADED))

    @property
    def gva(self) -> Value:
        return self.f["gva"]

    @property
    def odd(self) -> Value:
        """True if the address is not a multiple of the size."""
        return (self.gva & (self.size - 1)).ne(0)

    def leave(self, code: ExitCode, *arguments: Value | int) -> None:
        """Have the instruction leave."""
        self.f.exit(code, *arguments)
        self.f.ret(self.failed)

    def abort(self, status: Value | int) -> None:
        """Have the instruction leave for a data abort."""
        self.abort_at(self.gva, self.size, status)

    def abort_at(self, gva: Value, size: int, status: Value | int) -> None:
        """Have the instruction leave for the data abort of a part of the access."""
        self.leave(ExitCode.DATA_ABORT, gva.to("i64"), size, int(self.write), status)

    def as_user(self) -> Value:
        """Return an i1: user mode's rights apply."""
        return self.f["user"] | self.f.is_user_mode()

    def translate(self, gva: Value, as_user: Value) -> Value:
        """Walk the page tables for an address of the access. Return what ``translate`` does."""
        kind = as_user.choose(int(AccessKind.USER), 0, "i32") | int(self.write)
        return self.f.call("translate", self.f.cpu, gva, kind, result="i64")


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where an access goes: its GPA (i64), the status of the walk (i64), and whether user mode's rights apply (i1).

    ``both`` are the page flags (i8) that the first and the last byte share; ``either`` are those that one of them has.
    """

    gpa: Value
    status: Value
    as_user: Value
    both: Value
    either: Value


def _check_alignment(access: _Access) -> None:
    """The instruction leaves if the address has to be a multiple of the size, and is not."""
    f = access.f
    with f.when(access.odd & (f.load_state("sctlr").has(SCTLR_A) | f["aligned"])):
        access.abort(int(Fault.ALIGNMENT))


def _crosses_pages(access: _Access) -> Value:
    """Return an i1: the first and the last byte are in pages that may be mapped to different places."""
    f = access.f
    return f.load_state("sctlr").has(SCTLR_M) & (access.gva & (PAGE_SIZE - 1)).ugt(PAGE_SIZE - access.size)


def _load_bytes(access: _Access) -> None:
    """Return the result of a load that is done byte by byte."""
    f = access.f
    value = f.value("i32", 0)
    for number in range(access.size):
        # Bytes are aligned, and so it is no single access, whose answer a device would give without the latch.
        answer = f.call("slow_load1", f.cpu, access.gva + number, f.value("i1", 1), f["user"], result=_LOADED)
        with f.when(~Value(f, f.emit(f"extractvalue {_LOADED} {answer}, 1"), "i1"), likely=False):
            f.ret(access.failed)
        value |= Value(f, f.emit(f"extractvalue {_LOADED} {answer}, 0"), "i32") << 8 * number
    f.ret(_loaded(f, value))


def _store_bytes(access: _Access) -> None:
    """Return the result of a store that is done byte by byte, where all of them are in RAM: all are stored or none."""
    f, as_user = access.f, access.as_user()
    for gva in (access.gva, (access.gva | PAGE_SIZE - 1) + 1):
        found = access.translate(gva, as_user)
        fault = found >> 32 & FAULT_MASK
        with f.when(fault.ne(0)):
            access.abort_at(gva, 1, fault)
        flags = f.page_flags(found & 0xFFFFFFFF)
        with f.when(~flags.has(PAGE_RAM), likely=False):
            access.leave(ExitCode.TRAP)
        with f.when(flags.has(PAGE_REFUSES), likely=False):
            access.abort_at(gva, 1, int(Fault.EXTERNAL))
    for number in range(access.size):
        byte = f["value"] >> 8 * number
        done = f.call("slow_store1", f.cpu, access.gva + number, byte, f.value("i1", 1), f["user"], result="i1")
        with f.when(~done, likely=False):
            f.ret(access.failed)
    f.ret(f.value("i1", 1))


def _locate(access: _Access) -> _Place:
    """Walk the page tables. The instruction leaves if the access is not permitted."""
    f, size = access.f, access.size
    as_user = access.as_user()
    found = access.translate(access.gva, as_user)
    status = found >> 32
    fault = status & FAULT_MASK
    with f.when(fault.ne(0)):
        access.abort(fault)
    gpa = found & 0xFFFFFFFF
    first, last = f.page_flags(gpa), f.page_flags(gpa + (size - 1))
    return _Place(gpa, status, as_user, first & last, first | last)


def _answered(access: _Access, gpa: Value) -> Value:
    """Return the answer (i32) to a device access at a GPA. If only Python can give it and has not, the instruction
    leaves.
    """
    f = access.f
    with f.when(access.odd):
        access.leave(ExitCode.TRAP)
    cursor = f.load_native("mmio_cursor")
    with f.when(cursor.uge(f.load_native("mmio_count"))):
        with f.when(~f["aligned"]):
            _access_natively(access, gpa)
        if access.write:
            access.leave(ExitCode.DEVICE_WRITE, gpa, access.size, f["value"].to("i64"), access.gva.to("i64"))
        else:
            access.leave(ExitCode.DEVICE_READ, gpa, access.size, 0, access.gva.to("i64"))
    f.store_native("mmio_cursor", cursor + 1)
    return f.native("mmio_value").element("i32", cursor).load("i32")


def _access_natively(access: _Access, gpa: Value) -> None:
    """Return the result of the access if native code can make it."""
    f = access.f
    size = f.value("i64", access.size)
    if access.write:
        with f.when(f.call("device_write", f.cpu, gpa, size, f["value"].to("i64"), result="i1")):
            f.ret(f.value("i1", 1))
        return
    answer = f.call("device_read", f.cpu, gpa, size, result=ANSWER)
    with f.when(Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 1"), "i1")):
        f.ret(_loaded(f, Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 0"), "i64").to("i32")))


def _loaded(f: Builder, value: Value) -> Value:
    """Return the result of a load that has succeeded."""
    whole = f"insertvalue {_LOADED} {{i32 0, i1 true}}, {value.type} {value.text}, 0"
    return Value(f, f.emit(whole), _LOADED)


def _watched(access: _Access) -> Value:
    """Return an i1: a byte of the page is watched. The instruction leaves if the access itself is."""
    f = access.f
    kind = DEBUG_STORES if access.write else DEBUG_LOADS
    state = watch_state(f, access.gva, f.value("i32", access.size), kind)
    with f.when(state.eq(WATCHED_BYTES), likely=False):
        access.leave(ExitCode.WATCH, access.gva.to("i64"), access.size, int(access.write))
    return state.ne(0)


def _fill(access: _Access, place: _Place, table: int, watched: Value) -> None:
    """Enter the page into a shadow page table, if all of it is mapped as this address is and nothing of it watched."""
    f = access.f
    with f.when(~place.status.has(PARTIAL) & ~watched):
        f.call("note_extent", f.cpu, access.gva, place.status)
        entry = f.load_native("ram_host", "ptr").at(place.gpa - access.gva.to("i64"))
        number = place.as_user.choose(table + USER_TABLES, table, "i32")
        f.call("fill", f.cpu, access.gva >> PAGE_SHIFT, number, entry)


def _slow_load(size: int) -> Builder:
    access = _Access.begin(size, write=False)
    f = access.f
    if size > 1:
        _check_alignment(access)
        with f.when(_crosses_pages(access), likely=False):
            _load_bytes(access)
    place = _locate(access)
    watched = _watched(access)
    with f.when(~place.both.has(PAGE_RAM)):
        f.ret(_loaded(f, _answered(access, place.gpa)))
    _fill(access, place, READ, watched)
    value = f.load_native("ram_host", "ptr").at(place.gpa).load(f"i{8 * size}", align=1)
    f.ret(_loaded(f, value.to("i32")))
    return f


def _slow_store(size: int) -> Builder:
    access = _Access.begin(size, write=True)
    f = access.f
    if size > 1:
        _check_alignment(access)
        with f.when(_crosses_pages(access), likely=False):
            _store_bytes(access)
    place = _locate(access)
    watched = _watched(access)
    done = f.value("i1", 1)
    with f.when(~place.both.has(PAGE_RAM)):
        _answered(access, place.gpa)
        f.ret(done)
    with f.when(~place.both.has(PAGE_WRITABLE)):
        is_in_one = ~(access.gva & (PAGE_SIZE - 1)).ugt(PAGE_SIZE - size)
        with f.when(place.both.has(PAGE_REFUSES) & is_in_one):
            access.abort(int(Fault.EXTERNAL))
        with f.when(place.either.has(PAGE_WRITABLE | PAGE_REFUSES)):
            access.leave(ExitCode.TRAP)
        f.ret(done)
    last = place.gpa + (size - 1)
    with f.when(~place.both.has(PAGE_LOGGED)):
        f.call("log_page", f.cpu, place.gpa)
        f.call("log_page", f.cpu, last)
    has_code = place.either.has(PAGE_HAS_CODE)
    with f.when(has_code):
        covered = [f.call("is_covered", f.cpu, gpa, result="i1") for gpa in (place.gpa, last)]
        with f.when(covered[0] | covered[1]):
            access.leave(ExitCode.CODE_WRITE, place.gpa, size)
        f.call("invalidate_range", f.cpu, place.gpa, f.value("i64", size))
        f.call("note_store", f.cpu, place.gpa)
    with f.when(~has_code):
        _fill(access, place, WRITE, watched)
    host = f.load_native("ram_host", "ptr").at(place.gpa)
    f.store(f["value"].to(f"i{8 * size}"), host, align=1)
    f.ret(done)
    return f


def slowpath_text() -> str:
    """Return the LLVM text of this module's definitions."""
    return "".join(f.text() for size in (1, 2, 4) for f in (_slow_load(size), _slow_store(size)))
