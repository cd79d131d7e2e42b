"""Accesses to the generic timer whose answers do not depend on how fast time passes, as text.

physical compare 0xffffffff00000000, control 0x7: reads 0x3
virtual value 0x80000000: compares with the count and -0x80000000, a moment ago
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from tests.oracle.coprocessors.program import SUPERVISOR_CALL, Outcome, Trial
from tests.oracle.coprocessors.sweep import Place, Run

#: CompareValue, TimerValue and Control of each timer, and the count.
_TIMERS = {
    "physical": (Place(15, 2, 14), Place(15, 0, 2, 14, 0), Place(15, 0, 2, 14, 1)),
    "virtual": (Place(15, 3, 14), Place(15, 0, 3, 14, 0), Place(15, 0, 3, 14, 1)),
}
_COUNT = Place(15, 1, 14)
_COMPARED = (0, 1, 0x7FFFFFFF00000000, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF00000000)
_VALUES = (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x40000000, 0)
_CONTROLS = (*range(8), 0xFFFFFFFF)
#: At 62.5 MHz, a second: more than any emulator takes for two instructions.
_MOMENT = 62_500_000


def answers(run: Run) -> Iterator[str]:
    """Yield a line for each combination."""
    yield from _conditions(run)
    yield from _values(run)


def _outcomes(run: Run, trials: Sequence[Trial]) -> list[Outcome]:
    outcomes = run(trials)
    assert all(outcome.event == SUPERVISOR_CALL for outcome in outcomes)
    return outcomes


def _conditions(run: Run) -> Iterator[str]:
    combinations = list(product(_TIMERS, _COMPARED, _CONTROLS))
    trials = []
    for name, compared, control in combinations:
        compare, _, place = _TIMERS[name]
        words = compare.word(False, 0), place.word(False, 2), place.word(True, 3)
        trials.append(Trial(words, registers=(compared & 0xFFFFFFFF, compared >> 32, control, 0)))
    for (name, compared, control), outcome in zip(combinations, _outcomes(run, trials), strict=True):
        yield f"{name} compare {compared:#x}, control {control:#x}: reads {outcome.registers[3]:#x}"


def _values(run: Run) -> Iterator[str]:
    combinations = list(product(_TIMERS, _VALUES))
    trials = []
    for name, value in combinations:
        compare, place, _ = _TIMERS[name]
        words = place.word(False, 0), compare.word(True, 2), _COUNT.word(True, 0)
        trials.append(Trial(words, registers=(value, 0, 0, 0)))
    for (name, value), outcome in zip(combinations, _outcomes(run, trials), strict=True):
        low, high, compared_low, compared_high = outcome.registers
        signed = (value ^ 1 << 31) - (1 << 31)
        passed = ((high << 32 | low) - (compared_high << 32 | compared_low) + signed) % (1 << 64)
        when = "a moment ago" if passed < _MOMENT else "at another time"
        yield f"{name} value {value:#x}: compares with the count and {signed:#x}, {when}"
