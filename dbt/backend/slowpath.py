"""The slow path of a memory access: alignment, page table misses, devices, writes beside code.

``slow_load<size>(cpu, gva, aligned) -> {value, ok}`` and ``slow_store<size>(cpu, gva, value,
aligned) -> ok``. Where not ok, CpuState says why and the instruction leaves; it has changed nothing
but RAM that it is going to write again.

A device access is completed as KVM does it: the instruction leaves, Python answers, the answer is
kept in ``mmio_value``, and the instruction runs again; accesses already answered are then replayed.
An access that is neither aligned nor wholly in RAM is left to the reference evaluator.
"""

from __future__ import annotations

from dbt.backend.support import field_pointer
from dbt.runtime.cpu import NATIVE
from dbt.runtime.exits import ExitCode
from isa.state import LAYOUT, SCTLR_A


def _load(name: str, type_: str) -> str:
    return f"{field_pointer(name, f'%{name}.p')}\n  %{name} = load {type_}, ptr %{name}.p"


def _leave(code: ExitCode, *arguments: str) -> str:
    """Store an exit and its arguments (LLVM operands of type i64)."""
    tag = code.name.lower()
    lines = [field_pointer("exit_kind", f"%{tag}.kind"), f"store i32 {int(code)}, ptr %{tag}.kind"]
    for number, argument in enumerate(arguments):
        offset = NATIVE["exit_args"].offset + 8 * number
        lines.append(f"%{tag}.a{number} = getelementptr i8, ptr %cpu, i64 {offset}")
        lines.append(f"store i64 {argument}, ptr %{tag}.a{number}")
    return "\n  ".join(lines)


def _classify(size: int, write: bool, failed: str) -> str:
    """Split into %in.ram, %replay (a device access already answered) and exits that end in ``failed``."""
    device = ExitCode.DEVICE_WRITE if write else ExitCode.DEVICE_READ
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
  br i1 %fault, label %misaligned, label %where
misaligned:
  {_leave(ExitCode.ALIGNMENT, "%gva64", str(size), str(int(write)))}
  ret {failed}
where:
  {_load("ram_size", "i64")}
  {_load("ram_host", "ptr")}
  %end = add i64 %gva64, {size}
  %inside = icmp ule i64 %end, %ram_size
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
  br i1 %answered, label %replay, label %ask
ask:
  {"%value64 = zext i32 %value to i64" if write else ""}
  {_leave(device, "%gva64", str(size), "%value64") if write else _leave(device, "%gva64", str(size))}
  ret {failed}
replay:
  %cursor.next = add i32 %mmio_cursor, 1
  store i32 %cursor.next, ptr %mmio_cursor.p"""


def _fill(table: str) -> str:
    """Enter the page into a shadow page table; RAM is mapped at its own address."""
    return f"""{_load(table, "ptr")}
  %page = lshr i64 %gva64, 12
  %entry = getelementptr ptr, ptr %{table}, i64 %page
  store ptr %ram_host, ptr %entry"""


def _slow_load(size: int) -> str:
    bits = 8 * size
    widen = f"%wide = zext i{bits} %narrow to i32" if size < 4 else "%wide = add i32 %narrow, 0"
    return f"""
define hidden {{i32, i1}} @slow_load{size}(ptr %cpu, i32 %gva, i1 %aligned) {{
{_classify(size, False, "{i32, i1} zeroinitializer")}
  %place = zext i32 %mmio_cursor to i64
  {field_pointer("mmio_value", "%values")}
  %answer.p = getelementptr i32, ptr %values, i64 %place
  %answer = load i32, ptr %answer.p
  %device.result = insertvalue {{i32, i1}} {{i32 0, i1 true}}, i32 %answer, 0
  ret {{i32, i1}} %device.result
in.ram:
  {_fill("read_table")}
  %host = getelementptr i8, ptr %ram_host, i64 %gva64
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
define hidden i1 @slow_store{size}(ptr %cpu, i32 %gva, i32 %value, i1 %aligned) {{
{_classify(size, True, "i1 false")}
  ret i1 true
in.ram:
  %page = lshr i64 %gva64, 12
  %last = add i64 %end, -1
  %last.page = lshr i64 %last, 12
  {_load("code_page_present", "ptr")}
  %flag.p = getelementptr i8, ptr %code_page_present, i64 %page
  %flag = load i8, ptr %flag.p
  %last.p = getelementptr i8, ptr %code_page_present, i64 %last.page
  %last.flag = load i8, ptr %last.p
  %either = or i8 %flag, %last.flag
  %code = icmp ne i8 %either, 0
  br i1 %code, label %beside.code, label %fill
beside.code:
  %first.covered = call i1 @is_covered(ptr %cpu, i64 %gva64)
  %last.covered = call i1 @is_covered(ptr %cpu, i64 %last)
  %covered = or i1 %first.covered, %last.covered
  br i1 %covered, label %drop, label %undo
drop:
  {_leave(ExitCode.CODE_WRITE, "%gva64", str(size))}
  ret i1 false
undo:
  call void @invalidate_range(ptr %cpu, i64 %gva64, i64 {size})
  br label %write
fill:
  {_load("write_table", "ptr")}
  %entry = getelementptr ptr, ptr %write_table, i64 %page
  store ptr %ram_host, ptr %entry
  br label %write
write:
  %host = getelementptr i8, ptr %ram_host, i64 %gva64
  %narrow = {narrow}
  store i{bits} %narrow, ptr %host, align 1
  ret i1 true
}}
"""


def slowpath_text() -> str:
    """All definitions of this module."""
    return "".join(_slow_load(size) + _slow_store(size) for size in (1, 2, 4))
