"""The registry of an instruction set's instructions.

``@registry.insn`` registers a semantics function under a bit pattern. The registry has what all instructions of a set
share: the recorder, the field values that no pattern matches, and the condition under which an instruction is executed.

*Forms* say how the threaded tier divides a pattern into handlers. ``forms=("s", "rd==15")`` makes one handler for each
value of ``s``, with R15 as destination or not. Inside the function such a field is a number, or is known not to be 15,
so Python's ``if`` may depend on it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from isa.ir.encoding import DecodeIndex, Decoder, Pattern
from isa.ir.recorder import Recorder
from isa.ir.uop import Uop

_FORM = re.compile(r"(?P<name>[a-z][a-z0-9_]*)(==(?P<value>\d+))?")

R = TypeVar("R", bound=Recorder)
#: Given a recorder and the fields whose value is known: whether the instruction is executed, or None if it always is.
Condition = Callable[[R, Mapping[str, int]], Uop | None]


@dataclass(frozen=True, slots=True)
class Form:
    """The part of a pattern that one handler serves. ``fixed`` fields have one value; ``excluded`` values do not
    occur.
    """

    fixed: Mapping[str, int]
    excluded: frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Insn:
    """One entry of the specification.

    ``since`` is the first version of the architecture that has the instruction, and ``section`` the section of the
    manual that defines it. ``registry`` is the one that it belongs to.
    """

    name: str
    syntax: str
    section: str
    since: int
    pattern: Pattern
    form_names: tuple[str, ...]
    semantics: Callable[..., None]
    registry: Registry[Any]

    @property
    def length(self) -> int:
        """The length of its encoding in bytes."""
        return self.pattern.width // 8

    def check_forms(self) -> None:
        """Raise ValueError if a form names something that is not a field."""
        for text in self.form_names:
            match = _FORM.fullmatch(text)
            if match is None or match["name"] not in self.pattern.fields:
                raise ValueError(f"{self.name}: cannot read form {text!r}")

    def forms(self) -> Iterator[Form]:
        """Yield all forms. If two match a word, the one with more fixed fields applies."""
        choices: list[list[tuple[dict[str, int], frozenset[tuple[str, int]]]]] = []
        for text in self.form_names:
            match = _FORM.fullmatch(text)
            assert match is not None
            name, width = match["name"], self.pattern.fields[match["name"]].width
            if match["value"] is None:
                values = [v for v in range(1 << width) if (name, v) not in self.pattern.excluded]
                choices.append([({name: v}, frozenset()) for v in values])
            else:
                value = int(match["value"])
                choices.append([({name: value}, frozenset()), ({}, frozenset({(name, value)}))])
        for combination in itertools.product(*choices):
            fixed: dict[str, int] = {}
            excluded: frozenset[tuple[str, int]] = frozenset()
            for more_fixed, more_excluded in combination:
                fixed |= more_fixed
                excluded |= more_excluded
            yield Form(fixed, excluded)

    def record_form(self, form: Form) -> list[Uop]:
        """Return the uops of a form, whose free fields are symbolic. The condition is included if the form fixes it."""
        u = self.registry.new_recorder()
        fields: dict[str, Uop] = {}
        for name, field in self.pattern.fields.items():
            if name in form.fixed:
                fields[name] = u.const(form.fixed[name])
            else:
                holes = {v for n, v in form.excluded | self.pattern.excluded if n == name}
                fields[name] = u.field(field, frozenset(holes))
        return self._record(u, fields, form.fixed)

    def record_word(self, word: int) -> list[Uop]:
        """Return the uops of one instruction word, with its condition."""
        u = self.registry.new_recorder()
        values = self.pattern.decode(word)
        return self._record(u, {name: u.const(value) for name, value in values.items()}, values)

    def _record(self, u: Recorder, fields: Mapping[str, Uop], known: Mapping[str, int]) -> list[Uop]:
        condition = self.registry.condition(u, known)
        if condition is None:
            self.semantics(u, SimpleNamespace(**fields))
        else:
            with u.when(condition):
                self.semantics(u, SimpleNamespace(**fields))
        return u.block


class Registry(Generic[R]):
    """The instructions of one instruction set.

    ``new_recorder`` makes its recorder, and ``condition`` says when an instruction is executed. ``reserved`` has the
    field values that its patterns never match. ``lengths`` are the lengths that an instruction may have, in bytes.
    ``oldest`` is the first version of the architecture.
    """

    def __init__(
        self,
        new_recorder: Callable[[], R],
        condition: Condition[R],
        index: DecodeIndex,
        *,
        reserved: Mapping[str, int],
        lengths: Sequence[int],
        oldest: int,
    ) -> None:
        self.new_recorder = new_recorder
        self.condition = condition
        self.insns: list[Insn] = []
        self._index = index
        self._reserved = reserved
        self._widths = [8 * length for length in lengths]
        self._oldest = oldest

    def insn(
        self,
        pattern: str,
        *,
        syntax: str,
        section: str,
        name: str = "",
        since: int | None = None,
        where: str = "",
        forms: tuple[str, ...] = (),
    ) -> Callable[[Callable[[R, SimpleNamespace], None]], Callable[[R, SimpleNamespace], None]]:
        """Register a semantics function ``f(u, fields)`` under a pattern (see :mod:`isa.ir.encoding`)."""

        def register(function: Callable[[R, SimpleNamespace], None]) -> Callable[[R, SimpleNamespace], None]:
            title = name or syntax.split(maxsplit=1)[0].split("{", maxsplit=1)[0].split("<", maxsplit=1)[0]
            version = self._oldest if since is None else since
            parsed = Pattern.parse(pattern, where, widths=self._widths, reserved=self._reserved)
            entry = Insn(title, syntax, section, version, parsed, forms, function, self)
            entry.check_forms()
            self.insns.append(entry)
            return function

        return register

    def build_decoder(self) -> Decoder[Insn]:
        """Return the decoder of everything registered so far. Raise EncodingError if two patterns overlap."""
        return Decoder(self.insns, self._index)
