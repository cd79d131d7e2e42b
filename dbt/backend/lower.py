"""Lowering of uops to LLVM text: a table from operation to a few lines, and the structured control.

What a uop means is settled in :mod:`isa.ir.uop`; how the guest's state is reached (operand fields,
memory, branches) is the business of a subclass of :class:`Lowering`, one for each kind of code.
The guest's four flags live in allocas that SROA turns into values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dbt.abi.cpu import NATIVE
from dbt.abi.layout import CODE_PAGE_SIZE, OP_SHIFT, OP_SIZE_SHIFT, PAGE_SHIFT, TARGET_ENTRIES, TARGET_FACTOR
from dbt.backend.module import Function
from isa.arm.state import LAYOUT
from isa.arm.vectors import InsnException
from isa.ir.callouts import Callout
from isa.ir.operations import PURE
from isa.ir.queries import loop_variables
from isa.ir.table import Stage, require_rows
from isa.ir.uop import Access, BranchKind, Uop

FLAGS = ("n", "z", "c", "v")


def _binary(instruction: str) -> Callable[[Lowering, Uop], str]:
    def lower(low: Lowering, uop: Uop) -> str:
        a, b = uop.args
        return low.f.emit(f"{instruction} i{a.width} {low.value(a)}, {low.value(b)}")

    return lower


def _convert(instruction: str) -> Callable[[Lowering, Uop], str]:
    def lower(low: Lowering, uop: Uop) -> str:
        (a,) = uop.args
        return low.f.emit(f"{instruction} i{a.width} {low.value(a)} to i{uop.width}")

    return lower


def _intrinsic(name: str, suffix: str = "") -> Callable[[Lowering, Uop], str]:
    def lower(low: Lowering, uop: Uop) -> str:
        (a,) = uop.args
        return low.f.emit(f"call i{a.width} @llvm.{name}.i{a.width}(i{a.width} {low.value(a)}{suffix})")

    return lower


def _lower_ror(low: Lowering, uop: Uop) -> str:
    a, b = uop.args
    x, t = low.value(a), f"i{a.width}"
    return low.f.emit(f"call {t} @llvm.fshr.{t}({t} {x}, {t} {x}, {t} {low.value(b)})")


def _lower_select(low: Lowering, uop: Uop) -> str:
    c, a, b = uop.args
    return low.f.emit(f"select i1 {low.value(c)}, i{a.width} {low.value(a)}, i{b.width} {low.value(b)}")


def _lower_udiv(low: Lowering, uop: Uop) -> str:
    a, b = uop.args
    t, divisor = f"i{a.width}", low.value(b)
    zero = low.f.emit(f"icmp eq {t} {divisor}, 0")
    safe = low.f.emit(f"select i1 {zero}, {t} 1, {t} {divisor}")
    quotient = low.f.emit(f"udiv {t} {low.value(a)}, {safe}")
    return low.f.emit(f"select i1 {zero}, {t} 0, {t} {quotient}")


def _lower_sdiv(low: Lowering, uop: Uop) -> str:
    # x86 traps on a zero divisor and on INT_MIN / -1: divide by 1 then, which is also right for the latter.
    a, b = uop.args
    t, dividend, divisor = f"i{a.width}", low.value(a), low.value(b)
    zero = low.f.emit(f"icmp eq {t} {divisor}, 0")
    lowest = low.f.emit(f"icmp eq {t} {dividend}, {1 << (a.width - 1)}")
    minus = low.f.emit(f"icmp eq {t} {divisor}, -1")
    overflow = low.f.emit(f"and i1 {lowest}, {minus}")
    unsafe = low.f.emit(f"or i1 {zero}, {overflow}")
    safe = low.f.emit(f"select i1 {unsafe}, {t} 1, {t} {divisor}")
    quotient = low.f.emit(f"sdiv {t} {dividend}, {safe}")
    return low.f.emit(f"select i1 {zero}, {t} 0, {t} {quotient}")


def _add_with_carry(low: Lowering, uop: Uop, field: int) -> tuple[str, bool]:
    """Return a field of an addition of 32 bits, 0 for the carry or borrow (i8) and 1 for the sum, and whether what was
    computed is x - y - borrow.

    The host's own instructions are asked for by their intrinsics. LLVM finds them in arithmetic only as long as a carry
    is not branched on, and makes two branches of one otherwise.
    """
    a, b, carry = uop.args
    assert uop.args[0].width == 32, f"{uop!r}: an addition with carry has 32 bits"
    inverted = b.op == "xor" and b.args[1].number == 0xFFFFFFFF and not b.static
    name, right = ("subborrow", b.args[0]) if inverted else ("addcarry", b)
    into = low.value(carry)
    if inverted:
        into = low.f.emit(f"xor i1 {into}, true")
    wide = low.f.emit(f"zext i1 {into} to i8")
    pair = low.f.emit(f"call {{i8, i32}} @llvm.x86.{name}.32(i8 {wide}, i32 {low.value(a)}, i32 {low.value(right)})")
    return low.f.emit(f"extractvalue {{i8, i32}} {pair}, {field}"), inverted


def _lower_adc(low: Lowering, uop: Uop) -> str:
    a, b, carry = uop.args
    if (y := uop.subtrahend) is not None:
        return low.f.emit(f"sub i{a.width} {low.value(a)}, {low.value(y)}")
    if carry.number == 0:
        return low.f.emit(f"add i{a.width} {low.value(a)}, {low.value(b)}")
    return _add_with_carry(low, uop, 1)[0]


def _lower_adc_carry(low: Lowering, uop: Uop) -> str:
    a, _, _ = uop.args
    if (y := uop.subtrahend) is not None:
        return low.f.emit(f"icmp uge i{a.width} {low.value(a)}, {low.value(y)}")
    out, borrows = _add_with_carry(low, uop, 0)
    return low.f.emit(f"icmp {'eq' if borrows else 'ne'} i8 {out}, 0")


def _lower_adc_overflow(low: Lowering, uop: Uop) -> str:
    a, b, carry = uop.args
    t, y = f"i{a.width}", uop.subtrahend
    if y is not None or carry.number == 0:
        name, right = ("sadd", b) if y is None else ("ssub", y)
        arguments = f"{t} {low.value(a)}, {t} {low.value(right)}"
        pair = low.f.emit(f"call {{{t}, i1}} @llvm.{name}.with.overflow.{t}({arguments})")
        return low.f.emit(f"extractvalue {{{t}, i1}} {pair}, 1")
    total = _lower_adc(low, uop)
    x = low.f.emit(f"xor {t} {total}, {low.value(a)}")
    z = low.f.emit(f"xor {t} {total}, {low.value(b)}")
    return low.f.emit(f"icmp slt {t} {low.f.emit(f'and {t} {x}, {z}')}, 0")


#: One row per pure operation.
LOWER: dict[str, Callable[[Lowering, Uop], str]] = {
    "add": _binary("add"),
    "sub": _binary("sub"),
    "mul": _binary("mul"),
    "and": _binary("and"),
    "or": _binary("or"),
    "xor": _binary("xor"),
    "shl": _binary("shl"),
    "lshr": _binary("lshr"),
    "ashr": _binary("ashr"),
    "ror": _lower_ror,
    "eq": _binary("icmp eq"),
    "ne": _binary("icmp ne"),
    "ult": _binary("icmp ult"),
    "slt": _binary("icmp slt"),
    "select": _lower_select,
    "zext": _convert("zext"),
    "sext": _convert("sext"),
    "trunc": _convert("trunc"),
    "clz": _intrinsic("ctlz", ", i1 false"),
    "popcount": _intrinsic("ctpop"),
    "bitreverse": _intrinsic("bitreverse"),
    "bswap": _intrinsic("bswap"),
    "udiv": _lower_udiv,
    "sdiv": _lower_sdiv,
    "adc": _lower_adc,
    "adc_carry": _lower_adc_carry,
    "adc_overflow": _lower_adc_overflow,
}
if missing := PURE.keys() ^ LOWER.keys():
    raise NotImplementedError(f"pure uops and their lowerings differ: {sorted(missing)}")

DECLARATIONS = "\n".join(
    [
        *(f"declare i{w} @llvm.{n}.i{w}(i{w}, i{w}, i{w})" for n in ("fshl", "fshr") for w in (8, 16, 32, 64)),
        *(f"declare i{w} @llvm.ctlz.i{w}(i{w}, i1)" for w in (8, 16, 32, 64)),
        *(f"declare i{w} @llvm.{n}.i{w}(i{w})" for n in ("ctpop", "bitreverse") for w in (8, 16, 32, 64)),
        *(f"declare i{w} @llvm.bswap.i{w}(i{w})" for w in (16, 32, 64)),
        *(f"declare i{w} @llvm.cttz.i{w}(i{w}, i1)" for w in (32,)),
        *(f"declare i{w} @llvm.expect.i{w}(i{w}, i{w})" for w in (64,)),
        *(f"declare {{i8, i32}} @llvm.x86.{n}.32(i8, i32, i32)" for n in ("addcarry", "subborrow")),
        "declare void @llvm.memcpy.inline.p0.p0.i64(ptr, ptr, i64 immarg, i1 immarg)",
        *(
            f"declare {{i{w}, i1}} @llvm.{n}.with.overflow.i{w}(i{w}, i{w})"
            for n in ("sadd", "ssub", "uadd", "usub")
            for w in (8, 16, 32, 64)
        ),
    ]
)


# !prof !0: the first way is never taken; !prof !1: always; !2: no more to say.
_METADATA = '!0 = !{!"branch_weights", i32 1, i32 100000}\n!1 = !{!"branch_weights", i32 100000, i32 1}\n!2 = !{}\n'


def module_text(*definitions: str) -> str:
    """Return the LLVM module of these function definitions, with the declarations and metadata that they use."""
    return "\n".join(['target triple = "x86_64-unknown-linux-gnu"', DECLARATIONS, *definitions, _METADATA])


def remember_target(f: Function, cpu: str, op: str, target: str) -> None:
    """Note in the table of targets that the indirect branch of an op (i64) went to a GVA (i32)."""
    wide = f.emit(f"zext i32 {target} to i64")
    # Functions that are called from one place return to one place: without a factor the pairs of their calls would have
    # the entries of the pairs of their returns.
    spread = f.emit(f"mul i64 {f.emit(f'lshr i64 {wide}, 2')}, {TARGET_FACTOR}")
    mixed = f.emit(f"xor i64 {f.emit(f'lshr i64 {op}, {OP_SIZE_SHIFT}')}, {spread}")
    number = f.emit(f"and i64 {mixed}, {TARGET_ENTRIES - 1}")
    entry = f.emit(f"or i64 {f.emit(f'shl i64 {wide}, 32')}, {f.emit(f'and i64 {op}, 4294967295')}")
    place = f"getelementptr i8, ptr {cpu}, i64 {NATIVE['targets'].offset}"
    table = f.emit(f"load ptr, ptr {f.emit(place)}")
    f.do(f"store i64 {entry}, ptr {f.emit(f'getelementptr i64, ptr {table}, i64 {number}')}")


class Lowering:
    """Lowers one instruction's uops into a function; subclasses say how the guest is reached.

    ``self.flags`` are the allocas of N, Z, C and V; ``self.cpu`` is the pointer to CpuState.
    """

    def __init__(self, function: Function, cpu: str = "%cpu") -> None:
        self.f = function
        self.cpu = cpu
        self.values: dict[Uop, str] = {}
        self.flags = {name: self.f.emit_entry("alloca i32") for name in FLAGS}

    # -- to be provided ------------------------------------------------------------------------

    def static_value(self, uop: Uop) -> str | None:
        """Return a static value that need not be computed, or None."""
        raise NotImplementedError

    def lower_pc(self, ahead: int) -> str:
        """Return the address of the instruction, plus ``ahead`` bytes."""
        raise NotImplementedError

    def lower_load(self, address: str, access: Access) -> str:
        raise NotImplementedError

    def lower_store(self, address: str, value: str, access: Access) -> None:
        raise NotImplementedError

    def lower_branch(self, target: Uop, kind: BranchKind) -> None:
        raise NotImplementedError

    def lower_exception(self, kind: InsnException, immediate: Uop) -> None:
        raise NotImplementedError

    def lower_callout(self, callout: Callout, args: Iterable[Uop]) -> bool:
        """Lower a callout. Return True if the instruction goes on after it."""
        raise NotImplementedError

    def lower_callout_value(self, callout: Callout, args: Iterable[Uop]) -> str:
        """Lower a callout that has a result, and return the result, an i32."""
        raise NotImplementedError

    # -- values --------------------------------------------------------------------------------

    def value(self, uop: Uop) -> str:
        """Return the LLVM operand that holds a value, computing it if it is needed for the first time."""
        if uop.number is not None:
            return ("true" if uop.number else "false") if uop.width == 1 else str(uop.number)
        known = self.values.get(uop)
        if known is None:
            known = self.static_value(uop) if uop.static else None
            if known is None:
                known = LOWER[uop.op](self, uop)
            self.values[uop] = known
        return known

    def state_pointer(self, offset: int) -> str:
        return self.f.emit(f"getelementptr i8, ptr {self.cpu}, i64 {offset}")

    def op_gva(self) -> str:
        """Return the GVA of the instruction whose op is ``%op``, in any mode. It follows from the address of the op."""
        f = self.f
        place = f.emit(f"and i64 {f.emit('ptrtoint ptr %op to i64')}, {CODE_PAGE_SIZE - 1}")
        offset = f.emit(f"trunc i64 {f.emit(f'lshr i64 {place}, {OP_SHIFT}')} to i32")
        page = f.emit(f"load i32, ptr {self.state_pointer(NATIVE['page_gva'].offset)}")
        return f.emit(f"add i32 {page}, {offset}")

    def array_pointer(self, offset: int, index: Uop) -> str:
        """Return a pointer to word ``index`` of the array at ``offset`` of CpuState."""
        if index.number is not None:
            return self.state_pointer(offset + 4 * index.number)
        wide = self.f.emit(f"zext i{index.width} {self.value(index)} to i64")
        return self.f.emit(f"getelementptr i32, ptr {self.state_pointer(offset)}, i64 {wide}")

    #: Metadata on the load of a shadow page table's entry.
    table_metadata = ""

    def host_address(self, address: str, size: int, table: str, bail: str) -> str:
        """Return the HVA of a naturally aligned address whose page is in the table. Others go to ``bail``."""
        self.check_aligned(address, size, bail)
        return self.host_pointer(self.checked_entry(address, table, bail), address)

    def check_aligned(self, address: str, size: int, bail: str) -> None:
        """Go to ``bail`` if an address is not a multiple of ``size``."""
        f = self.f
        if size > 1:
            low_bits = f.emit(f"and i32 {address}, {size - 1}")
            aligned = f.new_label("aligned")
            f.do(f"br i1 {f.emit(f'icmp eq i32 {low_bits}, 0')}, label %{aligned}, label %{bail}, !prof !1")
            f.label(aligned)

    def checked_entry(self, address: str, table: str, bail: str) -> str:
        """Return the table's entry of an address whose page is in it. Others go to ``bail``."""
        f = self.f
        entry = self.table_entry(address, table)
        mapped = f.new_label("mapped")
        f.do(f"br i1 {f.emit(f'icmp eq ptr {entry}, null')}, label %{bail}, label %{mapped}, !prof !0")
        f.label(mapped)
        return entry

    def host_pointer(self, entry: str, address: str) -> str:
        """Return the HVA of an address, given the entry of its page."""
        return self.f.emit(f"getelementptr i8, ptr {entry}, i64 {self.f.emit(f'zext i32 {address} to i64')}")

    def table_entry(self, address: str, table: str) -> str:
        """Return the shadow page table's entry of an address."""
        page = self.f.emit(f"zext i32 {self.f.emit(f'lshr i32 {address}, {PAGE_SHIFT}')} to i64")
        pointer = self.f.emit(f"getelementptr ptr, ptr {table}, i64 {page}")
        return self.f.emit(f"load ptr, ptr {pointer}{self.table_metadata}")

    # -- statements ----------------------------------------------------------------------------

    def lower_block(self, block: list[Uop]) -> bool:
        """Lower a block. Return False if control does not reach its end."""
        for uop in block:
            if not self.lower_uop(uop):
                return False
        return True

    def lower_uop(self, uop: Uop) -> bool:
        """Lower one uop. Return False if it ends the path."""
        if uop.op in LOWER:
            return True  # computed where its value is first needed
        return STATEMENTS[uop.op](self, uop)

    #: Offset of the scratch words in CpuState.
    temp_offset: int

    def element_pointer(self, uop: Uop) -> str:
        """Return a pointer to the word that a ``get_at`` or ``set_at`` accesses."""
        assert isinstance(uop.attr, str)
        return self.array_pointer(LAYOUT[uop.attr].offset, uop.args[0])

    def word_pointer(self, name: object) -> str:
        """Return a pointer to a word of the state, or to the alloca that a flag has."""
        assert isinstance(name, str)
        return self.flags[name] if name in self.flags else self.state_pointer(LAYOUT[name].offset)

    def extend(self, narrow: str, access: Access) -> str:
        """Extend what an access has loaded to an i32."""
        if access.size == 4:
            return narrow
        return self.f.emit(f"{'sext' if access.signed else 'zext'} i{8 * access.size} {narrow} to i32")

    def narrow(self, value: str, size: int) -> str:
        """Return the low ``size`` bytes of an i32."""
        return value if size == 4 else self.f.emit(f"trunc i32 {value} to i{8 * size}")

    def _scoped(self, block: list[Uop]) -> bool:
        """Lower a nested block. Values that it is the first to compute are not known after it."""
        outer = dict(self.values)
        reaches_end = self.lower_block(block)
        self.values = outer
        return reaches_end

    def lower_when(self, uop: Uop) -> None:
        """Lower the body, which is executed if the condition holds."""
        f = self.f
        then, after = f.new_label("then"), f.new_label("after")
        f.do(f"br i1 {self.value(uop.args[0])}, label %{then}, label %{after}")
        f.label(then)
        if self._scoped(uop.body):
            f.do(f"br label %{after}")
        f.label(after)

    def lower_for_each_bit(self, uop: Uop) -> None:
        """Lower the body as a loop."""
        f = self.f
        mask = self.value(uop.args[0])
        before = f.current
        head, body, after = f.new_label("head"), f.new_label("body"), f.new_label("after")
        rest, count, more_rest, more_count = (f.new_name() for _ in range(4))
        latch = f.new_label("latch")
        f.do(f"br label %{head}")
        f.label(head)
        f.do(f"{rest} = phi i32 [ {mask}, %{before} ], [ {more_rest}, %{latch} ]")
        f.do(f"{count} = phi i32 [ 0, %{before} ], [ {more_count}, %{latch} ]")
        f.do(f"br i1 {f.emit(f'icmp eq i32 {rest}, 0')}, label %{after}, label %{body}")
        f.label(body)
        index = f.emit(f"call i32 @llvm.cttz.i32(i32 {rest}, i1 true)")
        for variable in loop_variables(uop):
            self.values[variable] = index if variable.op == "bit_index" else count
        self._scoped(uop.body)
        f.do(f"br label %{latch}")
        f.label(latch)
        below = f.emit(f"add i32 {rest}, -1")
        f.do(f"{more_rest} = and i32 {rest}, {below}")
        f.do(f"{more_count} = add i32 {count}, 1")
        f.do(f"br label %{head}")
        f.label(after)


