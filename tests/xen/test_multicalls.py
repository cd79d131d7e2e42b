"""Multicalls: what is long in them is done piece by piece, and is not done twice."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from dbt.abi.addresses import Gpa
from dbt.devices.output import OutputRing
from dbt.hypervisor.xen.interface import Request
from tests.xen.guests import ARGUMENTS, RAM, SELF, Caller, domain_machine

#: Where a list of calls is, and lists of extents.
_LIST, _EXTENTS = RAM + 0x20000, RAM + 0x30000
_ENTRY = "QQ6Q"
_SIZE = struct.calcsize(f"<{_ENTRY}")
#: Most frames that one execution takes or gives.
_FRAMES = 512


@pytest.fixture
def caller() -> Iterator[Caller]:
    with domain_machine(memory=32 << 20, notice=lambda _: None) as machine:
        made = Caller(machine)
        assert made.call(17, 0) == 0x40011
        yield made


def _put(caller: Caller, *calls: tuple[int, ...]) -> None:
    for number, (operation, *args) in enumerate(calls):
        caller.put(_ENTRY, operation, 77, *args, *(0,) * (6 - len(args)), at=_LIST + number * _SIZE)


def _results(caller: Caller, count: int) -> list[int]:
    return [caller.get("Qq", _LIST + number * _SIZE)[1] for number in range(count)]


def _reservation(caller: Caller, at: int, order: int, count: int) -> int:
    """Write the argument of a change of memory that concerns the last ``count`` extents, and return its address."""
    first = (RAM + (32 << 20) >> 12) - (count << order)
    caller.put(f"{count}Q", *(first + (number << order) for number in range(count)), at=_EXTENTS + at)
    return caller.put("QQIIHxxxxxx", _EXTENTS + at, count, order, 0, SELF, at=_LIST + 0x8000 + at)


def test_memory_is_taken_and_given_piece_by_piece(caller: Caller) -> None:
    """However large the extents are and however many calls there are, and each call has its result in the end."""
    few, many = _reservation(caller, 0, 9, 12), _reservation(caller, 0x1000, 0, 500)
    calls = [(12, operation, argument) for operation in (1, 6) for argument in (few,)] * 3
    calls += [(12, 1, many), (12, 1, many), (12, 6, many)]
    _put(caller, *calls)
    holes, args, rounds = caller.domain.reservation.holes, [_LIST, len(calls), 0, 0, 0], 0
    before = len(holes)
    while (answer := caller.domain.call(13, args)) is Request.AGAIN:
        assert abs(len(holes) - before) <= _FRAMES
        before, rounds = len(holes), rounds + 1
    assert answer == 0 and rounds > 6 * 12 and not holes
    assert _results(caller, len(calls)) == [12] * 6 + [500, 0, 500]


def test_the_console_has_everything_once(caller: Caller) -> None:
    text = bytes(number % 251 for number in range(10_000))
    caller.machine.memory.write_ram(Gpa(RAM + 0x80000), text)
    _put(caller, (18, 0, 10_000, RAM + 0x80000), (17, 0), (18, 0, 3, RAM + 0x80000))
    args = [_LIST, 3, 0, 0, 0]
    while (answer := caller.domain.call(13, args)) is Request.AGAIN:
        pass
    sent = caller.domain.console.transmit
    assert isinstance(sent, OutputRing) and sent.take() == text + text[:3]
    assert answer == 0 and _results(caller, 3) == [0, 0x40011, 0]


def test_what_is_no_call_of_a_list(caller: Caller) -> None:
    """A list in a list, the beginning of a kernel in user mode, and what is not known: the others are done."""
    _put(caller, (13, _LIST, 1), (48, ARGUMENTS), (99, 0), (1 << 40, 0), (17, 0))
    assert caller.call(13, _LIST, 5) == 0
    assert _results(caller, 5) == [-22, -22, -38, -38, 0x40011]
    end = RAM + (32 << 20) - _SIZE
    caller.put(_ENTRY, 17, 77, *(0,) * 6, at=end)
    assert caller.call(13, end, 2) == -14 and caller.get("QQ", end)[1] == 0x40011
    assert caller.call(13, 0xFFFFFFC0, 1) == caller.call(13, 0, 0xFFFFFFFF) == -14


def test_nobody_waits_in_a_list(caller: Caller) -> None:
    """The guest goes on: it does not wait for a port, so that a later wait is not for that one."""
    port = caller.open()
    caller.put("I", port, at=RAM + 0x80000)
    poll = caller.put("QIIQ", RAM + 0x80000, 1, 0, 0, at=RAM + 0x80010)
    _put(caller, (29, 3, poll), (29, 1), (29, 2, caller.put("I", 0, at=RAM + 0x80040)), (17, 0))
    assert caller.call(13, _LIST, 2) == 0 and not caller.domain.polling.is_on
    assert caller.call(13, _LIST, 4) is Request.POWER_OFF
    assert _results(caller, 4) == [0, 0, 0, 77]
