"""Every device declares its state, which is plain values, and goes on from it like the device that saved it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any

import pytest

import dbt.devices
from dbt.abi.addresses import Gpa
from dbt.board.board import Board, BoardState, BoardWiring
from dbt.board.boards import BOARDS
from dbt.board.bus import Deferred
from dbt.board.versatile import CLOCK
from dbt.devices.ds1338 import Ds1338
from dbt.devices.performance_monitors import PerformanceMonitors
from dbt.devices.registers import WordRegisters
from dbt.devices.sic import Sic
from dbt.devices.sp804 import Sp804, Timer
from dbt.devices.state import Part, StateError, Stateful, Wiring
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram
from isa.arm.private import CONTROL, MONITORS
from tests.devices.virtio.every_device import attached_devices
from tests.devices.virtual_time import Line, VirtualTime

EPOCH = 1_767_225_600


@dataclass
class Rig:
    """A board whose console has endless input."""

    model: str = "versatile"
    time: VirtualTime = field(default_factory=VirtualTime)
    sent: bytearray = field(default_factory=bytearray)
    resets: list[int] = field(default_factory=list)
    received: int = 0
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        model = BOARDS[self.model]
        ram = model.layout(1 << 20)
        attached = attached_devices() if model.virtio_slots else None
        wiring = BoardWiring(
            *(self.sent.append, ram, self.time.timeline, Line(), Line(), self.reset, EPOCH, self.refill),
            attached=attached,
            memory=GuestMemory(Ram(ram.regions)) if model.is_domain else None,
        )
        self.board = model.build(wiring)

    def reset(self) -> None:
        self.resets.append(self.time.tick)

    def refill(self) -> None:
        uart = self.board.console_uart or self.board.console
        uart.push(bytes((self.received + number) % 256 for number in range(uart.room)))
        self.received += uart.room

    def access(self, random: Random) -> int:
        """Read or write somewhere, or let time pass; return what was read."""
        window = random.choice(self.board.bus.windows)
        if not window.size:
            return self.call(random) if window.name == "Xen" else self.access_private(random)
        size = random.choice((1, 2, 4, 4, 4))
        first = random.choice((*range(0, min(window.size, 1 << 18), 0x10000), max(window.size - 0x1000, 0)))
        offset = first + random.choice((random.randrange(0, 0x50, size), random.randrange(0, 0x1000, size)))
        value = random.choice((random.getrandbits(8 * size), random.getrandbits(8), 1 << random.randrange(8 * size)))
        action = random.randrange(5)
        if not self.board.bus.covers(Gpa(window.base + offset), size):
            return 0  # a gap
        match action:
            case 0 | 1:
                return self.board.bus.read(Gpa(window.base + offset), size)
            case 2 | 3:
                self.board.bus.write(Gpa(window.base + offset), size, value)
            case _:
                ticks, due = random.choice((1, 100, 30_000, 10**6, 10**9)), self.time.timeline.next_tick
                if due is not None:  # a timer with a short period rings millions of times in the longest of these
                    ticks = min(ticks, max(due - self.time.tick, 10**6))
                self.time.advance(ticks)
        return 0

    def call(self, random: Random) -> int:
        """Make a hypercall about events, with arguments in the pages that the toolstack has made."""
        domain, page = self.board.hypervisor, 0x39001000
        assert domain is not None
        domain.dma.write(page, random.choice((random.randbytes(16), bytes((random.randrange(8), *bytes(15))))))
        answer = domain.call(32, [random.randrange(14), page, 0, 0, 0])
        assert isinstance(answer, int)
        return answer

    def access_private(self, random: Random) -> int:
        """Read or write a register of the generic timer or the performance monitors."""
        found = self.board.bus.private(random.choice((0, MONITORS)))
        assert found is not None
        device, _ = found
        if random.randrange(2):
            return device.read_register(random.choice((0, 1, *range(8, 16))))
        value = random.choice((random.getrandbits(32), random.randrange(4), 0x11))
        if isinstance(device, PerformanceMonitors):
            value &= {CONTROL: 0xFF}.get(number := random.randrange(30), 0xFFFFFFFF)
        else:
            number = random.randrange(8, 16)
        device.write_register(number, value, random.choice((0, random.getrandbits(32))))
        return 0


def model_of(seed: int) -> str:
    """Each board in turn."""
    return tuple(BOARDS)[seed % len(BOARDS)]


def objects(board: Board) -> Iterator[Stateful]:
    """Every object with a state that the board has, deferred devices made."""
    waiting: list[Stateful] = [window.arrive() for window in board.bus.windows]
    while waiting:
        one = waiting.pop()
        yield one
        waiting.extend(one.parts())


def undeclared(one: Stateful) -> set[str]:
    """The attributes of an object that are no fields, and so neither state nor wiring nor parts, nor hold the state."""
    assert not getattr(type(one), "__slots__", ())
    return set(vars(one)) - {each.name for each in fields(one)} - {"block", "views", "apart"}


def test_every_attribute_of_every_device_is_state_or_wiring() -> None:
    rigs = [Rig(model) for model in BOARDS]
    for seed in range(20):
        random = Random(seed)
        for _ in range(500):
            for rig in rigs:
                rig.access(random)
    found = [one for rig in rigs for one in objects(rig.board)]
    reached = set(map(id, found))
    for one in found:
        assert not undeclared(one), type(one).__name__
        state = {name for name, _ in type(one).state_fields()}
        for each in fields(one):
            held = getattr(one, each.name)
            if each.name in state:
                held = held.tolist() if isinstance(held, memoryview) else held
                assert ast.literal_eval(repr(held)) == held, f"{type(one).__name__}.{each.name}"
            elif str(each.type).startswith("Wiring["):
                parts = list(held) if isinstance(held, list | tuple | dict) else [held]
                lost = [part for part in parts if isinstance(part, Stateful) and id(part) not in reached]
                assert not lost, f"{type(one).__name__}.{each.name} holds what is no part of anything"
    assert {Timer, Ds1338, Sic} <= {type(one) for one in found}
    missing = sorted(kind.__name__ for kind in set(leaves()) - {type(one) for one in found})
    assert not missing, f"no board has {', '.join(missing)}: the modules of dbt/board/boards.py attach devices"


def leaves() -> Iterator[type[Stateful]]:
    """The classes of the devices' room from which no other is derived."""
    for module in pkgutil.iter_modules(dbt.devices.__path__):
        importlib.import_module(f"dbt.devices.{module.name}")
    waiting: list[type[Stateful]] = [Stateful]
    while waiting:
        kind = waiting.pop()
        derived = [one for one in kind.__subclasses__() if one.__module__.startswith("dbt.devices")]
        waiting.extend(derived)
        if not derived:
            yield kind


