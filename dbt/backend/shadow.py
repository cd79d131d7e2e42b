"""Shadow page tables in native code: filling, selecting and flushing them.

An *address space* is what the guest's page tables mean under one value of the registers that say how to read
them (:data:`KEY`). Each has six tables of 2^20 pointers: for loads, stores and code, for privileged and for user
mode. An entry for loads or stores is biased, host = entry + gva; an entry for code is a code page. Filled entries are
logged, so that a flush costs in proportion to them. Several spaces are kept, so that a guest that goes back and forth
between values of DACR or TTBR0 finds its tables filled.
"""

from __future__ import annotations

from dbt.abi.cpu import NATIVE
from dbt.abi.exits import ExitCode
from dbt.abi.layout import (
    CODE,
    ENTRY_SIZE,
    LOG_ENTRIES,
    LOG_ENTRY_SIZE,
    MEGABYTE_SHIFT,
    MEGABYTES,
    PAGE_NUMBER_BITS,
    PAGE_RAM,
    PAGE_SHIFT,
    PAGES_PER_MEGABYTE,
    READ,
    SPACE_KEY_WORDS,
    SPACES,
    TABLE_BYTES,
    TABLES,
    USER_TABLES,
    WRITE,
)
from dbt.backend.builder import Builder, Value, define, define_preserving
from dbt.backend.debug_points import arm_breakpoints
from isa.arm.faults import BROAD, FAULT_MASK, PARTIAL, SUPERSECTION, AccessKind, Fault
from isa.arm.state import SCTLR_M

#: The words of the state that tell address spaces apart.
KEY = ("sctlr", "ttbr0", "ttbr1", "ttbcr", "dacr", "contextidr", "fcseidr")
#: The index of the word of a space's key that is 1 if the space is in use.
_USED = len(KEY)
if _USED >= SPACE_KEY_WORDS or NATIVE["space_keys"].count != SPACES * SPACE_KEY_WORDS:
    raise NotImplementedError("CpuState has no room for the keys of the spaces")


def _entry(f: Builder, space: Value, table: Value, page: Value) -> Value:
    """Return the pointer to the entry of a page in a table of a space, each by its number (i32)."""
    base = (space * TABLES + table).to("i64") * TABLE_BYTES
    return f.load_native("spaces", "ptr").at(base + page.to("i64") * ENTRY_SIZE)


def _log_length(f: Builder, space: Value) -> Value:
    """Return the pointer to the number of entries in the log of a space."""
    return f.native("fill_counts").element("i32", space)


def _fills_before(f: Builder, space: Value) -> Value:
    """Return the pointer to the number of entries in the log of a space that are older than the present epoch."""
    return f.native("fills_before").element("i32", space)


#: Bits of the byte of a megabyte: pages of it were filled, and from something larger than a page, in some space since
#: the last flush of all entries; or pages of its 16 MiB were filled from a supersection.
_FILLED, _BROAD, _SUPERSECTION = 1, 2, 4
_SUPERSECTION_MEGABYTES = 16


def _extent(f: Builder, page: Value) -> Value:
    """Return the pointer to the byte of the megabyte of a page, which is given by its number (i32)."""
    return f.load_native("extents", "ptr").at((page >> (MEGABYTE_SHIFT - PAGE_SHIFT)).to("i64"))


def _log(f: Builder, space: Value) -> Value:
    """Return the pointer to the first entry in the log of a space."""
    return f.load_native("fill_log", "ptr").at(space.to("i64") * (LOG_ENTRIES * LOG_ENTRY_SIZE))


def _fill() -> Builder:
    """``fill(cpu, page, table, host)``: enter a page into a table of the current space."""
    f = define("fill", {"page": "i32", "table": "i32", "host": "ptr"}, attributes="noinline")
    f.store_native("fills", f.load_native("fills") + 1)
    space = f.load_native("space")
    length = _log_length(f, space)
    with f.when(length.load("i32").uge(LOG_ENTRIES)):
        f.call("clear_space", f.cpu, space)
    number = length.load("i32")
    f.store(number + 1, length)
    f.store(f["table"] << PAGE_NUMBER_BITS | f["page"], _log(f, space).element("i32", number))
    f.store(f["host"], _entry(f, space, f["table"], f["page"]))
    extent = _extent(f, f["page"])
    f.store(extent.load("i8") | _FILLED, extent)
    f.ret()
    return f


