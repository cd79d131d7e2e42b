"""The slow path of a memory access: alignment, page table misses, devices, writes beside code.

``slow_load<size>(cpu, gva, aligned, user) -> {value, ok}`` and ``slow_store<size>(cpu, gva, value,
aligned, user) -> ok``. Where not ok, CpuState says why and the instruction leaves; it has changed nothing
but RAM that it is going to write again.

A device access is completed as KVM does it: the instruction leaves, Python answers, the answer is
kept in ``mmio_value``, and the instruction runs again; accesses already answered are then replayed.
Some registers go on by themselves, such as a timer's value. Where the device has said how
(:class:`dbt.abi.virtual_counter.VirtualCounter`), a load is answered here; the tier says what is known, and forgets it
whenever a device is written to or a slice begins. Only loads that access one place are: they need no answers to be
kept.

An access that is neither aligned nor wholly in one page of RAM is left to the reference evaluator. A store to RAM that
is read-only is ignored (choice: read-only-ram).
"""

from __future__ import annotations

from dbt.abi.cpu import NATIVE, VIRTUAL_COUNTER_WORDS, VIRTUAL_COUNTERS
from dbt.abi.exits import ExitCode
from dbt.abi.layout import PAGE_HAS_CODE, PAGE_RAM, PAGE_WRITABLE, READ, WRITE
from dbt.backend.shadow import user_mode
from dbt.backend.support import field_pointer, load_field, page_flag
from isa.arm.faults import FAULT_MASK, PARTIAL, AccessKind, Fault
from isa.arm.state import LAYOUT, SCTLR_A, SCTLR_M


def _load(name: str, type_: str) -> str:
    return load_field(name, type_, f"%{name}")


def _leave(code: ExitCode, *arguments: str, tag: str = "") -> str:
    """Store an exit and its arguments (LLVM operands of type i64)."""
    tag = tag or code.name.lower()
    lines = [field_pointer("exit_kind", f"%{tag}.kind"), f"store i32 {int(code)}, ptr %{tag}.kind"]
    for number, argument in enumerate(arguments):
        offset = NATIVE["exit_args"].offset + 8 * number
        lines.append(f"%{tag}.a{number} = getelementptr i8, ptr %cpu, i64 {offset}")
        lines.append(f"store i64 {argument}, ptr %{tag}.a{number}")
    return "\n  ".join(lines)


