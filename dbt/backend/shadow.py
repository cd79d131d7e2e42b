"""Shadow page tables, as LLVM text: filling them, choosing between them, and forgetting what is in them.

An *address space* is what the guest's page tables mean under one value of the registers that say how to read
them (:data:`KEY`). Each has six tables of 2^20 pointers: for loads, stores and code, for privileged and for user
mode. An entry of the first two is biased, host = entry + gva; one of the third is a code page. What is filled is
logged, so that to flush costs what was filled. Several spaces are kept, so that a guest which goes back and forth
between two values of DACR or TTBR0 finds them filled.
"""

from __future__ import annotations

from dbt.abi.cpu import NATIVE
from dbt.abi.exits import ExitCode
from dbt.abi.layout import CODE, LOG_ENTRIES, MEGABYTES, PAGE_RAM, SPACES, TABLE_BYTES, TABLES, WRITE
from dbt.backend.support import field_pointer, load_field, page_flag
from isa.arm.faults import BROAD, FAULT_MASK, PARTIAL, AccessKind, Fault
from isa.arm.state import LAYOUT, PSR_MODE, Mode
from isa.arm.vmsa import PAR_NS

#: The words of the state that tell address spaces apart.
KEY = ("sctlr", "ttbr0", "ttbr1", "ttbcr", "dacr", "contextidr", "fcseidr")


def _word(name: str, result: str) -> str:
    return f"{result}.p = getelementptr i8, ptr %cpu, i64 {LAYOUT[name].offset}\n  {result} = load i32, ptr {result}.p"


def user_mode(result: str) -> str:
    """Instruction: whether the mode is user mode."""
    return f"""{_word("psr", result + ".psr")}
  {result}.mode = and i32 {result}.psr, {PSR_MODE}
  {result} = icmp eq i32 {result}.mode, {int(Mode.USER)}"""


def _slot() -> str:
    """Into %slot.p the entry of page %page in table %table (i32) of space %space."""
    return f"""%six = mul i32 %space, {TABLES}
  %number = add i32 %six, %table
  %number64 = zext i32 %number to i64
  %table.at = mul i64 %number64, {TABLE_BYTES}
  %page64 = zext i32 %page to i64
  %page.at = shl i64 %page64, 3
  %slot.at = add i64 %table.at, %page.at
  {load_field("spaces", "ptr", "%spaces")}
  %slot.p = getelementptr i8, ptr %spaces, i64 %slot.at"""


def _count(space: str) -> str:
    """Into %count.p and %count how much is in the log of a space, and into %log its first entry."""
    return f"""{field_pointer("fill_counts", "%counts")}
  %space64 = zext i32 {space} to i64
  %count.p = getelementptr i32, ptr %counts, i64 %space64
  %count = load i32, ptr %count.p
  {load_field("fill_log", "ptr", "%logs")}
  %log.at = mul i64 %space64, {LOG_ENTRIES * 4}
  %log = getelementptr i8, ptr %logs, i64 %log.at"""


def _fill() -> str:
    """``fill``: enter a page into a table of the current space."""
    return f"""
define hidden void @fill(ptr %cpu, i32 %page, i32 %table, ptr %entry) noinline {{
  {load_field("fills", "i64", "%fills")}
  %fills.more = add i64 %fills, 1
  store i64 %fills.more, ptr %fills.p
  {load_field("space", "i32", "%space")}
  {_count("%space")}
  %full = icmp uge i32 %count, {LOG_ENTRIES}
  br i1 %full, label %clear, label %go
clear:
  call void @clear_space(ptr %cpu, i32 %space)
  br label %go
go:
  %place = load i32, ptr %count.p
  %more = add i32 %place, 1
  store i32 %more, ptr %count.p
  %place64 = zext i32 %place to i64
  %line.p = getelementptr i32, ptr %log, i64 %place64
  %high = shl i32 %table, 20
  %line = or i32 %high, %page
  store i32 %line, ptr %line.p
  {_slot()}
  store ptr %entry, ptr %slot.p
  ret void
}}
"""


