"""If-conversion: finding the branches that are better executed as both of their ways and a selection.

A branch that goes either way as the data will have it costs the host a dozen cycles whenever it is predicted wrong,
which is as much as some tens of instructions. Nobody tells how a branch behaves when a region is made. But one idiom
says it of itself: where x is compared with y, and one of the two ways subtracts from x, there is a digit of a quotient,
a root or a remainder. Compilers for ARM make such instructions conditional, unless they need the flags in between,
which is so in arithmetic of 64 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from dbt.backend.lower import FLAGS
from dbt.backend.spans import displacement
from dbt.frontend.forming import Block, GuestInsn, Place, Region, relative_value
from isa.arm.operands import SP
from isa.ir.queries import registers_written, walk
from isa.ir.table import UOPS, Effect
from isa.ir.uop import BranchKind, Uop

#: The most instructions of a way. The host executes both ways, so neither may be long.
_LONGEST = 10
#: Conditions of the carry, which says of a comparison without signs which number is greater.
_CARRY_CONDITIONS = (0b0010, 0b0011)


@dataclass(frozen=True, slots=True)
class Diamond:
    """A branch whose two ways meet again: a block each, or None where there is nothing to execute.

    ``taken`` is the way of the branch, ``other`` the one behind it. They meet at ``join``. If it is None, both ways end
    in branches of one meaning, and that of ``taken`` follows.
    """

    taken: Block | None
    other: Block | None
    join: Place | None

    def insns(self) -> Iterator[GuestInsn]:
        """Yield the instructions of both ways."""
        for block in (self.taken, self.other):
            yield from () if block is None else block.insns

    def written(self) -> list[int]:
        """Return the registers that either way writes, in ascending order."""
        return sorted(set[int]().union(*(registers_written(insn.uops) for insn in self.insns())))


@dataclass(frozen=True, slots=True)
class _Branch:
    """A direct conditional branch: its condition field, where it goes, and what follows it."""

    condition: int
    target: Place
    next: Place

    def means(self, other: _Branch) -> bool:
        """Return True if both branches lead to the same places, under the same flags."""
        if self.condition == other.condition:
            return (self.target, self.next) == (other.target, other.next)
        return self.condition ^ 1 == other.condition and (self.target, self.next) == (other.next, other.target)


def find_diamonds(region: Region, checks: Collection[Place]) -> dict[Place, Diamond]:
    """Return the diamonds of a region by the block that ends in their branch.

    ``checks`` has the blocks that check the budget, which no way may contain.
    """
    found = {}
    for place, block in region.blocks.items():
        branch = _branch_of(block)
        if branch is None or branch.condition not in _CARRY_CONDITIONS:
            continue
        ways = (region.blocks.get(to) for to in (branch.target, branch.next))
        diamond = _diamond(
            branch, *(way if way and way.place not in checks and _is_plain(way) else None for way in ways)
        )
        if diamond is not None and _subtracts(_compared(block), diamond):
            found[place] = diamond
    return found


def _diamond(branch: _Branch, taken: Block | None, other: Block | None) -> Diamond | None:
    """Return the diamond of a branch if its ways meet. ``taken`` and ``other`` are None if they cannot be converted."""
    after_taken, after_other = (None if block is None else _follows(block) for block in (taken, other))
    if after_other == branch.target:
        return Diamond(None, other, branch.target)
    if after_taken == branch.next:
        return Diamond(taken, None, branch.next)
    if taken is None or other is None:
        return None
    if after_taken is not None and after_taken == after_other:
        return Diamond(taken, other, after_taken)
    last_taken, last_other = _branch_of(taken), _branch_of(other)
    if last_taken is not None and last_other is not None and last_taken.means(last_other):
        return Diamond(taken, other, None)
    return None


def _branch_of(block: Block) -> _Branch | None:
    """Return the direct conditional branch that a block ends in, or None if it ends otherwise."""
    last = block.insns[-1]
    if not _is_direct(last) or block.next is None:
        return None
    (places,) = block.branches.values()
    return _Branch(last.word >> 28, places[0], block.next)


def _follows(block: Block) -> Place | None:
    """Return the one place that follows a block, or None if there are several."""
    last = block.insns[-1]
    if not last.branches:
        return block.next
    if not _is_direct(last) or block.next is not None:
        return None
    (places,) = block.branches.values()
    return places[0]


def _is_direct(insn: GuestInsn) -> bool:
    """Return True for a B."""
    return len(insn.branches) == 1 and (
        insn.branches[0].attr in (BranchKind.JUMP, BranchKind.LOOP)
        and relative_value(insn.branches[0].args[0], insn.pc) is not None
    )


def _is_plain(block: Block) -> bool:
    """Return True if a block can be executed although control does not come to it, and is short.

    It has no conditional instructions but a branch at its end, and accesses no memory but to load from the stack.
    """
    if len(block.insns) > _LONGEST:
        return False
    body = block.insns[:-1] if _is_direct(block.insns[-1]) else block.insns
    return all(_is_plain_uop(uop) for insn in body for uop in insn.uops)


def _is_plain_uop(uop: Uop) -> bool:
    if uop.op == "load":
        place = displacement(uop.args[0])
        return place is not None and place[0] == SP
    if uop.op in ("get", "set"):
        return uop.attr in FLAGS
    return UOPS[uop.op].effect is Effect.PURE or uop.op in ("get_reg", "set_reg")


def _compared(block: Block) -> set[int]:
    """Return the registers from which a comparison subtracts to set the carry at the end of a block."""
    found = set[int]()
    for insn in reversed(block.insns):
        carry = next((uop.args[0].args[0] for uop in insn.uops if uop.op == "set" and uop.attr == "c"), None)
        if carry is None:
            continue
        if carry.op != "adc_carry" or carry.args[0].op != "get_reg":
            break
        minuend = carry.args[0].args[0].number
        assert minuend is not None, "every field of a region is a number"
        found.add(minuend)
        if carry.args[2].number is not None:
            break  # no carry goes into it
    return found


def _subtracts(compared: Collection[int], diamond: Diamond) -> bool:
    """Return True if one of the ways subtracts something from a register that was compared."""
    return any(_subtracts_from(insn.uops) & set(compared) for insn in diamond.insns())


def _subtracts_from(uops: Iterable[Uop]) -> set[int]:
    """Return the registers from which an instruction subtracts, and which it sets to the difference."""
    found = set[int]()
    for uop in walk(uops):
        if uop.op == "set_reg" and uop.args[1].op == "adc" and uop.args[1].args[2].number == 1:
            number, minuend = uop.args[0].number, uop.args[1].args[0]
            if number is not None and minuend.op == "get_reg" and minuend.args[0].number == number:
                found.add(number)
    return found
