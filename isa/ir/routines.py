"""Routines: parts of the architecture that are no instruction, written in uops all the same.

Exception entry and the walk of a page table are each one function here, of which every tier has its own
form: Python in the reference tier, native code in the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from isa.ir.uop import Recorder, Uop

#: Of all results.
RESULT_WIDTH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Routine:
    """``parameters`` are 32 bits wide. The result, where there is one, has 64 bits: the last value that
    ``definition`` returns, or what a path that ends earlier said.
    """

    name: str
    parameters: tuple[str, ...]
    definition: Callable[..., Uop | None]

    def record(self, u: Recorder, *arguments: Uop) -> Uop:
        """Its uops in the midst of others, where it has no path that ends early."""
        value = self.definition(u, *arguments)
        assert value is not None
        return value

    def block(self) -> list[Uop]:
        """Its uops on their own; the last one is ``result`` if it has one."""
        u = Recorder()
        value = self.definition(u, *(u.param(name) for name in self.parameters))
        if value is not None:
            u.result(value.zext(RESULT_WIDTH))
        return u.block


#: All routines by name.
ROUTINES: dict[str, Routine] = {}


def routine(definition: Callable[..., Uop | None]) -> Routine:
    """Register a function ``f(u, *parameters)`` as a routine."""
    name = definition.__name__
    code = definition.__code__
    parameters = code.co_varnames[1 : code.co_argcount]
    ROUTINES[name] = Routine(name, parameters, definition)
    return ROUTINES[name]
