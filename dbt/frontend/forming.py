"""Forming regions: the hot control-flow graph around an entry, as the region tier compiles it.

A region grows from a hot op over code that has been executed, which is code whose ops are decoded. It follows direct
branches, both sides of conditional ones, calls into their callees and back, and indirect branches to the targets that
were observed. A block is identified by its address and by the calls that lead to it within the region. So a small
callee is compiled once for each call path, and its return has one expected target. A larger callee is compiled once,
and its return has several targets. A recursive call goes to the code of the function that is being executed already.

All of this is prediction. A branch to another target leaves the region, which costs time and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from dbt.abi.addresses import Gva
from dbt.frontend.optimizations import ALL, Optimizations
from isa.ir.callouts import Callout
from isa.ir.queries import branches_of, ends_path, walk
from isa.ir.registry import Insn
from isa.ir.uop import Access, BranchKind, Uop


class Guest(Protocol):
    """What region forming needs to know of the guest. All addresses are guest virtual ones."""

    def executed(self, gva: Gva) -> int | None:
        """Return the word at ``gva`` if it has been executed as an instruction, else None."""

    def constant(self, gva: Gva) -> int | None:
        """Return the word at ``gva`` if it is in RAM and is not known to change, else None."""

    def targets(self, gva: Gva) -> Iterable[Gva]:
        """Return the observed targets of the indirect branch at ``gva``."""

    def entered(self, gva: Gva) -> bool:
        """Return True if an installed region has an entry at ``gva``."""

    def covered(self, gva: Gva) -> bool:
        """Return True if an installed region was made from the word at ``gva``."""


class Decode(Protocol):
    """Finds the instruction that a word encodes."""

    def __call__(self, word: int, /) -> Insn | None:
        """Return the instruction that ``word`` encodes, or None if it is undefined."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a region may become. All sizes are numbers of guest instructions unless stated otherwise.

    ``insns``: the size of a region. ``reach``: how many instructions are considered, from which the best are chosen.
    ``near``: code after this many instructions, and functions that are not copied, are left to other regions that have
    an entry there; with None nothing is left to others, and the region has one entry. ``block``: the size of a block.
    ``copies``: the size up to which a function is copied for each call path. ``depth``: how many copies may be nested.
    ``targets``: how many targets of an indirect branch are distinguished. ``table``: how many entries of a jump table
    are read.
    """

    insns: int = 400
    near: int | None = None
    reach: int = 800
    block: int = 64
    copies: int = 32
    depth: int = 4
    targets: int = 16
    table: int = 256


#: The limits in backlog mode: the code nearest to the entry is worth most, and small regions are finished sooner.
BACKLOG = Limits(insns=200, near=100, reach=400)

#: The return addresses of the calls that lead to a block, outermost first. A function that is in the region once, for
#: all its callers, begins a context of its own, which is its address + 1.
Context = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """The identity of a block: the address where it starts, and the calls that lead to it."""

    pc: Gva
    calls: Context = ()


@dataclass(slots=True)
class GuestInsn:
    """One instruction of a region. ``uops`` includes its condition; ``branches`` are the branch uops among them."""

    pc: Gva
    word: int
    insn: Insn
    uops: list[Uop]
    branches: tuple[Uop, ...]


@dataclass(slots=True)
class JumpTable:
    """A jump whose target is loaded from a table of constants. ``places`` maps each value of ``index`` to its
    target.
    """

    index: Uop
    places: dict[int, Place]


@dataclass(slots=True)
class Block:
    """Straight-line code that control enters at its head only.

    ``branches`` maps each branch uop of the last instruction to its possible targets, the likeliest first. ``next`` is
    the block that follows if no branch is taken. ``back`` is the place to which a call returns that is not followed.
    ``constants`` maps loads to their known values. ``tables`` maps loads of the last instruction to the jump tables
    that they read. ``words`` has the guest words, by address, that constants and tables were read from. ``calls_out``
    has the callees that are not followed, with the reasons.
    """

    place: Place
    insns: list[GuestInsn] = field(default_factory=list)
    branches: dict[Uop, tuple[Place, ...]] = field(default_factory=dict)
    next: Place | None = None
    back: Place | None = None
    constants: dict[Uop, int] = field(default_factory=dict)
    tables: dict[Uop, JumpTable] = field(default_factory=dict)
    words: dict[Gva, int] = field(default_factory=dict)
    calls_out: dict[Gva, str] = field(default_factory=dict)

    def successors(self) -> Iterator[Place]:
        """Yield the places to which control may go from here, as far as they are known."""
        for places in self.branches.values():
            yield from places
        for table in self.tables.values():
            yield from table.places.values()
        if self.next is not None:
            yield self.next
        if self.back is not None:
            yield self.back


@dataclass(slots=True)
class Region:
    """A control-flow graph of guest code.

    ``blocks`` has the blocks by place, that of the entry first. ``entries`` has the places where control may enter from
    outside, by address. ``left_out`` has the places that blocks lead to and the region does not contain, with the
    reasons.
    """

    entry: Gva
    blocks: dict[Place, Block]
    entries: dict[Gva, Place] = field(default_factory=dict)
    left_out: dict[Place, str] = field(default_factory=dict)

    @property
    def insns(self) -> int:
        """The number of instructions. Those of a block on several call paths count several times."""
        return sum(len(block.insns) for block in self.blocks.values())

    def code_words(self) -> dict[Gva, int]:
        """Return the instruction words that the region is made from, by address."""
        return {insn.pc: insn.word for block in self.blocks.values() for insn in block.insns}

    def words(self) -> dict[Gva, int]:
        """Return all guest words that the region is made from, by address: instructions and folded literals."""
        literals = {gva: word for block in self.blocks.values() for gva, word in block.words.items()}
        return literals | self.code_words()


def is_sensitive(block: list[Uop]) -> bool:
    """Return True if the threaded tier must execute it: it needs the hypervisor, or the page tables of another mode."""
    return any(
        uop.op == "exception"
        or (isinstance(uop.attr, Callout) and uop.attr.sensitive)
        or (isinstance(uop.attr, Access) and uop.attr.user)
        for uop in walk(block)
    )


def relative_value(uop: Uop, pc: Gva) -> int | None:
    """Return the value of a uop that depends only on the instruction's address, or None if it depends on more."""
    if uop.number is not None:
        return uop.number
    if uop.op == "pc":
        assert isinstance(uop.attr, int)
        return pc + uop.attr & 0xFFFFFFFF
    if uop.op in ("add", "sub"):
        a, b = (relative_value(arg, pc) for arg in uop.args)
        if a is not None and b is not None:
            return (a + b if uop.op == "add" else a - b) & 0xFFFFFFFF
    return None


