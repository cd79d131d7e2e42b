"""Splitting assembly text into statements. Comments are removed; macros, repetitions and conditions are expanded.

The syntax is that of GNU as for ARM: ``;`` separates statements, ``@`` and ``//`` begin a comment, ``#`` does at the
beginning of a line, and ``/* */`` encloses one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from dbt.assembler.expressions import SYMBOL

_PIECE = re.compile(
    r"""(\\.|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^\\\n])'?)|(@[^\n]*|//[^\n]*|/\*.*?\*/)|([;\n])|([^"'@/;\n\\]+|.)""", re.S
)
_STRING = re.compile(r'"(?:\\.|[^"\\])*"', re.S)
_LINE_COMMENT = re.compile(r"^[ \t]*#.*$", re.M)
_LABEL = re.compile(rf"({SYMBOL}|[0-9]+)\s*:(?!:)\s*(.*)", re.S)
_ASSIGNMENT = re.compile(rf"({SYMBOL})\s*=(?!=)\s*(.*)", re.S)
_LOCAL = re.compile(r"(?<![\w.$])([0-9]+)([fb])(?![\w.$])")
_OPENING = {".macro": ".endm", ".rept": ".endr", ".irp": ".endr"}
_BRANCHES = (".else", ".elseif", ".endif")
_CONDITIONS = (".if", ".ifeq", ".ifne", ".ifdef", ".ifndef")
#: The most statements that a program may have, including those that macros and repetitions make.
_MOST_STATEMENTS = 300_000
_DEEPEST = 100


class AssemblyError(Exception):
    """Raised for text that cannot be assembled. ``line`` and ``text`` are those of the statement at fault, if it is
    one.
    """

    def __init__(self, what: str, line: int | None = None, text: str = "") -> None:
        super().__init__(what)
        self.line = line
        self.text = text


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement: a label alone, or an instruction or directive with its name in lower case and its operands."""

    line: int
    text: str
    label: str = ""
    name: str = ""
    operands: str = ""
    depth: int = 0  # the depth of macros that it comes from


@dataclass(frozen=True, slots=True)
class _Macro:
    parameters: tuple[tuple[str, str], ...]  # names and default values
    body: tuple[Statement, ...]


def split(text: str) -> Iterator[Statement]:
    """Yield the statements of a text as they stand. A text of one line numbers statements, any other numbers lines."""
    by_statement = "\n" not in text.rstrip("\n")
    line, began = 1, 1
    parts: list[str] = []
    for literal, comment, end, other in _PIECE.findall(_LINE_COMMENT.sub("", text) + "\n"):
        if comment:
            parts.append(" ")
            line += comment.count("\n")
        elif end:
            yield from _statements("".join(parts), began)
            line += by_statement or end == "\n"
            parts = []
        else:
            if not "".join(parts).strip():
                began = line
            parts.append(literal or other)


def _statements(text: str, line: int, depth: int = 0) -> Iterator[Statement]:
    """Yield the labels before a statement, and the statement."""
    text = rest = text.strip()
    while found := _LABEL.fullmatch(rest):
        yield Statement(line, text, label=found[1], depth=depth)
        rest = found[2]
    if found := _ASSIGNMENT.fullmatch(rest):
        yield Statement(line, text, name=".set", operands=f"{found[1]}, {found[2]}", depth=depth)
    elif rest:
        name, *operands = rest.split(None, 1)
        yield Statement(
            line, text, name=name if "\\" in name else name.lower(), operands="".join(operands), depth=depth
        )


def split_operands(text: str) -> list[str]:
    """Return the parts between commas. Commas in brackets, strings and characters do not count."""
    parts, depth, began = [], 0, 0
    for found in re.finditer(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\\])\'?|[\[({]|[\])}]|,', text):
        token = found[0]
        if token in "[({":
            depth += 1
        elif token in "])}":
            depth -= 1
        elif token == "," and depth == 0:
            parts.append(text[began : found.start()].strip())
            began = found.end()
    last = text[began:].strip()
    return [*parts, last] if parts or last else []