def test_what_is_not_declared_is_found() -> None:
    @dataclass(eq=False)
    class Forgetful(WordRegisters):
        irq: Wiring[Line]
        count: int = 0

        def __post_init__(self) -> None:
            self.late = 1

    @dataclass(eq=False)
    class Unplain(WordRegisters):
        when: object = None

    assert undeclared(Forgetful(Line())) == {"late"}
    with pytest.raises(TypeError, match=r"Unplain\.when"):
        list(Unplain.state_fields())


@pytest.mark.parametrize("seed", range(40))
def test_a_board_goes_on_from_a_saved_state(seed: int) -> None:
    """Another board, of which some devices are made already, then answers as the first one does."""
    random, first, second = Random(seed), Rig(model_of(seed)), Rig(model_of(seed))
    for _ in range(random.choice((0, 3, 30, 300))):
        first.access(random)
    for _ in range(random.choice((0, 3, 30))):
        second.access(random)
    saved = first.board.save()
    assert ast.literal_eval(repr(saved.devices)) == saved.devices
    second.time.tick, second.received, second.resets = first.time.tick, first.received, []
    second.board.restore(saved)
    assert second.board.save() == saved == first.board.save()
    first.resets.clear()
    one, other = Random(seed), Random(seed)
    for _ in range(300):
        assert first.access(one) == second.access(other)
        assert first.board.controller.irq_level == second.board.controller.irq_level
        assert first.board.controller.fiq_level == second.board.controller.fiq_level
    assert first.board.save() == second.board.save() and first.resets == second.resets


