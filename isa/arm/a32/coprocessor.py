"""Registers of coprocessors: how a row of a table becomes the instructions that read and write a register.

A place may have several rows, for versions of the architecture that no two of them share. In the versions of none it is
an undefined instruction, as is a place without a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from types import SimpleNamespace

from isa.arm.a32.registry import insn
from isa.arm.operands import PC
from isa.arm.recorder import Recorder
from isa.arm.state import Architecture
from isa.ir.uop import Uop

READ, WRITE = "r", "w"
#: Versions before this one are those of :class:`isa.arm.state.Architecture` that no processor here has alone.
OLDEST = 4

Place = tuple[int, int, int, int]  # opc1, CRn, CRm, opc2
Write = Callable[[Recorder, Uop], None]
Condition = Callable[[Recorder], Uop]


@dataclass(frozen=True, slots=True)
class Register:
    """A register of a coprocessor. ``place`` is opc1, CRn, CRm and opc2.

    - ``word``: the word of the state that holds it, of which a write changes the ``writable`` bits. ``name+n`` is
      element n of an array. A register without a word reads as ``value`` and ignores writes.
    - ``access``: what privileged code may do. ``user``: what user mode may do, from architecture ``user_since`` on, and
      if the condition ``user_if`` holds.
    - ``since``: the first architecture that has it. ``until``: the last one. ``absent``: those between that do not.
    - ``exists``: a condition without which the register is undefined, because of what the processor's model says.
    - ``read``: a function that gives the value in place of the word. ``write``: one that does the write in place of
      storing the value. ``after``: the callout that follows a write.
    """

    name: str
    place: Place
    word: str = ""
    value: int = 0
    writable: int = 0xFFFFFFFF
    access: str = READ + WRITE
    user: str = ""
    user_since: int = OLDEST
    user_if: Condition | None = None
    since: int = OLDEST
    until: int = max(Architecture)
    absent: Collection[Architecture] = ()
    exists: Condition | None = None
    read: Condition | None = None
    write: Write | None = None
    after: str = ""
    coprocessor: int = 15

    @property
    def architectures(self) -> frozenset[Architecture]:
        """The versions that have it."""
        return frozenset(each for each in Architecture if self.since <= each <= self.until and each not in self.absent)


def pattern(place: Place, load: int, coprocessor: int = 15) -> str:
    """Return the pattern of MRC (``load`` = 1) or MCR."""
    opc1, crn, crm, opc2 = place
    return f"cond:4 1110 {opc1:03b} {load} {crn:04b} rt:4 {coprocessor:04b} {opc2:03b} 1 {crm:04b}"


def syntax(name: str, place: Place, coprocessor: int = 15) -> str:
    """Return the assembly syntax of MRC or MCR."""
    opc1, crn, crm, opc2 = place
    return f"{name}{{<c>}} p{coprocessor}, {opc1}, <Rt>, c{crn}, c{crm}, {opc2}"


def require_architecture(u: Recorder, architectures: Collection[Architecture], since: int) -> None:
    """Raise an undefined instruction unless the version, ``since`` or a later one, is in ``architectures``."""
    missing = [each for each in Architecture if each >= since and each not in architectures]
    if missing:
        with u.when(_is_one_of(u, missing)):
            u.undefined()


def _is_one_of(u: Recorder, architectures: Iterable[Architecture]) -> Uop:
    architecture = u.get("architecture")
    return reduce(or_, (architecture == int(each) for each in sorted(architectures)))


def _require_access(u: Recorder, register: Register, access: str) -> None:
    if register.exists is not None:
        with u.when(~register.exists(u)):
            u.undefined()
    if access not in register.user:
        u.callout("require_privilege")
        return
    if register.user_if is not None:
        with u.when(~register.user_if(u)):
            u.callout("require_privilege")
    if register.user_since > register.since:
        with u.when(u.get("architecture").ult(register.user_since)):
            u.callout("require_privilege")


def _value(u: Recorder, register: Register) -> Uop:
    if register.read is not None:
        return register.read(u)
    if not register.word:
        return u.const(register.value)
    word, _, element = register.word.partition("+")
    return u.get_at(word, int(element)) if element else u.get(word)


def _store(u: Recorder, register: Register, value: Uop) -> None:
    if register.write is not None:
        register.write(u, value)
    elif register.word:
        old = _value(u, register)
        new = old & (~register.writable & 0xFFFFFFFF) | value & register.writable
        word, _, element = register.word.partition("+")
        if element:
            u.set_at(word, int(element), new)
        else:
            u.set(word, new)
    if register.after:
        u.callout(register.after)


class _Place:
    """A place, with the registers that are there, each in versions of its own, and the access ``kind`` to it."""

    def __init__(self, rows: list[Register], kind: str) -> None:
        self.rows = [row for row in rows if kind in row.access + row.user]
        self._kind = kind
        found = [each for row in self.rows for each in row.architectures]
        self._all = frozenset(found)
        if len(found) != len(self._all):
            raise ValueError(f"{rows[0].name} is there twice in one version of the architecture")
        self.since = min((row.since for row in self.rows), default=OLDEST)

    def check(self, u: Recorder) -> None:
        """Raise an undefined instruction if nobody or not this mode may make the access."""
        require_architecture(u, self._all, self.since)
        if len(self.rows) == 1:
            _require_access(u, self.rows[0], self._kind)
            return
        for row in self.rows:
            with u.when(_is_one_of(u, row.architectures)):
                _require_access(u, row, self._kind)

    def read(self, u: Recorder) -> Uop:
        value = _value(u, self.rows[0])
        for row in self.rows[1:]:
            value = u.select(_is_one_of(u, row.architectures), _value(u, row), value)
        return value

    def write(self, u: Recorder, value: Uop) -> None:
        if len(self.rows) == 1:
            _store(u, self.rows[0], value)
            return
        for row in self.rows:
            with u.when(_is_one_of(u, row.architectures)):
                _store(u, row, value)


def _define(rows: list[Register]) -> None:
    name, place, coprocessor = rows[0].name, rows[0].place, rows[0].coprocessor
    reads, writes = _Place(rows, READ), _Place(rows, WRITE)
    if reads.rows:

        @insn(pattern(place, 1, coprocessor), name=f"MRC ({name})", syntax=syntax("MRC", place, coprocessor),
              section="A8.8.107", forms=("rt==15",), since=reads.since)  # fmt: skip
        def mrc(u: Recorder, f: SimpleNamespace) -> None:
            reads.check(u)
            value = reads.read(u)
            if f.rt == PC:  # the four flags from the top bits
                u.n, u.z, u.c, u.v = (value.bit(number) for number in (31, 30, 29, 28))
            else:
                u.reg[f.rt] = value

    if writes.rows:

        @insn(pattern(place, 0, coprocessor), name=f"MCR ({name})", syntax=syntax("MCR", place, coprocessor),
              section="A8.8.98", since=writes.since)  # fmt: skip
        def mcr(u: Recorder, f: SimpleNamespace) -> None:
            writes.check(u)
            writes.write(u, u.reg[f.rt])


def define_registers(rows: Iterable[Register]) -> None:
    """Define MRC and MCR of the registers in a table."""
    places: dict[tuple[int, Place], list[Register]] = defaultdict(list)
    for row in rows:
        places[row.coprocessor, row.place].append(row)
    for held in places.values():
        _define(held)