def table_index(uop: Uop, pc: Gva) -> tuple[int, Uop] | None:
    """Return constant and register of an address of the form ``constant + (register << 2)``, or None for others."""
    if uop.op != "add":
        return None
    base, scaled = relative_value(uop.args[0], pc), uop.args[1]
    if base is None or scaled.op != "shl" or scaled.args[1].number != 2 or scaled.args[0].op != "get_reg":
        return None
    return base, scaled.args[0]


def _is_only_copy(calls: Context) -> bool:
    """Return True if code in this context is in the region once, and not once for each call path."""
    return not calls or (len(calls) == 1 and calls[0] & 3 == 1)


#: The instruction, its uops and the branches among these, by word; None for a word that is no instruction.
RecordedWords = dict[int, tuple[Insn, list[Uop], tuple[Uop, ...]] | None]


class RegionFormer:
    """Grows regions over the code that the guest has executed."""

    def __init__(
        self,
        decode: Decode,
        guest: Guest,
        optimizations: Optimizations = ALL,
        limits: Limits = Limits(),
        recorded: RecordedWords | None = None,
    ) -> None:
        """``recorded`` has the uops of words that were recorded before with the same ``decode``; others are added to
        it.
        """
        self._decode = decode
        self._guest = guest
        self._optimizations = optimizations
        self._limits = self._usual = limits
        self._recorded: RecordedWords = {} if recorded is None else recorded

    def _insn(self, pc: Gva) -> GuestInsn | None:
        """Return the instruction at ``pc`` if it has been executed, else None."""
        word = self._guest.executed(pc)
        if word is None:
            return None
        if word not in self._recorded:
            self._recorded[word] = self._record(word)
        known = self._recorded[word]
        return None if known is None else GuestInsn(pc, word, *known)

    def _record(self, word: int) -> tuple[Insn, list[Uop], tuple[Uop, ...]] | None:
        insn = self._decode(word)
        if insn is None:
            return None
        uops = insn.record_word(word)
        return insn, uops, branches_of(uops)

    def form(self, entry: Gva, limits: Limits | None = None) -> Region:
        """Return the region around ``entry``. It has no blocks if nothing can be compiled. ``limits`` replaces the
        usual ones.
        """
        self._limits = self._usual if limits is None else limits
        return _Forming(self, entry, self._find_heads(entry)).grow()

    def _find_heads(self, entry: Gva) -> set[Gva]:
        """Return the branch targets within reach. A block begins at each of them."""
        heads, seen, queue = {entry}, set[Gva](), deque([entry])
        while queue and len(seen) < self._limits.reach:
            pc = queue.popleft()
            while pc not in seen and (insn := self._insn(pc)) is not None:
                seen.add(pc)
                for uop in insn.branches:
                    target = relative_value(uop.args[0], pc)
                    for gva in self.observed(pc) if target is None else (Gva(target & ~3),):
                        heads.add(gva)
                        queue.append(gva)
                if insn.branches:
                    heads.add(Gva(pc + 4))
                    queue.append(Gva(pc + 4))
                    break
                pc = Gva(pc + 4)
        return heads

    def size(self, function: Gva) -> int:
        """Return the number of instructions of a function without its callees. Counting stops above
        ``Limits.copies``.
        """
        seen, queue = set[Gva](), [function]
        while queue and len(seen) <= self._limits.copies:
            pc = queue.pop()
            while pc not in seen and (insn := self._insn(pc)) is not None:
                seen.add(pc)
                for uop in insn.branches:
                    target = relative_value(uop.args[0], pc)
                    if target is not None and uop.attr is not BranchKind.CALL:
                        queue.append(Gva(target & ~3))
                if insn.branches and any(uop.op == "branch" and uop.attr is not BranchKind.CALL for uop in insn.uops):
                    break
                pc = Gva(pc + 4)
        return len(seen)

    def observed(self, pc: Gva) -> list[Gva]:
        """Return the observed targets of the indirect branch at ``pc``, in the order of their addresses."""
        return sorted(self._guest.targets(pc)) if self._optimizations.targets else []


