"""What the handlers stand on, as LLVM text: entry, exits, page crossing and the native decoder.

All of it reaches the machine through CpuState, so the code has no external symbol and no absolute
address, and its image can be kept on disk.
"""

from __future__ import annotations

from dbt.abi.cpu import NATIVE
from dbt.abi.exits import ExitCode
from dbt.abi.layout import (
    CHANGES,
    CODE_PAGE_STRIDE,
    COVERED,
    HOT,
    HOT_ARRIVALS,
    OP_BODY,
    OP_CALLOUTS,
    OP_COVERED,
    OP_HOTNESS,
    OP_ORIGINAL,
    OP_SIZE,
    OPS_PER_PAGE,
    PAGE_CHANGED,
    PAGE_HAS_CODE,
    PAGE_RAM,
    PAGE_WRITABLE,
    WARM,
    WORD_CHANGES,
    WORD_COVERED,
    WORD_ENTERED,
    WORD_EXECUTED,
)
from dbt.backend.convention import header, tail_call
from dbt.backend.lower import FLAGS
from dbt.backend.predecode import ROW
from dbt.memory.ram import PAGE_SHIFT
from isa.arm.faults import FAULT_MASK, PARTIAL, AccessKind
from isa.arm.operands import ALWAYS
from isa.arm.state import LAYOUT, PSR_F, PSR_MODE, SCTLR_M, Mode
from isa.arm.vectors import VECTORS, ExceptionKind

R15 = LAYOUT["r"].offset + 4 * 15


def field_pointer(name: str, result: str) -> str:
    """Instruction: ``result`` = pointer to a slot of CpuState's runtime part."""
    return f"{result} = getelementptr i8, ptr %cpu, i64 {NATIVE[name].offset}"


def load_field(name: str, type_: str, result: str) -> str:
    return f"{field_pointer(name, result + '.p')}\n  {result} = load {type_}, ptr {result}.p"


def page_flag(gpa: str, result: str) -> str:
    """``result`` is the flags (i8) of the page of ``gpa`` (i64), where %page_flags is loaded."""
    return f"""{result}.page = lshr i64 {gpa}, {PAGE_SHIFT}
  {result}.p = getelementptr i8, ptr %page_flags, i64 {result}.page
  {result} = load i8, ptr {result}.p"""


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


def _op_address() -> str:
    """Into %pc the address of this op."""
    return f"""%place = ptrtoint ptr %op to i64
  %inside = and i64 %place, {OP_SIZE * OPS_PER_PAGE - 1}
  %offset = lshr i64 %inside, 3
  %offset32 = trunc i64 %offset to i32
  {load_field("page_gva", "i32", "%page")}
  %pc = add i32 %page, %offset32"""


def _leave() -> str:
    """``leave``: back to the caller of ``enter``, with r[15] = the address of this op."""
    return f"""
{header("leave")} {{
  {_save_state()}
  {_op_address()}
  %r15 = getelementptr i8, ptr %cpu, i64 {R15}
  store i32 %pc, ptr %r15
  ret void
}}
{header("leave_hot")} {{
  {_exit_kind(ExitCode.HOT)}
  {field_pointer("exit_args", "%args")}
  store ptr %op, ptr %args
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
    """``name``: continue at the GVA in exit_args[0], whose page may have to be found first.

    ``then`` is what is done with the op, %next.
    """
    return f"""
{header(name)} {{
  {load_field("exit_args", "i64", "%target64")}
  %target = trunc i64 %target64 to i32
  {load_field("code_table", "ptr", "%table")}
  %page = lshr i64 %target64, 12
  %entry = getelementptr ptr, ptr %table, i64 %page
  %known.ops = load ptr, ptr %entry
  %unknown = icmp eq ptr %known.ops, null
  br i1 %unknown, label %look, label %known
known:
  %ops = phi ptr [ %known.ops, %0 ], [ %found.ops, %look ]
  %gva = and i32 %target, -4096
  {field_pointer("page_gva", "%gva.p")}
  store i32 %gva, ptr %gva.p
  %word = and i64 %target64, 4092
  %offset = shl i64 %word, 3
  %next = getelementptr i8, ptr %ops, i64 %offset
  {then}
look:
  %found.ops = call ptr @fill_code(ptr %cpu, i32 %target)
  %nothing = icmp eq ptr %found.ops, null
  br i1 %nothing, label %nowhere, label %known
nowhere:
  %none = icmp eq i64 %budget, 0
  br i1 %none, label %exhausted, label %stop
exhausted:
  {_exit_kind(ExitCode.BUDGET)}
  br label %stop
stop:
  {_save_state()}
  %aligned = and i32 %target, -4
  %r15 = getelementptr i8, ptr %cpu, i64 {R15}
  store i32 %aligned, ptr %r15
  ret void
}}
"""


_DISPATCH = f"""%handler = load ptr, ptr %next
  {tail_call("%handler", op="%next")}
  ret void"""

# Past the region that is entered there, if one is.
_BYPASS = f"""%handler = load ptr, ptr %next
  {load_field("image", "ptr", "%image")}
  {load_field("image_size", "i64", "%image.size")}
  %handler.at = ptrtoint ptr %handler to i64
  %image.at = ptrtoint ptr %image to i64
  %distance = sub i64 %handler.at, %image.at
  %is.own = icmp ult i64 %distance, %image.size
  br i1 %is.own, label %own, label %replaced