def _classify(size: int, write: bool, failed: str) -> str:
    """Split into %in.ram, with %gpa, %replay (a device access already answered) and exits that end in ``failed``."""
    device = ExitCode.DEVICE_WRITE if write else ExitCode.DEVICE_READ
    value = "%value64" if write else "0"
    return f"""
  %gva64 = zext i32 %gva to i64
  %low = and i32 %gva, {size - 1}
  %odd = icmp ne i32 %low, 0
  %sctlr.p = getelementptr i8, ptr %cpu, i64 {LAYOUT["sctlr"].offset}
  %sctlr = load i32, ptr %sctlr.p
  %strict.bit = and i32 %sctlr, {SCTLR_A}
  %strict = icmp ne i32 %strict.bit, 0
  %checked = or i1 %strict, %aligned
  %fault = and i1 %odd, %checked
  br i1 %fault, label %misaligned, label %page
misaligned:
  {_leave(ExitCode.DATA_ABORT, "%gva64", str(size), str(int(write)), str(int(Fault.ALIGNMENT)), tag="misaligned")}
  ret {failed}
page:
  %mmu.bit = and i32 %sctlr, {SCTLR_M}
  %mmu = icmp ne i32 %mmu.bit, 0
  %in.page = and i32 %gva, 4095
  %crosses = icmp ugt i32 %in.page, {4096 - size}
  %split.here = and i1 %mmu, %crosses
  br i1 %split.here, label %split, label %walk
walk:
  {user_mode("%mode.user")}
  %as.user = or i1 %user, %mode.user
  %user.bit = select i1 %as.user, i32 {int(AccessKind.USER)}, i32 0
  %access = or i32 %user.bit, {int(write)}
  %found = call i64 @translate(ptr %cpu, i32 %gva, i32 %access)
  %status = lshr i64 %found, 32
  %fault.bits = and i64 %status, {FAULT_MASK}
  %permitted = icmp eq i64 %fault.bits, 0
  br i1 %permitted, label %where, label %abort
abort:
  {_leave(ExitCode.DATA_ABORT, "%gva64", str(size), str(int(write)), "%fault.bits", tag="abort")}
  ret {failed}
where:
  %gpa = and i64 %found, 4294967295
  {_load("ram_host", "ptr")}
  {_load("page_flags", "ptr")}
  %end = add i64 %gpa, {size}
  %last = add i64 %end, -1
  {page_flag("%gpa", "%flag")}
  {page_flag("%last", "%last.flag")}
  %both = and i8 %flag, %last.flag
  %ram.bit = and i8 %both, {PAGE_RAM}
  %inside = icmp ne i8 %ram.bit, 0
  br i1 %inside, label %in.ram, label %elsewhere
elsewhere:
  br i1 %odd, label %split, label %device
split:
  {_leave(ExitCode.TRAP)}
  ret {failed}
device:
  {_load("mmio_count", "i32")}
  {_load("mmio_cursor", "i32")}
  %answered = icmp ult i32 %mmio_cursor, %mmio_count
  br i1 %answered, label %replay, label %{"ask" if write else "look"}
{"" if write else _look(size)}
ask:
  {"%value64 = zext i32 %value to i64" if write else ""}
  {_leave(device, "%gpa", str(size), value, "%gva64")}
  ret {failed}
replay:
  %cursor.next = add i32 %mmio_cursor, 1
  store i32 %cursor.next, ptr %mmio_cursor.p"""


def _look(size: int) -> str:
    """Answer a load by the virtual_counter of its register, or go on at ``ask``."""
    return f"""look:
  br i1 %aligned, label %ask, label %find
find:
  %word.gpa = and i64 %gpa, -4
  %word.number = lshr i64 %gpa, 2
  %virtual_counter.number = and i64 %word.number, {VIRTUAL_COUNTERS - 1}
  {field_pointer("virtual_counters", "%virtual_counters")}
  %virtual_counter.at = mul i64 %virtual_counter.number, {8 * VIRTUAL_COUNTER_WORDS}
  %virtual_counter = getelementptr i8, ptr %virtual_counters, i64 %virtual_counter.at
  %virtual_counter.gpa = load i64, ptr %virtual_counter
  %key = or i64 %word.gpa, 1
  %is.this = icmp eq i64 %virtual_counter.gpa, %key
  br i1 %is.this, label %this, label %ask
this:
  {_load("tick_end", "i64")}
  {_load("budget", "i64")}
  %now = sub i64 %tick_end, %budget
  {_virtual_counter_word(1, "until")}
  %known = icmp slt i64 %now, %until
  br i1 %known, label %compute, label %ask
compute:
  {_virtual_counter_word(2, "start")}
  {_virtual_counter_word(3, "rate")}
  {_virtual_counter_word(4, "divisor")}
  {_virtual_counter_word(5, "mask")}
  %run = mul i64 %rate, %now
  %sum = add i64 %start, %run
  %quotient = udiv i64 %sum, %divisor
  %whole = and i64 %quotient, %mask
  %byte = and i64 %gpa, 3
  %shift = shl i64 %byte, 3
  %shifted = lshr i64 %whole, %shift
  %piece = and i64 %shifted, {(1 << 8 * size) - 1}
  %piece32 = trunc i64 %piece to i32
  {_load("live_reads", "i64")}
  %more.reads = add i64 %live_reads, 1
  store i64 %more.reads, ptr %live_reads.p
  %live.result = insertvalue {{i32, i1}} {{i32 0, i1 true}}, i32 %piece32, 0
  ret {{i32, i1}} %live.result"""


