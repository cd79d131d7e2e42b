"""The threaded tier's handlers: one native function for each form of each instruction.

A handler comes in up to two versions. The fast one (``h<n>``) accesses memory through the shadow
page tables alone and makes no calls, so it has no frame; when an access does not go that way it has
changed nothing yet and tail-calls the slow one (``s<n>``), which does the instruction again with
calls to the slow path of :mod:`dbt.backend.slowpath`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dbt.abi.cpu import NATIVE, Charged
from dbt.abi.exits import ExitCode
from dbt.abi.layout import (
    CODE_PAGE_SIZE,
    OP_BODY,
    OP_CALLOUTS,
    OP_HOTNESS,
    OP_SHIFT,
    OP_SIZE,
    PAGE_SHIFT,
    PAGE_SIZE,
    STITCH_ARRIVALS,
    WORD_IN_PAGE,
)
from dbt.backend.builder import R15
from dbt.backend.convention import header, tail_call
from dbt.backend.lower import FLAGS, Lowering, remember_target
from dbt.backend.module import Function
from dbt.backend.predecode import Candidate, OperandSlot, allocate_slots, candidate, slot_key
from isa.arm.architecture import CALLOUT_NUMBERS
from isa.arm.operands import ALWAYS, condition_holds
from isa.arm.recorder import PC_AHEAD, Recorder
from isa.arm.state import LAYOUT
from isa.arm.vectors import InsnException
from isa.ir.callouts import Callout
from isa.ir.encoding import Field
from isa.ir.registry import Insn
from isa.ir.sensitivity import makes_callouts
from isa.ir.uop import Access, BranchKind, Uop

EXCEPTION_EXITS = {
    InsnException.UNDEFINED: ExitCode.UNDEFINED,
    InsnException.SUPERVISOR_CALL: ExitCode.SUPERVISOR_CALL,
    InsnException.BREAKPOINT: ExitCode.BREAKPOINT,
    InsnException.HYPERVISOR_CALL: ExitCode.HYPERVISOR_CALL,
    InsnException.SECURE_MONITOR_CALL: ExitCode.SECURE_MONITOR_CALL,
}
#: The handler that may let a guest wait.
_WAITS = "@wait_for_interrupt"
#: The handlers that may do what an exception demands.
_TAKEN_BY = {InsnException.SUPERVISOR_CALL: "@supervisor_call", InsnException.HYPERVISOR_CALL: "@hypervisor_call"}
#: The callouts that are charged as TLB operations.
_TLB_OPERATIONS = ("tlb_flush", "tlb_flush_page")
#: The exits of callouts that are the hypervisor's own.
CALLOUT_EXITS = {
    "enter_thumb": ExitCode.THUMB,
    "unsupported": ExitCode.UNSUPPORTED,
    "wait_for_interrupt": ExitCode.WAIT,
}


class HandlerLowering(Lowering):
    """Lowers a form: operands come from the op, registers from CpuState, control leaves by tail calls."""

    temp_offset = NATIVE["temp"].offset

    def __init__(
        self, function: Function, slots: dict[str, OperandSlot], slow: str | None, is_only: bool = False
    ) -> None:
        """``slow`` names the slow version, to which the fast one falls back. It is None for the slow one itself.

        ``is_only`` is True if there is no other version.
        """
        super().__init__(function)
        self._slots = slots
        self._slow = slow
        self._is_only = is_only
        self.uses_memory = False
        self._bail = ""
        self._synchronises = False
        self._is_charged = False  # the instruction is a TLB operation
        self._budget = ""  # where the budget before this instruction is, if there is no other version

    # -- entry and exits -----------------------------------------------------------------------

    def keep_flags_in_state(self) -> None:
        """Keep the flags in CpuState, where callouts read them."""
        for name in FLAGS:
            self.flags[name] = self.f.emit_entry(f"getelementptr i8, ptr %cpu, i64 {LAYOUT[name].offset}")

    def count_by_place(self) -> None:
        """Count executions in the op, up to 2^32 - 1. No region replaces it, so the op has room."""
        f = self.f
        place = f.emit(f"getelementptr i8, ptr %op, i64 {OP_CALLOUTS}")
        count = f.emit(f"load i32, ptr {place}")
        more = f.emit(f"zext i1 {f.emit(f'icmp ne i32 {count}, -1')} to i32")
        f.do(f"store i32 {f.emit(f'add i32 {count}, {more}')}, ptr {place}")

    def begin(self) -> None:
        """Retire one instruction of the budget, or leave if there is none."""
        f = self.f
        if self._is_only:
            self._budget = f.emit_entry("alloca i64")
            f.do(f"store i64 %budget, ptr {self._budget}")
        for name in FLAGS:
            f.do(f"store i32 %{name}, ptr {self.flags[name]}")
        exhausted, go = f.new_label("exhausted"), f.new_label("go")
        f.do(f"br i1 {f.emit('icmp eq i64 %budget, 0')}, label %{exhausted}, label %{go}, !prof !0")
        f.label(exhausted)
        f.do(tail_call("@leave_budget"))
        f.do("ret void")
        f.label(go)

    def _left(self) -> str:
        """Return the budget after this instruction. An access to a device may have changed the end of the slice."""
        f = self.f
        budget = "%budget"
        if self._budget:
            budget = f.emit(f"load i64, ptr {self._budget}")
        elif self.uses_memory and self._slow is None:
            budget = f.emit(f"load i64, ptr {self.state_pointer(NATIVE['budget'].offset)}")
        return f.emit(f"add nsw i64 {budget}, -1")

    def _call_slow_path(self, result: str, function: str, arguments: str) -> str:
        """Call the slow path, with the budget in CpuState, because a device may ask for the time, or set an alarm."""
        f = self.f
        place = self.state_pointer(NATIVE["budget"].offset)
        budget = f.emit(f"load i64, ptr {self._budget}") if self._budget else "%budget"
        f.do(f"store i64 {budget}, ptr {place}")
        called = f.emit(f"call {result} @{function}(ptr %cpu, {arguments})")
        if self._budget:
            f.do(f"store i64 {f.emit(f'load i64, ptr {place}')}, ptr {self._budget}")
        return called

    def _continue(self, callee: str, op: str) -> None:
        """Tail-call a handler with the flags and the budget after this instruction."""
        flags = {name: self.f.emit(f"load i32, ptr {pointer}") for name, pointer in self.flags.items()}
        self.f.do(tail_call(callee, op=op, budget=self._left(), **flags))
        self.f.do("ret void")

    def _count(self, op: str) -> None:
        """Count an arrival at a loop head or a function. Every few arrivals, ``warm`` goes on."""
        f = self.f
        place = f.emit(f"getelementptr i8, ptr {op}, i64 {OP_HOTNESS}")
        count = f.emit(f"add i16 {f.emit(f'load i16, ptr {place}')}, 1")
        f.do(f"store i16 {count}, ptr {place}")
        warm, go = f.new_label("warm"), f.new_label("go")
        rest = f.emit(f"and i16 {count}, {STITCH_ARRIVALS - 1}")
        f.do(f"br i1 {f.emit(f'icmp eq i16 {rest}, 0')}, label %{warm}, label %{go}, !prof !0")
        f.label(warm)
        self._continue(self._function("warm"), op)
        f.label(go)

    def _function(self, name: str) -> str:
        """Return a function of the image as an operand."""
        return f"@{name}"

    def dispatch(self, op: str) -> None:
        self._continue(self.f.emit(f"load ptr, ptr {op}"), op)

    def fall_through(self) -> None:
        if self._synchronises:
            self._resume(self._pc(4))
            return
        self.dispatch(self.f.emit(f"getelementptr i8, ptr %op, i64 {OP_SIZE}"))

    def _resume(self, target: str) -> None:
        """Go on at a GVA by way of ``resume``: the mode and the tables may be different now."""
        f = self.f
        f.do(f"store i32 {f.emit(f'and i32 {target}, -4')}, ptr {self.state_pointer(R15)}")
        f.do(f"store i64 {self._left()}, ptr {self.state_pointer(NATIVE['budget'].offset)}")
        if self._is_charged:
            self._charge(Charged.TLB_FLUSH)
        f.do(tail_call("@resume"))
        f.do("ret void")

    def _charge(self, kind: Charged) -> None:
        """Charge the instruction, which has retired, if the run is metered: see :mod:`dbt.backend.charging`."""
        f = self.f
        units = f.emit(f"load i64, ptr {self.state_pointer(NATIVE['charges'].offset + 8 * kind)}")
        charged, go = f.new_label("charged"), f.new_label("go")
        f.do(f"br i1 {f.emit(f'icmp eq i64 {units}, 0')}, label %{go}, label %{charged}, !prof !1")
        f.label(charged)
        f.do(f"call void @charge(ptr %cpu, i64 {units}, i64 0)")
        f.do(f"br label %{go}")
        f.label(go)

    def end_slow(self) -> None:
        """Write the cold block to which all failing memory accesses go."""
        if self._bail:
            self.f.label(self._bail)
            self.f.do(tail_call(f"@{self._slow}" if self._slow else "@fault"))
            self.f.do("ret void")

    def _bail_label(self) -> str:
        self.uses_memory = True
        if not self._bail:
            self._bail = self.f.new_label("bail")
        return self._bail

    def leave(self, code: ExitCode, *arguments: str, to: str = "@leave") -> None:
        """Leave native code at this instruction, which is not retired. ``to`` is the handler that leaves."""
        f = self.f
        f.do(f"store i32 {int(code)}, ptr {self.state_pointer(NATIVE['exit_kind'].offset)}")
        for number, argument in enumerate(arguments):
            wide = f.emit(f"zext i32 {argument} to i64")
            f.do(f"store i64 {wide}, ptr {self.state_pointer(NATIVE['exit_args'].offset + 8 * number)}")
        f.do(tail_call(to))
        f.do("ret void")

    # -- the guest's state ---------------------------------------------------------------------

    def static_value(self, uop: Uop) -> str | None:
        slot = self._slots.get(slot_key(uop))
        if slot is None:
            if uop.op == "field":
                raise KeyError(f"field {uop!r} has no slot")
            return None
        f = self.f
        raw = f.emit(f"load i{8 * slot.size}, ptr {f.emit(f'getelementptr i8, ptr %op, i64 {slot.offset}')}")
        if uop.width == 8 * slot.size:
            return raw
        return f.emit(f"{'zext' if uop.width > 8 * slot.size else 'trunc'} i{8 * slot.size} {raw} to i{uop.width}")

    def _pc(self, ahead: int) -> str:
        return self.f.emit(f"add i32 {self.op_gva()}, {ahead}")

    def lower_pc(self, ahead: int) -> str:
        return self._pc(ahead)

    # -- memory --------------------------------------------------------------------------------

    def _table(self, access: Access, table: str) -> str:
        """Return the shadow page table of an access. The one of the current mode is an argument of the handler."""
        if not access.user:
            return f"%{table}"
        name = "user_read_table" if table == "reads" else "user_write_table"
        return self.f.emit(f"load ptr, ptr {self.state_pointer(NATIVE[name].offset)}")

    def lower_load(self, address: str, access: Access) -> str:
        f = self.f
        if self._slow is not None:
            host = self.host_address(address, access.size, self._table(access, "reads"), self._bail_label())
            return f.emit(f"load i{8 * access.size}, ptr {host}")
        if not self._is_only:
            return self._load_slowly(address, access)
        loaded = f.emit_entry(f"alloca i{8 * access.size}")
        miss, done = f.new_label("miss"), f.new_label("loaded")
        host = self.host_address(address, access.size, self._table(access, "reads"), miss)
        f.do(f"store i{8 * access.size} {f.emit(f'load i{8 * access.size}, ptr {host}')}, ptr {loaded}")
        f.do(f"br label %{done}")
        f.label(miss)
        f.do(f"store i{8 * access.size} {self._load_slowly(address, access)}, ptr {loaded}")
        f.do(f"br label %{done}")
        f.label(done)
        return f.emit(f"load i{8 * access.size}, ptr {loaded}")

    def _load_slowly(self, address: str, access: Access) -> str:
        """Load by the slow path, which makes every access."""
        f = self.f
        pair = self._call_slow_path("{i32, i1}", f"slow_load{access.size}", f"i32 {address}, {_flavour(access)}")
        self._check(f.emit(f"extractvalue {{i32, i1}} {pair}, 1"))
        return self.narrow(f.emit(f"extractvalue {{i32, i1}} {pair}, 0"), access.size)

    def lower_store(self, address: str, value: str, access: Access) -> None:
        f = self.f
        if self._slow is not None:
            host = self.host_address(address, access.size, self._table(access, "writes"), self._bail_label())
            f.do(f"store i{8 * access.size} {self.narrow(value, access.size)}, ptr {host}")
            return
        if not self._is_only:
            self._store_slowly(address, value, access)
            return
        miss, done = f.new_label("miss"), f.new_label("stored")
        host = self.host_address(address, access.size, self._table(access, "writes"), miss)
        f.do(f"store i{8 * access.size} {self.narrow(value, access.size)}, ptr {host}")
        f.do(f"br label %{done}")
        f.label(miss)
        self._store_slowly(address, value, access)
        f.do(f"br label %{done}")
        f.label(done)

    def _store_slowly(self, address: str, value: str, access: Access) -> None:
        """Store by the slow path, which makes every access."""
        arguments = f"i32 {address}, i32 {value}, {_flavour(access)}"
        self._check(self._call_slow_path("i1", f"slow_store{access.size}", arguments))

    def _check(self, ok: str) -> None:
        done = self.f.new_label("done")
        self.f.do(f"br i1 {ok}, label %{done}, label %{self._bail_label()}")
        self.f.label(done)

    # -- control -------------------------------------------------------------------------------

    def lower_branch(self, target: Uop, kind: BranchKind) -> None:
        if kind is BranchKind.SYNCHRONISE:
            self._resume(self.value(target))
            return
        counted = kind in (BranchKind.LOOP, BranchKind.CALL)
        if target.op == "add" and target.args[0].op == "pc" and target.args[1].static:
            self._branch_relative(target, counted)
        else:
            self._branch_to(self.value(target), counted)

    def _branch_relative(self, target: Uop, counted: bool) -> None:
        """Branch to pc + offset: the op at that distance, unless it is in another page."""
        f = self.f
        distance = f.emit(f"sext i32 {self.value(target.args[1])} to i64")
        assert isinstance(target.args[0].attr, int)
        ahead = f.emit(f"add i64 {f.emit(f'shl i64 {distance}, {OP_SHIFT}')}, {target.args[0].attr << OP_SHIFT}")
        op = f.emit(f"getelementptr i8, ptr %op, i64 {ahead}")
        differ = f.emit(f"xor i64 {f.emit(f'ptrtoint ptr {op} to i64')}, {f.emit('ptrtoint ptr %op to i64')}")
        inside, outside = f.new_label("inside"), f.new_label("outside")
        f.do(f"br i1 {f.emit(f'icmp ult i64 {differ}, {CODE_PAGE_SIZE}')}, label %{inside}, label %{outside}, !prof !1")
        f.label(outside)
        self._goto(self.value(target), counted)
        f.label(inside)
        if counted:
            self._count(op)
        self.dispatch(op)

    def _goto(self, target: str, counted: bool) -> None:
        wide = self.f.emit(f"zext i32 {target} to i64")
        self.f.do(f"store i64 {wide}, ptr {self.state_pointer(NATIVE['exit_args'].offset)}")
        self._continue("@goto_counted" if counted else "@goto", "%op")

    def _remember_target(self, target: str) -> None:
        """Note for the region tier where this branch went."""
        remember_target(self.f, self.cpu, self.f.emit("ptrtoint ptr %op to i64"), target)

    def _branch_to(self, target: str, counted: bool) -> None:
        f = self.f
        self._remember_target(target)
        table = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['code_table'].offset)}")
        page = f.emit(f"zext i32 {f.emit(f'lshr i32 {target}, {PAGE_SHIFT}')} to i64")
        ops = f.emit(f"load ptr, ptr {f.emit(f'getelementptr ptr, ptr {table}, i64 {page}')}")
        known, unknown = f.new_label("known"), f.new_label("unknown")
        f.do(f"br i1 {f.emit(f'icmp eq ptr {ops}, null')}, label %{unknown}, label %{known}, !prof !0")
        f.label(unknown)
        self._goto(target, counted)
        f.label(known)
        gva = f.emit(f"and i32 {target}, {-PAGE_SIZE}")
        f.do(f"store i32 {gva}, ptr {self.state_pointer(NATIVE['page_gva'].offset)}")
        offset = f.emit(f"zext i32 {f.emit(f'and i32 {target}, {WORD_IN_PAGE}')} to i64")
        op = f.emit(f"getelementptr i8, ptr {ops}, i64 {f.emit(f'shl i64 {offset}, {OP_SHIFT}')}")
        if counted:
            self._count(op)
        self.dispatch(op)

    def lower_exception(self, kind: InsnException, immediate: Uop) -> None:
        self.leave(EXCEPTION_EXITS[kind], self.value(immediate), to=_TAKEN_BY.get(kind, "@leave"))

    def _count_callout(self, callout: Callout) -> None:
        f = self.f
        if callout.sensitive:
            place = self.state_pointer(NATIVE["callout_counts"].offset + 8 * CALLOUT_NUMBERS[callout.name])
            count = f.emit(f"load i64, ptr {place}")
            f.do(f"store i64 {f.emit(f'add i64 {count}, 1')}, ptr {place}")

    def lower_callout(self, callout: Callout, args: Iterable[Uop]) -> bool:
        f, name = self.f, callout.name
        values = [self.value(arg) for arg in args]
        self._count_callout(callout)
        if name in CALLOUT_EXITS:
            self.leave(CALLOUT_EXITS[name], *values, to=_WAITS if name == "wait_for_interrupt" else "@leave")
            return False
        if callout.may_leave:
            self._trap_unless(self._call_slow_path("i1", name, _words(values)))
        elif callout.definition is None:
            f.do(f"call void @{name}({', '.join(['ptr %cpu', *(f'i32 {value}' for value in values)])})")
        self._synchronises |= callout.synchronises
        self._is_charged |= name in _TLB_OPERATIONS
        return True

    def lower_callout_value(self, callout: Callout, args: Iterable[Uop]) -> str:
        self._count_callout(callout)
        values = [self.value(arg) for arg in args]
        if not callout.may_leave:
            arguments = ", ".join(["ptr %cpu", *(f"i32 {value}" for value in values)])
            return self.f.emit(f"call i32 @{callout.name}({arguments})")
        pair = self._call_slow_path("{i32, i1}", callout.name, _words(values))
        self._trap_unless(self.f.emit(f"extractvalue {{i32, i1}} {pair}, 1"))
        return self.f.emit(f"extractvalue {{i32, i1}} {pair}, 0")

    def _trap_unless(self, done: str) -> None:
        """Have the emulator execute the instruction unless native code has made the access (an i1)."""
        f = self.f
        trap, go = f.new_label("trap"), f.new_label("go")
        f.do(f"br i1 {done}, label %{go}, label %{trap}, !prof !1")
        f.label(trap)
        self.leave(ExitCode.TRAP)
        f.label(go)


def _words(values: Iterable[str]) -> str:
    return ", ".join(f"i32 {value}" for value in values)


def _flavour(access: Access) -> str:
    """Return the last arguments of the slow path: whether the access must be aligned, and is made as user mode."""
    return ", ".join(f"i1 {'true' if flag else 'false'}" for flag in (access.aligned, access.user))


def lower_handler(name: str, slow: str | None, block: list[Uop], slots: dict[str, OperandSlot]) -> tuple[str, bool]:
    """Return the text of one version of a handler, and whether it accesses memory."""
    sensitive = makes_callouts(block)
    lowering = HandlerLowering(Function(header(name)), slots, slow, is_only=sensitive)
    if sensitive:
        lowering.keep_flags_in_state()
    lowering.begin()
    if sensitive:
        lowering.count_by_place()
    if lowering.lower_block(block):
        lowering.fall_through()
    lowering.end_slow()
    return lowering.f.text(), lowering.uses_memory


class FillLowering(Lowering):
    """Lowers static expressions over the instruction word ``%word``."""

    def __init__(self, function: Function) -> None:
        self.f = function
        self.values: dict[Uop, str] = {}

    def static_value(self, uop: Uop) -> str | None:
        if uop.op != "field":
            return None
        field = uop.attr
        assert isinstance(field, Field)
        shifted = self.f.emit(f"lshr i32 %word, {field.lo}")
        return self.f.emit(f"and i32 {shifted}, {(1 << field.width) - 1}")


def lower_fill(slots: Iterable[OperandSlot]) -> str:
    """Return the body of the function that computes an op's operands from the instruction word."""
    lowering = FillLowering(Function("@"))
    f = lowering.f
    for slot in slots:
        value, bits = lowering.value(slot.uop), 8 * slot.size
        if slot.uop.width != bits:
            value = f.emit(f"{'zext' if bits > slot.uop.width else 'trunc'} i{slot.uop.width} {value} to i{bits}")
        f.do(f"store i{bits} {value}, ptr {f.emit(f'getelementptr i8, ptr %op, i64 {slot.offset}')}")
    f.do("ret void")
    return f.text().split("\n", 1)[1]


