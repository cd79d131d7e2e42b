"""The routines of the architecture (:mod:`isa.ir.routines`) as native functions ``name(cpu, parameters...)``.

They work on the state in memory, flags included, and are called by what has stored it.
"""

from __future__ import annotations

from collections.abc import Iterable

from dbt.abi.layout import PAGE_RAM
from dbt.backend.lower import FLAGS, Lowering
from dbt.backend.module import Function
from dbt.backend.support import load_field
from dbt.memory.ram import PAGE_SHIFT
from isa.arm.architecture import ROUTINES
from isa.arm.state import LAYOUT
from isa.arm.vectors import InsnException
from isa.ir.callouts import Callout
from isa.ir.routines import RESULT_WIDTH, Routine
from isa.ir.uop import Access, BranchKind, Uop


class RoutineLowering(Lowering):
    """Lowers one routine."""

    def __init__(self, routine: Routine) -> None:
        self._block = routine.block()
        self._has_result = bool(self._block) and self._block[-1].op == "result"
        type_ = f"i{RESULT_WIDTH}" if self._has_result else "void"
        parameters = "".join(f", i32 %{name}" for name in routine.parameters)
        super().__init__(Function(f"define hidden {type_} @{routine.name}(ptr %cpu{parameters}) noinline"))
        self._temps = [self.f.emit_entry("alloca i32") for _ in range(16)]
        for name in FLAGS:
            offset = LAYOUT[name].offset
            self.flags[name] = self.f.emit_entry(f"getelementptr i8, ptr %cpu, i64 {offset}")

    def lower(self) -> str:
        if self.lower_block(self._block):
            self.f.do("ret void")
        return self.f.text()

    def lower_uop(self, uop: Uop) -> bool:
        f = self.f
        match uop.op:
            case "param":
                self._values[uop] = f"%{uop.attr}"
            case "result":
                f.do(f"ret i{RESULT_WIDTH} {self.value(uop.args[0])}")
                return False
            case "get_temp":
                self._values[uop] = f.emit(f"load i32, ptr {self._temp(uop)}")
            case "set_temp":
                f.do(f"store i32 {self.value(uop.args[1])}, ptr {self._temp(uop)}")
            case "in_ram":
                f.do(load_field("page_flags", "ptr", name := f.new_name()))
                page = f.emit(f"zext i32 {f.emit(f'lshr i32 {self.value(uop.args[0])}, {PAGE_SHIFT}')} to i64")
                flag = f.emit(f"load i8, ptr {f.emit(f'getelementptr i8, ptr {name}, i64 {page}')}")
                self._values[uop] = f.emit(f"icmp ne i8 {f.emit(f'and i8 {flag}, {PAGE_RAM}')}, 0")
            case "load_physical":
                f.do(load_field("ram_host", "ptr", name := f.new_name()))
                gpa = f.emit(f"zext i32 {self.value(uop.args[0])} to i64")
                self._values[uop] = f.emit(f"load i32, ptr {f.emit(f'getelementptr i8, ptr {name}, i64 {gpa}')}")
            case _:
                return super().lower_uop(uop)
        return True

    def _temp(self, uop: Uop) -> str:
        number = uop.args[0].number
        assert number is not None
        return self._temps[number]

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

    def lower_callout(self, callout: Callout, args: Iterable[Uop]) -> bool:
        raise AssertionError("a routine is no instruction")


def routines_text() -> str:
    """All routines."""
    return "".join(RoutineLowering(routine).lower() for routine in ROUTINES.values())
