"""What the handlers stand on, as LLVM text: entry, exits, page crossing and the native decoder.

All of it reaches the machine through CpuState, so the code has no external symbol and no absolute
address, and its image can be kept on disk.
"""

from __future__ import annotations

from dbt.backend.abi import (
    CODE_PAGE_STRIDE,
    COVERED,
    HOT_ARRIVALS,
    OP_BODY,
    OP_COVERED,
    OP_HOTNESS,
    OP_SIZE,
    OPS_PER_PAGE,
    header,
    tail_call,
)
from dbt.backend.lower import FLAGS
from dbt.backend.predecode import ROW
from dbt.runtime.cpu import NATIVE
from dbt.runtime.exits import ExitCode
from isa.spec import ALWAYS
from isa.state import LAYOUT

R15 = LAYOUT["r"].offset + 4 * 15


def field_pointer(name: str, result: str) -> str:
    """Instruction: ``result`` = pointer to a slot of CpuState's runtime part."""
    return f"{result} = getelementptr i8, ptr %cpu, i64 {NATIVE[name].offset}"


def _load_field(name: str, type_: str, result: str) -> str:
    return f"{field_pointer(name, result + '.p')}\n  {result} = load {type_}, ptr {result}.p"


def _save_state() -> str:
    """Store the flags and the budget where Python finds them."""
    lines = []
    for name in FLAGS:
        lines.append(f"%{name}.p = getelementptr i8, ptr %cpu, i64 {LAYOUT[name].offset}")
        lines.append(f"store i32 %{name}, ptr %{name}.p")
    lines += [field_pointer("budget", "%budget.p"), "store i64 %budget, ptr %budget.p"]
    return "\n  ".join(lines)


def _exit_kind(code: ExitCode) -> str:
    return f"{field_pointer('exit_kind', '%kind.p')}\n  store i32 {int(code)}, ptr %kind.p"


def _leave() -> str:
    """``leave``: back to the caller of ``enter``, with r[15] = the address of this op."""
    return f"""
{header("leave")} {{
  {_save_state()}
  %place = ptrtoint ptr %op to i64
  %inside = and i64 %place, {OP_SIZE * OPS_PER_PAGE - 1}
  %offset = lshr i64 %inside, 3
  %offset32 = trunc i64 %offset to i32
  {_load_field("page_gva", "i32", "%page")}
  %pc = add i32 %page, %offset32
  %r15 = getelementptr i8, ptr %cpu, i64 {R15}
  store i32 %pc, ptr %r15
  ret void
}}
{header("leave_hot")} {{
  {_exit_kind(ExitCode.HOT)}
  {tail_call("@leave")}
  ret void
}}
{header("leave_budget")} {{
  {_exit_kind(ExitCode.BUDGET)}
  {tail_call("@leave")}
  ret void
}}
"""


def _exit_handler(name: str, code: ExitCode) -> str:
    """A handler that leaves at its own instruction, without retiring it."""
    return f"""
{header(name)} {{
  %none = icmp eq i64 %budget, 0
  br i1 %none, label %exhausted, label %go
exhausted:
  {tail_call("@leave_budget")}
  ret void
go:
  {_exit_kind(code)}
  {tail_call("@leave")}
  ret void
}}
"""


def _goto(name: str, then: str) -> str:
    """``name``: continue at the GVA in exit_args[0]; leave with CODE_MISS if its page is not known.

    ``then`` is what is done with the op, %next.
    """
    return f"""
{header(name)} {{
  {_load_field("exit_args", "i64", "%target64")}
  %target = trunc i64 %target64 to i32
  {_load_field("code_table", "ptr", "%table")}
  %page = lshr i64 %target64, 12
  %entry = getelementptr ptr, ptr %table, i64 %page
  %ops = load ptr, ptr %entry
  %unknown = icmp eq ptr %ops, null
  br i1 %unknown, label %miss, label %known
known:
  %gva = and i32 %target, -4096
  {field_pointer("page_gva", "%gva.p")}
  store i32 %gva, ptr %gva.p
  %word = and i64 %target64, 4092
  %offset = shl i64 %word, 3
  %next = getelementptr i8, ptr %ops, i64 %offset
  {then}
miss:
  {_save_state()}
  {_exit_kind(ExitCode.CODE_MISS)}
  %aligned = and i32 %target, -4
  %r15 = getelementptr i8, ptr %cpu, i64 {R15}
  store i32 %aligned, ptr %r15
  ret void
}}
"""


_DISPATCH = f"""%handler = load ptr, ptr %next
  {tail_call("%handler", op="%next")}
  ret void"""

