"""A device's state as plain values, declared once: every field of its dataclass that is not wiring.

Plain values are integers, booleans, bytes, lists and mappings of integers, booleans or bytes. They can
be written to a file, compared, and hashed, and a device of the same board that has been given them goes on as the first
one would.

- An ordinary field is *state*. Its annotation must be one of :data:`KINDS`.
- A field annotated ``Wiring[...]`` is what the board connects the device to: lines, time, a callback, a frequency.
  It is the same for every device in that place of the board, so it is neither saved nor restored.
- A field annotated ``Part[...]`` holds a :class:`Stateful` object, or a list of them, whose state belongs to the
  device's.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeVar

#: What a declared state is made of.
Plain = bool | int | str | bytes | None | list["Plain"] | dict[str, "Plain"] | dict[int, "Plain"]
#: The state of one object: the values of its fields by their names.
State = dict[str, Plain]

#: Gives something the state again that it had when this was made, as often as it is called.
PutBack = Callable[[], None]

T = TypeVar("T")
#: What an integer of the state can be: 32 bits, 8 bits, a tick of virtual time, or any number that eight bytes hold.
Word = int
Byte = int
Tick = int
Wiring = Annotated[T, "wiring"]
Part = Annotated[T, "part"]
#: Integers of a state are at most so large in magnitude, so that each fits in eight bytes.
_LARGEST: Final = 1 << 63


class StateError(ValueError):
    """Values that are not the state of the object that they were given to."""


def _is_int(value: object) -> bool:
    return type(value) is int and -_LARGEST <= value < _LARGEST


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _below(limit: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and 0 <= value < limit


def _all_below(limit: int) -> Callable[[object], bool]:
    return lambda value: (
        type(value) is list
        and (not value or (set(map(type, value)) == {int} and min(value) >= 0 and max(value) < limit))
    )


_is_word, _is_byte, is_tick = _below(1 << 32), _below(1 << 8), _below(_LARGEST)


#: The annotations that a field of the state may have, and what a value must fulfil to be restored into it.
KINDS: Mapping[str, Callable[[object], bool]] = {
    "int": _is_int,
    "Word": _is_word,
    "Byte": _is_byte,
    "bool": _is_bool,
    "bytes": lambda value: type(value) is bytes,
    "Tick": is_tick,
    "Tick | None": lambda value: value is None or is_tick(value),
    "list[Word]": _all_below(1 << 32),
    "list[Byte]": _all_below(1 << 8),
    "list[bytes]": lambda value: type(value) is list and all(type(held) is bytes for held in value),
    "list[bool]": lambda value: type(value) is list and all(map(_is_bool, value)),
    "dict[int, Byte]": lambda value: type(value) is dict and all(map(_is_byte, value.values())),
    "dict[str, int]": lambda value: (
        type(value) is dict and all(type(key) is str and _is_int(held) for key, held in value.items())
    ),
    "dict[str, bytes]": lambda value: (
        type(value) is dict and all(type(key) is str and type(held) is bytes for key, held in value.items())
    ),
    "dict[int, bytes]": lambda value: (
        type(value) is dict and all(type(key) is int and type(held) is bytes for key, held in value.items())
    ),
}


class KeptState:
    """The state that some objects had, in a form that is put back into these very objects within microseconds.

    Nothing is checked then. It is for checkpoints of a machine; :meth:`Stateful.save` is for everything else.
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[array[int], int, int, array[int]]] = []
        self._fields: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._copied: list[tuple[dict[str, Any], str, Any]] = []

    def add_words(self, block: array[int], first: int, end: int) -> None:
        """Add the words from ``first`` to ``end`` (not included) of a block."""
        self._blocks.append((block, first, end, block[first:end]))

    def add_fields(self, owner: object, names: Iterable[str]) -> None:
        """Add attributes of an object, by their names. Their values are plain."""
        values = vars(owner)
        plain = {name: values[name] for name in names}
        for name, value in plain.items():
            if isinstance(value, list | dict):
                self._copied.append((values, name, value.copy()))
        self._fields.append((values, plain))

    def put_back(self) -> None:
        """Give the objects this state again."""
        for block, first, end, words in self._blocks:
            block[first:end] = words
        for values, plain in self._fields:
            values.update(plain)
        for values, name, value in self._copied:
            values[name] = value.copy()


