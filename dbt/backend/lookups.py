"""Finding what a loop looks up in tables: loads by a register that the loop does not change, and a small index.

The index often depends on what was loaded before, as in a CRC. With the entry of the shadow page table, which the
address selects, one more load would be in that chain. But a small index leaves two pages at most, and the register
alone says which. So regions look at their entries once: see
:meth:`dbt.backend.region_memory.RegionMemory._lower_lookup`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dbt.abi.layout import PAGE_SIZE
from dbt.frontend.forming import Block, Place, Region
from dbt.frontend.graph import graph_of, nested_loops
from isa.arm.operands import PC
from isa.ir.operations import PURE
from isa.ir.queries import registers_written
from isa.ir.uop import Access, Uop

#: What a register of which nothing is known does not exceed.
_ANY = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Lookup:
    """A load from the address ``base``, which reads the register ``register``, plus ``index``."""

    register: int
    base: Uop
    index: Uop


@dataclass(frozen=True, slots=True)
class Lookups:
    """Lookups by their block, the position of the instruction, and the access. ``reach`` has, by register, how many
    bytes from it on they are within: a page at most.
    """

    loads: dict[tuple[Place, int, Uop], Lookup] = field(default_factory=dict)
    reach: dict[int, int] = field(default_factory=dict)


def find_lookups(region: Region) -> Lookups:
    """Return the lookups in the loops of a region."""
    found = Lookups()
    for place, unchanged in _unchanged_registers(region).items():
        for index, uop, load, end in _loads(region.blocks[place], unchanged):
            found.loads[place, index, uop] = load
            found.reach[load.register] = max(found.reach.get(load.register, 0), end)
    return found


def _unchanged_registers(region: Region) -> dict[Place, frozenset[int]]:
    """Return, for each block in a loop, the registers that its innermost loop does not write."""
    found: dict[Place, frozenset[int]] = {}
    for loop in nested_loops(graph_of(region)):
        written = set[int]().union(
            *(registers_written(insn.uops) for place in loop for insn in region.blocks[place].insns)
        )
        found.update(dict.fromkeys(loop, frozenset(set(range(PC)) - written)))
    return found


def _loads(block: Block, unchanged: frozenset[int]) -> Iterator[tuple[int, Uop, Lookup, int]]:
    """Yield the lookups in a block: the position of the instruction, the access, what it is, and how many
    bytes from its register on it may be.
    """
    registers: dict[int, int] = {}
    for index, insn in enumerate(block.insns):
        bounds = Bounds(registers)
        for uop in bounds.follow(insn.uops):
            access = uop.attr
            assert isinstance(access, Access)
            if access.user or uop in block.constants or uop in block.tables:
                continue
            for load in _terms(uop.args[0], unchanged):
                end = bounds.of(load.index) + access.size
                if end <= PAGE_SIZE:
                    yield index, uop, load, end
                    break


def _terms(address: Uop, unchanged: frozenset[int]) -> Iterator[Lookup]:
    """Yield the ways to see an address as a register of ``unchanged`` and an index."""
    if address.op != "add" or address.args[1].number is not None:
        return
    for base, index in (address.args, address.args[::-1]):
        if base.op == "get_reg" and (register := base.args[0].number) is not None and register in unchanged:
            yield Lookup(register, base, index)


class Bounds:
    """The greatest values that registers and uops can have, as far as one sees from the instructions of a block."""

    def __init__(self, registers: dict[int, int]) -> None:
        """``registers`` has what is known of registers. It is kept up to date."""
        self._registers = registers
        self._values: dict[Uop, int] = {}

    def of(self, uop: Uop) -> int:
        """Return the greatest value that a uop can have."""
        if uop.number is not None:
            return uop.number
        return self._values.get(uop, (1 << uop.width) - 1)

    def follow(self, uops: list[Uop]) -> Iterator[Uop]:
        """Go through the uops of an instruction, and yield its loads, each when what is before it is known."""
        for uop in uops:
            if uop.op == "when":
                before = dict(self._registers)
                yield from self.follow(uop.body)
                for number in registers_written(uop.body):
                    self._registers[number] = max(self._known(number), before.get(number, _ANY))
            elif uop.op == "for_each_bit":
                self._registers.update(dict.fromkeys(registers_written(uop.body), _ANY))
            elif uop.op == "set_reg":
                self._registers.update(dict.fromkeys(registers_written([uop]), self.of(uop.args[1])))
            elif uop.width:
                most = (1 << uop.width) - 1
                self._values[uop] = min(most, self._greatest(uop, most))
                if uop.op == "load":
                    yield uop

    def _known(self, number: int) -> int:
        return self._registers.get(number, _ANY)

    def _greatest(self, uop: Uop, most: int) -> int:
        """Return a number that the value of a uop does not exceed if it has no more than its width."""
        if uop.op == "get_reg":
            number = uop.args[0].number
            return most if number is None else self._known(number)
        if uop.op == "load":
            assert isinstance(uop.attr, Access)
            return most if uop.attr.signed else (1 << 8 * uop.attr.size) - 1
        arguments = [self.of(arg) for arg in uop.args]
        if uop.op == "and":
            return min(arguments)
        if uop.op in ("or", "xor"):
            return (1 << max(arguments).bit_length()) - 1
        if uop.op == "select":
            return max(arguments[1:])
        if uop.op in ("lshr", "shl") and uop.args[1].number is None:
            return arguments[0] if uop.op == "lshr" else most
        if uop.op in ("add", "mul", "shl", "lshr", "zext"):
            value = PURE[uop.op](*arguments, uop.args[0].width)
            return value if value <= most else most
        return most