# For arrivals at the end of a region: a place to which control comes often is worth one of its own.
_COUNT = f"""%count.p = getelementptr i8, ptr %next, i64 {OP_HOTNESS}
  %count = load i16, ptr %count.p
  %more = add i16 %count, 1
  store i16 %more, ptr %count.p
  %rest = and i16 %more, {HOT_ARRIVALS - 1}
  %is.hot = icmp eq i16 %rest, 0
  br i1 %is.hot, label %hot, label %cold
hot:
  {tail_call("@leave_hot", op="%next")}
  ret void
cold:
  {_DISPATCH}"""


def _sentinel() -> str:
    return f"""
{header("sentinel")} {{
  {_load_field("page_gva", "i32", "%gva")}
  %target = add i32 %gva, 4096
  %wide = zext i32 %target to i64
  {field_pointer("exit_args", "%target.p")}
  store i64 %wide, ptr %target.p
  {tail_call("@goto")}
  ret void
}}
"""


def _enter() -> str:
    """``enter``: run from r[15] until an exit. An ordinary C function of one argument, CpuState."""
    loads = []
    for name in FLAGS:
        loads.append(f"%{name}.p = getelementptr i8, ptr %cpu, i64 {LAYOUT[name].offset}")
        loads.append(f"%{name} = load i32, ptr %{name}.p")
    lines = "\n  ".join(loads)
    call = tail_call("@goto", op="null").replace("musttail ", "")
    return f"""
define hidden void @enter(ptr %cpu) {{
  {lines}
  {_load_field("budget", "i64", "%budget")}
  {_load_field("read_table", "ptr", "%reads")}
  {_load_field("write_table", "ptr", "%writes")}
  %r15.p = getelementptr i8, ptr %cpu, i64 {R15}
  %r15 = load i32, ptr %r15.p
  %target = zext i32 %r15 to i64
  {field_pointer("exit_args", "%target.p")}
  store i64 %target, ptr %target.p
  {call}
  ret void
}}
"""