def _clear_space() -> Builder:
    """``clear_space(cpu, space)``: null all entries that are logged for a space."""
    f = define("clear_space", {"space": "i32"}, attributes="noinline")
    length = _log_length(f, f["space"])
    with f.count(0, length.load("i32")) as number:
        _, _, entry = _logged(f, f["space"], number)
        f.store(f.value("ptr", 0), entry)
    f.store(f.value("i32", 0), length)
    f.store(f.value("i32", 0), _fills_before(f, f["space"]))
    f.ret()
    return f


def _logged(f: Builder, space: Value, number: Value) -> tuple[Value, Value, Value]:
    """Return an entry of the log of a space: table, page, and pointer to the table's entry."""
    line = _log(f, space).element("i32", number).load("i32")
    table, page = line >> PAGE_NUMBER_BITS, line & ((1 << PAGE_NUMBER_BITS) - 1)
    return table, page, _entry(f, space, table, page)


def _is_for_stores(table: Value) -> Value:
    return table.eq(WRITE) | table.eq(WRITE + USER_TABLES)


def _forget_stores_of() -> Builder:
    """``forget_stores_of(cpu, space)``: null the entries of a space for stores, and take them out of its log.

    Those that are older than the present epoch are null: an epoch begins with this. So it looks at newer ones only.
    """
    f = define("forget_stores_of", {"space": "i32"}, attributes="noinline")
    length, log, before = _log_length(f, f["space"]), _log(f, f["space"]), _fills_before(f, f["space"])
    kept = f.variable("i32", before.load("i32"))
    with f.count(before.load("i32"), length.load("i32")) as number:
        table, _, entry = _logged(f, f["space"], number)
        is_for_stores = _is_for_stores(table)
        with f.when(is_for_stores):
            f.store(f.value("ptr", 0), entry)
        with f.when(~is_for_stores):
            f.store(log.element("i32", number).load("i32"), log.element("i32", kept.get()))
            kept.set(kept.get() + 1)
    f.store(kept.get(), length)
    f.store(kept.get(), before)
    f.ret()
    return f


def _begin_epoch() -> Builder:
    """``begin_epoch(cpu)``: null the entries of all spaces for stores, so that the next store to each page is logged.

    See :mod:`dbt.memory.dirty_log`.
    """
    f = define("begin_epoch", {}, attributes="noinline")
    with f.count(0, SPACES) as space:
        f.call("forget_stores_of", f.cpu, space)
    f.ret()
    return f


def _forget_epoch() -> Builder:
    """``forget_epoch(cpu)``: undo what was filled since the present epoch began, as RAM becomes what it was then.

    Without an MMU an entry does not depend on RAM, so those for loads and code stay.
    """
    f = define("forget_epoch", {}, attributes="noinline")
    sctlr = KEY.index("sctlr")
    with f.count(0, SPACES) as space:
        words = f.native("space_keys").element("i32", space * SPACE_KEY_WORDS)
        with f.when(words.element("i32", sctlr).load("i32").has(SCTLR_M)):
            length, before = _log_length(f, space), _fills_before(f, space).load("i32")
            with f.count(before, length.load("i32")) as number:
                _, _, entry = _logged(f, space, number)
                f.store(f.value("ptr", 0), entry)
            f.store(before, length)
    f.call("begin_epoch", f.cpu)
    f.ret()
    return f


def _forget_writes_of() -> Builder:
    """``forget_writes_of(cpu, space, hva)``: null the entries for stores to the page of RAM at an HVA."""
    f = define("forget_writes_of", {"space": "i32", "hva": "ptr"}, attributes="noinline")
    with f.count(0, _log_length(f, f["space"]).load("i32")) as number:
        table, page, entry = _logged(f, f["space"], number)
        with f.when(_is_for_stores(table)):
            host = entry.load("ptr").at(page.to("i64") << PAGE_SHIFT)
            with f.when(host.eq(f["hva"])):
                f.store(f.value("ptr", 0), entry)
    f.ret()
    return f


