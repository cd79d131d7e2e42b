"""The region tier's code: a region of guest blocks as one native function with the handlers' signature.

Guest registers and flags are allocas, which SROA turns into values: loaded at entry, stored at exits.
Whatever the fast path cannot do is a side exit in front of the instruction that needs it: state is
stored, the instructions not executed are given back to the budget, and the threaded tier goes on there.
"""

from __future__ import annotations

from collections.abc import Iterable

from dbt.backend.abi import OP_ORIGINAL, header, tail_call
from dbt.backend.lower import FLAGS, Lowering, module_text
from dbt.backend.module import Function
from dbt.frontend.region import Block, GuestInsn, Place, Region, branches_of, relative_target
from dbt.runtime.cpu import NATIVE
from isa.state import LAYOUT
from isa.uop import Access, BranchKind, InsnException, Uop

R = LAYOUT["r"].offset


def written_registers(blocks: Iterable[list[Uop]]) -> set[int]:
    """The registers that these uops may write."""
    found: set[int] = set()
    for block in blocks:
        for uop in block:
            if uop.op == "set_reg":
                number = uop.args[0].number
                found |= {number} if number is not None else set(range(15))
            elif uop.op == "for_each_bit" and any(inner.op == "set_reg" for inner in uop.body):
                mask = uop.args[0].number
                assert mask is not None
                found |= {bit for bit in range(15) if mask >> bit & 1}
            else:
                found |= written_registers([uop.body])
    return found