def _decode() -> str:
    """``decode``: the handler of every op not decoded yet: recognise the word, fill the op, run it."""
    row = ROW.size
    assert row == 44, "the offsets below are those of predecode.ROW"
    return f"""
{header("decode")} {{
  {_load_field("code_pages", "i64", "%pages")}
  {_load_field("ram_host", "ptr", "%ram")}
  %here = ptrtoint ptr %op to i64
  %distance = sub i64 %here, %pages
  %page = lshr i64 %distance, 4
  %page.gpa = and i64 %page, -4096
  %inside = and i64 %distance, {OP_SIZE * OPS_PER_PAGE - 1}
  %offset = lshr i64 %inside, 3
  %gpa = or i64 %page.gpa, %offset
  %host = getelementptr i8, ptr %ram, i64 %gpa
  %word = load i32, ptr %host
  %condition = lshr i32 %word, 28
  %unconditional = icmp eq i32 %condition, 15
  %space = select i1 %unconditional, i32 4096, i32 0
  %high = lshr i32 %word, 16
  %high.bits = and i32 %high, 4080
  %low = lshr i32 %word, 4
  %low.bits = and i32 %low, 15
  %both = or i32 %high.bits, %low.bits
  %index = or i32 %both, %space
  %index64 = zext i32 %index to i64
  {_load_field("decode_index", "ptr", "%indexes")}
  {_load_field("decode_pool", "ptr", "%pool")}
  {_load_field("decode_rows", "ptr", "%rows")}
  %start.p = getelementptr i32, ptr %indexes, i64 %index64
  %start = load i32, ptr %start.p
  %start64 = zext i32 %start to i64
  br label %try
try:
  %position = phi i64 [ %start64, %0 ], [ %following, %next ]
  %following = add i64 %position, 1
  %number.p = getelementptr i16, ptr %pool, i64 %position
  %number = load i16, ptr %number.p
  %number64 = zext i16 %number to i64
  %row.at = mul i64 %number64, {row}
  %row = getelementptr i8, ptr %rows, i64 %row.at
  %mask = load i32, ptr %row, align 4
  %value.p = getelementptr i8, ptr %row, i64 4
  %value = load i32, ptr %value.p
  %masked = and i32 %word, %mask
  %fits = icmp eq i32 %masked, %value
  br i1 %fits, label %holes, label %next
next:
  br label %try
holes:
  %hole1.p = getelementptr i8, ptr %row, i64 8
  %hole1 = load i32, ptr %hole1.p
  %in1.p = getelementptr i8, ptr %row, i64 12
  %in1 = load i32, ptr %in1.p
  %bits1 = and i32 %word, %hole1
  %hit1 = icmp eq i32 %bits1, %in1
  %hole2.p = getelementptr i8, ptr %row, i64 16
  %hole2 = load i32, ptr %hole2.p
  %in2.p = getelementptr i8, ptr %row, i64 20
  %in2 = load i32, ptr %in2.p
  %bits2 = and i32 %word, %hole2
  %hit2 = icmp eq i32 %bits2, %in2
  %hit = or i1 %hit1, %hit2
  br i1 %hit, label %next, label %found
found:
  {_load_field("image", "ptr", "%image")}
  %handler.p = getelementptr i8, ptr %row, i64 24
  %handler.at = load i32, ptr %handler.p
  %handler64 = zext i32 %handler.at to i64
  %handler = getelementptr i8, ptr %image, i64 %handler64
  %fill.p = getelementptr i8, ptr %row, i64 28
  %fill.at = load i32, ptr %fill.p
  %fill64 = zext i32 %fill.at to i64
  %fill = getelementptr i8, ptr %image, i64 %fill64
  call void %fill(ptr %op, i32 %word)
  %conditional.p = getelementptr i8, ptr %row, i64 32
  %conditional = load i8, ptr %conditional.p
  %has.condition = icmp ne i8 %conditional, 0
  %guarded.by = select i1 %has.condition, i32 %condition, i32 {ALWAYS}
  %count.p = getelementptr i8, ptr %row, i64 33
  %count8 = load i8, ptr %count.p
  %count = zext i8 %count8 to i64
  br label %operands
operands:
  %i = phi i64 [ 0, %found ], [ %i.next, %operand ]
  %all = icmp eq i64 %i, %count
  br i1 %all, label %checked, label %operand
operand:
  %pair = shl i64 %i, 1
  %shift.at = add i64 %pair, 36
  %shift.p = getelementptr i8, ptr %row, i64 %shift.at
  %shift8 = load i8, ptr %shift.p
  %shift = zext i8 %shift8 to i32
  %wanted.at = add i64 %pair, 37
  %wanted.p = getelementptr i8, ptr %row, i64 %wanted.at
  %wanted8 = load i8, ptr %wanted.p
  %wanted = zext i8 %wanted8 to i32
  %shifted = lshr i32 %word, %shift
  %register = and i32 %shifted, 15
  %i.next = add i64 %i, 1
  %is.pc = icmp eq i32 %register, %wanted
  br i1 %is.pc, label %checked, label %operands
checked:
  %pc = phi i32 [ 0, %operands ], [ 1, %operand ]
  %plain = icmp eq i32 %guarded.by, {ALWAYS}
  %no.pc = icmp eq i32 %pc, 0
  %unguarded = and i1 %plain, %no.pc
  br i1 %unguarded, label %install, label %guard
guard:
  %body.p = getelementptr i8, ptr %op, i64 {OP_BODY}
  store i32 %handler.at, ptr %body.p
  %twice = shl i32 %guarded.by, 1
  %which = or i32 %twice, %pc
  %which64 = zext i32 %which to i64
  {_load_field("decode_guards", "ptr", "%guards")}
  %guard.p = getelementptr i32, ptr %guards, i64 %which64
  %guard.at = load i32, ptr %guard.p
  %guard64 = zext i32 %guard.at to i64
  %guarding = getelementptr i8, ptr %image, i64 %guard64
  br label %install
install:
  %chosen = phi ptr [ %handler, %checked ], [ %guarding, %guard ]
  store ptr %chosen, ptr %op
  {tail_call("%chosen")}
  ret void
}}
define hidden void @fill_nothing(ptr %op, i32 %word) {{
  ret void
}}
"""


def _find_op(none: str) -> str:
    """Into block ``look`` with %op, the op of %gpa, or to ``none`` if its page has no code page."""
    return f"""{_load_field("code_page_present", "ptr", "%present")}
  %page = lshr i64 %gpa, 12
  %flag.p = getelementptr i8, ptr %present, i64 %page
  %flag = load i8, ptr %flag.p
  %there = icmp ne i8 %flag, 0
  br i1 %there, label %look, label %{none}
look:
  {_load_field("code_pages", "ptr", "%pages")}
  %at = mul i64 %page, {CODE_PAGE_STRIDE}
  %ops = getelementptr i8, ptr %pages, i64 %at
  %word = and i64 %gpa, 4092
  %place = shl i64 %word, 3
  %op = getelementptr i8, ptr %ops, i64 %place"""


