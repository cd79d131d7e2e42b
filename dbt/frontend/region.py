"""Forming regions: the hot control-flow graph around an entry, as the region tier compiles it.

A region is grown from a hot op over the code that has already been executed (its ops are decoded):
direct branches, both sides of conditional ones, calls into their callees and from there back. A
block is told apart by its address and by the calls that lead to it within the region, so a callee
is compiled once for each call path, and its return has one expected target.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from isa.spec import Insn
from isa.uop import BranchKind, Uop

Decode = Callable[[int], Insn | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a region may become, in instructions, and how deep calls are followed."""

    insns: int = 400
    block: int = 64
    depth: int = 4


#: The return addresses of the calls that lead to a block, outermost first.
Context = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block starts: its GVA, and the calls that lead to it."""

    pc: int
    calls: Context = ()


@dataclass(slots=True)
class GuestInsn:
    """One instruction of a region, its uops recorded with its condition."""

    pc: int
    word: int
    insn: Insn
    uops: list[Uop]


@dataclass(slots=True)
class Block:
    """Straight-line code; control enters at its head only.

    ``branches`` maps each branch uop of the last instruction to where it goes, if that is in the
    region; ``next`` is where control goes when it runs off the end.
    """

    place: Place
    insns: list[GuestInsn] = field(default_factory=list)
    branches: dict[Uop, Place] = field(default_factory=dict)
    next: Place | None = None


@dataclass(slots=True)
class Region:
    """``blocks`` by place, the entry first."""

    entry: int
    blocks: dict[Place, Block]

    def words(self) -> dict[int, int]:
        """The guest words that the region is made from, by address."""
        return {insn.pc: insn.word for block in self.blocks.values() for insn in block.insns}


def branches_of(block: list[Uop]) -> Iterator[Uop]:
    """The branch uops of an instruction."""
    for uop in block:
        if uop.op == "branch":
            yield uop
        yield from branches_of(uop.body)


def ends_path(block: list[Uop]) -> bool:
    """Whether control never runs off the end of these uops."""
    return any(uop.op in ("branch", "exception") for uop in block)


def is_sensitive(block: list[Uop]) -> bool:
    """Whether the hypervisor or the exception machinery is needed on the way."""
    return any(
        uop.op == "exception" or (uop.op == "callout" and uop.attr != "enter_thumb") or is_sensitive(uop.body)
        for uop in block
    )


def relative_target(uop: Uop, pc: int) -> int | None:
    """The target of a branch to pc + constant."""
    target = uop.args[0]
    if target.op == "add" and target.args[0].op == "pc" and target.args[1].number is not None:
        return (pc + 8 + target.args[1].number) & 0xFFFFFFFC
    return None


class RegionFormer:
    """Grows regions; ``fetch`` gives the word at a GVA, or None where none was executed yet."""

    def __init__(self, decode: Decode, fetch: Callable[[int], int | None], limits: Limits = Limits()) -> None:
        self._decode = decode
        self._fetch = fetch
        self._limits = limits

    def form(self, entry: int) -> Region | None:
        """The region around ``entry``, or None if nothing can be compiled there."""
        region = Region(entry, {})
        heads = self._find_heads(entry)
        queue = deque([Place(entry)])
        left = self._limits.insns
        while queue and left > 0:
            place = queue.popleft()
            if place in region.blocks:
                continue
            block = self._form_block(place, heads, left)
            if block is None:
                continue
            region.blocks[place] = block
            left -= len(block.insns)
            queue.extend(block.branches.values())
            if block.next is not None:
                queue.append(block.next)
        return region if Place(entry) in region.blocks else None

    def _find_heads(self, entry: int) -> set[int]:
        """Addresses that something in reach branches to: blocks begin there."""
        heads, seen, queue = {entry}, set[int](), deque([entry])
        while queue and len(seen) < 4 * self._limits.insns:
            pc = queue.popleft()
            while pc not in seen:
                word = self._fetch(pc)
                insn = None if word is None else self._decode(word)
                if insn is None:
                    break
                assert word is not None
                seen.add(pc)
                uops = insn.record_word(word).block
                targets = list(branches_of(uops))
                for uop in targets:
                    target = relative_target(uop, pc)
                    if target is not None:
                        heads.add(target)
                        queue.append(target)
                if targets:
                    heads.add(pc + 4)
                    queue.append(pc + 4)
                    break
                pc += 4
        return heads

    def _form_block(self, place: Place, heads: set[int], room: int) -> Block | None:
        block = Block(place)
        pc = place.pc
        while len(block.insns) < min(self._limits.block, room):
            word = self._fetch(pc)
            insn = None if word is None else self._decode(word)
            if insn is None:
                break
            assert word is not None
            uops = insn.record_word(word).block
            if is_sensitive(uops):
                break
            block.insns.append(GuestInsn(pc, word, insn, uops))
            if self._follow(block, block.insns[-1]):
                return block
            pc += 4
            if pc in heads:
                break
        block.next = Place(pc, place.calls)
        return block if block.insns else None

    def _follow(self, block: Block, last: GuestInsn) -> bool:
        """Enter the targets of a branch instruction into the block; False if it is not one."""
        calls, found = block.place.calls, False
        for uop in branches_of(last.uops):
            found = True
            target = relative_target(uop, last.pc)
            if uop.attr is BranchKind.CALL:
                if target is not None and len(calls) < self._limits.depth:
                    block.branches[uop] = Place(target, (*calls, last.pc + 4))
            elif target is not None:
                block.branches[uop] = Place(target, calls)
            elif calls:
                block.branches[uop] = Place(calls[-1], calls[:-1])
        if found and not ends_path(last.uops):
            block.next = Place(last.pc + 4, calls)
        return found