def _over_log(name: str, parameters: str, body: str) -> str:
    """A function that does something to each entry that is logged for a space."""
    return f"""
define hidden void @{name}(ptr %cpu, i32 %space{parameters}) noinline {{
  {_count("%space")}
  br label %loop
loop:
  %i = phi i32 [ 0, %0 ], [ %i.next, %next ]
  %over = icmp uge i32 %i, %count
  br i1 %over, label %done, label %body
body:
  %i64 = zext i32 %i to i64
  %line.p = getelementptr i32, ptr %log, i64 %i64
  %line = load i32, ptr %line.p
  %page = and i32 %line, 1048575
  %table = lshr i32 %line, 20
  {_slot()}
  {body}
next:
  %i.next = add i32 %i, 1
  br label %loop
done:
  {"store i32 0, ptr %count.p" if name == "clear_space" else ""}
  ret void
}}
"""


_CLEAR = """store ptr null, ptr %slot.p
  br label %next"""

# Of the tables for stores, the entries of one physical page.
_CLEAR_WRITES = f"""%is.write.1 = icmp eq i32 %table, {WRITE}
  %is.write.2 = icmp eq i32 %table, {WRITE + 3}
  %is.write = or i1 %is.write.1, %is.write.2
  br i1 %is.write, label %look, label %next
look:
  %entry = load ptr, ptr %slot.p
  %gva64 = shl i64 %page64, 12
  %host = getelementptr i8, ptr %entry, i64 %gva64
  %same = icmp eq ptr %host, %hva
  br i1 %same, label %drop, label %next
drop:
  store ptr null, ptr %slot.p
  br label %next"""


def _for_all_spaces(name: str, parameters: str, call: str, before: str = "br label %start") -> str:
    return f"""
define hidden void @{name}(ptr %cpu{parameters}) noinline {{
  {before}
start:
  br label %loop
loop:
  %space = phi i32 [ 0, %start ], [ %space.next, %loop ]
  call void {call}
  %space.next = add i32 %space, 1
  %done = icmp eq i32 %space.next, {SPACES}
  br i1 %done, label %end, label %loop
end:
  ret void
}}
"""


def _flush_page() -> str:
    """``tlb_flush_page``: of every space the page of an address, or the megabyte where something larger is in it."""
    return f"""
define hidden void @tlb_flush_page(ptr %cpu, i32 %mva) noinline {{
  {_word("fcseidr", "%pid")}
  %moved = icmp ne i32 %pid, 0
  br i1 %moved, label %all, label %look
all:
  call void @tlb_flush(ptr %cpu)
  ret void
look:
  {load_field("broad", "ptr", "%broads")}
  %mb = lshr i32 %mva, 20
  %mb64 = zext i32 %mb to i64
  %broad.p = getelementptr i8, ptr %broads, i64 %mb64
  %broad = load i8, ptr %broad.p
  %is.broad = icmp ne i8 %broad, 0
  %one = lshr i32 %mva, 12
  %first.of.mb = and i32 %one, 1048320
  %first = select i1 %is.broad, i32 %first.of.mb, i32 %one
  %size = select i1 %is.broad, i32 256, i32 1
  %last = add i32 %first, %size
  br label %spaces.loop
spaces.loop:
  %space = phi i32 [ 0, %look ], [ %space.next, %skip ]
  {field_pointer("fill_counts", "%counts")}
  %space64 = zext i32 %space to i64
  %count.p = getelementptr i32, ptr %counts, i64 %space64
  %count = load i32, ptr %count.p
  %empty = icmp eq i32 %count, 0
  br i1 %empty, label %skip, label %tables
tables:
  %table = phi i32 [ 0, %spaces.loop ], [ %table.next, %next.table ]
  br label %pages
pages:
  %page = phi i32 [ %first, %tables ], [ %page.next, %pages ]
  {_slot()}
  store ptr null, ptr %slot.p
  %page.next = add i32 %page, 1
  %more.pages = icmp ult i32 %page.next, %last
  br i1 %more.pages, label %pages, label %next.table
next.table:
  %table.next = add i32 %table, 1
  %more = icmp ult i32 %table.next, {TABLES}
  br i1 %more, label %tables, label %skip
skip:
  %space.next = add i32 %space, 1
  %done = icmp eq i32 %space.next, {SPACES}
  br i1 %done, label %end, label %spaces.loop
end:
  ret void
}}
"""