@dataclass(slots=True)
class HandlerSet:
    """``functions``: definitions in LLVM text, in order; ``rows``: the decoder's candidates."""

    functions: list[str]
    rows: list[Candidate]


def build_handlers(registry: list[Insn]) -> HandlerSet:
    """Build the handlers and decoder rows of every form of every instruction.

    An exception has a note that names the instruction.
    """
    built = HandlerSet([], [Candidate("undefined", 0, 0, (), (), False, "undefined", "fill_nothing")])
    fills: dict[str, str] = {}
    for insn in registry:
        try:
            _build_handlers_of(insn, built, fills)
        except Exception as error:
            code = insn.semantics.__code__
            error.add_note(
                f"in {insn.name} ({Path(code.co_filename).name}, {code.co_name} at line {code.co_firstlineno})"
            )
            raise
    built.functions.extend(f"define hidden void @{name}(ptr %op, i32 %word) {{\n{body}" for body, name in fills.items())
    return built


def _build_handlers_of(insn: Insn, built: HandlerSet, fills: dict[str, str]) -> None:
    """Add those of one instruction to ``built``. ``fills`` has the names of the functions that fill ops, by body."""
    for form in insn.forms():
        block = insn.record_form(form)
        number = len(built.rows)
        # The operands of what makes callouts would not all fit, and it is not executed often.
        slots = allocate_slots(block, insn.name, fields_only=makes_callouts(block))
        # What makes callouts has one version only, so that they are made once.
        slow = None if makes_callouts(block) else f"s{number}"
        text, uses_memory = lower_handler(f"h{number}", slow, block, slots)
        built.functions.append(text)
        if uses_memory and slow is not None:
            built.functions.append(lower_handler(f"s{number}", None, block, slots)[0])
        body = lower_fill(slots.values())
        fill = fills.setdefault(body, f"f{len(fills)}")
        built.rows.append(candidate(insn, form, f"h{number}", fill, block))