own:
  {tail_call("%handler", op="%next")}
  ret void
replaced:
  %original.p = getelementptr i8, ptr %next, i64 {OP_ORIGINAL}
  %original.at = load i32, ptr %original.p
  %original.offset = zext i32 %original.at to i64
  %original = getelementptr i8, ptr %image, i64 %original.offset
  {tail_call("%original", op="%next")}
  ret void"""


def _count_arrival(every: int) -> str:
    """Count the arrival at %next, and leave at each so many of them."""
    return f"""%count.p = getelementptr i8, ptr %next, i64 {OP_HOTNESS}
  %count = load i16, ptr %count.p
  %more = add i16 %count, 1
  store i16 %more, ptr %count.p
  %rest = and i16 %more, {every - 1}
  %is.hot = icmp eq i16 %rest, {WARM}
  br i1 %is.hot, label %hot, label %cold
hot:
  {tail_call("@leave_hot", op="%next")}
  ret void
cold:
  {_DISPATCH}"""


def _sentinel() -> str:
    return f"""
{header("sentinel")} {{
  {load_field("page_gva", "i32", "%gva")}
  %target = add i32 %gva, 4096
  %wide = zext i32 %target to i64
  {field_pointer("exit_args", "%target.p")}
  store i64 %wide, ptr %target.p
  {tail_call("@goto")}
  ret void
}}
"""


def _enter() -> str:
    """``enter``: run from r[15] until an exit. An ordinary C function of one argument, CpuState.

    ``resume``: go on at r[15] under whatever mode, tables and masks are in force now, all state being in CpuState;
    an interrupt is taken first. ``reload`` does not look for one: an instruction may have to be completed.
    """
    loads = []
    for name in FLAGS:
        loads.append(f"%{name}.p = getelementptr i8, ptr %cpu, i64 {LAYOUT[name].offset}")
        loads.append(f"%{name}.now = load i32, ptr %{name}.p")
    lines = "\n  ".join(loads)
    arguments = {name: f"%{name}.now" for name in FLAGS}
    enter = tail_call("@reload", op="null", budget="0", n="0", z="0", c="0", v="0", reads="null", writes="null")
    return f"""