def _regime() -> str:
    """``regime_changed``: make current the space of what the registers say now, giving up one if there is none."""
    compare, store = [], []
    for number, name in enumerate(KEY):
        compare += [
            f"%k{number}.p = getelementptr i32, ptr %key.p, i64 {number}",
            f"%k{number} = load i32, ptr %k{number}.p",
            f"%d{number} = xor i32 %k{number}, %{name}",
            f"%or{number} = or i32 %{f'or{number - 1}' if number else 'is.free'}, %d{number}",
        ]
        store += [
            f"%n{number}.p = getelementptr i32, ptr %new.p, i64 {number}",
            f"store i32 %{name}, ptr %n{number}.p",
        ]
    words = "\n  ".join(_word(name, f"%{name}") for name in KEY)
    return f"""
define hidden void @regime_changed(ptr %cpu) noinline {{
  {words}
  {field_pointer("space_keys", "%keys")}
  {field_pointer("space", "%current.p")}
  br label %loop
loop:
  %i = phi i32 [ 0, %0 ], [ %i.next, %next ]
  %i64 = zext i32 %i to i64
  %key.at = shl i64 %i64, 5
  %key.p = getelementptr i8, ptr %keys, i64 %key.at
  %used.p = getelementptr i32, ptr %key.p, i64 7
  %used = load i32, ptr %used.p
  %is.free = xor i32 %used, 1
  {chr(10).join("  " + line for line in compare).strip()}
  %same = icmp eq i32 %or{len(KEY) - 1}, 0
  br i1 %same, label %found, label %next
found:
  store i32 %i, ptr %current.p
  ret void
next:
  %i.next = add i32 %i, 1
  %none = icmp eq i32 %i.next, {SPACES}
  br i1 %none, label %replace, label %loop
replace:
  {load_field("space_victim", "i32", "%victim")}
  %after = add i32 %victim, 1
  %wrapped = and i32 %after, {SPACES - 1}
  store i32 %wrapped, ptr %victim.p
  call void @clear_space(ptr %cpu, i32 %victim)
  %victim64 = zext i32 %victim to i64
  %new.at = shl i64 %victim64, 5
  %new.p = getelementptr i8, ptr %keys, i64 %new.at
  {chr(10).join("  " + line for line in store).strip()}
  %new.used.p = getelementptr i32, ptr %new.p, i64 7
  store i32 1, ptr %new.used.p
  store i32 %victim, ptr %current.p
  ret void
}}
"""


def _choose_tables() -> str:
    """``choose_tables``: the tables of the current space for the current mode become those that are used."""
    return f"""
define hidden void @choose_tables(ptr %cpu) {{
  {load_field("space", "i32", "%space")}
  {load_field("spaces", "ptr", "%spaces")}
  {user_mode("%user")}
  %space64 = zext i32 %space to i64
  %space.at = mul i64 %space64, {TABLES * TABLE_BYTES}
  %system.p = getelementptr i8, ptr %spaces, i64 %space.at
  %user.read = getelementptr i8, ptr %system.p, i64 {3 * TABLE_BYTES}
  %user.write = getelementptr i8, ptr %system.p, i64 {4 * TABLE_BYTES}
  {field_pointer("user_read_table", "%ur.p")}
  store ptr %user.read, ptr %ur.p
  {field_pointer("user_write_table", "%uw.p")}
  store ptr %user.write, ptr %uw.p
  %read = select i1 %user, ptr %user.read, ptr %system.p
  %write = getelementptr i8, ptr %read, i64 {TABLE_BYTES}
  %code = getelementptr i8, ptr %read, i64 {2 * TABLE_BYTES}
  {field_pointer("read_table", "%r.p")}
  store ptr %read, ptr %r.p
  {field_pointer("write_table", "%w.p")}
  store ptr %write, ptr %w.p
  {field_pointer("code_table", "%c.p")}
  store ptr %code, ptr %c.p
  ret void
}}
"""


def _note_extent() -> str:
    """``note_extent``: remember that a megabyte has something larger than a page in it."""
    return f"""
define hidden void @note_extent(ptr %cpu, i32 %gva, i64 %status) {{
  %bit = and i64 %status, {BROAD}
  %broad = icmp ne i64 %bit, 0
  br i1 %broad, label %note, label %end
note:
  {load_field("broad", "ptr", "%broads")}
  %mb = lshr i32 %gva, 20
  %mb64 = zext i32 %mb to i64
  %p = getelementptr i8, ptr %broads, i64 %mb64
  store i8 1, ptr %p
  br label %end
end:
  ret void
}}
"""


