"""Routines: parts of an architecture that are no instructions and are written in uops as well.

Each tier has its own form of a routine: Python in the reference tier, native code in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from isa.ir.recorder import Recorder
from isa.ir.uop import Uop

#: The width of every result, in bits.
RESULT_WIDTH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Routine:
    """A routine. Its ``parameters`` have 32 bits.

    The result, if there is one, has 64 bits. It is the value that ``definition`` returns, or that of a path that ended
    earlier. ``new_recorder`` makes a recorder of the instruction set.
    """

    name: str
    parameters: tuple[str, ...]
    definition: Callable[..., Uop | None]
    new_recorder: Callable[[], Recorder]

    def record(self, u: Recorder, *arguments: Uop) -> Uop:
        """Record the routine's uops among others, and return its result. None of its paths may end early."""
        value = self.definition(u, *arguments)
        assert value is not None
        return value

    def block(self) -> list[Uop]:
        """Return the routine's uops on their own. The last one is ``result`` if it has one."""
        u = self.new_recorder()
        value = self.definition(u, *(u.param(name) for name in self.parameters))
        if value is not None:
            u.result(value.zext(RESULT_WIDTH))
        return u.block


class RoutineTable(Mapping[str, Routine]):
    """The routines of one architecture by name."""

    def __init__(self, new_recorder: Callable[[], Recorder]) -> None:
        self._new_recorder = new_recorder
        self._routines: dict[str, Routine] = {}

    def __getitem__(self, name: str) -> Routine:
        return self._routines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._routines)

    def __len__(self) -> int:
        return len(self._routines)

    def define(self, definition: Callable[..., Uop | None]) -> Routine:
        """Make a function ``f(u, *parameters)`` the routine of its name. This is a decorator."""
        name, code = definition.__name__, definition.__code__
        if name in self._routines:
            raise ValueError(f"there are two routines named {name}")
        parameters = code.co_varnames[1 : code.co_argcount]
        self._routines[name] = Routine(name, parameters, definition, self._new_recorder)
        return self._routines[name]