class RegionLowering(Lowering):
    """Lowers a whole region. Every field is a number here."""

    temp_offset = NATIVE["temp"].offset
    # An entry that is there changes only outside of native code.
    table_metadata = ", !invariant.load !2"

    def __init__(self, region: Region, name: str) -> None:
        super().__init__(Function(header(name)))
        self.region = region
        self._labels = {place: f"b{number}" for number, place in enumerate(region.blocks)}
        self._registers = [self.f.emit_entry("alloca i32") for _ in range(15)]
        self._temps = [self.f.emit_entry("alloca i32") for _ in range(16)]
        self._budget = self.f.emit_entry("alloca i64")
        self._dirty = sorted(
            written_registers(insn.uops for block in region.blocks.values() for insn in block.insns) - {15}
        )
        self._loop_numbers: dict[Uop, int] = {}
        self._block: Block
        self._insn: GuestInsn
        self._index = 0

    def lower(self) -> str:
        f = self.f
        for number, pointer in enumerate(self._registers):
            f.do(f"store i32 {f.emit(f'load i32, ptr {self.state_pointer(R + 4 * number)}')}, ptr {pointer}")
        for name in FLAGS:
            f.do(f"store i32 %{name}, ptr {self.flags[name]}")
        f.do(f"store i64 %budget, ptr {self._budget}")
        f.do(f"br label %{self._labels[Place(self.region.entry)]}")
        for block in self.region.blocks.values():
            self._lower_block(block)
        return f.text()

    def _lower_block(self, block: Block) -> None:
        f = self.f
        f.label(self._labels[block.place])
        self._block, self._values = block, {}
        self._retire(len(block.insns), block.place.pc)
        for self._index, self._insn in enumerate(block.insns):
            self._values = {}
            if not self.lower_block(self._insn.uops):
                return
        assert block.next is not None
        self._go(block.next)

    def _retire(self, count: int, pc: int) -> None:
        f = self.f
        budget = f.emit(f"load i64, ptr {self._budget}")
        left = f.emit(f"sub i64 {budget}, {count}")
        enough = f.new_label("enough")
        self._index = count  # nothing of the block is taken from the budget yet
        exit_ = f.new_label("short")
        f.do(f"br i1 {f.emit(f'icmp slt i64 {left}, 0')}, label %{exit_}, label %{enough}, !prof !0")
        f.label(exit_)
        self._go_on_threaded(pc, given_back=0)
        f.label(enough)
        f.do(f"store i64 {left}, ptr {self._budget}")

    # -- leaving -------------------------------------------------------------------------------

    def _go(self, place: Place) -> None:
        label = self._labels.get(place)
        if label is not None:
            self.f.do(f"br label %{label}")
        else:
            self._exit_at(str(place.pc), given_back=0)

    def _store_state(self) -> dict[str, str]:
        f = self.f
        for number in self._dirty:
            value = f.emit(f"load i32, ptr {self._registers[number]}")
            f.do(f"store i32 {value}, ptr {self.state_pointer(R + 4 * number)}")
        return {name: f.emit(f"load i32, ptr {pointer}") for name, pointer in self.flags.items()}

    def _exit_at(self, target: str, given_back: int) -> None:
        """Leave for the op of a GVA (an i32 operand), giving instructions back to the budget."""
        f = self.f
        flags = self._store_state()
        wide = f.emit(f"zext i32 {target} to i64")
        f.do(f"store i64 {wide}, ptr {self.state_pointer(NATIVE['exit_args'].offset)}")
        budget = self._budget_with(given_back)
        goto = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['goto'].offset)}")
        self._tail(goto, {**flags, "budget": budget})

    def _to_original_handler(self, given_back: int) -> None:
        """Go on at the entry in the threaded tier: its op's handler is this region."""
        f = self.f
        flags = self._store_state()
        budget = self._budget_with(given_back)
        offset = f.emit(f"load i32, ptr {f.emit(f'getelementptr i8, ptr %op, i64 {OP_ORIGINAL}')}")
        image = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['image'].offset)}")
        handler = f.emit(f"getelementptr i8, ptr {image}, i64 {f.emit(f'zext i32 {offset} to i64')}")
        self._tail(handler, {**flags, "budget": budget})

    def _budget_with(self, given_back: int) -> str:
        budget = self.f.emit(f"load i64, ptr {self._budget}")
        return self.f.emit(f"add i64 {budget}, {given_back}") if given_back else budget

    def _tail(self, callee: str, changed: dict[str, str]) -> None:
        self.f.do(tail_call(callee, **changed))
        self.f.do("ret void")

    def _side_exit(self) -> str:
        """A label that undoes nothing and goes on at the current instruction in the threaded tier."""
        f = self.f
        label, after = f.new_label("side"), f.new_label("main")
        f.do(f"br label %{after}")
        f.label(label)
        self._exit_before_insn()
        f.label(after)
        return label

    def _exit_before_insn(self) -> None:
        """Go on at the current instruction in the threaded tier, with what it and its successors took of the budget."""
        self._go_on_threaded(self._insn.pc, len(self._block.insns) - self._index)

    def _go_on_threaded(self, pc: int, given_back: int) -> None:
        """Leave for an address of the region; at its entry past itself, or it would be entered again."""
        if pc == self.region.entry:
            self._to_original_handler(given_back)
        else:
            self._exit_at(str(pc), given_back)

    # -- the guest's state ---------------------------------------------------------------------

    def static_value(self, uop: Uop) -> str | None:
        return None

    def _number(self, index: Uop) -> int:
        number = self._loop_numbers.get(index, index.number)
        assert number is not None, f"{index!r} is not known"
        return number

    def array_pointer(self, offset: int, index: Uop) -> str:
        number = self._number(index)
        if offset == self.temp_offset:
            return self._temps[number]
        return self._registers[number] if number < 15 else self.state_pointer(offset + 60)

    def lower_pc(self) -> str:
        return str((self._insn.pc + 8) & 0xFFFFFFFF)

    def _lower_for_each_bit(self, uop: Uop) -> None:
        mask = uop.args[0].number
        assert mask is not None
        variables = self._loop_variables(uop.body, uop)
        for ordinal, bit in enumerate(bit for bit in range(32) if mask >> bit & 1):
            outer = dict(self._values)
            for variable in variables:
                number = bit if variable.op == "bit_index" else ordinal
                self._loop_numbers[variable] = number
                self._values[variable] = str(number)
            self.lower_block(uop.body)
            self._values = outer

    def _loop_variables(self, block: list[Uop], loop: Uop) -> set[Uop]:
        found = {
            arg for uop in block for arg in uop.args if arg.op in ("bit_index", "bit_ordinal") and arg.args[0] is loop
        }
        return found.union(*(self._loop_variables(uop.body, loop) for uop in block))

    # -- memory --------------------------------------------------------------------------------

    def lower_load(self, address: str, access: Access) -> str:
        return self.f.emit(
            f"load i{8 * access.size}, ptr {self.host_address(address, access.size, 'reads', self._side_exit())}"
        )

    def lower_store(self, address: str, value: str, access: Access) -> None:
        host = self.host_address(address, access.size, "writes", self._side_exit())
        self.f.do(f"store i{8 * access.size} {self.narrow(value, access.size)}, ptr {host}")

    # -- control -------------------------------------------------------------------------------

    def lower_branch(self, target: Uop, kind: BranchKind) -> None:
        uop = next(u for u in branches_of(self._insn.uops) if u.args[0] is target)
        place = self._block.branches.get(uop)
        f = self.f
        value = self.value(target)
        if place is None:
            self._exit_at(value, given_back=0)
        elif relative_target(uop, self._insn.pc) is not None:
            self._go(place)
        else:
            expected, other = f.new_label("expected"), f.new_label("other")
            f.do(f"br i1 {f.emit(f'icmp eq i32 {value}, {place.pc}')}, label %{expected}, label %{other}, !prof !1")
            f.label(other)
            self._exit_at(value, given_back=0)
            f.label(expected)
            self._go(place)

    def lower_exception(self, kind: InsnException, immediate: Uop) -> None:
        raise AssertionError("an exception is not part of a region")

    def lower_callout(self, name: str, args: Iterable[Uop]) -> None:
        """Thumb: the threaded tier finds out for itself. Nothing has been written yet: see Recorder.interwork."""
        self._exit_before_insn()


def region_text(*regions: Region) -> str:
    """The LLVM module of these regions; their functions are ``region0`` and so on."""
    functions = [RegionLowering(region, f"region{number}").lower() for number, region in enumerate(regions)]
    return module_text(*functions)