def guards() -> Iterator[tuple[str, str]]:
    """Yield names and definitions of the guards.

    ``guard_<cond>_<pc>`` calls the op's body if the condition holds, with the PC in r[15] if ``pc`` is 1. The body
    retires the instruction. If the condition fails, the guard does.
    """
    for condition in range(ALWAYS + 1):
        for with_pc in (0, 1):
            name = f"guard_{condition}_{with_pc}"
            yield name, _guard(name, condition, bool(with_pc))


def _guard(name: str, condition: int, with_pc: bool) -> str:
    low = HandlerLowering(Function(header(name)), {}, None)
    f = low.f
    u = Recorder()
    holds = condition_holds(u, condition)
    for flag in FLAGS:
        f.do(f"store i32 %{flag}, ptr {low.flags[flag]}")
    low.lower_block(u.block)
    passed, failed = f.new_label("passed"), f.new_label("failed")
    f.do(f"br i1 {low.value(holds)}, label %{passed}, label %{failed}")
    f.label(passed)
    if with_pc:
        f.do(f"store i32 {low.lower_pc(PC_AHEAD)}, ptr {low.state_pointer(R15)}")
    offset = f.emit(f"load i32, ptr {f.emit(f'getelementptr i8, ptr %op, i64 {OP_BODY}')}")
    image = f.emit(f"load ptr, ptr {low.state_pointer(NATIVE['image'].offset)}")
    body = f.emit(f"getelementptr i8, ptr {image}, i64 {f.emit(f'zext i32 {offset} to i64')}")
    f.do(tail_call(body))
    f.do("ret void")
    f.label(failed)
    low.begin()
    low.fall_through()
    return f.text()