def _fill_code() -> str:
    """``fill_code``: the code page of an address, entered into the table; null if the instruction there leaves."""
    return f"""
define hidden ptr @fill_code(ptr %cpu, i32 %gva) noinline {{
  {user_mode("%user")}
  %user.access = select i1 %user, i32 {int(AccessKind.USER | AccessKind.EXECUTE)}, i32 {int(AccessKind.EXECUTE)}
  %found = call i64 @translate(ptr %cpu, i32 %gva, i32 %user.access)
  %status = lshr i64 %found, 32
  %fault = and i64 %status, {FAULT_MASK}
  %permitted = icmp eq i64 %fault, 0
  {field_pointer("exit_kind", "%kind.p")}
  {field_pointer("exit_args", "%args.p")}
  br i1 %permitted, label %where, label %abort
abort:
  %code = phi i64 [ %fault, %0 ], [ {int(Fault.EXTERNAL)}, %where ]
  store i32 {int(ExitCode.PREFETCH_ABORT)}, ptr %kind.p
  store i64 %code, ptr %args.p
  ret ptr null
where:
  %gpa = and i64 %found, 4294967295
  {load_field("page_flags", "ptr", "%page_flags")}
  {page_flag("%gpa", "%flag")}
  %ram.bit = and i8 %flag, {PAGE_RAM}
  %inside = icmp ne i8 %ram.bit, 0
  br i1 %inside, label %whole, label %abort
whole:
  %part.bit = and i64 %status, {PARTIAL}
  %part = icmp ne i64 %part.bit, 0
  br i1 %part, label %emulate, label %ram
emulate:
  store i32 {int(ExitCode.TRAP)}, ptr %kind.p
  ret ptr null
ram:
  call void @note_extent(ptr %cpu, i32 %gva, i64 %status)
  %gpa.page = lshr i64 %gpa, 12
  %gpa.page32 = trunc i64 %gpa.page to i32
  %ops = call ptr @need_code_page(ptr %cpu, i32 %gpa.page32)
  %page = lshr i32 %gva, 12
  %table = select i1 %user, i32 {CODE + 3}, i32 {CODE}
  call void @fill(ptr %cpu, i32 %page, i32 %table, ptr %ops)
  ret ptr %ops
}}
"""


_CODE_AT = """
define hidden preserve_mostcc ptr @code_at(ptr %cpu, i32 %gva) {
  %ops = call ptr @fill_code(ptr %cpu, i32 %gva)
  ret ptr %ops
}
"""


def _translate_address() -> str:
    """``translate_address``: see the callout."""
    return f"""
define hidden void @translate_address(ptr %cpu, i32 %mva, i32 %access) noinline {{
  %found = call i64 @translate(ptr %cpu, i32 %mva, i32 %access)
  %status = lshr i64 %found, 32
  %fault.bits = and i64 %status, {FAULT_MASK}
  %fault = icmp ne i64 %fault.bits, 0
  %low = trunc i64 %found to i32
  %frame = and i32 %low, -4096
  %page = or i32 %frame, {PAR_NS}
  %bits = trunc i64 %fault.bits to i32
  %code = and i32 %bits, 15
  %shifted = shl i32 %code, 1
  %failed = or i32 %shifted, 1
  %result = select i1 %fault, i32 %failed, i32 %page
  %par.p = getelementptr i8, ptr %cpu, i64 {LAYOUT["par"].offset}
  store i32 %result, ptr %par.p
  ret void
}}
"""


def shadow_text() -> str:
    """All definitions of this module."""
    broad = f"""{load_field("broad", "ptr", "%broads")}
  br label %zero
zero:
  %at = phi i64 [ 0, %0 ], [ %at.next, %zero ]
  %broad.p = getelementptr i8, ptr %broads, i64 %at
  store i64 0, ptr %broad.p
  %at.next = add i64 %at, 8
  %zeroed = icmp eq i64 %at.next, {MEGABYTES}
  br i1 %zeroed, label %start, label %zero"""
    return "".join(
        [
            _fill(),
            _over_log("clear_space", "", _CLEAR),
            _over_log("forget_writes_of", ", ptr %hva", _CLEAR_WRITES),
            _for_all_spaces("tlb_flush", "", "@clear_space(ptr %cpu, i32 %space)", broad),
            _for_all_spaces("forget_writes", ", ptr %hva", "@forget_writes_of(ptr %cpu, i32 %space, ptr %hva)"),
            _flush_page(),
            _translate_address(),
            _regime(),
            _choose_tables(),
            _note_extent(),
            _fill_code(),
            _CODE_AT,  # for regions, whose registers it preserves
        ]
    )


assert NATIVE["space_keys"].count == SPACES * 8 and NATIVE["fill_counts"].count == SPACES
assert NATIVE["space_keys"].size == 4