class _Forming:
    """A region while it is being formed."""

    def __init__(self, former: RegionFormer, entry: Gva, heads: set[Gva]) -> None:
        self._former = former
        self._guest = former._guest
        self._optimizations = former._optimizations
        self._limits = former._limits
        self._heads = heads
        self._has_entries = self._optimizations.entries and self._limits.near is not None
        self._shares = self._optimizations.sharing and self._has_entries
        self.region = Region(entry, {})
        self._queue = deque([Place(entry)])
        # Of each context, the functions that it is in, and the places that its returns may go to.
        self._functions: dict[Context, set[Gva]] = {(): {entry}}
        self._returns: dict[Context, dict[Gva, Place]] = {(): {}}
        self._open_returns: list[tuple[Block, Uop]] = []

    def grow(self) -> Region:
        left = self._limits.reach
        while self._queue and left > 0:
            place = self._queue.popleft()
            if place in self.region.blocks:
                continue
            if self._is_elsewhere(place, self._limits.reach - left):
                self.region.left_out[place] = "another region is entered there"
                continue
            block = self._form_block(place, left)
            if block is None:
                self.region.left_out[place] = self._why_not(place.pc)
                continue
            self.region.blocks[place] = block
            left -= len(block.insns)
        for place in self._queue:
            if place not in self.region.blocks:
                self.region.left_out[place] = f"out of reach: {self._limits.reach} instructions were looked at"
        if Place(self.region.entry) not in self.region.blocks:
            self.region.blocks.clear()
            return self.region
        for place in self.region.blocks:
            if place.pc == self.region.entry:
                # The entry is in the midst of these functions, and so it is where nobody called.
                self._functions[()] |= self._functions[place.calls]
        for block, uop in self._open_returns:
            # What a return may go to is known when all calls are: first where the calls that led here came from,
            # then other callers of the function, which may have been the ones after all.
            calls = block.place.calls
            ways = dict(self._returns[calls])
            for other, functions in self._functions.items():
                if functions & self._functions[calls]:
                    ways = self._returns[other] | ways
            ways = self._returns[calls] | ways
            block.branches[uop] = tuple(ways.values())[: self._limits.targets]
        self._prune()
        self.region.entries = {self.region.entry: Place(self.region.entry)}
        if self._has_entries:
            for place in self._find_entries():
                self.region.entries.setdefault(place.pc, place)
        return self.region

    def _find_entries(self) -> Iterator[Place]:
        """Yield the further entries: functions, and the instructions after calls that are not followed.

        If another region has this code and control did not come to one of its entries, control will come to other
        places as well. Then the instructions after all calls, and loops, are entries too.
        """
        blocks, again = self.region.blocks, self._guest.covered(self.region.entry)
        for place, block in blocks.items():
            if not _is_only_copy(place.calls):
                continue
            if place.calls and place.pc == place.calls[0] - 1:
                yield place
            last = block.insns[-1]
            back = Place(Gva(last.pc + 4), place.calls)
            for uop in last.branches:
                outside = uop.attr is BranchKind.CALL and (again or blocks.keys().isdisjoint(block.branches[uop]))
                if outside and back in blocks:
                    yield back
            for successor in block.successors() if again else ():
                if successor.pc <= last.pc and successor.calls == place.calls and successor in blocks:
                    yield successor

    def _is_elsewhere(self, place: Place, insns: int) -> bool:
        """Return True if the place is left to another region that has an entry there, because it is not near the entry.

        ``insns`` is the number of instructions that the region has so far.
        """
        return (
            self._shares
            and insns >= (self._limits.near or 0)
            and place.pc != self.region.entry
            and _is_only_copy(place.calls)
            and self._guest.entered(place.pc)
        )

    def _prune(self) -> None:
        """Remove blocks beyond the limit, those nearest to the entry last. If the entry is in a loop, keep only the
        loop.

        Code after a loop is executed once for many iterations, and belongs to the region of the function.
        """
        blocks, entry = self.region.blocks, Place(self.region.entry)
        sources: dict[Place, list[Place]] = {}
        for place, block in blocks.items():
            for successor in block.successors():
                sources.setdefault(successor, []).append(place)
        loop, queue = set[Place](), list(sources.get(entry, ()))
        while queue:
            place = queue.pop()
            if place not in loop:
                loop.add(place)
                queue.extend(sources.get(place, ()))
        if entry not in loop:
            loop = set()  # what leads to the entry again begins after a call whose return is out of reach
        left = self._limits.insns
        for place, block in list(blocks.items()):
            left -= len(block.insns)
            if left < 0 or (loop and place not in loop):
                del blocks[place]
                full = f"the region is full: {self._limits.insns} instructions"
                self.region.left_out[place] = full if left < 0 else "it does not lead back to the loop's head"

    def _why_not(self, pc: Gva) -> str:
        """Return the reason why no block begins at an address."""
        insn = self._former._insn(pc)
        if insn is None:
            return "not executed before the region was formed, or undefined"
        return f"sensitive instruction: {insn.insn.name}" if is_sensitive(insn.uops) else "the block has no room"

    def _form_block(self, place: Place, room: int) -> Block | None:
        block = Block(place)
        pc = place.pc
        most = self._limits.block if self._optimizations.blocks else 1
        while len(block.insns) < min(most, room):
            insn = self._former._insn(pc)
            if insn is None or is_sensitive(insn.uops):
                break
            block.insns.append(insn)
            self._fold_loads(block, insn)
            if self._follow(block, insn):
                return block
            pc = Gva(pc + 4)
            if pc in self._heads:
                break
        if not block.insns:
            return None
        block.next = self._enqueue(Place(pc, place.calls))
        return block

    def _enqueue(self, place: Place) -> Place:
        self._queue.append(place)
        return place

    # -- loads of constants --------------------------------------------------------------------

    def _fold_loads(self, block: Block, insn: GuestInsn) -> None:
        """Note the loads of an instruction whose values are constants, and those that read jump tables."""
        for uop in walk(insn.uops, into_loops=False):
            if uop.op != "load":
                continue
            assert isinstance(uop.attr, Access)
            address = relative_value(uop.args[0], insn.pc)
            if self._optimizations.literals and address is not None and uop.attr.size == 4:
                literal = Gva(address)
                word = self._guest.constant(literal)
                if word is not None:
                    block.constants[uop] = word
                    block.words[literal] = word
            elif self._optimizations.tables and any(branch.args[0] is uop for branch in insn.branches):
                self._read_table(block, insn, uop)

    def _read_table(self, block: Block, insn: GuestInsn, load: Uop) -> None:
        """Note the jump table that a load reads, as far as its entries lead to code that has been executed."""
        found = table_index(load.args[0], insn.pc)
        if found is None or any(uop.op == "set_reg" for uop in insn.uops):
            return
        base, index = found
        table = JumpTable(index, {})
        for number in range(self._limits.table):
            slot = Gva(base + 4 * number)
            word = self._guest.constant(slot)
            if word is None or word & 3 or not -1 << 20 < word - insn.pc < 1 << 20:
                break
            target = Gva(word)
            if self._former._insn(target) is not None:
                table.places[number] = self._enqueue(Place(target, block.place.calls))
                block.words[slot] = word
        if table.places:
            block.tables[load] = table

    # -- branches ------------------------------------------------------------------------------

    def _follow(self, block: Block, last: GuestInsn) -> bool:
        """Note the targets of a branch instruction in the block. Return False if the instruction has no branch."""
        found = False
        for uop in last.branches:
            found = True
            target = self._static_target(block, uop, last.pc)
            targets = self._former.observed(last.pc) if target is None else [target]
            if uop.attr is BranchKind.CALL:
                places = [self._call(block, gva, Gva(last.pc + 4)) for gva in targets[: self._limits.targets]]
                block.branches[uop] = tuple(place for place in places if place is not None)
            elif target is not None:
                block.branches[uop] = (self._enqueue(Place(target, block.place.calls)),)
            elif not any(load is uop.args[0] for load in block.tables):
                self._follow_indirect(block, uop, targets)
        if found and not ends_path(last.uops):
            block.next = self._enqueue(Place(Gva(last.pc + 4), block.place.calls))
        return found

    @staticmethod
    def _static_target(block: Block, uop: Uop, pc: Gva) -> Gva | None:
        """Return the target of a branch that is relative to the PC or comes from a literal, else None.

        An odd literal leads to Thumb code; the instruction has left the region before it branches.
        """
        target = relative_value(uop.args[0], pc)
        if target is None:
            target = block.constants.get(uop.args[0])
        return None if target is None else Gva(target & 0xFFFFFFFC)

    def _call(self, block: Block, target: Gva, back: Gva) -> Place | None:
        """Return the place of a callee, and note where it returns to. Return None if the call is not followed."""
        calls = block.place.calls
        if not self._optimizations.calls:
            block.calls_out[target] = "calls are not followed"
            return None
        if self._optimizations.recursion:
            for depth in range(len(calls), -1, -1):
                if target in self._functions[calls[:depth]]:
                    self._returns[calls[:depth]].setdefault(back, self._enqueue(Place(back, calls)))
                    return self._enqueue(Place(target, calls[:depth]))
        if self._former.size(target) <= self._limits.copies and len(calls) < self._limits.depth:
            inside: Context = (*calls, back)
        elif self._shares and self._guest.entered(target):
            block.back = self._enqueue(Place(back, calls))
            block.calls_out[target] = "another region is entered there, and control comes back from it"
            return None
        else:
            inside = (target + 1,)
            self._enqueue(Place(back, calls))
        self._functions.setdefault(inside, set()).add(target)
        self._returns.setdefault(inside, {}).setdefault(back, Place(back, calls))
        return self._enqueue(Place(target, inside))

    def _follow_indirect(self, block: Block, uop: Uop, observed: list[Gva]) -> None:
        """Note the targets of an indirect branch, which is a return or a jump to one of several places."""
        calls = block.place.calls
        known = self._returns[calls]
        returns = uop.attr is BranchKind.RETURN or not observed or not known.keys().isdisjoint(observed)
        if returns and self._optimizations.calls:
            self._open_returns.append((block, uop))
            for back in known.values():
                self._enqueue(back)
        if not returns:
            block.branches[uop] = tuple(self._enqueue(Place(gva, calls)) for gva in observed[: self._limits.targets])
