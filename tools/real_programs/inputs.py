"""The files that the programs read. They are made here, the same in every run."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

#: C sources and scripts of ours.
GUEST = Path(__file__).parent / "guest"


def _words(chance: random.Random) -> list[str]:
    """Return a vocabulary of 2,000 words."""
    syllables = [first + vowel for first in "bcdfghjklmnprstvw" for vowel in "aeiou"]
    return ["".join(chance.choices(syllables, k=chance.choice((1, 2, 2, 3, 4)))) for _ in range(2000)]


def _sentences(chance: random.Random, size: int) -> str:
    """Return text of ``size`` characters, whose words are as unequally frequent as those of a language."""
    vocabulary = _words(chance)
    frequencies = [1 / (rank + 1) for rank in range(len(vocabulary))]
    parts: list[str] = []
    length = 0
    while length < size:
        sentence = " ".join(chance.choices(vocabulary, frequencies, k=chance.randrange(4, 20))).capitalize()
        parts.append(sentence + chance.choice((".", ".", ".\n", ";", "?")))
        length += len(parts[-1]) + 1
    return " ".join(parts)[:size]


def _text() -> bytes:
    return _sentences(random.Random(1), 400_000).encode()


def _formula() -> bytes:
    """Return a random formula of three literals a clause, with few enough clauses to be hard to satisfy."""
    chance, variables = random.Random(2), 220
    lines = [f"p cnf {variables} {round(4.26 * variables)}\n"]
    for _ in range(round(4.26 * variables)):
        literals = (chance.choice((variable, -variable)) for variable in chance.sample(range(1, variables + 1), 3))
        lines.append(" ".join(map(str, literals)) + " 0\n")
    return "".join(lines).encode()


def _document() -> bytes:
    chance = random.Random(3)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>\n<library>\n']
    for number in range(1500):
        title, text = _title(chance), _title(chance, 40)
        lines.append(
            f'  <book id="b{number}" year="{1900 + chance.randrange(120)}" lang="{chance.choice(("en", "de"))}">\n'
            f"    <title>{title} &amp; more</title>\n"
            f"    <text><![CDATA[{text}]]> <b>{title}</b> &#233;</text>\n  </book>\n"
        )
    return ("".join(lines) + "</library>\n").encode()


def _title(chance: random.Random, words: int = 4) -> str:
    return " ".join(
        "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randrange(2, 9))) for _ in range(words)
    )


_MADE: dict[str, Callable[[], bytes]] = {
    "text.txt": _text,
    "formula.cnf": _formula,
    "document.xml": _document,
}


def place_files(names: Iterable[str], folder: Path, build: Path) -> None:
    """Copy files into ``folder``. What has to be made is made once, and kept in the directory ``build``."""
    made = build / "inputs"
    for name in names:
        source = GUEST / name
        if name in _MADE:
            source = made / name
            if not source.exists():
                made.mkdir(parents=True, exist_ok=True)
                source.write_bytes(_MADE[name]())
        shutil.copy(source, folder / name)
