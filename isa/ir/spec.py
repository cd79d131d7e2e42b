"""The registry of instructions and the wrapper that every one of them runs in.

``@insn`` registers a semantics function under a bit pattern. What all instructions share lives
here once: the condition, and the conversion of fields into what the function sees.

*Forms* say how the threaded tier divides a pattern into handlers: ``forms=("s", "rd==15")`` makes
one handler for each value of ``s``, and for R15 or not R15 as destination; inside the function such
a field is a number (or is known not to be 15), so Python's ``if`` may depend on it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

from isa.arm.operands import condition_holds
from isa.ir.encoding import Decoder, Pattern
from isa.ir.uop import Recorder, Uop

Semantics = Callable[[Recorder, SimpleNamespace], None]
ALWAYS = 0b1110
_FORM = re.compile(r"(?P<name>[a-z][a-z0-9_]*)(==(?P<value>\d+))?")


@dataclass(frozen=True, slots=True)
class Form:
    """A part of a pattern that one handler serves: some fields fixed, some known not to be a value."""

    fixed: Mapping[str, int]
    excluded: frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Insn:
    """One entry of the specification.

    ``since`` is the first architecture version that has it (4 to 7); ``section`` the section of
    the ARM Architecture Reference Manual ARMv7-A/R (DDI 0406C) that defines it.
    """

    name: str
    syntax: str
    section: str
    since: int
    pattern: Pattern
    form_names: tuple[str, ...]
    semantics: Semantics

    def check_forms(self) -> None:
        """ValueError if a form names what is not a field."""
        for text in self.form_names:
            match = _FORM.fullmatch(text)
            if match is None or match["name"] not in self.pattern.fields:
                raise ValueError(f"{self.name}: cannot read form {text!r}")

    def forms(self) -> Iterator[Form]:
        """All forms. Where two match a word, the one with more fixed fields is meant."""
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

    def record(self, u: Recorder, fields: Mapping[str, Uop]) -> None:
        """Record the semantics without the condition."""
        self.semantics(u, SimpleNamespace(**fields))

    def record_form(self, form: Form) -> Recorder:
        """The uops of a form, its free fields symbolic, without the condition."""
        u = Recorder()
        fields: dict[str, Uop] = {}
        for name, field in self.pattern.fields.items():
            if name in form.fixed:
                fields[name] = u.const(form.fixed[name])
            else:
                holes = {v for n, v in form.excluded | self.pattern.excluded if n == name}
                fields[name] = u.field(field, frozenset(holes))
        self.record(u, fields)
        return u

    def record_word(self, word: int) -> Recorder:
        """The uops of one instruction word, condition included."""
        u = Recorder()
        fields = {name: u.const(value) for name, value in self.pattern.decode(word).items()}
        condition = word >> 28 if "cond" in fields else ALWAYS
        if condition == ALWAYS:
            self.record(u, fields)
        else:
            with u.when(condition_holds(u, condition)):
                self.record(u, fields)
        return u


REGISTRY: list[Insn] = []


def insn(
    pattern: str,
    *,
    syntax: str,
    section: str,
    name: str = "",
    since: int = 4,
    where: str = "",
    forms: tuple[str, ...] = (),
) -> Callable[[Semantics], Semantics]:
    """Register a semantics function ``f(u, fields)`` under a pattern (see :mod:`isa.ir.encoding`)."""

    def register(function: Semantics) -> Semantics:
        title = name or syntax.split(maxsplit=1)[0].split("{", maxsplit=1)[0].split("<", maxsplit=1)[0]
        entry = Insn(title, syntax, section, since, Pattern.parse(pattern, where), forms, function)
        entry.check_forms()
        REGISTRY.append(entry)
        return function

    return register


def build_decoder() -> Decoder[Insn]:
    """The decoder of everything registered so far; overlaps raise EncodingError."""
    return Decoder(REGISTRY)