def _forget_code_of() -> Builder:
    """``forget_code_of(cpu, space, ops)``: null the entries for a code page."""
    f = define("forget_code_of", {"space": "i32", "ops": "ptr"}, attributes="noinline")
    with f.count(0, _log_length(f, f["space"]).load("i32")) as number:
        table, _, entry = _logged(f, f["space"], number)
        with f.when((table.eq(CODE) | table.eq(CODE + USER_TABLES)) & entry.load("ptr").eq(f["ops"])):
            f.store(f.value("ptr", 0), entry)
    f.ret()
    return f


def _tlb_flush() -> Builder:
    """``tlb_flush(cpu)``: null all entries of all spaces."""
    f = define("tlb_flush", {}, attributes="noinline")
    extents = f.load_native("extents", "ptr")
    with f.count(0, MEGABYTES, 8, "i64") as offset:
        f.store(f.value("i64", 0), extents.at(offset))
    with f.count(0, SPACES) as space:
        f.call("clear_space", f.cpu, space)
    f.ret()
    return f


def _forget_writes() -> Builder:
    """``forget_writes(cpu, hva)``: null the entries of all spaces for stores to the page of RAM at an HVA."""
    f = define("forget_writes", {"hva": "ptr"}, attributes="noinline")
    with f.count(0, SPACES) as space:
        f.call("forget_writes_of", f.cpu, space, f["hva"])
    f.ret()
    return f


def _forget_code() -> Builder:
    """``forget_code(cpu, ops)``: null the entries of all spaces for a code page."""
    f = define("forget_code", {"ops": "ptr"}, attributes="noinline")
    with f.count(0, SPACES) as space:
        f.call("forget_code_of", f.cpu, space, f["ops"])
    f.ret()
    return f


def _tlb_flush_page() -> Builder:
    """``tlb_flush_page(cpu, mva)``: null the entries of the page of an address in all spaces. Where nothing was
    filled in its megabyte, there is nothing to do.

    If its megabyte has something larger than a page, the entries of the whole megabyte are nulled. All entries are
    nulled if it is part of a supersection, which is rare, and if the FCSE is in use: one page may have two addresses.
    """
    f = define("tlb_flush_page", {"mva": "i32"}, attributes="noinline")
    mva = f["mva"]
    with f.when(f.load_state("fcseidr").ne(0)):
        f.call("tlb_flush", f.cpu)
        f.ret()
    page = mva >> PAGE_SHIFT
    extent = _extent(f, page)
    with f.when(extent.load("i8").eq(0)):  # as where a kernel flushes a whole region page by page
        f.ret()
    with f.when(extent.load("i8").has(_SUPERSECTION)):
        f.call("tlb_flush", f.cpu)
        f.ret()
    broad = extent.load("i8").has(_BROAD)
    first = broad.choose(page & -PAGES_PER_MEGABYTE, page)
    end = first + broad.choose(PAGES_PER_MEGABYTE, 1, "i32")
    with f.count(0, SPACES) as space:
        is_empty = _log_length(f, space).load("i32").eq(0)
        with f.count(is_empty.choose(TABLES, 0, "i32"), TABLES) as table, f.count(first, end) as number:
            f.store(f.value("ptr", 0), _entry(f, space, table, number))
    with f.when(broad):
        f.store(f.value("i8", 0), extent)
    f.ret()
    return f


def _translate_address() -> Builder:
    """``translate_address(cpu, mva, access)``: set PAR to what the page tables say. See the callout of this name."""
    f = define("translate_address", {"mva": "i32", "access": "i32"}, attributes="noinline")
    found = f.call("translate", f.cpu, f["mva"], f["access"], result="i64")
    f.call("report_translation", f.cpu, found.to("i32"), (found >> 32).to("i32"))
    f.ret()
    return f


def _regime_changed() -> Builder:
    """``regime_changed(cpu)``: make current the space for the registers' present values. It may replace another one."""
    f = define("regime_changed", {}, attributes="noinline")
    words = [f.load_state(name) for name in KEY]
    keys = f.native("space_keys")
    with f.count(0, SPACES) as space:
        key = keys.element("i32", space * SPACE_KEY_WORDS)
        difference = key.element("i32", _USED).load("i32") ^ 1
        for number, word in enumerate(words):
            difference = difference | key.element("i32", number).load("i32") ^ word
        with f.when(difference.eq(0)):
            f.store_native("space", space)
            f.ret()
    victim = f.load_native("space_victim")
    f.store_native("space_victim", victim + 1 & (SPACES - 1))
    f.call("clear_space", f.cpu, victim)
    key = keys.element("i32", victim * SPACE_KEY_WORDS)
    for number, word in enumerate([*words, f.value("i32", 1)]):
        f.store(word, key.element("i32", number))
    f.store_native("space", victim)
    f.ret()
    return f


