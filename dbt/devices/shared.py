"""Device state that native code works on: words at fixed places of a block that each device has.

A dataclass that is :func:`shared` keeps its declared state in a block of 64-bit words. Python sees the same fields as
before. Native code is compiled from the class's own methods (:mod:`dbt.backend.device_methods`), and finds the words by
:func:`layout_of`. So there is one description of a register and one place of its state, whoever accesses it.

Wiring has places in the block as well, which :func:`native_address` fills when native code is about to use the device.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from dbt.devices.output import OutputRing, unplugged
from dbt.devices.state import KeptState, StateError, Stateful

WORD_BYTES: Final = 8
#: The value of a word for None, and for a wiring that leads nowhere.
NONE: Final = -1
#: What a line leads to, in its first word: nothing that native code can drive, the CPU, or the class that has so high a
#: number in :data:`CLASSES`, counted from the first number.
NOT_NATIVE, CPU, FIRST_CLASS = 0, 1, 2
#: The classes whose methods are compiled. Their numbers are in native code and in blocks.
CLASSES: Final = (
    "dbt.devices.pl190.Pl190",
    "dbt.devices.sp804.Timer",
    "dbt.devices.sp804.Sp804",
    "dbt.devices.pl011.Pl011",
    "dbt.devices.pl011.ConsoleUart",
    "dbt.devices.pl031.Pl031",
    "dbt.devices.gic.Gic",
    "dbt.devices.generic_timer.Comparator",
    "dbt.devices.generic_timer.GenericTimer",
    "dbt.devices.performance_monitors.PerformanceMonitors",
    "dbt.devices.sysregs.SystemRegisters",
    "dbt.devices.virtio.interrupt.InterruptStatus",
    "dbt.devices.virtio.slots.VirtioSlots",
    "dbt.hypervisor.xen.identity.Identity",
    "dbt.hypervisor.xen.shared_page.SharedPage",
    "dbt.hypervisor.xen.event_queues.EventQueues",
    "dbt.hypervisor.xen.event_channels.EventChannels",
    "dbt.hypervisor.xen.console.XenConsole",
    "dbt.hypervisor.xen.pv.page_types.PageTypes",
    "dbt.hypervisor.xen.pv.guest.ParaVirtual",
    "dbt.hypervisor.xen.polling.Polling",
    "dbt.hypervisor.xen.domain.XenDomain",
)
#: The class whose method ``answer_hot`` does hypercalls in native code (:mod:`dbt.backend.hypercalls`).
HYPERVISOR_CLASS: Final = "dbt.hypervisor.xen.domain.XenDomain"
#: The classes of private peripherals, by their numbers (:mod:`isa.arm.private`): each has NUMBERS_OF_EACH.
PRIVATE_CLASSES: Final = (
    "dbt.devices.generic_timer.GenericTimer",
    "dbt.devices.performance_monitors.PerformanceMonitors",
)
#: Kinds of fields by their annotations, and the words that one has. A list has as many as its default has elements, or
#: as ``room`` in its metadata says: then the number of those that it has is in a word behind them.
WORDS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("Word", "Byte", "int", "bool", "Tick | None", "list[Word]", "list[Byte]", "list[bool]"), 1),
    **dict.fromkeys(("Wiring[int]", "Wiring[bool]", "Wiring[Time]", "Wiring[Alarm]", "Wiring[Transmit]"), 1),
    "Wiring[Line]": 3,  # what it leads to, the address of that block, the number of the input there
    "Wiring[Sample]": 2,  # what has the level, and the address of that block
}

F = TypeVar("F", bound=Callable[..., object])
S = TypeVar("S", bound=Stateful)


class Place(NamedTuple):
    """Where a field is in the block: the annotation of the field, its first word, and how many elements it has.

    One with ``has_count`` may have fewer: the word behind them says how many. One that is ``apart`` has its address
    there, and how many they are.
    """

    kind: str
    first: int
    elements: int
    has_count: bool = False
    is_apart: bool = False

    @property
    def words(self) -> int:
        return self.elements + (self.has_count or self.is_apart)


@runtime_checkable
class NativeLine(Protocol):
    """A line that native code can drive."""

    def native_words(self, connected: dict[int, int]) -> tuple[int, int, int] | None:
        """Return the words of the line in a block, or None if what it leads to is not native."""


@runtime_checkable
class NativeSample(Protocol):
    """A level that native code can look at."""

    def native_words(self, connected: dict[int, int]) -> tuple[int, int] | None:
        """Return the words of the level in a block, or None if what has it is not native."""


@runtime_checkable
class NativeAlarm(Protocol):
    """An alarm that native code can set."""

    number: int

    def rings_natively(self, class_number: int, address: int) -> None:
        """Have native code ring the alarm: by the method ``rings`` of the device with that block."""


def in_python(method: F) -> F:
    """Mark a method that is never compiled: where it would be called, native code leaves for Python instead."""
    method.__dict__["in_python"] = True
    return method


def asks_for_input(method: F) -> F:
    """Mark a method that does nothing. Where it is called, native code leaves for Python if there may be input; if it
    goes on, there is none, and asking for input later in the same access does nothing.
    """
    method.__dict__["asks_for_input"] = True
    return method


def shared(cls: type[S]) -> type[S]:
    """Keep the state of a dataclass in a block. Raise TypeError for a field that no block can hold.

    The metadata of a field may say otherwise: ``count`` is of devices, which native code finds by their addresses,
    ``room`` of a list that has at most so many elements, ``apart`` of a list that has its place elsewhere, when it has
    elements, and ``in_python`` of a field that only Python needs.
    """
    layout: dict[str, Place] = {}
    python_fields: list[str] = []
    size = 0
    for one in fields(cls):
        kind = str(one.type)
        count = 1
        if "in_python" in one.metadata:
            python_fields.append(one.name)
            continue
        if "count" in one.metadata:
            count = words = one.metadata["count"]
        elif "room" in one.metadata:
            count = one.metadata["room"]
            words = count + 1
        elif "apart" in one.metadata:
            words = 2
        elif kind in WORDS:
            if kind.startswith("list["):
                if one.default_factory is MISSING:
                    raise TypeError(f"{cls.__name__}.{one.name} needs a default, which says how long it is")
                count = len(cast("list[int]", one.default_factory()))
            words = count * WORDS[kind]
        elif kind.startswith(("Wiring[", "Part[")):
            continue
        else:
            raise TypeError(f"{cls.__name__}.{one.name} is {kind}, which no block can hold")
        layout[one.name] = Place(kind, size, count, "room" in one.metadata, "apart" in one.metadata)
        if not kind.startswith(("Wiring[", "Part[")):
            make_property = (
                _list_with_room if "room" in one.metadata else _list_apart if "apart" in one.metadata else _property
            )
            setattr(cls, one.name, make_property(one.name, layout[one.name]))
        size += words

    def make(kind: type[S], *_: object, **__: object) -> S:
        made = object.__new__(kind)
        block = made.__dict__["block"] = array("q", bytes(size * WORD_BYTES))
        # To make a view takes ten times as long as to find it.
        made.__dict__["views"] = {
            name: memoryview(block)[place.first : place.first + place.elements]
            for name, place in layout.items()
            if place.kind.startswith("list[")
        }
        made.__dict__["apart"] = {name: array("q") for name, place in layout.items() if place.is_apart}
        return made

    cls.__new__ = staticmethod(make)  # type: ignore[assignment]
    cls.native_layout = layout  # type: ignore[attr-defined]
    cls.python_fields = python_fields  # type: ignore[attr-defined]
    cls.keep = _keep  # type: ignore[assignment]
    return cls


def _keep(device: Stateful, kept: KeptState) -> None:
    """Do as :meth:`dbt.devices.state.Stateful.keep`, for the words of a block that are state.

    Those of the wiring may be filled in later.
    """
    block = cast("array[int]", device.__dict__["block"])
    ranges: list[tuple[int, int]] = []
    for place in layout_of(type(device)).values():
        if not place.kind.startswith(("Wiring[", "Part[")):
            joins = bool(ranges) and ranges[-1][1] == place.first
            first = ranges.pop()[0] if joins else place.first
            ranges.append((first, place.first + place.words))
    for first, end in ranges:
        kept.add_words(block, first, end)
    for one in device.__dict__["apart"].values():
        if one:
            kept.add_words(one, 0, len(one))
    kept.add_fields(device, type(device).__dict__["python_fields"])
    for part in device.parts():
        part.keep(kept)


def layout_of(cls: type) -> Mapping[str, Place]:
    """Return the places of a shared class's fields by name."""
    return cast("Mapping[str, Place]", cls.__dict__["native_layout"])