def _virtual_counter_word(number: int, name: str) -> str:
    return f"%{name}.p = getelementptr i8, ptr %virtual_counter, i64 {8 * number}\n  %{name} = load i64, ptr %{name}.p"


def _fill(table: int, then: str) -> str:
    """Enter the page into a shadow page table, if all of it is as this address is, and go on at ``then``."""
    return f"""%part.bit = and i64 %status, {PARTIAL}
  %part = icmp ne i64 %part.bit, 0
  br i1 %part, label %{then}, label %enter
enter:
  call void @note_extent(ptr %cpu, i32 %gva, i64 %status)
  %gva.page = lshr i32 %gva, 12
  %table = select i1 %as.user, i32 {table + 3}, i32 {table}
  %bias = sub i64 %gpa, %gva64
  %entry = getelementptr i8, ptr %ram_host, i64 %bias
  call void @fill(ptr %cpu, i32 %gva.page, i32 %table, ptr %entry)
  br label %{then}"""


def _slow_load(size: int) -> str:
    bits = 8 * size
    widen = f"%wide = zext i{bits} %narrow to i32" if size < 4 else "%wide = add i32 %narrow, 0"
    return f"""
define hidden {{i32, i1}} @slow_load{size}(ptr %cpu, i32 %gva, i1 %aligned, i1 %user) {{
{_classify(size, False, "{i32, i1} zeroinitializer")}
  %place = zext i32 %mmio_cursor to i64
  {field_pointer("mmio_value", "%values")}
  %answer.p = getelementptr i32, ptr %values, i64 %place
  %answer = load i32, ptr %answer.p
  %device.result = insertvalue {{i32, i1}} {{i32 0, i1 true}}, i32 %answer, 0
  ret {{i32, i1}} %device.result
in.ram:
  {_fill(READ, "do.access")}
do.access:
  %host = getelementptr i8, ptr %ram_host, i64 %gpa
  %narrow = load i{bits}, ptr %host, align 1
  {widen}
  %result = insertvalue {{i32, i1}} {{i32 0, i1 true}}, i32 %wide, 0
  ret {{i32, i1}} %result
}}
"""


def _slow_store(size: int) -> str:
    bits = 8 * size
    narrow = f"trunc i32 %value to i{bits}" if size < 4 else "add i32 %value, 0"
    return f"""
define hidden i1 @slow_store{size}(ptr %cpu, i32 %gva, i32 %value, i1 %aligned, i1 %user) {{
{_classify(size, True, "i1 false")}
  ret i1 true
in.ram:
  %either = or i8 %flag, %last.flag
  %writable.bit = and i8 %both, {PAGE_WRITABLE}
  %writable = icmp ne i8 %writable.bit, 0
  br i1 %writable, label %look, label %read.only
read.only:
  %partly.bit = and i8 %either, {PAGE_WRITABLE}
  %partly = icmp ne i8 %partly.bit, 0
  br i1 %partly, label %split, label %ignored
ignored:
  ret i1 true
look:
  %code.bit = and i8 %either, {PAGE_HAS_CODE}
  %code = icmp ne i8 %code.bit, 0
  br i1 %code, label %beside.code, label %plain
beside.code:
  %first.covered = call i1 @is_covered(ptr %cpu, i64 %gpa)
  %last.covered = call i1 @is_covered(ptr %cpu, i64 %last)
  %covered = or i1 %first.covered, %last.covered
  br i1 %covered, label %drop, label %undo
drop:
  {_leave(ExitCode.CODE_WRITE, "%gpa", str(size))}
  ret i1 false
undo:
  call void @invalidate_range(ptr %cpu, i64 %gpa, i64 {size})
  br label %do.access
plain:
  {_fill(WRITE, "do.access")}
do.access:
  %host = getelementptr i8, ptr %ram_host, i64 %gpa
  %narrow = {narrow}
  store i{bits} %narrow, ptr %host, align 1
  ret i1 true
}}
"""


def slowpath_text() -> str:
    """All definitions of this module."""
    return "".join(_slow_load(size) + _slow_store(size) for size in (1, 2, 4))