@pytest.mark.parametrize("seed", range(10))
def test_saving_changes_nothing(seed: int) -> None:
    first, second = Rig(model_of(seed)), Rig(model_of(seed))
    one, other = Random(seed), Random(seed)
    for _ in range(400):
        first.board.save()
        assert first.access(one) == second.access(other)
    assert first.board.save() == second.board.save() and first.sent == second.sent


def test_a_device_that_nobody_has_changed_has_no_state_to_save() -> None:
    """Whether it has been made or not: a debugger that looks at it makes it."""
    first, second = Rig(), Rig()
    for window in first.board.bus.windows:
        window.arrive()
    assert first.board.save() == second.board.save()
    assert set(second.board.save().devices) == {"VIC", "UART0", "virtio slots"}


def test_a_device_that_another_one_has_made_is_saved() -> None:
    """UART3's interrupt is an input of the secondary controller, which nobody has accessed."""
    rig = Rig()
    rig.board.bus.write(Gpa(0x10009000 + 0x38), 4, 0x20)
    rig.board.bus.write(Gpa(0x10009000), 4, 0x41)
    assert rig.board.save().devices["SIC"]["inputs"] == 1 << 6
    again = Rig()
    again.board.restore(rig.board.save())
    assert again.board.bus.read(Gpa(0x10003004), 4) == 1 << 6


def test_an_event_of_a_device_that_is_as_after_a_reset_is_restored() -> None:
    rig = Rig()
    rig.board.bus.write(Gpa(CLOCK + 4), 4, 0)  # It is 0 already, and the match comes later.
    saved = rig.board.save()
    assert "clock" not in saved.devices and [event.device for event in saved.events] == ["clock"]
    again = Rig()
    again.board.restore(saved)
    assert again.board.save() == saved


def test_lists_are_copied() -> None:
    rig = Rig()
    saved = rig.board.save()
    rig.board.bus.write(Gpa(0x10140100), 4, 0x1234)
    addresses: Any = saved.devices["VIC"]["addresses"]
    assert addresses == [0] * 16
    rig.board.restore(saved)
    rig.board.bus.write(Gpa(0x10140100), 4, 0x1234)
    assert addresses == [0] * 16


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("VIC", "enable"), True),
        (("VIC", "enable"), 1 << 64),
        (("VIC", "addresses"), [None] * 16),
        (("VIC", "addresses"), (0,) * 16),
        (("VIC", "surprise"), 0),
        (("UART0", "timeout"), "soon"),
        (("timers 0 and 1", "timers"), []),
        (("timers 0 and 1", "timers"), [0, 0]),
        (("Ethernet", "registers"), {"0": 0}),
        (("no such device",), {}),
        (("VIC",), None),
        (("Ethernet",), None),
        (("Ethernet",), 0),
        (("VIC", "enable"), 1 << 32),
        (("VIC", "enable"), -1),
        (("VIC", "addresses"), [0] * 15),
        (("VIC", "controls"), [0] * 17),
        (("VIC", "in_service"), 1 << 17),
        (("UART0", "received"), [0] * 17),
        (("UART0", "received"), [1 << 12] + [0] * 15),
        (("UART0", "received"), [0, 1] + [0] * 14),
        (("UART0", "held"), 2),
        (("UART0", "timeout"), -1),
        (("UART0", "arrived"), (1 << 63) - 1),
        (("watchdog", "load"), 0),
        (("Ethernet", "bank"), 8),
        (("Ethernet", "registers"), {}),
    ],
)
def test_what_is_no_state_is_refused(path: tuple[str, ...], value: object) -> None:
    rig = Rig()
    rig.board.bus.write(Gpa(0x101E2000), 4, 1)
    rig.board.bus.write(Gpa(0x10010000), 4, 1)
    rig.board.bus.write(Gpa(0x101E1000), 4, 5)
    saved = rig.board.save()
    devices: Any = saved.devices
    target = devices
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    with pytest.raises(StateError):
        Rig().board.restore(BoardState(devices, saved.events))