def class_number(cls: type) -> int:
    """Return the number of a class in native code, or NOT_NATIVE."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    return FIRST_CLASS + CLASSES.index(name) if name in CLASSES else NOT_NATIVE


def _property(name: str, place: Place) -> property:
    index, count = place.first, place.elements
    match place.kind:
        case "bool":
            return property(
                lambda self: self.block[index] != 0, lambda self, value: self.block.__setitem__(index, int(value))
            )
        case "Tick | None":
            return property(
                lambda self: None if self.block[index] == NONE else self.block[index],
                lambda self, value: self.block.__setitem__(index, NONE if value is None else value),
            )
        case "list[Word]" | "list[Byte]" | "list[bool]":

            def assign(self: Any, values: list[int]) -> None:
                if len(values) != count:
                    raise StateError(f"{name} in the state of {type(self).__name__} has not {count} elements")
                for number, value in enumerate(values):
                    self.block[index + number] = value

            return property(lambda self: self.views[name], assign)
        case _:
            return property(lambda self: self.block[index], lambda self, value: self.block.__setitem__(index, value))


def _list_with_room(name: str, place: Place) -> property:
    """Return the property of a list of up to so many elements. What it gives is a copy."""
    first, count = place.first, place.first + place.elements

    def assign(self: Any, values: list[int]) -> None:
        if len(values) > place.elements:
            raise StateError(f"{name} in the state of {type(self).__name__} has more than {place.elements} elements")
        self.block[count] = len(values)
        for number, value in enumerate(values, first):
            self.block[number] = value

    return property(lambda self: self.block[first : first + self.block[count]].tolist(), assign)


def _list_apart(name: str, place: Place) -> property:
    """Return the property of a list that takes memory when it gets elements, and keeps it. What it gives is a view."""
    at, count = place.first, place.first + 1

    def assign(self: Any, values: list[int]) -> None:
        if values and not self.apart[name]:
            self.apart[name] = array("q", bytes(len(values) * WORD_BYTES))
        held = self.apart[name]
        if len(values) > len(held):
            raise StateError(f"{name} in the state of {type(self).__name__} has more elements than it had before")
        self.block[at], self.block[count] = held.buffer_info()[0], len(values)
        if values:
            memoryview(held)[: len(values)] = array("q", values)

    def get(self: Any) -> memoryview:
        view: memoryview = self.views[name]
        if len(view) != self.block[count]:
            view = self.views[name] = memoryview(self.apart[name])[: self.block[count]]
        return view

    return property(get, assign)


def block_address(device: Stateful) -> int:
    """Return the address of a shared device's block, which never moves."""
    return cast("array[int]", device.__dict__["block"]).buffer_info()[0]


