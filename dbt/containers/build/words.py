"""Words of a Dockerfile: quotes, escapes and variables, by rules that resemble those of a shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dbt.containers.build.failures import BuildFailed

_SPECIAL: Final = "@*#"


def expand(word: str, variables: Mapping[str, str], escape: str) -> str:
    """Return a word without its quotes, and with the values of variables. Raise BuildFailed."""
    try:
        return _Word(word, variables, escape).until("")
    except _WrongWord as error:
        raise BuildFailed(f'failed to process "{_quoted(word)}": {error}') from None


def _quoted(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')


class _WrongWord(Exception):
    pass


class _Word:
    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._escape = escape

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        one = self._peek()
        self._at += len(one)
        return one

    def until(self, stop: str) -> str:
        """Return what is before the character ``stop``, or the end if that is empty."""
        found = []
        while (one := self._next()) != stop:
            match one:
                case "":
                    raise _WrongWord(f"unexpected end of statement while looking for matching {stop}")
                case "'":
                    found.append(self._single())
                case '"':
                    found.append(self._double())
                case "$":
                    found.append(self._variable())
                case _ if one == self._escape:
                    found.append(self._next())
                case _:
                    found.append(one)
        return "".join(found)

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise _WrongWord("unexpected end of statement while looking for matching single-quote")
        found, self._at = self._text[self._at : end], end + 1
        return found

    def _double(self) -> str:
        found = []
        while (one := self._next()) != '"':
            if not one:
                raise _WrongWord("unexpected end of statement while looking for matching double-quote")
            if one == "$":
                found.append(self._variable())
            elif one == self._escape and self._peek() in ('"', "$", self._escape):
                found.append(self._next())
            else:
                found.append(one)
        return "".join(found)

    def _variable(self) -> str:
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._next()
        if not self._peek():
            raise _WrongWord("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise _WrongWord("syntax error: bad substitution")
        name = self._name()
        value = self._variables.get(name, "")
        match self._next():
            case "}":
                return value
            case ":":
                return self._modified(name, value)
            case _:
                raise _WrongWord("missing ':' in substitution")

    def _modified(self, name: str, value: str) -> str:
        modifier = self._next()
        word = self.until("}")
        match modifier:
            case "+":
                return word if value else value
            case "-":
                return value or word
            case "?":
                if not value:
                    raise _WrongWord(f"{name}: {word or 'message is not allowed to be empty'}")
                return value
            case _:
                raise _WrongWord(f"unsupported modifier ({modifier}) in substitution")

    def _name(self) -> str:
        first = self._peek()
        if first in _SPECIAL or first.isdigit():
            start = self._at
            self._next()
            while first.isdigit() and self._peek().isdigit():
                self._next()
            return self._text[start : self._at]
        start = self._at
        while self._peek() == "_" or self._peek().isalnum():
            self._next()
        return self._text[start : self._at]


def split_words(text: str, escape: str) -> list[str]:
    """Return the words of a line, with their quotes and escapes."""
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        one = text[at]
        if one == escape and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if one == quote else quote
        elif one in "'\"":
            quote = one
        elif one.isspace():
            words += [word] if word else []
            word = ""
            at += 1
            continue
        word += one
        at += 1
    return [*words, word] if word else words
