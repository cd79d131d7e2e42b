"""How control enters and leaves a region, and what is counted and taken from the budget on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from dbt.abi.addresses import Gpa, Gva, MappedPage
from dbt.abi.cpu import NATIVE
from dbt.abi.layout import (
    CODE_PAGE_STRIDE,
    PAGE_SHIFT,
    PAGE_SIZE,
    SideExit,
)
from dbt.backend.access_checks import AccessChecks, Check, find_access_checks
from dbt.backend.block_counting import BlockCounting
from dbt.backend.budget import find_checks
from dbt.backend.convention import header, tail_call
from dbt.backend.flags import FlagKind, LazyFlags, overwrites_flags
from dbt.backend.if_conversion import find_diamonds
from dbt.backend.lookups import Lookups, find_lookups
from dbt.backend.lower import Lowering
from dbt.backend.module import Function
from dbt.backend.pointers import followed_pointers
from dbt.backend.spans import Spans, find_spans
from dbt.frontend.context import TranslationContext
from dbt.frontend.forming import Block, GuestInsn, Place, Region
from isa.arm.operands import PC
from isa.arm.state import LAYOUT, SCTLR_A, SCTLR_M
from isa.ir.queries import registers_written
from isa.ir.uop import Access, Uop

R = LAYOUT["r"].offset

#: How a region is left. ``ARRIVE`` goes to an op and counts the arrival, so that it may become hot.
#: ``BYPASS`` goes to the handler of an op, even if a region is entered there.
ARRIVE, BYPASS = "arrive", "bypass"


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
class Before:
    """The state in front of a branch whose ways are both executed: its address, the flags' kind and variables, and the
    registers that either way writes. Values are LLVM's operands.
    """

    pc: Gva
    kind: FlagKind
    flags: Mapping[str, str]
    registers: dict[int, str]


class RegionExits(Lowering):
    """The function of a region: its variables, entries and exits."""

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
        self.name, self.assumed = name, assumed
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
        self._lookups = find_lookups(region) if optimizations.lookups and self._flat is None else Lookups()
        #: By register: the HVA to which lookups add their index, null if it is not known, or region_memory._IN_PIECES.
        self._hosts = {number: self.f.emit_entry("alloca ptr") for number in self._lookups.reach}
        self._lazy = LazyFlags(self.f, self.flags)
        self._exits: dict[tuple[str, FlagKind], str] = {}
        written = (registers_written(insn.uops) for block in region.blocks.values() for insn in block.insns)
        self._dirty = sorted(set[int]().union(*written) - {PC})
        self._loop_numbers: dict[Uop, int] = {}
        self._checks, self._reserve = find_checks(region) if optimizations.paths else (set(region.blocks), 0)
        self._overwrites_flags = {
            place for place, block in region.blocks.items() if place not in self._checks and overwrites_flags(block)
        }
        self._diamonds = find_diamonds(region, self._checks) if optimizations.if_conversion else {}
        if context.block_counters:  # where the ways end in branches of their own, an exit would be counted at either
            self._diamonds = {place: found for place, found in self._diamonds.items() if found.join in region.blocks}
        #: Which checks of accesses are needless, and which are made before loops.
        self._access_checks = AccessChecks()
        if optimizations.checks and self._flat is not None:
            self._access_checks = find_access_checks(region, self._find_spans, self._alignment, self._inlined_blocks())
        #: The counts, if there are any.
        self.counting: BlockCounting | None = None
        if context.block_counters:
            symbol, derive = f"{name}.counters", optimizations.derived_counts
            self.counting = BlockCounting(self.f, region, symbol, self._budget, self._diamonds, assumed.place, derive)
        self._place: Place | None = None  # of the block that control has come to; None before the first
        self._before: Before | None = None  # while a way is lowered to which control may not have come
        self._ram = ""
        self._other = ""  # the label at which the region is left at its entry
        self._block: Block
        self._spans: Spans
        self._insn: GuestInsn
        self._index = 0
        self._needs_check: bool  # whether the access that is being lowered does
        self._followed_base: int | None  # of the access that is being lowered, if a pointer is followed

    # -- entering ------------------------------------------------------------------------------

    def _entry_pc(self) -> str:
        """Return the GVA of the entry at which control came in, if the mode is as assumed."""
        if len(self.region.entries) == 1 and not self._mmu:
            return str(self.region.entry)
        return self.op_gva()

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
            self._forget_hosts(self._hosts)
            for number, pointer in enumerate(self._registers):
                f.do(f"store i32 {f.emit(f'load i32, ptr {self.state_pointer(R + 4 * number)}')}, ptr {pointer}")
            self._go(self.region.entries[gva])

    def _inlined_blocks(self) -> set[Place]:
        """Return the blocks that are lowered together because both ways of a branch are executed."""
        ways = {way.place for found in self._diamonds.values() for way in (found.taken, found.other) if way is not None}
        return ways | self._diamonds.keys()

    def _alignment(self, access: Access) -> int:
        """Return the number of bytes that an address must be a multiple of."""
        return access.size if self._strict or access.aligned else 1

    def _find_spans(self, block: Block) -> Spans:
        return find_spans(block, self._alignment) if self._optimizations.spans else {}

    def _check_ahead(self, check: Check, place: Place) -> None:
        """Make a check between two blocks, of which ``place`` is the second. If it fails, go on there outside."""
        raise NotImplementedError

    def _guessed_registers(self) -> list[int]:
        return sorted(set[int]().union(*self._followed.values()))

    def _guess_word(self, register: int) -> str:
        """Return the pointer to the guess in CpuState, which outlives the region."""
        return self.state_pointer(NATIVE["guesses"].offset + 8 * register)

    def _forget_hosts(self, numbers: Iterable[int]) -> None:
        """Let lookups by these registers find their tables anew, because the registers may have changed."""
        for number in sorted(self._hosts.keys() & numbers):
            self.f.do(f"store ptr null, ptr {self._hosts[number]}")

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
        f.do(f"store i64 {f.emit(f'zext i32 {self.op_gva()} to i64')}, ptr {self._exit_word(0)}")
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

    # -- counting ------------------------------------------------------------------------------

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
            if (check := self._access_checks.ahead.get((self._place, place))) is not None:
                self._check_ahead(check, place)
            if self.counting is not None:
                if self._place is None:
                    self.counting.enter_region(place.pc)
                self.counting.go(self._place, place)
            self.f.do(f"br label %{label}")
        else:
            self._exit(ARRIVE, str(place.pc), 0, SideExit.EDGE)

    def _exit_word(self, number: int) -> str:
        return self.state_pointer(NATIVE["exit_args"].offset + 8 * number)

    def _exit(self, way: str, target: str, given_back: int, reason: SideExit) -> None:
        """Leave for a GVA (an i32 operand), giving instructions back to the budget."""
        f = self.f
        given_back += self._reserve
        if self.counting is not None and self._place is not None:
            pc = self._place.pc if reason is SideExit.BUDGET else self._insn.pc
            self.counting.leave(self._place, pc if self._before is None else self._before.pc, reason)
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
        return self._aside(lambda: self._exit_before_insn(reason))

    def _aside(self, leave: Callable[[], None]) -> str:
        """Return the label of what ``leave`` emits, which leaves the region, and go on."""
        f = self.f
        label, after = f.new_label("side"), f.new_label("main")
        f.do(f"br label %{after}")
        f.label(label)
        leave()
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

    def _restore(self, before: Before) -> None:
        """Let registers and flags be again what they were before a branch."""
        for number, value in before.registers.items():
            self.f.do(f"store i32 {value}, ptr {self._registers[number]}")
        self._forget_hosts(before.registers)
        self._lazy.assume(before.kind, before.flags)

    def _exit_before_diamond(self, before: Before, reason: SideExit) -> None:
        """Continue at a branch in the threaded tier, because one of its ways cannot be executed here."""
        known = self._lazy.known()
        self._restore(before)
        self._go_on_threaded(before.pc, 1, reason)
        self._lazy.know(known)  # the path that goes on is another