def native_address(device: Stateful, connected: dict[int, int] | None = None) -> int | None:
    """Fill in the wiring of a device's block and return the block's address, or None if native code cannot serve it.

    That is so if its class is not compiled, or if a line leads to something of that kind. ``connected`` has the
    addresses of the devices that this was begun for, by their identity.
    """
    connected = {} if connected is None else connected
    if id(device) in connected:
        return connected[id(device)]
    cls = type(device)
    number = class_number(cls)
    if number == NOT_NATIVE:
        return None
    address = connected[id(device)] = block_address(device)
    for name, place in layout_of(cls).items():
        words = _wiring(getattr(device, name), place, (number, address), connected)
        if words is None:
            return None
        for at, word in enumerate(words, place.first):
            device.__dict__["block"][at] = word
    return address


def _wiring(
    value: Any, place: Place, owner: tuple[int, int], connected: dict[int, int]
) -> tuple[int, ...] | list[int] | None:
    """Return the words of a wiring or of parts; none for a field of the state."""
    match place.kind:
        case "Wiring[int]" | "Wiring[bool]":
            return (int(value),)
        case "Wiring[Time]":
            return (value.ticks_per_second,)
        case "Wiring[Alarm]":
            if not isinstance(value, NativeAlarm):
                return None
            value.rings_natively(*owner)
            return (value.number,)
        case "Wiring[Line]":
            return value.native_words(connected) if isinstance(value, NativeLine) else None
        case "Wiring[Transmit]":
            return _output(value)
        case "Wiring[Sample]":
            return value.native_words(connected) if isinstance(value, NativeSample) else None
        case kind if "[list[" in kind and not kind.startswith("list["):
            addresses = [native_address(part, connected) for part in value]
            return None if None in addresses else cast("list[int]", addresses)
        case kind if kind.startswith(("Wiring[", "Part[")):
            address = native_address(value, connected)
            return None if address is None else (address,)
        case _:
            return ()


def _output(transmit: object) -> tuple[int] | None:
    """Return the address of a ring, 0 for a line that is not connected, or None for what only Python can call."""
    if transmit is unplugged:
        return (0,)
    return (transmit.address,) if isinstance(transmit, OutputRing) else None
