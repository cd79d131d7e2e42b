"""The checks of memory accesses that a region can do without, where all RAM is in one place (without an MMU).

An address that may be accessed once may be accessed as long as control is in native code: an entry of the shadow page
tables that is filled changes only outside of it. So what was checked by a register need not be checked again by it.
What is known moves along where a constant is added to the register, or the sum is put into another one. This is the
analysis of available expressions (Aho, Lam, Sethi and Ullman, "Compilers", section 9.2.6), of bytes in place of
expressions.

Loops access the frame of their function in each turn. A check within the loop is not known in the first turn, and so
it is made before the loop, and where control comes back to it from a callee that is in the region once for several
callers. That is done for the stack pointer alone: its frame can be accessed although no access may follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dbt.abi.addresses import Gva
from dbt.backend.spans import WIDEST, Alignment, Span, Spans, displacement
from dbt.frontend.forming import Block, Place, Region
from dbt.frontend.graph import Graph, graph_of, headed_loops, search, sources_of
from isa.arm.operands import SP
from isa.ir.queries import registers_written
from isa.ir.uop import Access, BranchKind, Uop

#: Returns the spans of a block.
SpansOf = Callable[[Block], Spans]
#: Bytes are known from so many in front of a register's address to as many behind it.
_REACH = WIDEST
_ALL = (1 << 2 * _REACH) - 1


def _bits(low: int, high: int) -> int:
    """Return the bits of bytes ``low`` to ``high`` (not included), 0 if one of them is out of reach."""
    return 0 if low < -_REACH or high > _REACH else (1 << high - low) - 1 << low + _REACH


class Check(NamedTuple):
    """Bytes from a register + ``low`` to + ``high`` (not included) may be accessed by ``op``, a load or a store.

    The register + low is a multiple of ``align``.
    """

    op: str
    low: int
    high: int
    align: int


class Known(NamedTuple):
    """What is known of a register: which bytes around its address may be loaded and stored, as bits, and that the
    register + ``phase`` is a multiple of ``align``.
    """

    loads: int = 0
    stores: int = 0
    align: int = 1
    phase: int = 0

    def moved(self, distance: int) -> Known:
        """Return what is known of the register plus a constant."""
        if abs(distance) > 2 * _REACH:
            loads = stores = 0
        elif distance >= 0:
            loads, stores = self.loads >> distance, self.stores >> distance
        else:
            loads, stores = self.loads << -distance & _ALL, self.stores << -distance & _ALL
        return Known(loads, stores, self.align, (self.phase - distance) % self.align)

    def meet(self, other: Known) -> Known:
        """Return what both of two paths know."""
        align = min(self.align, other.align)
        while (self.phase - other.phase) % align:
            align //= 2
        return Known(self.loads & other.loads, self.stores & other.stores, align, self.phase % align)

    def checked(self, check: Check) -> Known:
        """Return what is known after a check."""
        bits = _bits(check.low, check.high)
        align, phase = self.align, self.phase
        if check.align > align:
            align, phase = check.align, check.low % check.align
        return Known(self.loads | bits, self.stores | bits if check.op == "store" else self.stores, align, phase)

    def covers(self, check: Check) -> bool:
        """Return True if a check would find nothing new."""
        bits = _bits(check.low, check.high)
        known = self.stores if check.op == "store" else self.loads
        aligned = check.align <= self.align and (check.low - self.phase) % check.align == 0
        return bits != 0 and bits & ~known == 0 and aligned


#: By register, what is known of it.
Facts = Mapping[int, Known]
_NOTHING = Known()


@dataclass(frozen=True, slots=True)
class _Step:
    """What an instruction means for the analysis: its checks, and what it writes to registers.

    ``checks`` has the register, the check, its uop, and whether it is made whenever control comes here. ``moves`` says
    of which register's value, plus a constant, a register becomes the sum. ``written`` has all that are written.
    """

    index: int
    checks: list[tuple[int, Check, Uop, bool]]
    moves: dict[int, tuple[int, int]]
    written: set[int]


@dataclass(frozen=True, slots=True)
class AccessChecks:
    """``needless`` has the accesses that need no check: their block, the position of the instruction, and the uop.
    ``ahead`` has the checks by the stack pointer between one block, or None outside of the region, and the next.
    """

    needless: frozenset[tuple[Place, int, Uop]] = frozenset()
    ahead: Mapping[tuple[Place | None, Place], Check] = field(default_factory=dict)


def find_access_checks(region: Region, spans: SpansOf, alignment: Alignment, inlined: set[Place]) -> AccessChecks:
    """Return what can be spared in a region, whose blocks have these spans. Blocks of ``inlined`` are lowered as parts
    of others.
    """
    steps = {place: _steps(block, spans(block), alignment) for place, block in region.blocks.items()}
    graph = graph_of(region)
    ahead = _checks_ahead(region, graph, steps, inlined)
    needless = set[tuple[Place, int, Uop]]()
    behind: dict[Place | None, dict[int, Known]] = {None: {}}
    for place, before in _available(region, graph, steps, ahead).items():
        facts = behind[place] = dict(before)
        needless.update(
            (place, index, uop) for index, uop, check, known in _follow(steps[place], facts) if known.covers(check)
        )
    needed = {
        edge: check
        for edge, check in ahead.items()
        if edge[0] in behind and not behind[edge[0]].get(SP, _NOTHING).covers(check)
    }
    return AccessChecks(frozenset(needless), needed)


def _steps(block: Block, spans: Spans, alignment: Alignment) -> list[_Step]:
    """Return what matters of the instructions of a block."""
    begun, found = set[int](), []
    for index, insn in enumerate(block.insns):
        checks = []
        for uop, is_sure in _all_accesses(insn.uops):
            if uop in block.constants or uop in block.tables:  # which are loaded from nowhere, or not always
                continue
            span = spans.get((index, uop))
            if span is None:
                check = _single(uop, alignment)
                if check is not None:
                    checks.append((*check, uop, is_sure))
            elif id(span) not in begun:
                begun.add(id(span))
                checks.append((span.base, Check(uop.op, span.low, span.high, span.align), uop, True))
        written = registers_written(insn.uops)
        if checks or written:
            found.append(_Step(index, checks, _moves(insn.uops) if written else {}, written))
    return found


def _all_accesses(uops: list[Uop], is_sure: bool = True) -> Iterator[tuple[Uop, bool]]:
    """Yield the accesses of an instruction, and whether they are made in any case. Those of loops are not: a loop that
    always makes its accesses is a span.
    """
    for uop in uops:
        if uop.op in ("load", "store"):
            yield uop, is_sure
        elif uop.body:
            yield from _all_accesses(uop.body, False)


def _single(uop: Uop, alignment: Alignment) -> tuple[int, Check] | None:
    """Return the register and the check of an access for itself, or None if it is by more than a register."""
    assert isinstance(uop.attr, Access)
    place = displacement(uop.args[0])
    if place is None:
        return None
    base, low = place
    return base, Check(uop.op, low, low + uop.attr.size, alignment(uop.attr))


def _moves(uops: list[Uop]) -> dict[int, tuple[int, int]]:
    """Return the registers that become the sum of a register, as it was before the instruction, and a constant."""
    found: dict[int, tuple[int, int]] = {}
    for uop in uops:
        if uop.op == "set_reg" and (number := uop.args[0].number) is not None:
            place = displacement(uop.args[1])
            if place is not None and number not in registers_written(other for other in uops if other is not uop):
                found[number] = place
    return found


def _follow(steps: list[_Step], facts: dict[int, Known]) -> Iterator[tuple[int, Uop, Check, Known]]:
    """Go through a block, and yield its checks, each with what is known of its register there. Keep ``facts``."""
    for step in steps:
        for base, check, uop, is_sure in step.checks:
            known = facts.get(base, _NOTHING)
            yield step.index, uop, check, known
            if is_sure:
                facts[base] = known.checked(check)
        if step.written:
            moved = {to: facts[base].moved(more) for to, (base, more) in step.moves.items() if base in facts}
            for number in step.written:
                facts.pop(number, None)
            facts.update(moved)


def _behind(steps: list[_Step], facts: Facts) -> Facts:
    """Return what is known behind a block."""
    found = dict(facts)
    for _ in _follow(steps, found):
        pass
    return found


def _available(
    region: Region,
    graph: Graph,
    steps: Mapping[Place, list[_Step]],
    ahead: Mapping[tuple[Place | None, Place], Check],
) -> dict[Place, Facts]:
    """Return what is known before each block to which control can come."""

    def checked(facts: Facts, source: Place | None, place: Place) -> Facts:
        check = ahead.get((source, place))
        return facts if check is None else {**facts, SP: facts.get(SP, _NOTHING).checked(check)}

    before: dict[Place, Facts] = {}
    entries = list(region.entries.values())
    order = list(reversed(search(graph, entries).left))
    waiting = set(entries)
    for place in entries:
        before[place] = checked({}, None, place)
    while waiting:
        for place in order:
            if place not in waiting:
                continue
            waiting.discard(place)
            facts = _behind(steps[place], before[place])
            for to in graph[place]:
                new = checked(facts, place, to)
                if to in before:
                    old = before[to]
                    new = {number: old[number].meet(known) for number, known in new.items() if number in old}
                    if new == old:
                        continue
                before[to] = new
                waiting.add(to)
    return before


# -- before loops ----------------------------------------------------------------------------------


def _checks_ahead(
    region: Region, graph: Graph, steps: Mapping[Place, list[_Step]], inlined: set[Place]
) -> dict[tuple[Place | None, Place], Check]:
    """Return the checks of stack frames, by the edges where control comes to a loop or comes back to it.

    Of nested loops, the outermost is the one that counts, unless its accesses are too far from each other.
    """
    within = _within_functions(region)
    sources: dict[Place, list[Place | None]] = {place: [*found] for place, found in sources_of(graph).items()}
    for place in region.entries.values():
        sources[place].append(None)
    found: dict[tuple[Place | None, Place], Check] = {}
    done = set[Place]()
    for head, loop in headed_loops(within):
        if head in done:
            continue
        frame = _frame(head, loop, within, steps)
        if frame is None:
            continue
        check, positions = frame
        edges = {
            (source, place): _moved(check, -positions[place])
            for place in loop
            for source in sources[place]
            if source is None or source not in loop or place not in within[source]
        }
        if inlined.isdisjoint(place for edge in edges for place in edge if place is not None):
            found.update(edges)
            done |= loop
    return found


def _moved(check: Check, distance: int) -> Check:
    return check._replace(low=check.low + distance, high=check.high + distance)


def _within_functions(region: Region) -> Graph:
    """Return the graph of the region's blocks, as if a callee that is in the region once for several callers were in
    none of their loops: from the call control goes on behind it, and from its return to nowhere.
    """
    found: dict[Place, list[Place]] = {}
    for place, block in region.blocks.items():
        successors = [] if block.next is None else [block.next]
        for uop, places in block.branches.items():
            if uop.attr is BranchKind.CALL:
                back = Gva(block.insns[-1].pc + 4)
                copies = [to for to in places if to.calls == (*place.calls, back)]
                successors += copies or [Place(back, place.calls)]
            elif uop.attr is BranchKind.RETURN:
                successors += [to for to in places if (*to.calls, to.pc) == place.calls]
            else:
                successors += places
        for table in block.tables.values():
            successors += table.places.values()
        found[place] = [to for to in dict.fromkeys(successors) if to in region.blocks]
    return found


def _frame(
    head: Place, loop: Collection[Place], graph: Graph, steps: Mapping[Place, list[_Step]]
) -> tuple[Check, dict[Place, int]] | None:
    """Return one check for all accesses of a loop by the stack pointer, as it is at the head, and how much it has
    changed from there to each block. None if there is no such access, or if the stack pointer is another one in the
    next turn.

    What follows the loop, such as the end of the function, is part of the check where it is near: it costs no more.
    """
    walk = _FrameWalk(graph, steps, {head: 0})
    if not walk.go([head], loop) or walk.span is None:
        return None
    walk.go(loop, None)
    return Check(walk.op, walk.span.low, walk.span.high, walk.span.align), walk.positions


@dataclass(slots=True)
class _FrameWalk:
    """``positions`` has how much the stack pointer has changed from the first block to others, ``span`` what is
    accessed by it, and ``op`` is what it is checked for.
    """

    graph: Graph
    steps: Mapping[Place, list[_Step]]
    positions: dict[Place, int]
    span: Span | None = None
    op: str = "load"

    def go(self, places: Collection[Place], within: Collection[Place] | None) -> bool:
        """Go through blocks and what follows them, ``within`` a loop if it is given. Return False if an access is too
        far from others, the stack pointer is not known, or a block has it at two positions. Such are left out.
        """
        queue, simple = list(places), True
        seen = set(places)
        while queue:
            place = queue.pop()
            position = self._pass(place)
            if position is None:
                simple = False
                continue
            for to in self.graph[place]:
                if within is not None and to not in within:
                    continue
                if self.positions.setdefault(to, position) != position:
                    simple = False
                elif to not in seen:
                    seen.add(to)
                    queue.append(to)
        return simple

    def _pass(self, place: Place) -> int | None:
        """Take in the accesses of a block. Return the position behind it, or None if it is not known or one of the
        accesses is too far from others.
        """
        position, fits = self.positions[place], True
        for step in self.steps[place]:
            for base, check, _, _ in step.checks:
                if base == SP:
                    fits = self._add(_moved(check, position)) and fits
            if SP in step.written:
                if SP not in step.moves or step.moves[SP][0] != SP:
                    return None
                position += step.moves[SP][1]
        return position if fits else None

    def _add(self, check: Check) -> bool:
        if self.span is None:
            self.span = Span(SP, check.low, check.high, check.align)
        elif not self.span.add(check.low, check.high, check.align):
            return False
        if check.op == "store":
            self.op = "store"
        return True