define hidden void @enter(ptr %cpu) {{
  {enter.replace("musttail ", "")}
  ret void
}}
{header("resume")} {{
  {load_field("interrupt_lines", "i32", "%lines")}
  %psr.p = getelementptr i8, ptr %cpu, i64 {LAYOUT["psr"].offset}
  %psr = load i32, ptr %psr.p
  %unmasked = xor i32 %psr, -1
  %takeable = and i32 %lines, %unmasked
  %quiet = icmp eq i32 %takeable, 0
  br i1 %quiet, label %go, label %interrupt
interrupt:
  {load_field("native_exceptions", "i32", "%native")}
  {load_field("budget", "i64", "%left")}
  %used.up = icmp eq i64 %left, 0
  %not.here = icmp eq i32 %native, 0
  %leave.it = or i1 %used.up, %not.here
  br i1 %leave.it, label %stop, label %take
stop:
  {_exit_kind(ExitCode.BUDGET)}
  ret void
take:
  call void @take_interrupt(ptr %cpu, i32 %takeable)
  br label %go
go:
  {tail_call("@reload")}
  ret void
}}
{header("reload")} {{
  call void @choose_tables(ptr %cpu)
  {lines}
  {load_field("budget", "i64", "%budget.now")}
  {load_field("read_table", "ptr", "%reads.now")}
  {load_field("write_table", "ptr", "%writes.now")}
  %r15.p = getelementptr i8, ptr %cpu, i64 {R15}
  %r15 = load i32, ptr %r15.p
  %target = zext i32 %r15 to i64
  {field_pointer("exit_args", "%target.p")}
  store i64 %target, ptr %target.p
  {tail_call("@goto", budget="%budget.now", reads="%reads.now", writes="%writes.now", **arguments)}
  ret void
}}
"""


def _decode() -> str:
    """``decode``: the handler of every op not decoded yet: recognise the word, fill the op, run it."""
    row = ROW.size
    assert row == 44, "the offsets below are those of predecode.ROW"
    return f"""
{header("decode")} {{
  {load_field("code_pages", "i64", "%pages")}
  {load_field("ram_host", "ptr", "%ram")}
  %here = ptrtoint ptr %op to i64
  %distance = sub i64 %here, %pages
  %page = lshr i64 %distance, 4
  %page.gpa = and i64 %page, -4096
  %inside = and i64 %distance, {OP_SIZE * OPS_PER_PAGE - 1}
  %offset = lshr i64 %inside, 3
  %gpa = or i64 %page.gpa, %offset
  {load_field("page_flags", "ptr", "%page_flags")}
  {page_flag("%gpa", "%flag")}
  {_mark_changed("%flag")}
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
  {load_field("decode_index", "ptr", "%indexes")}
  {load_field("decode_pool", "ptr", "%pool")}
  {load_field("decode_rows", "ptr", "%rows")}
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
  %excluded = or i1 %hit1, %hit2
  %since.p = getelementptr i8, ptr %row, i64 34
  %since8 = load i8, ptr %since.p
  %since = zext i8 %since8 to i32
  %architecture.p = getelementptr i8, ptr %cpu, i64 {LAYOUT["architecture"].offset}
  %architecture = load i32, ptr %architecture.p
  %too.new = icmp ugt i32 %since, %architecture
  %hit = or i1 %excluded, %too.new
  br i1 %hit, label %next, label %found
found:
  {load_field("image", "ptr", "%image")}
  %handler.p = getelementptr i8, ptr %row, i64 24
  %handler.at = load i32, ptr %handler.p
  %handler64 = zext i32 %handler.at to i64
  %handler = getelementptr i8, ptr %image, i64 %handler64
  %fill.p = getelementptr i8, ptr %row, i64 28
  %fill.at = load i32, ptr %fill.p
  %fill64 = zext i32 %fill.at to i64
  %fill = getelementptr i8, ptr %image, i64 %fill64
  call void %fill(ptr %op, i32 %word)
  %callouts.p = getelementptr i8, ptr %op, i64 {OP_CALLOUTS}
  store i32 0, ptr %callouts.p
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
  {load_field("decode_guards", "ptr", "%guards")}
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


def _mark_changed(flag: str) -> str:
    """Note that the compiler has to be told of a page anew; ``flag`` is the result of :func:`page_flag`."""
    return f"""{flag}.changed = or i8 {flag}, {PAGE_CHANGED}
  store i8 {flag}.changed, ptr {flag}.p"""


def _find_op(none: str) -> str:
    """Into block ``look`` with %op, the op of %gpa, or to ``none`` if its page has no code page.

    Whoever looks for the op of a word is about to write the word, so its page is marked as changed.
    """
    return f"""{load_field("page_flags", "ptr", "%page_flags")}
  {page_flag("%gpa", "%flag")}
  %page = lshr i64 %gpa, 12
  %code.bit = and i8 %flag, {PAGE_HAS_CODE}
  %there = icmp ne i8 %code.bit, 0
  br i1 %there, label %look, label %{none}
look:
  {_mark_changed("%flag")}
  {load_field("code_pages", "ptr", "%pages")}
  %at = mul i64 %page, {CODE_PAGE_STRIDE}
  %ops = getelementptr i8, ptr %pages, i64 %at
  %word = and i64 %gpa, 4092
  %place = shl i64 %word, 3
  %op = getelementptr i8, ptr %ops, i64 %place"""


def _code_pages() -> str:
    """The code page of a page of RAM, made if there is none yet, and undoing the ops whose words are written."""
    return f"""
define hidden ptr @need_code_page(ptr %cpu, i32 %page) noinline {{
  {load_field("code_pages", "ptr", "%pages")}
  %page64 = zext i32 %page to i64
  %at = mul i64 %page64, {CODE_PAGE_STRIDE}
  %ops = getelementptr i8, ptr %pages, i64 %at
  {load_field("page_flags", "ptr", "%page_flags")}
  %flag.p = getelementptr i8, ptr %page_flags, i64 %page64
  %flag = load i8, ptr %flag.p
  %code.bit = and i8 %flag, {PAGE_HAS_CODE}
  %there = icmp ne i8 %code.bit, 0
  br i1 %there, label %have, label %make
have:
  ret ptr %ops
make:
  br label %loop
loop:
  %i = phi i64 [ 0, %make ], [ %more, %loop ]
  %place = shl i64 %i, 5
  %op = getelementptr i8, ptr %ops, i64 %place
  store ptr @decode, ptr %op
  %more = add i64 %i, 1
  %done = icmp eq i64 %more, {OPS_PER_PAGE}
  br i1 %done, label %end, label %loop
end:
  %last = getelementptr i8, ptr %ops, i64 {OPS_PER_PAGE * OP_SIZE}
  store ptr @sentinel, ptr %last
  %marked = or i8 %flag, {PAGE_HAS_CODE | PAGE_CHANGED}
  store i8 %marked, ptr %flag.p
  {load_field("ram_host", "ptr", "%ram")}
  %gpa = shl i64 %page64, 12
  %hva = getelementptr i8, ptr %ram, i64 %gpa
  call void @forget_writes(ptr %cpu, ptr %hva)
  ret ptr %ops
}}
define hidden void @invalidate(ptr %cpu, i64 %gpa) {{
  {_find_op("end")}
  %handler = load ptr, ptr %op
  %fresh = icmp eq ptr %handler, @decode
  br i1 %fresh, label %end, label %undo
undo:
  store ptr @decode, ptr %op
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


def _code_flags() -> str:
    """``code_flags``: write a byte for each word of a page that has a code page (WORD_EXECUTED and so on), and take its
    mark from the page. Python calls it to tell the compiler's process what has been executed.
    """
    return f"""
define hidden void @code_flags(ptr %cpu, i32 %page, ptr %out) noinline {{
  {load_field("code_pages", "ptr", "%pages")}
  %page64 = zext i32 %page to i64
  %at = mul i64 %page64, {CODE_PAGE_STRIDE}
  %ops = getelementptr i8, ptr %pages, i64 %at
  {load_field("page_flags", "ptr", "%page_flags")}
  %flag.p = getelementptr i8, ptr %page_flags, i64 %page64
  %flag = load i8, ptr %flag.p
  %unmarked = and i8 %flag, {255 - PAGE_CHANGED}
  store i8 %unmarked, ptr %flag.p
  {load_field("image", "i64", "%image")}
  {load_field("image_size", "i64", "%image.size")}
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %more, %loop ]
  %place = shl i64 %i, 5
  %op = getelementptr i8, ptr %ops, i64 %place
  %handler = load ptr, ptr %op
  %handler.at = ptrtoint ptr %handler to i64
  %distance = sub i64 %handler.at, %image
  %elsewhere = icmp uge i64 %distance, %image.size
  %undecoded = icmp eq ptr %handler, @decode
  %executed = select i1 %undecoded, i8 0, i8 {WORD_EXECUTED}
  %entered = select i1 %elsewhere, i8 {WORD_ENTERED}, i8 0
  %marks.p = getelementptr i8, ptr %op, i64 {OP_COVERED}
  %marks = load i8, ptr %marks.p
  %covered.bit = and i8 %marks, {COVERED}
  %is.covered = icmp ne i8 %covered.bit, 0
  %covered = select i1 %is.covered, i8 {WORD_COVERED}, i8 0
  %changes.bit = and i8 %marks, {CHANGES}
  %is.changing = icmp ne i8 %changes.bit, 0
  %changes = select i1 %is.changing, i8 {WORD_CHANGES}, i8 0
  %first = or i8 %executed, %entered
  %second = or i8 %covered, %changes
  %all = or i8 %first, %second
  %out.p = getelementptr i8, ptr %out, i64 %i
  store i8 %all, ptr %out.p
  %more = add i64 %i, 1
  %done = icmp eq i64 %more, {OPS_PER_PAGE}
  br i1 %done, label %end, label %loop
end:
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
  {load_field("ram_host", "ptr", "%ram")}
  {load_field("page_flags", "ptr", "%flags")}
  %low = add i32 %align, -1
  %odd = and i32 %gva, %low
  %aligned = icmp eq i32 %odd, 0
  br i1 %aligned, label %extent, label %refuse
extent:
  %sctlr.p = getelementptr i8, ptr %cpu, i64 {LAYOUT["sctlr"].offset}
  %sctlr = load i32, ptr %sctlr.p
  %mmu.bit = and i32 %sctlr, {SCTLR_M}
  %mmu = icmp ne i32 %mmu.bit, 0
  %in.page = and i32 %gva, 4095
  %end.in.page = add i32 %in.page, %size
  %crosses = icmp ugt i32 %end.in.page, 4096
  %apart = and i1 %mmu, %crosses
  br i1 %apart, label %refuse, label %walk
walk:
  %psr.p = getelementptr i8, ptr %cpu, i64 {LAYOUT["psr"].offset}
  %psr = load i32, ptr %psr.p
  %mode = and i32 %psr, {PSR_MODE}
  %user = icmp eq i32 %mode, {int(Mode.USER)}
  %access = select i1 %user, i32 {int(AccessKind.USER | AccessKind.WRITE)}, i32 {int(AccessKind.WRITE)}
  %found = call i64 @translate(ptr %cpu, i32 %gva, i32 %access)
  %status = lshr i64 %found, 32
  %bad = and i64 %status, {FAULT_MASK | PARTIAL}
  %permitted = icmp eq i64 %bad, 0
  br i1 %permitted, label %where, label %refuse
where:
  %gpa.first = and i64 %found, 4294967295
  %size64 = zext i32 %size to i64
  %end = add i64 %gpa.first, %size64
  call void @note_extent(ptr %cpu, i32 %gva, i64 %status)
  %gva64 = zext i32 %gva to i64
  %distance = sub i64 %gpa.first, %gva64
  %entry = getelementptr i8, ptr %ram, i64 %distance
  %table = select i1 %user, i32 4, i32 1
  %first = and i64 %gpa.first, -4
  br label %loop
loop:
  %gpa = phi i64 [ %first, %where ], [ %gpa.next, %next ]
  %done = icmp uge i64 %gpa, %end
  br i1 %done, label %accept, label %inside
inside:
  %inside.page = lshr i64 %gpa, 12
  %inside.p = getelementptr i8, ptr %flags, i64 %inside.page
  %inside.flag = load i8, ptr %inside.p
  %inside.bits = and i8 %inside.flag, {PAGE_RAM | PAGE_WRITABLE}
  %stored = icmp eq i8 %inside.bits, {PAGE_RAM | PAGE_WRITABLE}
  br i1 %stored, label %find, label %refuse
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
  %gva.of.page = sub i64 %gpa, %distance
  %gva.page = lshr i64 %gva.of.page, 12
  %gva.page32 = trunc i64 %gva.page to i32
  call void @fill(ptr %cpu, i32 %gva.page32, i32 %table, ptr %entry)
  %gpa.page = and i64 %gpa, -4096
  %gpa.page.end = add i64 %gpa.page, 4092
  br label %next
next:
  %reached = phi i64 [ %gpa, %find.look ], [ %gpa.page.end, %no.code ]
  %gpa.next = add i64 %reached, 4
  br label %loop
accept:
  ret ptr %entry
refuse:
  ret ptr null
}}
""".replace("%find.look", "%look")


def _exceptions() -> str:
    """Exceptions that are taken without leaving native code, where the guest has a handler for them.

    ``fault``: what a memory access left at this op for. ``supervisor_call``: an SVC, which is retired already.
    """
    data_abort, call = VECTORS[ExceptionKind.DATA_ABORT], VECTORS[ExceptionKind.SUPERVISOR_CALL]
    return f"""
define hidden i1 @has_handler(ptr %cpu, i32 %offset) noinline {{
  {load_field("native_exceptions", "i32", "%native")}
  %here = icmp ne i32 %native, 0
  br i1 %here, label %table, label %no
table:
  %sctlr.p = getelementptr i8, ptr %cpu, i64 {LAYOUT["sctlr"].offset}
  %sctlr = load i32, ptr %sctlr.p
  %mmu.bit = and i32 %sctlr, {SCTLR_M}
  %mmu = icmp ne i32 %mmu.bit, 0
  br i1 %mmu, label %yes, label %look
look:
  %base64 = call i64 @vector_base(ptr %cpu)
  %offset64 = zext i32 %offset to i64
  %vector = add i64 %base64, %offset64
  {load_field("page_flags", "ptr", "%page_flags")}
  {page_flag("%vector", "%flag")}
  %ram.bit = and i8 %flag, {PAGE_RAM}
  %inside = icmp ne i8 %ram.bit, 0
  br i1 %inside, label %word, label %no
word:
  {load_field("ram_host", "ptr", "%ram")}
  %host = getelementptr i8, ptr %ram, i64 %vector
  %insn = load i32, ptr %host
  %there = icmp ne i32 %insn, 0
  ret i1 %there
yes:
  ret i1 true
no:
  ret i1 false
}}
define hidden void @count_exception(ptr %cpu, i64 %number) {{
  {field_pointer("exceptions", "%counts")}
  %p = getelementptr i64, ptr %counts, i64 %number
  %old = load i64, ptr %p
  %new = add i64 %old, 1
  store i64 %new, ptr %p
  ret void
}}
{header("fault")} {{
  {load_field("exit_kind", "i32", "%kind")}
  %is.abort = icmp eq i32 %kind, {int(ExitCode.DATA_ABORT)}
  br i1 %is.abort, label %again, label %leave
again:
  {load_field("last_exception", "i64", "%last")}
  %repeated = icmp eq i64 %last, %budget
  br i1 %repeated, label %leave, label %handler
handler:
  %handled = call i1 @has_handler(ptr %cpu, i32 {data_abort.offset})
  br i1 %handled, label %take, label %leave
take:
  {_save_state()}
  store i64 %budget, ptr %last.p
  {_op_address()}
  {field_pointer("exit_args", "%args")}
  %gva.wide = load i64, ptr %args
  %write.p = getelementptr i64, ptr %args, i64 2
  %write.wide = load i64, ptr %write.p
  %status.p = getelementptr i64, ptr %args, i64 3
  %status.wide = load i64, ptr %status.p
  %gva = trunc i64 %gva.wide to i32
  %write = trunc i64 %write.wide to i32
  %status = trunc i64 %status.wide to i32
  call void @report_data_abort(ptr %cpu, i32 %gva, i32 %status, i32 %write)
  %link = add i32 %pc, {data_abort.link}
  {_enter_exception(ExceptionKind.DATA_ABORT)}
  {tail_call("@resume")}
  ret void
leave:
  {tail_call("@leave")}
  ret void
}}
{header("supervisor_call")} {{
  {load_field("exit_args", "i64", "%immediate")}
  {load_field("semihosting_svc", "i64", "%semihosting")}
  %is.semihosting = icmp eq i64 %immediate, %semihosting
  br i1 %is.semihosting, label %leave, label %handler
handler:
  %handled = call i1 @has_handler(ptr %cpu, i32 {call.offset})
  br i1 %handled, label %take, label %leave
take:
  {_save_state()}
  %retired = add i64 %budget, -1
  store i64 %retired, ptr %budget.p
  {_op_address()}
  %link = add i32 %pc, {call.link}
  {_enter_exception(ExceptionKind.SUPERVISOR_CALL)}
  {tail_call("@resume")}
  ret void
leave:
  {tail_call("@leave")}
  ret void
}}
define hidden void @take_interrupt(ptr %cpu, i32 %takeable) noinline {{
  %r15.p = getelementptr i8, ptr %cpu, i64 {R15}
  %next = load i32, ptr %r15.p
  %link = add i32 %next, 4
  %fast.bit = and i32 %takeable, {PSR_F}
  %fast = icmp ne i32 %fast.bit, 0
  br i1 %fast, label %fiq, label %irq
fiq:
  {_enter_exception(ExceptionKind.FIQ)}
  ret void
irq:
  {_enter_exception(ExceptionKind.IRQ)}
  ret void
}}
"""


def _enter_exception(kind: ExceptionKind) -> str:
    vector = VECTORS[kind]
    arguments = f"i32 {int(vector.mode)}, i32 {vector.offset}, i32 %link, i32 {vector.masks}"
    return f"""call void @enter_exception(ptr %cpu, {arguments})
  call void @count_exception(ptr %cpu, i64 {vector.offset >> 2})"""


def support_text() -> str:
    """All definitions of this module."""
    return "".join(
        [
            _leave(),
            _exit_handler("undefined", ExitCode.UNDEFINED),
            _goto("goto", _DISPATCH),
            # To a loop's head or a function in another page.
            _goto("goto_counted", _count_arrival(HOT)),
            # From the end of a region: a place to which control comes often is worth one of its own.
            _goto("arrive", _count_arrival(HOT_ARRIVALS)),
            _goto("bypass", _BYPASS),
            _sentinel(),
            _enter(),
            _decode(),
            _code_pages(),
            _code_flags(),
            _writable(),
            _exceptions(),
        ]
    )