class Stateful:
    """An object whose dataclass fields are its state, its parts and its wiring. It has none itself."""

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Any]]

    def settle(self) -> None:
        """Account for the time that has passed, if the object does so only when somebody looks at it.

        :meth:`save` calls it, so that two equal devices have equal states however often each was looked at.
        """

    @classmethod
    def state_fields(cls) -> Iterable[tuple[str, str]]:
        """Return name and annotation of each field that is state. TypeError if the annotation is not a plain one."""
        return _form_of(cls).fields

    def _parts(self) -> Iterator[tuple[str, list[Stateful]]]:
        for name in _form_of(type(self)).parts:
            held = getattr(self, name)
            yield name, held if isinstance(held, list) else [held]

    def parts(self) -> Iterable[Stateful]:
        """Return the objects whose state belongs to this one's, without their own parts."""
        return [one for _, held in self._parts() for one in held]

    def is_possible(self) -> bool:
        """Return False for values that the object could never have got to. It must then not be used.

        Each value is of its kind. What else an object relies on is for its class to say, such as a list's length.
        """
        return True

    def save(self) -> State:
        """Return a copy of the state as plain values. Nothing that the guest can observe changes."""
        self.settle()
        form = _form_of(type(self))
        state: State = {name: getattr(self, name) for name in form.names}
        for name, kind in form.containers:
            state[name] = _copy(state[name], kind)
        for name, held in self._parts():
            state[name] = [one.save() for one in held]
        return state

    def keep(self, kept: KeptState) -> None:
        """Add the present state to ``kept``."""
        kept.add_fields(self, [name for name, _ in self.state_fields()])
        for part in self.parts():
            part.keep(kept)

    def restore(self, state: Mapping[Any, Any]) -> None:
        """Take over a state that :meth:`save` has returned.

        Raises StateError if it is not a state that this object can be in, whoever made it. Then the object is left
        with a part of the state, and has to be given up.
        """
        name, form = type(self).__name__, _form_of(type(self))
        if type(state) is not dict or state.keys() != form.all_names:
            raise StateError(f"the state of {name} has other fields than {', '.join((*form.names, *form.parts))}")
        values = dict(state)
        for field_name, fits in form.checks:
            if not fits(values[field_name]):
                kind = dict(form.fields)[field_name]
                raise StateError(f"{field_name} in the state of {name} is not {kind}: {state[field_name]!r}")
        for field_name, kind in form.containers:
            values[field_name] = _copy(values[field_name], kind)
        for field_name in form.names:
            setattr(self, field_name, values[field_name])
        for field_name, parts in self._parts():
            states = state[field_name]
            if type(states) is not list or len(states) != len(parts):
                raise StateError(f"{field_name} in the state of {name} is not a list of {len(parts)}")
            for one, values in zip(parts, states, strict=True):
                one.restore(values)
        if not self.is_possible():
            raise StateError(f"the values in the state of {name} cannot belong together: {state!r:.500}")


def _copy(value: Any, kind: str) -> Any:
    if isinstance(value, memoryview):
        return list(map(bool, value)) if kind == "list[bool]" else value.tolist()
    return value.copy() if isinstance(value, list | dict) else value


class _Form:
    """What the state of a class is made of: ``fields``, by name and annotation, and the names of ``parts``."""

    def __init__(self, fields: Sequence[tuple[str, str]], parts: Sequence[str]) -> None:
        self.fields, self.parts = fields, parts
        self.names = tuple(name for name, _ in fields)
        self.all_names = frozenset((*self.names, *parts))
        self.checks = tuple((name, KINDS[kind]) for name, kind in fields)
        self.containers = tuple((name, kind) for name, kind in fields if "[" in kind)


#: What :func:`_form_of` has found: states are saved and restored while guests stand still.
_KNOWN: Final[dict[type, _Form]] = {}


def _form_of(kind: type[Stateful]) -> _Form:
    """Return what the state of a class is made of."""
    if (known := _KNOWN.get(kind)) is not None:
        return known
    from dataclasses import fields  # which a guest without devices does not need

    state, parts = [], []
    for one in fields(kind):
        annotation = str(one.type)
        if annotation.startswith("Part["):
            parts.append(one.name)
        elif not annotation.startswith("Wiring["):
            if one.type not in KINDS:
                raise TypeError(
                    f"{kind.__name__}.{one.name} is {one.type}, which is neither plain nor Wiring[...] nor Part[...]"
                )
            state.append((one.name, annotation))
    form = _KNOWN[kind] = _Form(state, parts)
    return form
