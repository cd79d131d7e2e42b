"""Lowering a region of guest blocks to one native function with the handlers' signature.

Guest registers and flags are allocas, which SROA turns into values. They are loaded at the entry and stored at exits.
What the fast path cannot do becomes a side exit in front of the instruction. It stores the state, gives the
instructions that were not executed back to the budget, and continues in the threaded tier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dbt.abi.addresses import Gpa, Gva, MappedPage
from dbt.abi.cpu import NATIVE
from dbt.abi.layout import (
    CODE_PAGE_SIZE,
    CODE_PAGE_STRIDE,
    OP_SHIFT,
    PAGE_SHIFT,
    PAGE_SIZE,
    WORD_IN_PAGE,
    BlockCounters,
    SideExit,
    block_counter_offset,
)
from dbt.backend.budget import find_checks
from dbt.backend.convention import header, tail_call
from dbt.backend.flags import PARTS, FlagKind, LazyFlags, flag_effect, overwrites_flags
from dbt.backend.if_conversion import Diamond, find_diamonds
from dbt.backend.lower import FLAGS, Lowering, module_text, remember_target
from dbt.backend.module import Function
from dbt.backend.pointers import base_register, followed_pointers
from dbt.backend.spans import Span, displacement, find_spans
from dbt.frontend.context import TranslationContext
from dbt.frontend.forming import Block, GuestInsn, JumpTable, Place, Region, relative_value
from isa.arm.operands import PC
from isa.arm.state import LAYOUT, SCTLR_A, SCTLR_M
from isa.arm.vectors import InsnException
from isa.ir.callouts import Callout
from isa.ir.queries import loop_variables, registers_written, words_written
from isa.ir.uop import Access, BranchKind, Uop

R = LAYOUT["r"].offset

#: How a region is left. ``ARRIVE`` goes to an op and counts the arrival, so that it may become hot.
#: ``BYPASS`` goes to the handler of an op, even if a region is entered there.
ARRIVE, BYPASS = "arrive", "bypass"


def _read_flag(uop: Uop) -> object:
    """Return the flag that a value reads, or None."""
    return uop.args[0].attr if uop.op == "trunc" and uop.args[0].op == "get" else None


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a region's code assumes: its translation context and, if the MMU is on, the physical page of each virtual
    page (else None).
    """

    context: TranslationContext
    pages: Mapping[int, int] | None = None

    def place(self, gva: Gva) -> Gpa:
        """Return the GPA of an address of the region."""
        if self.pages is None:
            return Gpa(gva)
        return Gpa(self.pages[gva >> PAGE_SHIFT] << PAGE_SHIFT | gva & PAGE_SIZE - 1)

    def pages_of(self, region: Region) -> list[MappedPage]:
        """Return the pages that the region is made from. Without an MMU the list is empty."""
        if self.pages is None:
            return []
        return [MappedPage(page, self.pages[page]) for page in sorted({gva >> PAGE_SHIFT for gva in region.words()})]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a line of LLVM text is for: the number of a block, that of an instruction in it, and the uop. The latter two
    are None for what the block as a whole needs.
    """

    block: int
    insn: int
    uop: Uop | None


@dataclass(frozen=True, slots=True)
class _Before:
    """The state in front of a branch whose ways are both executed: its address, the flags' kind and variables, and the
    registers that either way writes. Values are LLVM's operands.
    """

    pc: Gva
    kind: FlagKind
    flags: Mapping[str, str]
    registers: dict[int, str]


class RegionLowering(Lowering):
    """Lowers a whole region, in which every field is a number."""

    temp_offset = NATIVE["temp"].offset
    # An entry that is filled changes only outside of native code.
    table_metadata = ", !invariant.load !2"

    def __init__(
        self,
        region: Region,
        name: str,
        assumed: Assumptions,
        attribute: bool = False,
    ) -> None:
        """With ``attribute``, the function notes the :class:`Origin` of each line."""
        super().__init__(Function(header(name)))
        self._attribute = attribute
        self._assumed = assumed
        self._context = context = assumed.context
        self.region = region
        self._optimizations = optimizations = context.optimizations
        self._strict = context.checks_alignment
        self._mmu = context.has_mmu
        self._pages = assumed.pages_of(region)
        flat = context.ram.flat
        #: The region of RAM, if one comparison can tell whether an address is in it, else None.
        self._flat = flat if optimizations.flat and not self._mmu and flat and flat.size < 1 << 32 else None
        self._numbers = {place: number for number, place in enumerate(region.blocks)}
        self._labels: dict[tuple[Place, FlagKind], str] = {}
        self._waiting: list[tuple[Place, FlagKind]] = []  # labels that are in use, and whose blocks are not lowered yet
        self._registers = [self.f.emit_entry("alloca i32") for _ in range(15)]
        self._temps = [self.f.emit_entry("alloca i32") for _ in range(16)]
        self._budget = self.f.emit_entry("alloca i64")
        self._wide: dict[str, str] = {}  # addresses as i64, by their values as i32
        #: By block: the registers by which it accesses memory with a guess, if addresses are looked up in tables.
        self._followed = followed_pointers(region) if optimizations.guesses and self._flat is None else {}
        self._guesses = {number: self.f.emit_entry("alloca ptr") for number in self._guessed_registers()}
        self._lazy = LazyFlags(self.f, self.flags)
        self._exits: dict[tuple[str, FlagKind], str] = {}
        written = (registers_written(insn.uops) for block in region.blocks.values() for insn in block.insns)
        self._dirty = sorted(set[int]().union(*written) - {PC})
        self._loop_numbers: dict[Uop, int] = {}
        self._checks, self._reserve = find_checks(region) if optimizations.paths else (set(region.blocks), 0)
        self._overwrites_flags = {
            place for place, block in region.blocks.items() if place not in self._checks and overwrites_flags(block)
        }
        converts = optimizations.if_conversion and not context.block_counters
        self._diamonds = find_diamonds(region, self._checks) if converts else {}
        self._before: _Before | None = None  # while a way is lowered to which control may not have come
        self._ram = ""
        self._other = ""  # the label at which the region is left at its entry
        self._block: Block
        self._spans: dict[tuple[int, Uop], Span]
        self._insn: GuestInsn
        self._index = 0
        self._followed_base: int | None  # of the access that is being lowered, if a pointer is followed

    def lower(self) -> str:
        f = self.f
        for name in FLAGS:
            f.do(f"store i32 %{name}, ptr {self.flags[name]}")
        f.do(f"store i64 {f.emit(f'sub i64 %budget, {self._reserve}')}, ptr {self._budget}")
        if self._flat is not None:
            self._ram = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['ram_host'].offset)}")
        pc = self._entry_pc()
        self._check_mode()
        self._count_insns("add", "%budget")
        self._enter(pc)
        while self._waiting:
            self._lower_block(*self._waiting.pop())
        f.origin = None
        for (way, kind), label in self._exits.items():
            f.label(label)
            self._lazy.resume(kind)
            to, both = (f.emit(f"zext i32 {f.emit(f'load i32, ptr {self._exit_word(n)}')} to i64") for n in range(2))
            reason, given_back = f.emit(f"and i64 {both}, 255"), f.emit(f"lshr i64 {both}, 8")
            self._leave(way, to, f.emit(f"add i64 {f.emit(f'load i64, ptr {self._budget}')}, {given_back}"), reason)
        return f.text()

    def _entry_pc(self) -> str:
        """Return the GVA of the entry at which control came in, if the mode is as assumed."""
        if len(self.region.entries) == 1 and not self._mmu:
            return str(self.region.entry)
        return self._op_pc()

    def _op_pc(self) -> str:
        """Return the GVA at which control came in, in any mode. It follows from the address of the op."""
        f = self.f
        place = f.emit(f"and i64 {f.emit('ptrtoint ptr %op to i64')}, {CODE_PAGE_SIZE - 1}")
        offset = f.emit(f"trunc i64 {f.emit(f'lshr i64 {place}, {OP_SHIFT}')} to i32")
        page = f.emit(f"load i32, ptr {self.state_pointer(NATIVE['page_gva'].offset)}")
        return f.emit(f"or i32 {page}, {offset}")

    def _enter(self, pc: str) -> None:
        """Branch to the entry at which control came in. Each path loads the registers for itself."""
        f = self.f
        pads = {gva: f.new_label("pad") for gva in self.region.entries}
        cases = " ".join(f"i32 {gva}, label %{pad}" for gva, pad in pads.items())
        elsewhere = f.new_label("elsewhere") if self._mmu else pads[self.region.entry]
        f.do(f"switch i32 {pc}, label %{elsewhere} [ {cases} ]")
        if self._mmu:  # code can be at another virtual address than the one that it was compiled for
            f.label(elsewhere)
            self._count_insns("sub", "%budget")
            f.do(f"br label %{self._other}")
        for gva, pad in pads.items():
            f.label(pad)
            for number, guess in self._guesses.items():
                f.do(f"store ptr {f.emit(f'load ptr, ptr {self._guess_word(number)}')}, ptr {guess}")
            for number, pointer in enumerate(self._registers):
                f.do(f"store i32 {f.emit(f'load i32, ptr {self.state_pointer(R + 4 * number)}')}, ptr {pointer}")
            self._go(self.region.entries[gva])

    def _check_mode(self) -> None:
        """Leave if the MMU, alignment checking or the mapping of a page is not as assumed."""
        f = self.f
        sctlr = f.emit(f"load i32, ptr {self.state_pointer(LAYOUT['sctlr'].offset)}")
        regime = f.emit(f"and i32 {sctlr}, {SCTLR_A | SCTLR_M}")
        wanted = (SCTLR_A if self._strict else 0) | (SCTLR_M if self._mmu else 0)
        wrong = f.emit(f"icmp ne i32 {regime}, {wanted}")
        self._other, same = f.new_label("other"), f.new_label("same")
        f.do(f"br i1 {wrong}, label %{self._other}, label %{same}, !prof !0")
        f.label(self._other)
        # Nothing is loaded yet, so this has an exit of its own. The shared exits would load all, and loops would be
        # slower.
        self._count_exit(str(int(SideExit.MODE)))
        # Where the MMU is not as assumed, the code may be at another address than the one that was compiled.
        f.do(f"store i64 {f.emit(f'zext i32 {self._op_pc()} to i64')}, ptr {self._exit_word(0)}")
        f.do(tail_call(f.emit(f"load ptr, ptr {self.state_pointer(NATIVE[BYPASS].offset)}")))
        f.do("ret void")
        f.label(same)
        for mapped in self._pages:
            self._check_page(mapped)

    def _check_page(self, mapped: MappedPage) -> None:
        """Leave if the code of the virtual page is not that of the physical page. The table may have to be filled."""
        f = self.f
        table = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['code_table'].offset)}")
        entry = f.emit(f"load ptr, ptr {f.emit(f'getelementptr ptr, ptr {table}, i64 {mapped.virtual}')}")
        pages = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['code_pages'].offset)}")
        wanted = f.emit(f"getelementptr i8, ptr {pages}, i64 {mapped.physical * CODE_PAGE_STRIDE}")
        look, same = f.new_label("look"), f.new_label("same")
        f.do(f"br i1 {f.emit(f'icmp eq ptr {entry}, {wanted}')}, label %{same}, label %{look}, !prof !1")
        f.label(look)
        find = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['code_at'].offset)}")
        found = f.emit(f"call preserve_mostcc ptr {find}(ptr %cpu, i32 {mapped.virtual << PAGE_SHIFT})")
        f.do(f"br i1 {f.emit(f'icmp eq ptr {found}, {wanted}')}, label %{same}, label %{self._other}, !prof !1")
        f.label(same)

    def _count_insns(self, sign: str, budget: str) -> None:
        """Instructions retired in regions: the budget at entry less the budget at exit."""
        f = self.f
        pointer = self.state_pointer(NATIVE["region_insns"].offset)
        retired = f.emit(f"load i64, ptr {pointer}")
        f.do(f"store i64 {f.emit(f'{sign} i64 {retired}, {budget}')}, ptr {pointer}")

    def _count_exit(self, reason: str) -> None:
        f = self.f
        counter = f.emit(f"getelementptr i64, ptr {self.state_pointer(NATIVE['region_exits'].offset)}, i64 {reason}")
        count = f.emit(f"load i64, ptr {counter}")
        f.do(f"store i64 {f.emit(f'add i64 {count}, 1')}, ptr {counter}")

    def _lower_block(self, place: Place, kind: FlagKind) -> None:
        f = self.f
        block = self.region.blocks[place]
        f.origin = Origin(self._numbers[place], 0, None) if self._attribute else None
        f.label(self._labels[place, kind])
        self._lazy.resume(kind)
        self._block, self.values = block, {}
        self._spans = find_spans(block, self._alignment) if self._optimizations.spans else {}
        self._retire(place, len(block.insns))
        self._count(BlockCounters.BLOCK, place.pc)
        diamond = self._diamonds.get(place)
        for self._index, self._insn in enumerate(block.insns):
            self.values = {}
            if diamond is not None and self._insn is block.insns[-1] and self._lower_diamond(diamond):
                return
            if not self.lower_block(self._insn.uops):
                return
        if self._attribute:
            f.origin = Origin(self._numbers[place], len(block.insns) - 1, None)
        assert block.next is not None
        self._go(block.next)

    def _count(self, what: BlockCounters, pc: Gva) -> None:
        """Add 1 to a counter for the GPA of the instruction at ``pc``: see :class:`dbt.abi.layout.BlockCounters`."""
        if not self._context.block_counters:
            return
        f = self.f
        place = block_counter_offset(what, self._assumed.place(pc))
        counts = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['block_counters'].offset)}")
        pointer = f.emit(f"getelementptr i8, ptr {counts}, i64 {place}")
        count = f.emit(f"load i64, ptr {pointer}")
        f.do(f"store i64 {f.emit(f'add i64 {count}, 1')}, ptr {pointer}")

    def _retire(self, place: Place, count: int) -> None:
        """Take a block's instructions from the budget.

        The alloca holds the budget less the reserve. If that is not negative at a check, the budget lasts to the next.
        """
        f = self.f
        rest = f.emit(f"sub i64 {f.emit(f'load i64, ptr {self._budget}')}, {count}")
        if place not in self._checks:
            f.do(f"store i64 {rest}, ptr {self._budget}")
            return
        # This is opaque to LLVM, which would otherwise keep the value before the subtraction, to compare it.
        rest = f.emit(f"call i64 @llvm.expect.i64(i64 {rest}, i64 0)")
        f.do(f"store i64 {rest}, ptr {self._budget}")
        enough, short = f.new_label("enough"), f.new_label("short")
        f.do(f"br i1 {f.emit(f'icmp slt i64 {rest}, 0')}, label %{short}, label %{enough}, !prof !0")
        f.label(short)
        self._go_on_threaded(place.pc, count, SideExit.BUDGET)
        f.label(enough)

    # -- leaving -------------------------------------------------------------------------------

    def _label(self, place: Place) -> str | None:
        """Return the label of a place for the present kind of flags, or None outside the region.

        The flags must be in their allocas.
        """
        number = self._numbers.get(place)
        if number is None:
            return None
        kind = FlagKind.DEAD if place in self._overwrites_flags else self._lazy.kind
        version = place, kind
        if version not in self._labels:
            self._labels[version] = f"b{number}.{kind.name}"
            self._waiting.append(version)
        return self._labels[version]

    def _go(self, place: Place) -> None:
        self._lazy.become(self._lazy.kind)
        label = self._label(place)
        if label is not None:
            self.f.do(f"br label %{label}")
        else:
            self._exit(ARRIVE, str(place.pc), 0, SideExit.EDGE)

    def _exit_word(self, number: int) -> str:
        return self.state_pointer(NATIVE["exit_args"].offset + 8 * number)

    def _exit(self, way: str, target: str, given_back: int, reason: SideExit) -> None:
        """Leave for a GVA (an i32 operand), giving instructions back to the budget."""
        f = self.f
        given_back += self._reserve
        if reason is not SideExit.BUDGET:
            self._count(BlockCounters.EXIT, self._insn.pc)
        if not self._optimizations.shared_exits:
            wide = f.emit(f"zext i32 {target} to i64")
            budget = f.emit(f"add i64 {f.emit(f'load i64, ptr {self._budget}')}, {given_back}")
            self._leave(way, wide, budget, str(int(reason)))
            return
        # In memory, not in registers: LLVM would compute a constant for a phi on the path that does not leave.
        f.do(f"store i32 {target}, ptr {self._exit_word(0)}")
        f.do(f"store i32 {given_back << 8 | reason}, ptr {self._exit_word(1)}")
        self._lazy.become(self._lazy.kind)
        known = self._exits.setdefault((way, self._lazy.kind), f"{way}.{self._lazy.kind.name}")
        f.do(f"br label %{known}")

    def _leave(self, way: str, target: str, budget: str, reason: str) -> None:
        """Store the state and hand over to the threaded tier."""
        f = self.f
        flags = self._store_state()
        self._count_insns("sub", budget)
        self._count_exit(reason)
        f.do(f"store i64 {target}, ptr {self._exit_word(0)}")
        callee = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE[way].offset)}")
        if self._ram:  # its loads in between were not needed
            flags["reads"] = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['read_table'].offset)}")
        f.do(tail_call(callee, **flags, budget=budget))
        f.do("ret void")

    def _side_exit(self, reason: SideExit) -> str:
        """Return the label of a side exit, which continues at the current instruction in the threaded tier."""
        f = self.f
        label, after = f.new_label("side"), f.new_label("main")
        f.do(f"br label %{after}")
        f.label(label)
        self._exit_before_insn(reason)
        f.label(after)
        return label

    def _exit_before_insn(self, reason: SideExit) -> None:
        """Continue at the current instruction in the threaded tier, and give the block's rest back to the budget."""
        if self._before is not None:
            self._exit_before_diamond(self._before, reason)
            return
        self._go_on_threaded(self._insn.pc, len(self._block.insns) - self._index, reason)

    def _go_on_threaded(self, pc: Gva, given_back: int, reason: SideExit) -> None:
        """Leave for an address of the region, without entering it again, which could go on for ever."""
        self._exit(BYPASS, str(pc), given_back, reason)

    def _store_state(self) -> dict[str, str]:
        f = self.f
        for number in self._dirty:
            value = f.emit(f"load i32, ptr {self._registers[number]}")
            f.do(f"store i32 {value}, ptr {self.state_pointer(R + 4 * number)}")
        return self._lazy.words()

    # -- the guest's state ---------------------------------------------------------------------

    def static_value(self, uop: Uop) -> str | None:
        return None

    def value(self, uop: Uop) -> str:
        if (
            uop.op == "xor"
            and uop not in self.values
            and (_read_flag(uop.args[0]), _read_flag(uop.args[1])) == ("n", "v")
            and (less := self._lazy.less()) is not None
        ):
            self.values[uop] = less
        if not self._attribute or uop.number is not None or uop in self.values:
            return super().value(uop)
        before = self._begin(uop)
        value = super().value(uop)
        self.f.origin = before
        return value

    def _begin(self, uop: Uop) -> object:
        """Attribute the lines that follow to ``uop``. Return what they were attributed to before."""
        before, self.f.origin = self.f.origin, Origin(self._numbers[self._block.place], self._index, uop)
        return before

    def lower_block(self, block: list[Uop]) -> bool:
        flags_set = False
        for uop in block:
            if uop.op == "set" and uop.attr in FLAGS:
                if self._attribute:
                    self._begin(uop)
                if not flags_set:
                    self._lazy.apply(flag_effect(block, self._optimizations.lazy_flags), self.value)
                flags_set = True
            elif not self.lower_uop(uop):
                return False
        return True

    def lower_uop(self, uop: Uop) -> bool:
        if self._attribute:
            self._begin(uop)
        if uop.op == "get" and uop.attr in FLAGS:
            self.values[uop] = self.f.emit(f"zext i1 {self._lazy.read(str(uop.attr))} to i32")
            return True
        if uop.op == "load":
            if (constant := self._block.constants.get(uop)) is not None:
                self.values[uop] = str(constant)
                return True
            if (table := self._block.tables.get(uop)) is not None:
                self._lower_table(table)
        span = self._spans.get((self._index, uop))
        if uop.op in ("load", "store"):
            if span is not None:
                self._lower_in_span(span, uop)
                return True
            self._followed_base = self._followed_register(uop.args[0])
        return super().lower_uop(uop)

    def lower_when(self, uop: Uop) -> None:
        if words_written(uop.body).isdisjoint(FLAGS):
            super().lower_when(uop)
            return
        # If the flags are set on one of two paths, they must have one kind where the paths meet.
        f, before = self.f, self._lazy.kind
        kind = flag_effect(uop.body, self._optimizations.lazy_flags).kind_after(before)
        if kind is not before:
            kind = FlagKind.STORED
        condition = self.value(uop.args[0])
        self._lazy.become(kind)
        then, after = f.new_label("then"), f.new_label("after")
        f.do(f"br i1 {condition}, label %{then}, label %{after}")
        f.label(then)
        if self._scoped(uop.body):
            self._lazy.become(kind)
            f.do(f"br label %{after}")
        f.label(after)
        self._lazy.resume(kind)

    def _number(self, index: Uop) -> int:
        number = self._loop_numbers.get(index, index.number)
        assert number is not None, f"{index!r} is not known"
        return number

    def array_pointer(self, offset: int, index: Uop) -> str:
        number = self._number(index)
        if offset == self.temp_offset:
            return self._temps[number]
        assert offset == R, "no instruction of a region accesses another array"
        return self._registers[number] if number < 15 else self.state_pointer(offset + 60)

    def lower_pc(self, ahead: int) -> str:
        return str((self._insn.pc + ahead) & 0xFFFFFFFF)

    def lower_for_each_bit(self, uop: Uop) -> None:
        mask = uop.args[0].number
        assert mask is not None
        variables = loop_variables(uop)
        for ordinal, bit in enumerate(bit for bit in range(32) if mask >> bit & 1):
            for variable in variables:
                number = bit if variable.op == "bit_index" else ordinal
                self._loop_numbers[variable] = number
                self.values[variable] = str(number)
            self._scoped(uop.body)

    # -- both ways of a branch -----------------------------------------------------------------

    def _lower_diamond(self, diamond: Diamond) -> bool:
        """Lower the branch that ends the current block as its two ways and a selection. Return False if it must be
        lowered as a branch, because the ways leave the flags in different kinds.
        """
        f, kind = self.f, self._kind_after(diamond)
        if kind is None:
            return False
        condition = self._condition()
        written, before = diamond.written(), _Before(self._insn.pc, self._lazy.kind, self._lazy.values(), {})
        for number in written:
            before.registers[number] = f.emit(f"load i32, ptr {self._registers[number]}")
        taken = self._lower_way(diamond.taken, before, written, kind)
        other = self._lower_way(diamond.other, before, written, kind)

        def select(one: str, another: str, type_: str = "i32") -> str:
            return f.emit(f"select i1 {condition}, {type_} {one}, {type_} {another}, !unpredictable !2")

        for number in written:
            f.do(f"store i32 {select(taken[0][number], other[0][number])}, ptr {self._registers[number]}")
        self._lazy.assume(kind, {name: select(taken[1][name], other[1][name]) for name in PARTS[kind]})
        counts = [0 if way is None else len(way.insns) for way in (diamond.taken, diamond.other)]
        count = select(str(counts[0]), str(counts[1]), "i64")
        rest = f.emit(f"sub i64 {f.emit(f'load i64, ptr {self._budget}')}, {count}")
        f.do(f"store i64 {rest}, ptr {self._budget}")
        if diamond.join is not None:
            self._go(diamond.join)
            return True
        assert diamond.taken is not None
        self._block, self._index, self.values = diamond.taken, len(diamond.taken.insns) - 1, {}
        self._insn = self._block.insns[-1]
        if self.lower_block(self._insn.uops):
            assert self._block.next is not None
            self._go(self._block.next)
        return True

    def _kind_after(self, diamond: Diamond) -> FlagKind | None:
        """Return the kind of the flags behind both ways, or None if they differ in it."""
        if diamond.join in self._overwrites_flags:
            return FlagKind.DEAD
        kinds = set[FlagKind]()
        for block in (diamond.taken, diamond.other):
            kind = self._lazy.kind
            for insn in () if block is None else block.insns:
                if not words_written(insn.uops).isdisjoint(FLAGS):
                    kind = flag_effect(insn.uops, self._optimizations.lazy_flags).kind_after(kind)
            kinds.add(kind)
        return kinds.pop() if len(kinds) == 1 else None

    def _condition(self) -> str:
        """Return the condition of the current instruction (an i1), which has one."""
        for uop in self._insn.uops:
            if uop.op == "when":
                return self.value(uop.args[0])
            self.lower_uop(uop)
        raise AssertionError(f"{self._insn.insn.name} at {self._insn.pc:#x} has no condition")

    def _lower_way(
        self, block: Block | None, before: _Before, written: Iterable[int], kind: FlagKind
    ) -> tuple[dict[int, str], Mapping[str, str]]:
        """Lower one way of a branch but for a branch at its end. Return the values of the registers that either way
        writes, and of the variables of the flags, of which only those of ``kind`` will be needed.
        """
        self._restore(before)
        outer = self._block, self._index, self._insn, self._spans
        if block is not None:
            self._block, self._before = block, before
            self._spans = find_spans(block, self._alignment) if self._optimizations.spans else {}
            for self._index, self._insn in enumerate(block.insns):
                self.values = {}
                if not self._insn.branches:
                    self.lower_block(self._insn.uops)
        registers = {number: self.f.emit(f"load i32, ptr {self._registers[number]}") for number in written}
        flags = self._lazy.values() if kind is not FlagKind.DEAD else {}
        self._before = None
        self._block, self._index, self._insn, self._spans = outer
        return registers, flags

    def _restore(self, before: _Before) -> None:
        """Let registers and flags be again what they were before a branch."""
        for number, value in before.registers.items():
            self.f.do(f"store i32 {value}, ptr {self._registers[number]}")
        self._lazy.assume(before.kind, before.flags)

    def _exit_before_diamond(self, before: _Before, reason: SideExit) -> None:
        """Continue at a branch in the threaded tier, because one of its ways cannot be executed here."""
        known = self._lazy.known()
        self._restore(before)
        self._go_on_threaded(before.pc, 1, reason)
        self._lazy.know(known)  # the path that goes on is another

    # -- memory --------------------------------------------------------------------------------

    def _lower_in_span(self, span: Span, uop: Uop) -> None:
        """Lower an access that is checked together with others. The first of them makes the check."""
        f, access = self.f, uop.attr
        assert isinstance(access, Access)
        if not span.host:
            self._check_span(span, uop.op)
        address, ordinal = uop.args[0], 0
        place = displacement(address)
        if place is None:  # an access of a register list
            address, scaled = address.args
            place, ordinal = displacement(address), self._loop_numbers[scaled.args[0]]
        assert place is not None
        host = f.emit(f"getelementptr i8, ptr {span.host}, i64 {place[1] + 4 * ordinal - span.low}")
        if uop.op == "load":
            loaded = f.emit(f"load i{8 * access.size}, ptr {host}, align {self._alignment(access)}")
            self.values[uop] = self.extend(loaded, access)
        else:
            value = self.narrow(self.value(uop.args[1]), access.size)
            f.do(f"store i{8 * access.size} {value}, ptr {host}, align {self._alignment(access)}")

    def _check_span(self, span: Span, op: str) -> None:
        f, size = self.f, span.high - span.low
        side = self._side_exit(SideExit.LOAD if op == "load" else SideExit.STORE)
        base = f.emit(f"load i32, ptr {self._registers[span.base]}")
        first = f.emit(f"add i32 {base}, {span.low}")
        self._widen(first)
        if op == "load" and self._flat is not None:
            span.host = self._flat_address(first, span.align, side, size)
            return
        if op == "load":
            self.check_aligned(first, span.align, side)
            entry = self._span_entry(first, size, "%reads", side, span.base)
        else:
            slow = f.new_label("slow")
            self.check_aligned(first, span.align, slow)
            if self._flat is None:
                entry = self._span_entry(first, size, "%writes", slow, span.base)
            else:  # all entries are equal, so the two need not be compared with each other
                self.checked_entry(first, "%writes", slow)
                entry = self.checked_entry(f.emit(f"add i32 {first}, {size - 1}"), "%writes", slow)
            entry = self._or_writable(entry, slow, first, size, span.align, side)
        span.host = self._store_pointer(entry, first)

    def _guessed_registers(self) -> list[int]:
        return sorted(set[int]().union(*self._followed.values()))

    def _guess_word(self, register: int) -> str:
        """Return the pointer to the guess in CpuState, which outlives the region."""
        return self.state_pointer(NATIVE["guesses"].offset + 8 * register)

    def _guessed_entry(self, address: str, table: str, bail: str, register: int | None) -> str:
        """Do as :meth:`checked_entry`, for an address that a register of the current block is a term of.

        If the block follows a pointer in the register, the result is the entry of the last access by it. The table is
        read only to check that. The host predicts the outcome, and so does not wait for the table.
        """
        if register is None:
            return self.checked_entry(address, table, bail)
        f, guess = self.f, self._guesses[register]
        entry = self.table_entry(address, table)
        last = f.emit(f"load ptr, ptr {guess}")
        new, mapped, known = f.new_label("new"), f.new_label("mapped"), f.new_label("known")
        f.do(f"br i1 {f.emit(f'icmp eq ptr {entry}, {last}')}, label %{known}, label %{new}, !prof !1")
        f.label(new)
        f.do(f"br i1 {f.emit(f'icmp eq ptr {entry}, null')}, label %{bail}, label %{mapped}, !prof !0")
        f.label(mapped)
        f.do(f"store ptr {entry}, ptr {guess}")
        f.do(f"store ptr {entry}, ptr {self._guess_word(register)}")
        f.do(f"br label %{known}")
        f.label(known)
        return f.emit(f"load ptr, ptr {guess}")

    def _followed_register(self, address: Uop) -> int | None:
        """Return the register of an address in which the current block follows a pointer, or None."""
        return base_register(address, self._followed.get(self._block.place, ()))

    def _span_entry(self, first: str, size: int, table: str, bail: str, base: int) -> str:
        """Return the entry of a span. If the same entry maps both ends, it maps all between them too."""
        f = self.f
        register = base if base in self._followed.get(self._block.place, ()) else None
        entry = self._guessed_entry(first, table, bail, register)
        last = self.table_entry(f.emit(f"add i32 {first}, {size - 1}"), table)
        whole = f.new_label("whole")
        f.do(f"br i1 {f.emit(f'icmp eq ptr {entry}, {last}')}, label %{whole}, label %{bail}, !prof !1")
        f.label(whole)
        return entry

    def _widen(self, address: str) -> None:
        """Extend an address to 64 bits before it is checked, not where it is used.

        It costs nothing here: an x86-64 instruction with a 32-bit result clears the upper half. Behind a branch LLVM
        does not see that, and extends by an instruction that the access has to wait for.
        """
        if self._optimizations.early_zext:
            self._wide[address] = self.f.emit(f"zext i32 {address} to i64")

    def host_pointer(self, entry: str, address: str) -> str:
        wide = self._wide.get(address)
        return (
            super().host_pointer(entry, address)
            if wide is None
            else self.f.emit(f"getelementptr i8, ptr {entry}, i64 {wide}")
        )

    def _store_pointer(self, entry: str, address: str) -> str:
        """Return the HVA for a store. Without an MMU all entries are equal, so the HVA need not wait for the load of
        one.
        """
        return self.host_pointer(entry if self._flat is None else self._ram, address)

    def _or_writable(self, entry: str, slow: str, address: str, size: int, align: int, side: str) -> str:
        """Return ``entry`` or, at the label ``slow``, that for a store beside code. Without one, branch to ``side``."""
        f = self.f
        fast, join = f.current, f.new_label("join")
        f.do(f"br label %{join}")
        f.label(slow)
        find = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['writable'].offset)}")
        arguments = f"ptr %cpu, i32 {address}, i32 {size}, i32 {align}"
        other = f.emit(f"call preserve_mostcc ptr {find}({arguments})")
        f.do(f"br i1 {f.emit(f'icmp eq ptr {other}, null')}, label %{side}, label %{join}, !prof !0")
        f.label(join)
        return f.emit(f"phi ptr [ {entry}, %{fast} ], [ {other}, %{slow} ]")

    def _alignment(self, access: Access) -> int:
        """Return the number of bytes that an address must be a multiple of."""
        return access.size if self._strict or access.aligned else 1

    def lower_load(self, address: str, access: Access) -> str:
        self._widen(address)
        side, align = self._side_exit(SideExit.LOAD), self._alignment(access)
        if self._flat is None:
            self._check_place(address, access.size, align, side)
            host = self.host_pointer(self._guessed_entry(address, "%reads", side, self._followed_base), address)
        else:
            host = self._flat_address(address, align, side, access.size)
        return self.f.emit(f"load i{8 * access.size}, ptr {host}, align {align}")

    def _check_place(self, address: str, size: int, align: int, bail: str) -> None:
        """Branch to ``bail`` if the access is not aligned or, where it need not be, if it crosses the end of a page."""
        f = self.f
        if align == size:
            self.check_aligned(address, align, bail)
            return
        fits, odd = f.new_label("fits"), f.new_label("odd")
        low_bits = f.emit(f"and i32 {address}, {size - 1}")
        f.do(f"br i1 {f.emit(f'icmp eq i32 {low_bits}, 0')}, label %{fits}, label %{odd}, !prof !1")
        f.label(odd)
        inside = f.emit(f"icmp ule i32 {f.emit(f'and i32 {address}, {PAGE_SIZE - 1}')}, {PAGE_SIZE - size}")
        f.do(f"br i1 {inside}, label %{fits}, label %{bail}, !prof !1")
        f.label(fits)

    def _flat_address(self, address: str, align: int, bail: str, size: int) -> str:
        """Return the HVA of an aligned access of ``size`` bytes to RAM. Others branch to ``bail``.

        The address is rotated by its low bits, which must be 0, so that one comparison checks alignment and range.
        """
        assert self._flat is not None
        f = self.f
        offset = f.emit(f"sub i32 {address}, {self._flat.base}") if self._flat.base else address
        bits = align.bit_length() - 1
        rotated = f.emit(f"call i32 @llvm.fshl.i32(i32 {offset}, i32 {offset}, i32 {32 - bits})") if bits else offset
        inside = f.new_label("inside")
        below = f.emit(f"icmp ult i32 {rotated}, {(self._flat.size - size >> bits) + 1}")
        f.do(f"br i1 {below}, label %{inside}, label %{bail}, !prof !1")
        f.label(inside)
        return self.host_pointer(self._ram, address)

    def lower_store(self, address: str, value: str, access: Access) -> None:
        self._widen(address)
        align, side, slow = self._alignment(access), self._side_exit(SideExit.STORE), self.f.new_label("slow")
        self._check_place(address, access.size, align, slow)
        entry = self._guessed_entry(address, "%writes", slow, self._followed_base)
        host = self._store_pointer(self._or_writable(entry, slow, address, access.size, align, side), address)
        self.f.do(f"store i{8 * access.size} {self.narrow(value, access.size)}, ptr {host}, align {align}")

    # -- control -------------------------------------------------------------------------------

    def _lower_table(self, table: JumpTable) -> None:
        """Branch by the index of a known jump table. For other indices the load and the branch follow."""
        self._switch(self.value(table.index), table.places)

    def _switch(self, value: str, places: dict[int, Place]) -> None:
        """Branch to the place for a value, if the region has it, or continue."""
        self._lazy.become(self._lazy.kind)
        ways = [(number, label) for number, place in places.items() if (label := self._label(place)) is not None]
        if not ways:
            return
        other = self.f.new_label("other")
        cases = " ".join(f"i32 {number}, label %{label}" for number, label in ways)
        self.f.do(f"switch i32 {value}, label %{other} [ {cases} ]")
        self.f.label(other)

    def lower_branch(self, target: Uop, kind: BranchKind) -> None:
        uop = next(u for u in self._insn.branches if u.args[0] is target)
        places = self._block.branches.get(uop, ())
        value = self.value(target)
        if places and (relative_value(target, self._insn.pc) is not None or target in self._block.constants):
            self._go(places[0])
            return
        ways: dict[int, Place] = {}
        for place in places:
            if place in self._numbers:
                ways.setdefault(place.pc, place)
        self._switch(value, ways)
        self._remember_target(value)
        self._exit(ARRIVE, value, 0, SideExit.RETURN if kind is BranchKind.RETURN else SideExit.INDIRECT)

    def _remember_target(self, target: str) -> None:
        """Note a new target of this branch for regions that are made later, as handlers do."""
        f = self.f
        gpa = self._assumed.place(self._insn.pc)
        offset = (gpa >> PAGE_SHIFT) * CODE_PAGE_STRIDE + ((gpa & WORD_IN_PAGE) << OP_SHIFT)
        pages = f.emit(f"load i64, ptr {self.state_pointer(NATIVE['code_pages'].offset)}")
        remember_target(f, self.cpu, f.emit(f"add i64 {pages}, {offset}"), target)

    def lower_exception(self, kind: InsnException, immediate: Uop) -> None:
        raise AssertionError("an exception is not part of a region")

    def lower_callout_value(self, callout: Callout, args: Iterable[Uop]) -> str:
        raise AssertionError("what asks the hypervisor is not part of a region")

    def lower_callout(self, callout: Callout, args: Iterable[Uop]) -> bool:
        """Leave for Thumb through the threaded tier. Nothing has been written yet: see Recorder.interwork."""
        self._exit_before_insn(SideExit.THUMB)
        return False


def region_text(regions: Iterable[Region], assumed: Assumptions) -> str:
    """Return the LLVM module of these regions. Their functions are ``region0`` and so on."""
    functions = (RegionLowering(region, f"region{number}", assumed).lower() for number, region in enumerate(regions))
    return module_text(*functions)