# -- the statements ----------------------------------------------------------------------------


def _reads(pointer: Callable[[Lowering, Uop], str]) -> Callable[[Lowering, Uop], bool]:
    """Return a uop that reads the word at a pointer."""

    def lower(low: Lowering, uop: Uop) -> bool:
        low.values[uop] = low.f.emit(f"load i32, ptr {pointer(low, uop)}")
        return True

    return lower


def _writes(pointer: Callable[[Lowering, Uop], str]) -> Callable[[Lowering, Uop], bool]:
    """Return a uop that writes its last argument to the word at a pointer."""

    def lower(low: Lowering, uop: Uop) -> bool:
        value = low.value(uop.args[-1])
        low.f.do(f"store i32 {value}, ptr {pointer(low, uop)}")
        return True

    return lower


def _register(low: Lowering, uop: Uop) -> str:
    return low.array_pointer(LAYOUT["r"].offset, uop.args[0])


def _temp(low: Lowering, uop: Uop) -> str:
    return low.array_pointer(low.temp_offset, uop.args[0])


def _word(low: Lowering, uop: Uop) -> str:
    return low.word_pointer(uop.attr)


def _element(low: Lowering, uop: Uop) -> str:
    return low.element_pointer(uop)


def _lower_pc(low: Lowering, uop: Uop) -> bool:
    assert isinstance(uop.attr, int)
    low.values[uop] = low.lower_pc(uop.attr)
    return True


