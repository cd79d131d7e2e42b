"""Lowering a region of guest blocks to one native function with the handlers' signature.

Guest registers and flags are allocas, which SROA turns into values. They are loaded at the entry and stored at exits.
What the fast path cannot do becomes a side exit in front of the instruction. It stores the state, gives the
instructions that were not executed back to the budget, and continues in the threaded tier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dbt.abi.cpu import NATIVE
from dbt.abi.layout import CODE_PAGE_STRIDE, OP_SHIFT, PAGE_SHIFT, WORD_IN_PAGE, SideExit
from dbt.backend.flags import PARTS, FlagKind, flag_effect
from dbt.backend.if_conversion import Diamond
from dbt.backend.lower import FLAGS, remember_target
from dbt.backend.region_exits import ARRIVE, Before, Origin, R
from dbt.backend.region_memory import RegionMemory
from dbt.frontend.forming import Block, JumpTable, Place, relative_value
from isa.arm.vectors import InsnException
from isa.ir.callouts import Callout
from isa.ir.queries import loop_variables, words_written
from isa.ir.uop import BranchKind, Uop


def _read_flag(uop: Uop) -> object:
    """Return the flag that a value reads, or None."""
    return uop.args[0].attr if uop.op == "trunc" and uop.args[0].op == "get" else None


class RegionLowering(RegionMemory):
    """Lowers a whole region, in which every field is a number."""

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
        return f.text() if self.counting is None else self.counting.declaration() + f.text()

    def _lower_block(self, place: Place, kind: FlagKind) -> None:
        f = self.f
        block = self.region.blocks[place]
        f.origin = Origin(self._numbers[place], 0, None) if self._attribute else None
        f.label(self._labels[place, kind])
        self._lazy.resume(kind)
        self._block, self._place, self.values = block, place, {}
        self._spans = self._find_spans(block)
        self._retire(place, len(block.insns))
        if self.counting is not None:
            self.counting.enter_block(place)
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
            lookup = self._lookups.loads.get((self._block.place, self._index, uop))
            if lookup is not None:
                self._lower_lookup(lookup, uop)
                return True
            self._followed_base = self._followed_register(uop.args[0])
            self._needs_check = self._is_check_needed(uop)
        elif uop.op == "set_reg":
            self._forget_hosts([self._number(uop.args[0])])
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
        written, before = diamond.written(), Before(self._insn.pc, self._lazy.kind, self._lazy.values(), {})
        for number in written:
            before.registers[number] = f.emit(f"load i32, ptr {self._registers[number]}")
        taken = self._lower_way(diamond.taken, before, written, kind)
        other = self._lower_way(diamond.other, before, written, kind)

        def select(one: str, another: str, type_: str = "i32") -> str:
            return f.emit(f"select i1 {condition}, {type_} {one}, {type_} {another}, !unpredictable !2")

        for number in written:
            f.do(f"store i32 {select(taken[0][number], other[0][number])}, ptr {self._registers[number]}")
        self._forget_hosts(written)
        self._lazy.assume(kind, {name: select(taken[1][name], other[1][name]) for name in PARTS[kind]})
        counts = [0 if way is None else len(way.insns) for way in (diamond.taken, diamond.other)]
        count = select(str(counts[0]), str(counts[1]), "i64")
        rest = f.emit(f"sub i64 {f.emit(f'load i64, ptr {self._budget}')}, {count}")
        f.do(f"store i64 {rest}, ptr {self._budget}")
        for way, chosen in ((diamond.taken, ("1", "0")), (diamond.other, ("0", "1"))):
            if way is not None and self.counting is not None and self.counting.counts_block(way.place):
                self.counting.enter_way(way.place, select(*chosen, "i64"))
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
        self, block: Block | None, before: Before, written: Iterable[int], kind: FlagKind
    ) -> tuple[dict[int, str], Mapping[str, str]]:
        """Lower one way of a branch but for a branch at its end. Return the values of the registers that either way
        writes, and of the variables of the flags, of which only those of ``kind`` will be needed.
        """
        self._restore(before)
        outer = self._block, self._index, self._insn, self._spans
        if block is not None:
            self._block, self._before = block, before
            self._spans = self._find_spans(block)
            for self._index, self._insn in enumerate(block.insns):
                self.values = {}
                if not self._insn.branches:
                    self.lower_block(self._insn.uops)
        registers = {number: self.f.emit(f"load i32, ptr {self._registers[number]}") for number in written}
        flags = self._lazy.values() if kind is not FlagKind.DEAD else {}
        self._before = None
        self._block, self._index, self._insn, self._spans = outer
        return registers, flags

    # -- control -------------------------------------------------------------------------------

    def _lower_table(self, table: JumpTable) -> None:
        """Branch by the index of a known jump table. For other indices the load and the branch follow."""
        self._switch(self.value(table.index), table.places)

    def _switch(self, value: str, places: dict[int, Place]) -> None:
        """Branch to the place for a value, if the region has it, or continue."""
        self._lazy.become(self._lazy.kind)
        f, counting = self.f, self.counting
        labels = {place: label for place in places.values() if (label := self._label(place)) is not None}
        if not labels:
            return
        edges: dict[Place, str] = {}
        for place in labels:
            if (self._place, place) in self._access_checks.ahead or (
                counting is not None and counting.is_metered(self._place, place)
            ):
                edges[place] = f.new_label("edge")
        other = f.new_label("other")
        ways = {number: edges.get(place, labels[place]) for number, place in places.items() if place in labels}
        cases = " ".join(f"i32 {number}, label %{label}" for number, label in ways.items())
        f.do(f"switch i32 {value}, label %{other} [ {cases} ]")
        for place, edge in edges.items():
            f.label(edge)
            self._go(place)
        f.label(other)

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
        gpa = self.assumed.place(self._insn.pc)
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
