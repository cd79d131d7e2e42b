"""Callouts: the sensitive operations of an instruction set, which instructions request by name.

Most callouts are defined in uops, which follow the ``callout`` uop in the instruction. So a native tier executes them
natively. The others are answered by the hypervisor. Each callout is counted when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isa.ir.uop import Uop

#: A function that is given the recorder and the arguments, which have 32 bits each.
Definition = Callable[..., "Uop | None"]


@dataclass(frozen=True, slots=True, eq=False)
class Callout:
    """A sensitive operation. ``definition`` records what it does and returns its result, if it has one. Without a
    definition, the hypervisor answers it.

    - ``leaves``: the path of the instruction ends there.
    - ``synchronises``: the mode, the page tables or the interrupt masks may change, so the next op is looked up again.
    - ``checks_privilege``: it raises an exception in user mode.
    - ``sensitive``: False for an exit that is the same in every mode.
    - ``has_result``: the hypervisor answers with 32 bits. (A definition returns its result itself.)
    - ``may_leave``: the hypervisor may have to execute the whole instruction elsewhere. So nothing is written before.
    """

    name: str
    meaning: str
    definition: Definition | None
    leaves: bool = False
    synchronises: bool = False
    checks_privilege: bool = False
    sensitive: bool = True
    has_result: bool = False
    may_leave: bool = False

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
        """Return a decorator for a function ``f(u, *arguments)`` that records what the callout of its name does.

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