def _lower_load(low: Lowering, uop: Uop) -> bool:
    assert isinstance(uop.attr, Access)
    low.values[uop] = low.extend(low.lower_load(low.value(uop.args[0]), uop.attr), uop.attr)
    return True


def _lower_store(low: Lowering, uop: Uop) -> bool:
    assert isinstance(uop.attr, Access)
    low.lower_store(low.value(uop.args[0]), low.value(uop.args[1]), uop.attr)
    return True


def _lower_when(low: Lowering, uop: Uop) -> bool:
    low.lower_when(uop)
    return True


def _lower_for_each_bit(low: Lowering, uop: Uop) -> bool:
    low.lower_for_each_bit(uop)
    return True


def _lower_branch(low: Lowering, uop: Uop) -> bool:
    assert isinstance(uop.attr, BranchKind)
    low.lower_branch(uop.args[0], uop.attr)
    return False


def _lower_exception(low: Lowering, uop: Uop) -> bool:
    assert isinstance(uop.attr, InsnException)
    low.lower_exception(uop.attr, uop.args[0])
    return False


def _lower_callout(low: Lowering, uop: Uop) -> bool:
    assert isinstance(uop.attr, Callout)
    return low.lower_callout(uop.attr, uop.args)


def _lower_callout_value(low: Lowering, uop: Uop) -> bool:
    assert isinstance(uop.attr, Callout)
    low.values[uop] = low.lower_callout_value(uop.attr, uop.args)
    return True


#: One row per uop of instructions that is not pure: it returns False if it ends the path.
STATEMENTS: dict[str, Callable[[Lowering, Uop], bool]] = {
    "pc": _lower_pc,
    "get_reg": _reads(_register),
    "set_reg": _writes(_register),
    "get_temp": _reads(_temp),
    "set_temp": _writes(_temp),
    "get": _reads(_word),
    "set": _writes(_word),
    "get_at": _reads(_element),
    "set_at": _writes(_element),
    "load": _lower_load,
    "store": _lower_store,
    "when": _lower_when,
    "for_each_bit": _lower_for_each_bit,
    "branch": _lower_branch,
    "exception": _lower_exception,
    "callout": _lower_callout,
    "callout_value": _lower_callout_value,
}
require_rows("the lowering of instructions", STATEMENTS, Stage.INSN)
