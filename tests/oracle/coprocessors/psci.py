"""Calls of PSCI by HVC, and what QEMU's firmware answers, as text: R0 to R3 before, and R0 after the call."""

from __future__ import annotations

from collections.abc import Iterator

from tests.oracle.coprocessors.program import SUPERVISOR_CALL, Trial
from tests.oracle.coprocessors.sweep import Run

_HVC, _HVC_OF_XEN = 0xE1400070, 0xE140EA71
_FIRST, _FIRST_64, _FIRST_0_1 = 0x84000000, 0xC4000000, 0x95C1BA5E
_CPU_SUSPEND, _CPU_OFF, _CPU_ON, _AFFINITY_INFO, _FEATURES = (_FIRST + number for number in (1, 2, 3, 4, 10))
#: Calls that do not return: off, reset, and suspension without an interrupt.
_NO_RETURN = {_CPU_SUSPEND, _CPU_OFF, _FIRST + 8, _FIRST + 9, _FIRST_0_1, _FIRST_0_1 + 1}

_Call = tuple[int, int, int, int]


def _calls() -> Iterator[_Call]:
    functions = [
        *range(_FIRST, _FIRST + 24), *range(_FIRST_64, _FIRST_64 + 24), *range(_FIRST_0_1, _FIRST_0_1 + 6),
        0, 1, 0x80000000, 0x80008000, 0x85000000, 0xFFFFFFFF,
    ]  # fmt: skip
    yield from ((function, 0, 0, 0) for function in functions if function not in _NO_RETURN)
    yield from ((_FEATURES, function, 0, 0) for function in functions)
    for affinity in (0, 1, 2, 0x100, 0x80000000, 0x80000001):
        yield from ((_AFFINITY_INFO, affinity, level, 0) for level in range(4))
        yield from ((function, affinity, 0x40000000, 5) for function in (_CPU_ON, _FIRST_0_1 + 2))
    for state in (0x20000, 0x80000000, 0xFFFE0000):
        yield from ((function, state, 1, 2) for function in (_CPU_SUSPEND, _FIRST_0_1))


def answers(run: Run) -> Iterator[str]:
    """Yield a line for each call."""
    calls = [(word, call) for word in (_HVC, _HVC_OF_XEN) for call in _calls()]
    for (word, call), outcome in zip(calls, run([Trial((word,), registers=call) for word, call in calls]), strict=True):
        assert outcome.event == SUPERVISOR_CALL and outcome.registers[1:] == call[1:]
        name = "hvc" if word == _HVC else "hvc of Xen"
        yield f"{name} {' '.join(f'{value:#x}' for value in call)} -> {outcome.registers[0]:#x}"
