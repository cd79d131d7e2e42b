"""The routines of the architecture (:mod:`isa.ir.routines`) as native functions ``name(cpu, parameters...)``.

They work on the state in memory, flags included, and are called by what has stored it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dbt.abi.cpu import NATIVE
from dbt.abi.layout import PAGE_RAM
from dbt.backend.builder import Value, define
from dbt.backend.lower import FLAGS, LOWER, STATEMENTS, Lowering
from isa.arm.architecture import ROUTINES
from isa.arm.state import LAYOUT
from isa.arm.vectors import InsnException
from isa.ir.callouts import Callout
from isa.ir.routines import RESULT_WIDTH, Routine
from isa.ir.table import Stage, ops_of, require_rows
from isa.ir.uop import Access, BranchKind, Uop


class RoutineLowering(Lowering):
    """Lowers one routine."""

    temp_offset = NATIVE["temp"].offset

    def __init__(self, routine: Routine) -> None:
        self._block = routine.block()
        self._has_result = bool(self._block) and self._block[-1].op == "result"
        type_ = f"i{RESULT_WIDTH}" if self._has_result else "void"
        self.builder = define(routine.name, dict.fromkeys(routine.parameters, "i32"), type_, "noinline")
        super().__init__(self.builder)
        self._temps = [self.f.emit_entry("alloca i32") for _ in range(16)]
        for name in FLAGS:
            offset = LAYOUT[name].offset
            self.flags[name] = self.f.emit_entry(f"getelementptr i8, ptr %cpu, i64 {offset}")

    def lower(self) -> str:
        if self.lower_block(self._block):
            self.f.do("ret void")
        return self.f.text()

    def lower_uop(self, uop: Uop) -> bool:
        """Lower one uop. Return False if it ends the path."""
        return uop.op in LOWER or ROUTINE_STATEMENTS[uop.op](self, uop)

    def lower_param(self, uop: Uop) -> bool:
        """Take a parameter from the function's argument of that name."""
        self.values[uop] = f"%{uop.attr}"
        return True

    def lower_result(self, uop: Uop) -> bool:
        """Return from the function."""
        self.f.do(f"ret i{RESULT_WIDTH} {self.value(uop.args[0])}")
        return False

    def lower_in_ram(self, uop: Uop) -> bool:
        """Read the flags of the page of a GPA."""
        f = self.builder
        self.values[uop] = f.page_flags(self._gpa(uop)).has(PAGE_RAM).text
        return True

    def lower_load_physical(self, uop: Uop) -> bool:
        """Load a word of RAM by its HVA."""
        f = self.builder
        self.values[uop] = f.load_native("ram_host", "ptr").at(self._gpa(uop)).load("i32").text
        return True

    def _gpa(self, uop: Uop) -> Value:
        return Value(self.builder, self.value(uop.args[0]), "i32").to("i64")

    def array_pointer(self, offset: int, index: Uop) -> str:
        """Return a pointer to a word of an array. The scratch words are variables of the function."""
        if offset != self.temp_offset:
            return super().array_pointer(offset, index)
        assert index.number is not None
        return self._temps[index.number]

    def static_value(self, uop: Uop) -> str | None:
        return None

    # -- what routines have none of ------------------------------------------------------------

    def lower_pc(self, ahead: int) -> str:
        raise AssertionError("a routine has no address")

    def lower_load(self, address: str, access: Access) -> str:
        raise AssertionError("a routine accesses physical memory only")

    def lower_store(self, address: str, value: str, access: Access) -> None:
        raise AssertionError("a routine accesses physical memory only")

    def lower_branch(self, target: Uop, kind: BranchKind) -> None:
        raise AssertionError("a routine is no instruction")

    def lower_exception(self, kind: InsnException, immediate: Uop) -> None:
        raise AssertionError("a routine is no instruction")

    def lower_callout_value(self, callout: Callout, args: Iterable[Uop]) -> str:
        raise AssertionError("a routine is no instruction")

    def lower_callout(self, callout: Callout, args: Iterable[Uop]) -> bool:
        raise AssertionError("a routine is no instruction")


#: One row per uop of routines that is not pure, as in :data:`dbt.backend.lower.STATEMENTS`.
ROUTINE_STATEMENTS: dict[str, Callable[[RoutineLowering, Uop], bool]] = {
    **{op: row for op, row in STATEMENTS.items() if op in ops_of(Stage.ROUTINE)},
    "param": RoutineLowering.lower_param,
    "result": RoutineLowering.lower_result,
    "in_ram": RoutineLowering.lower_in_ram,
    "load_physical": RoutineLowering.lower_load_physical,
}
require_rows("the lowering of routines", ROUTINE_STATEMENTS, Stage.ROUTINE)


def routines_text() -> str:
    """Return the definitions of all routines."""
    return "".join(RoutineLowering(routine).lower() for routine in ROUTINES.values())