def _choose_tables() -> Builder:
    """``choose_tables(cpu)``: use the tables of the current space for the current mode."""
    f = define("choose_tables", {})
    space = f.load_native("space").to("i64") * (TABLES * TABLE_BYTES)
    privileged = f.load_native("spaces", "ptr").at(space)
    user = privileged.at(USER_TABLES * TABLE_BYTES)
    f.store_native("user_read_table", user.at(READ * TABLE_BYTES))
    f.store_native("user_write_table", user.at(WRITE * TABLE_BYTES))
    current = f.is_user_mode().choose(user, privileged)
    f.store_native("read_table", current.at(READ * TABLE_BYTES))
    f.store_native("write_table", current.at(WRITE * TABLE_BYTES))
    f.store_native("code_table", current.at(CODE * TABLE_BYTES))
    f.ret()
    return f


def _note_extent() -> Builder:
    """``note_extent(cpu, gva, status)``: if the walk found something larger than a page, note that for its megabyte.

    If it is a supersection, note that for all of its megabytes.
    """
    f = define("note_extent", {"gva": "i32", "status": "i64"})
    page = f["gva"] >> PAGE_SHIFT
    with f.when(f["status"].has(BROAD)):
        extent = _extent(f, page)
        f.store(extent.load("i8") | _BROAD, extent)
    with f.when(f["status"].has(SUPERSECTION)):
        first = _extent(f, page & -(_SUPERSECTION_MEGABYTES * PAGES_PER_MEGABYTE))
        with f.count(0, _SUPERSECTION_MEGABYTES) as number:
            extent = first.element("i8", number)
            f.store(extent.load("i8") | _SUPERSECTION, extent)
    f.ret()
    return f


def _fill_code() -> Builder:
    """``fill_code(cpu, gva)``: return the code page of an address and enter it into the table; null for an exit."""
    f = define("fill_code", {"gva": "i32"}, "ptr", "noinline")
    gva, nothing = f["gva"], f.value("ptr", 0)
    user = f.is_user_mode()
    access = user.choose(int(AccessKind.USER | AccessKind.EXECUTE), int(AccessKind.EXECUTE), "i32")
    found = f.call("translate", f.cpu, gva, access, result="i64")
    status, gpa = found >> 32, found & 0xFFFFFFFF
    fault = status & FAULT_MASK
    with f.when(fault.ne(0)):
        f.exit(ExitCode.PREFETCH_ABORT, fault)
        f.ret(nothing)
    with f.when(~f.page_flags(gpa).has(PAGE_RAM)):
        f.exit(ExitCode.PREFETCH_ABORT, int(Fault.EXTERNAL))
        f.ret(nothing)
    with f.when(status.has(PARTIAL)):
        f.exit(ExitCode.TRAP)
        f.ret(nothing)
    arm_breakpoints(f, gva, gpa, nothing)
    f.call("note_extent", f.cpu, gva, status)
    ops = f.call("need_code_page", f.cpu, (gpa >> PAGE_SHIFT).to("i32"), result="ptr")
    f.call("fill", f.cpu, gva >> PAGE_SHIFT, user.choose(CODE + USER_TABLES, CODE, "i32"), ops)
    f.ret(ops)
    return f


def _code_at() -> Builder:
    """``code_at(cpu, gva)``: do as ``fill_code``, for regions."""
    f = define_preserving("code_at", {"gva": "i32"}, "ptr")
    f.ret(f.call("fill_code", f.cpu, f["gva"], result="ptr"))
    return f


def shadow_text() -> str:
    """Return the LLVM text of this module's definitions."""
    functions = [
        _fill(),
        _clear_space(),
        _forget_stores_of(),
        _begin_epoch(),
        _forget_epoch(),
        _forget_writes_of(),
        _forget_code_of(),
        _tlb_flush(),
        _forget_writes(),
        _forget_code(),
        _tlb_flush_page(),
        _translate_address(),
        _regime_changed(),
        _choose_tables(),
        _note_extent(),
        _fill_code(),
        _code_at(),
    ]
    return "".join(f.text() for f in functions)
