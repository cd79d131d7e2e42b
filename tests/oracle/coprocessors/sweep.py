"""Every access to coprocessors 14 and 15: who may make it, what it reads, and which bits a write changes, as text.

mrc p15, 0, c1, c0, 0: svc 0xc50078           readable in supervisor mode, not in user mode; what it is at reset
mcr p15, 0, c7, c5, 4: svc usr                writable in both
set p15, 0, c2, c0, 2: 0xffffffff -> 0x7      what stays of all ones
mrrc p15, 2, c14: svc 0x0 0x0                 both words
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

from tests.oracle.coprocessors.program import SUPERVISOR, SUPERVISOR_CALL, USER, Outcome, Trial

_ONES = 0xFFFFFFFF
_TO_USER_MODE = 0xE321F0D0  # msr cpsr_c, #0xd0
#: Runs trials from the reset on and returns their outcomes.
Run = Callable[[Sequence[Trial]], list[Outcome]]


class Place(NamedTuple):
    """A register: of MRC and MCR, or of MRRC and MCRR, which have neither CRn nor opc2."""

    coprocessor: int
    opc1: int
    crm: int
    crn: int | None = None
    opc2: int | None = None

    def __str__(self) -> str:
        if self.crn is None:
            return f"p{self.coprocessor}, {self.opc1}, c{self.crm}"
        return f"p{self.coprocessor}, {self.opc1}, c{self.crn}, c{self.crm}, {self.opc2}"

    @property
    def is_wide(self) -> bool:
        return self.crn is None

    def word(self, load: bool, register: int) -> int:
        """Return the instruction that reads the place to a register, or writes it from there; a wide one, from two."""
        fields = self.coprocessor << 8 | register << 12 | self.crm
        if self.crn is None or self.opc2 is None:
            return 0xEC400000 | load << 20 | register + 1 << 16 | self.opc1 << 4 | fields
        return 0xEE000010 | load << 20 | self.opc1 << 21 | self.crn << 16 | self.opc2 << 5 | fields


PLACES = (
    *(Place(cp, opc1, crm, crn, opc2) for cp in (14, 15) for opc1 in range(8) for crn in range(16)
      for crm in range(16) for opc2 in range(8)),
    *(Place(cp, opc1, crm) for cp in (14, 15) for opc1 in range(16) for crm in range(16)),
)  # fmt: skip
#: Writing zero or ones to these would take the program away from where it is.
_SCTLR, _VBAR = Place(15, 0, 0, 1, 0), Place(15, 0, 0, 12, 0)
#: What these read as depends on the time: CNTPCT, CNTVCT, CNTP_TVAL and CNTV_TVAL.
_TIME = (Place(15, 0, 14), Place(15, 1, 14), Place(15, 0, 2, 14, 0), Place(15, 0, 3, 14, 0))
#: These bits of SCTLR are changed one by one: all but M, B, V, EE and TE.
_SCTLR_BITS = tuple(bit for bit in range(32) if bit not in (0, 7, 13, 25, 30))


def sweep(run: Run, places: Sequence[Place] = PLACES) -> Iterator[str]:
    """Yield a line for each access that is there, and for what a write changes."""
    readable = yield from _reads(run, places)
    writable = yield from _writes(run, [place for place in places if place not in (_SCTLR, _VBAR)])
    changing = [place for place in readable if place in writable]
    yield from _changes(run, changing)
    if _SCTLR in places:
        yield from _control(run)
    yield from _permissions(run, places)


def _reads(run: Run, places: Sequence[Place]) -> Generator[str, None, list[Place]]:
    found = []
    trials = [Trial((place.word(True, 0),), mode) for place in places for mode in (SUPERVISOR, USER)]
    outcomes = run(trials)
    for place, kernel, user in zip(places, outcomes[::2], outcomes[1::2], strict=True):
        who = _who(kernel, user)
        if who:
            found.append(place)
            seen = kernel if kernel.event == SUPERVISOR_CALL else user
            values = _values(place, seen.registers)
            yield f"{'mrrc' if place.is_wide else 'mrc'} {place}: {who} {values}"
    return found


def _writes(run: Run, places: Sequence[Place]) -> Generator[str, None, list[Place]]:
    found = []
    trials = [Trial((place.word(False, 0),), mode) for place in places for mode in (SUPERVISOR, USER)]
    outcomes = run(trials)
    for place, kernel, user in zip(places, outcomes[::2], outcomes[1::2], strict=True):
        who = _who(kernel, user)
        if who:
            found.append(place)
            yield f"{'mcrr' if place.is_wide else 'mcr'} {place}: {who}"
    return found


def _values(place: Place, registers: Sequence[int]) -> str:
    if place in _TIME:
        return "time"
    return " ".join(f"{value:#x}" for value in registers[: 1 + place.is_wide])


def _who(kernel: Outcome, user: Outcome) -> str:
    return " ".join(name for name, outcome in (("svc", kernel), ("usr", user)) if outcome.event == SUPERVISOR_CALL)


def _changes(run: Run, places: Sequence[Place]) -> Iterator[str]:
    """Write ones and read back, in one trial, which also clears the register."""
    zero = 0xE0200000  # eor r0, r0, r0
    trials = [
        Trial((place.word(False, 0), place.word(True, 2), zero, place.word(False, 0)), registers=(_ONES, _ONES, 0, 0))
        for place in places
    ]
    for place, outcome in zip(places, run(trials), strict=True):
        yield f"set {place}: {_ONES:#x} -> {_values(place, outcome.registers[2:])}"


def _control(run: Run) -> Iterator[str]:
    read, write = _SCTLR.word(True, 0), _SCTLR.word(False, 1)
    (reset,) = run([Trial((read,))])
    value = reset.registers[0]
    trials = [
        Trial((write, read, _SCTLR.word(False, 2)), registers=(0, value ^ 1 << bit, value, 0)) for bit in _SCTLR_BITS
    ]
    outcomes = run(trials)
    for bit, outcome in zip(_SCTLR_BITS, outcomes, strict=True):
        changed = "changes" if outcome.registers[0] == value ^ 1 << bit else "stays"
        yield f"set {_SCTLR}: bit {bit} {changed}"


class Permission(NamedTuple):
    """A register whose bits say what user mode may access, how many are tried, and which places they are about."""

    control: Place
    bits: int
    governs: Callable[[Place], bool]


_MONITORS_OF_C14 = 8  # CRm of the first of them; before these comes the generic timer
_PERMISSIONS = (
    Permission(
        Place(15, 0, 1, 14, 0),  # CNTKCTL
        10,
        lambda place: place.coprocessor == 15 and 14 in (place.crn, place.is_wide and place.crm),
    ),
    Permission(
        Place(15, 0, 14, 9, 0),  # PMUSERENR
        4,
        lambda place: (
            place.coprocessor == 15 and (place.crn == 9 or (place.crn == 14 and place.crm >= _MONITORS_OF_C14))
        ),
    ),
    Permission(
        Place(14, 6, 0, 0, 0),  # TEECR
        1,
        lambda place: place.coprocessor == 14 and place.opc1 == 6,
    ),
)


def _permissions(run: Run, places: Sequence[Place]) -> Iterator[str]:
    """Yield what user mode may access with none of a register's bits, and with each of them alone."""
    for control, bits, governs in _PERMISSIONS:
        governed = [place for place in places if governs(place)]
        for bit, load in itertools.product((None, *range(bits)), (True, False)):
            value = 0 if bit is None else 1 << bit
            set_and_leave = control.word(False, 2), _TO_USER_MODE
            trials = [Trial((*set_and_leave, place.word(load, 0)), registers=(0, 0, value, 0)) for place in governed]
            for place, outcome in zip(governed, run(trials) if trials else (), strict=True):
                if outcome.event == SUPERVISOR_CALL:
                    condition = "no bit" if bit is None else f"bit {bit}"
                    yield f"user {'reads' if load else 'writes'} {place}: if {condition} of {control}"


def place_of(line: str) -> str:
    """Return the place that a line is about."""
    return line.partition(":")[0].partition("p1")[2].join(("p1", ""))


def places_of(lines: Sequence[str]) -> list[Place]:
    """Return the places that lines are about, each once."""
    by_text = {str(place): place for place in PLACES}
    return [by_text[text] for text, _ in itertools.groupby(sorted(map(place_of, lines)))]