@pytest.mark.parametrize(
    "event",
    [
        (),
        ("clock", "match", 5),
        ("clock", "match", -1, 0),
        ("clock", "match", 1 << 63, 0),
        ("clock", "match", 5.0, 0),
        ("clock", "match", 5, None),
        ("clock", [], 5, 0),
        ([], "match", 5, 0),
        ("clock", "no such action", 5, 0),
        ["clock", "match", 5, 0],
        None,
    ],
)
def test_what_is_no_event_is_refused(event: Any) -> None:
    with pytest.raises(StateError):
        Rig().board.restore(BoardState({}, [event]))


_NUMBERS = (0, 1, 5, 8, 9, 17, 255, 256, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, -1, -(1 << 63))
_HOSTILE: tuple[object, ...] = (
    *(*_NUMBERS, None, True, False, "", "x", 0.5, b"", [], {}),
    *([0], [0] * 16, [17], [17, 0], [None], {0: 0}, {"": 1}),
)


def mutated(value: Any, random: Random) -> Any:
    """A copy of plain values, in which one is another."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        return {**value, key: mutated(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.9:
        place = random.randrange(len(value))
        change = random.random()
        if change < 0.1:
            return value[:place] + value[place + 1 :]
        if change < 0.2:
            return value[:place] + value[place:] * 2
        return [*value[:place], mutated(value[place], random), *value[place + 1 :]]
    if type(value) is int and random.random() < 0.8:
        return value ^ 1 << random.randrange(random.choice((2, 4, 8, 33)))
    return random.choice(_HOSTILE)


@pytest.mark.parametrize("first", range(0, 800, 200))
def test_a_hostile_state_is_refused_or_does_no_harm(first: int) -> None:
    """A board that takes over such a state answers all accesses, whatever with, by numbers that fit."""
    refused = taken = 0
    for seed in range(first, first + 200):
        random, rig, other = Random(seed), Rig(model_of(seed)), Rig(model_of(seed))
        for window in rig.board.bus.windows:
            window.arrive()
        for _ in range(60):
            rig.access(random)
        states: Any = {window.name: window.arrive().save() for window in rig.board.bus.windows}
        events: Any = [list(event) for event in rig.board.save().events]
        for _ in range(random.choice((1, 1, 1, 3))):
            name = random.choice([name for name, state in states.items() if state])
            states[name] = mutated(states[name], random)
            if random.random() < 0.1:
                events = mutated(events, random)
        if not isinstance(events, list):
            events = [events]
        events = [tuple(event) if isinstance(event, list) else event for event in events]
        other.time.tick = rig.time.tick
        try:
            other.board.restore(BoardState(states, events))
        except StateError:
            refused += 1
            continue
        taken += 1
        assert other.board.save()
        for _ in range(80):
            assert 0 <= other.access(random) < 1 << 32, seed
        for window in other.board.bus.windows:
            for offset in range(0, min(window.size, 0x60), 4):
                assert 0 <= other.board.bus.read(Gpa(window.base + offset), 4) < 1 << 32, (seed, window.name, offset)
    assert refused > 40 and taken > 40, (refused, taken)


def test_time_that_has_passed_is_accounted_for_before_a_state_is_saved() -> None:
    """Of two timers, of which one was looked at, the states are equal."""
    times = VirtualTime(), VirtualTime()
    timers = [Sp804(time.named(), Line()) for time in times]
    for timer, time in zip(timers, times, strict=True):
        timer.write(0, 4, 10)
        timer.write(8, 4, 0xC2)
        time.advance(123_456)
    timers[0].read(0x10, 4)
    assert timers[0].save() == timers[1].save()


def test_a_part_may_be_one_object_or_a_list() -> None:
    @dataclass(eq=False)
    class Inner(Stateful):
        value: int = 0

    @dataclass(eq=False)
    class Outer(Stateful):
        one: Part[Inner] = field(default_factory=Inner)
        many: Part[list[Inner]] = field(default_factory=lambda: [Inner(), Inner()])

    outer, other = Outer(), Outer()
    outer.one.value, outer.many[1].value = 1, 2
    assert outer.save() == {"one": [{"value": 1}], "many": [{"value": 0}, {"value": 2}]}
    other.restore(outer.save())
    assert other.save() == outer.save() and len(list(outer.parts())) == 3


def test_a_deferred_device_is_wiring_alone() -> None:
    assert not list(Deferred.state_fields())