def _code_pages() -> str:
    """Making a code page, and undoing the ops whose words are written."""
    return f"""
define hidden void @make_code_page(ptr %cpu, i32 %page) {{
  {_load_field("code_pages", "ptr", "%pages")}
  %page64 = zext i32 %page to i64
  %at = mul i64 %page64, {CODE_PAGE_STRIDE}
  %ops = getelementptr i8, ptr %pages, i64 %at
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %more, %loop ]
  %place = shl i64 %i, 5
  %op = getelementptr i8, ptr %ops, i64 %place
  store ptr @decode, ptr %op
  %more = add i64 %i, 1
  %done = icmp eq i64 %more, {OPS_PER_PAGE}
  br i1 %done, label %end, label %loop
end:
  %last = getelementptr i8, ptr %ops, i64 {OPS_PER_PAGE * OP_SIZE}
  store ptr @sentinel, ptr %last
  {_load_field("code_page_present", "ptr", "%present")}
  %flag = getelementptr i8, ptr %present, i64 %page64
  store i8 1, ptr %flag
  ret void
}}
define hidden void @invalidate(ptr %cpu, i64 %gpa) {{
  {_find_op("end")}
  %handler = load ptr, ptr %op
  %fresh = icmp eq ptr %handler, @decode
  br i1 %fresh, label %end, label %undo
undo:
  store ptr @decode, ptr %op
  {_load_field("code_written", "i32", "%written")}
  %one.more = add i32 %written, 1
  store i32 %one.more, ptr %written.p
  br label %end
end:
  ret void
}}
define hidden i1 @is_covered(ptr %cpu, i64 %gpa) {{
  {_find_op("no")}
  %covered.p = getelementptr i8, ptr %op, i64 {OP_COVERED}
  %covered = load i8, ptr %covered.p
  %bit = and i8 %covered, {COVERED}
  %yes = icmp ne i8 %bit, 0
  ret i1 %yes
no:
  ret i1 false
}}
define hidden void @invalidate_range(ptr %cpu, i64 %gpa, i64 %size) {{
  %end = add i64 %gpa, %size
  %first = and i64 %gpa, -4
  br label %loop
loop:
  %at = phi i64 [ %first, %0 ], [ %next, %body ]
  %over = icmp uge i64 %at, %end
  br i1 %over, label %done, label %body
body:
  call void @invalidate(ptr %cpu, i64 %at)
  %next = add i64 %at, 4
  br label %loop
done:
  ret void
}}
"""


def _writable() -> str:
    """``writable``: the entry by which regions may store where the shadow page table has none, or null.

    Data beside code is common. If no word of the access is decoded, or was made a region from, there is nothing to
    undo. A page without code is entered into the table. The convention preserves the region's registers.
    """
    return f"""
define hidden preserve_mostcc ptr @writable(ptr %cpu, i32 %gva, i32 %size, i32 %align) {{
  %gva64 = zext i32 %gva to i64
  %size64 = zext i32 %size to i64
  %end = add i64 %gva64, %size64
  {_load_field("ram_size", "i64", "%ram.size")}
  {_load_field("ram_host", "ptr", "%ram")}
  %inside = icmp ule i64 %end, %ram.size
  %low = add i32 %align, -1
  %odd = and i32 %gva, %low
  %aligned = icmp eq i32 %odd, 0
  %good = and i1 %inside, %aligned
  br i1 %good, label %start, label %refuse
start:
  %first = and i64 %gva64, -4
  {_load_field("write_table", "ptr", "%table")}
  br label %loop
loop:
  %gpa = phi i64 [ %first, %start ], [ %gpa.next, %next ]
  %done = icmp uge i64 %gpa, %end
  br i1 %done, label %accept, label %find
find:
  {_find_op("no.code")}
  %handler = load ptr, ptr %op
  %fresh = icmp eq ptr %handler, @decode
  %covered.p = getelementptr i8, ptr %op, i64 {OP_COVERED}
  %covered = load i8, ptr %covered.p
  %bit = and i8 %covered, {COVERED}
  %free = icmp eq i8 %bit, 0
  %untouched = and i1 %fresh, %free
  br i1 %untouched, label %next, label %refuse
no.code:
  %entry = getelementptr ptr, ptr %table, i64 %page
  store ptr %ram, ptr %entry
  br label %next
next:
  %gpa.next = add i64 %gpa, 4
  br label %loop
accept:
  ret ptr %ram
refuse:
  ret ptr null
}}
"""


def support_text() -> str:
    """All definitions of this module."""
    return "".join(
        [
            _leave(),
            _exit_handler("trap", ExitCode.TRAP),
            _exit_handler("undefined", ExitCode.UNDEFINED),
            _goto("goto", _DISPATCH),
            _goto("arrive", _COUNT),
            _sentinel(),
            _enter(),
            _decode(),
            _code_pages(),
            _writable(),
        ]
    )
