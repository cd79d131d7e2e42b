"""Callouts: the sensitive operations of an instruction set, which an instruction asks for by name.

Most are defined in uops, which follow the ``callout`` uop in the instruction, and so are native in every tier
that is. The others are the hypervisor's own business. Every one is counted when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isa.ir.uop import Uop

#: Takes the recorder and the arguments, 32 bits each.
Definition = Callable[..., "Uop | None"]


@dataclass(frozen=True, slots=True, eq=False)
class Callout:
    """A sensitive operation. ``definition`` records what it does and returns its result, if any; without one
    the hypervisor does it.

    ``leaves``: the instruction's path ends there. ``synchronises``: the mode, the tables or what is masked may be
    others after it, so that what comes next is looked up anew. ``checks_privilege``: it is an exception in user mode.
    ``sensitive``: False for an exit that every mode takes alike.
    """

    name: str
    meaning: str
    definition: Definition | None
    leaves: bool = False
    synchronises: bool = False
    checks_privilege: bool = False
    sensitive: bool = True

    def __str__(self) -> str:
        return self.name


class CalloutTable(Mapping[str, Callout]):
    """The callouts of one instruction set by name, in the order in which they were added."""

    def __init__(self) -> None:
        self._callouts: dict[str, Callout] = {}

    def __getitem__(self, name: str) -> Callout:
        return self._callouts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._callouts)

    def __len__(self) -> int:
        return len(self._callouts)

    def define(self, meaning: str, **properties: bool) -> Callable[[Definition], Definition]:
        """Decorate a function ``f(u, *arguments)`` that records what the callout of its name does.

        ``properties`` are those of :class:`Callout`.
        """

        def register(definition: Definition) -> Definition:
            self._add(definition.__name__, meaning, definition, properties)
            return definition

        return register

    def declare(self, name: str, meaning: str, **properties: bool) -> None:
        """Add a callout that the hypervisor answers."""
        self._add(name, meaning, None, properties)

    def _add(self, name: str, meaning: str, definition: Definition | None, properties: dict[str, Any]) -> None:
        if name in self._callouts:
            raise ValueError(f"there are two callouts named {name}")
        self._callouts[name] = Callout(name, meaning, definition, **properties)