class Expander:
    """Yields the statements to which a text expands. Local labels (``1:``, ``1f``, ``1b``) become labels of their own.

    ``constant`` returns the value of an expression by what is defined so far. ``is_defined`` says if a symbol is.
    """

    def __init__(self, text: str, constant: Callable[[str], int], is_defined: Callable[[str], bool]) -> None:
        self._pending = deque(split(text))
        self._constant = constant
        self._is_defined = is_defined
        self._macros: dict[str, _Macro] = {}
        self._conditions: list[bool] = []  # for each open condition, whether a branch was taken
        self._locals: dict[str, int] = {}
        self._expansions = 0

    def __iter__(self) -> Iterator[Statement]:
        count = 0
        while self._pending:
            statement = self._pending.popleft()
            count += 1
            if max(count, len(self._pending)) > _MOST_STATEMENTS:
                what = f"the program has more than {_MOST_STATEMENTS} statements"
                raise AssemblyError(what, statement.line, statement.text)
            if statement.name in _OPENING:
                self._open(statement)
            elif statement.name.startswith((".if", ".else", ".endif")):
                self._decide(statement)
            elif statement.name in (".endm", ".endr"):
                raise AssemblyError(f"there is nothing for {statement.name} to end", statement.line, statement.text)
            elif statement.name in self._macros:
                self._use(statement, self._macros[statement.name])
            elif statement.name == ".end":
                return
            else:
                yield self._with_local_labels(statement)
        if self._conditions:
            raise AssemblyError("an .if has no .endif")

    def _with_local_labels(self, statement: Statement) -> Statement:
        if statement.label.isdigit():
            number = self._locals[statement.label] = self._locals.get(statement.label, 0) + 1
            return replace(statement, label=f".local.{statement.label}.{number}")
        if statement.name.startswith((".asci", ".string")):
            return statement

        def name(found: re.Match[str]) -> str:
            return f".local.{found[1]}.{self._locals.get(found[1], 0) + (found[2] == 'f')}"

        return replace(statement, operands=_LOCAL.sub(name, statement.operands))

    # -- macros and repetitions --------------------------------------------------------------------

    def _open(self, statement: Statement) -> None:
        body = self._take_body(statement, _OPENING[statement.name])
        if statement.name == ".macro":
            self._define(statement, body)
        elif statement.name == ".rept":
            times = self._constant(statement.operands)
            if times * len(body) > _MOST_STATEMENTS:
                what = f"the program has more than {_MOST_STATEMENTS} statements"
                raise AssemblyError(what, statement.line, statement.text)
            self._pending.extendleft(reversed(body * max(times, 0)))
        else:
            variable, *values = split_operands(statement.operands) or [""]
            for value in reversed(values or [""]):
                self._prepend(body, {variable: _unquoted(value)})

    def _take_body(self, opening: Statement, ending: str) -> list[Statement]:
        body: list[Statement] = []
        depth = 1
        while self._pending:
            statement = self._pending.popleft()
            depth += _OPENING.get(statement.name) == ending
            depth -= statement.name == ending
            if depth == 0:
                return body
            body.append(statement)
        raise AssemblyError(f"{opening.name} has no {ending}", opening.line, opening.text)

    def _define(self, statement: Statement, body: list[Statement]) -> None:
        words = [word for word in re.split(r"[\s,]+", re.sub(r"\s*=\s*", "=", statement.operands)) if word]
        if not words:
            raise AssemblyError("a macro has a name", statement.line, statement.text)
        pairs = (word.partition("=")[::2] for word in words[1:])
        parameters = tuple((name, _unquoted(value)) for name, value in pairs)
        self._macros[words[0].lower()] = _Macro(parameters, tuple(body))

    def _use(self, statement: Statement, macro: _Macro) -> None:
        if statement.depth >= _DEEPEST:
            what = f"more than {_DEEPEST} macros are in each other: does {statement.name} use itself?"
            raise AssemblyError(what, statement.line, statement.text)
        values = dict(macro.parameters)
        names = list(values)
        position = 0
        for argument in split_operands(statement.operands):
            name, equals, value = (part.strip() for part in argument.partition("="))
            if equals and name in values:
                values[name] = _unquoted(value)
            elif position < len(names):
                values[names[position]] = _unquoted(argument)
                position += 1
            else:
                what = f"the macro {statement.name} has {len(names)} parameters and is given more"
                raise AssemblyError(what, statement.line, statement.text)
        self._expansions += 1
        self._prepend(macro.body, {**values, "@": str(self._expansions - 1), "()": ""}, statement)

    def _prepend(
        self, body: tuple[Statement, ...] | list[Statement], values: dict[str, str], user: Statement | None = None
    ) -> None:
        """Put the body next, with values for ``\\name``. Errors name the line that uses the macro."""
        names = "|".join(re.escape(name) for name in sorted(values, key=len, reverse=True) if name)
        made: list[Statement] = []
        for statement in body:
            line, depth = (statement.line, statement.depth) if user is None else (user.line, user.depth + 1)
            text = re.sub(rf"\\({names})", lambda found: values[found[1]], _text_of(statement)) if names else ""
            made += _statements(text or _text_of(statement), line, depth)
        self._pending.extendleft(reversed(made))

    # -- conditions --------------------------------------------------------------------------------

    def _decide(self, statement: Statement) -> None:
        if statement.name in _CONDITIONS:
            taken = self._holds(statement)
            self._conditions.append(taken)
            if not taken:
                self._skip(statement)
            return
        if not self._conditions or statement.name not in _BRANCHES:
            what = (
                f"{statement.name} has no .if" if statement.name in _BRANCHES else f"there is no {statement.name} here"
            )
            raise AssemblyError(what, statement.line, statement.text)
        if statement.name == ".endif":
            self._conditions.pop()
        else:  # the branch before this one was taken
            self._skip(statement, to_end=True)

    def _holds(self, statement: Statement) -> bool:
        operands = statement.operands
        match statement.name:
            case ".ifdef":
                return self._is_defined(operands)
            case ".ifndef":
                return not self._is_defined(operands)
            case ".ifeq":
                return self._constant(operands) == 0
        return self._constant(operands) != 0

    def _skip(self, opening: Statement, to_end: bool = False) -> None:
        """Drop statements up to the branch that is taken, or to the end of the condition."""
        depth = 0
        while self._pending:
            statement = self._pending.popleft()
            if statement.name in _CONDITIONS:
                depth += 1
            elif statement.name == ".endif":
                depth -= 1
                if depth < 0:
                    self._conditions.pop()
                    return
            elif depth == 0 and not to_end and self._begins_branch(statement):
                self._conditions[-1] = True
                return
        raise AssemblyError("an .if has no .endif", opening.line, opening.text)

    def _begins_branch(self, statement: Statement) -> bool:
        return statement.name == ".else" or (statement.name == ".elseif" and self._constant(statement.operands) != 0)


def _unquoted(argument: str) -> str:
    """Return the text that an argument of a macro stands for: without the quotes around it, as in GNU as."""
    return argument[1:-1] if _STRING.fullmatch(argument) else argument


def _text_of(statement: Statement) -> str:
    return f"{statement.label}:" if statement.label else f"{statement.name} {statement.operands}"
