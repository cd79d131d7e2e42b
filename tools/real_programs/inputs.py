"""The files that the programs read. They are made here, the same in every run."""

from __future__ import annotations

import json
import math
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


def _json() -> bytes:
    chance = random.Random(4)
    records = [
        {
            "id": number,
            "name": _title(chance, 2),
            "tags": [_title(chance, 1) for _ in range(chance.randrange(6))],
            "score": chance.randrange(100_000) / 64,
            "nested": {"flag": chance.random() < 0.5, "none": None, "text": '"quoted" \u00e9 \\ ' + _title(chance, 3)},
        }
        for number in range(1200)
    ]
    return json.dumps(records).encode()


def _picture() -> bytes:
    """Return a PPM file: soft waves of colour, edges, and noise."""
    chance, width, height = random.Random(5), 640, 480
    waves = [(chance.uniform(0.01, 0.1), chance.uniform(0.01, 0.1), chance.uniform(0, 6)) for _ in range(3)]
    pixels = bytearray()
    for y in range(height):
        for x in range(width):
            edge = 60 if (x // 40 + y // 40) % 2 else 0
            for across, down, shift in waves:
                value = 96 + 80 * math.sin(across * x + down * y + shift) + edge + chance.randrange(16)
                pixels.append(min(255, max(0, round(value))))
    return b"P6\n%d %d\n255\n" % (width, height) + bytes(pixels)


def _markdown() -> bytes:
    chance = random.Random(6)
    parts = []
    for number in range(400):
        parts.append(f"{'#' * chance.randrange(1, 5)} {_title(chance)}\n\n")
        parts.append(
            f"{_title(chance, 30)} *{_title(chance, 2)}* and **{_title(chance, 1)}**, `code` [{number}](#a).\n\n"
        )
        parts += [
            f"{'  ' * chance.randrange(3)}- {_title(chance, 6)} <b>&amp;</b>\n" for _ in range(chance.randrange(6))
        ]
        parts.append("\n    int indented;\n\n> a quotation\n> of two lines\n\n" if number % 3 else "\n***\n\n")
    return "".join(parts).encode()


def _c_source() -> bytes:
    """Return a C program of many functions, which needs no headers."""
    chance = random.Random(7)
    lines = [
        "struct node { struct node *next; int key; char name[8]; };",
        "static int f0(int x, struct node *n) { return x; }",
    ]
    for number in range(1, 1500):
        called = chance.randrange(number)
        constants = [chance.randrange(1, 1000) for _ in range(4)]
        lines.append(
            f"static int f{number}(int x, struct node *n)\n{{\n    int i, sum = {constants[0]};\n"
            f"    for (i = 0; i < x % {constants[1]}; i++) {{\n        if (n && n->key > i) sum += n->key * i;\n"
            f"        else switch (i & 3) {{ case 0: sum ^= i << 2; break; case 1: sum -= {constants[2]}; break;\n"
            f"        default: sum += f{called}(i / 2, n ? n->next : 0); }}\n    }}\n"
            f"    return sum > {constants[3]} ? sum - x : sum + (n ? n->name[x & 7] : x);\n}}\n"
        )
    return ("\n".join(lines) + "\nint start(void) { return f1499(3, 0); }\n").encode()


def _title(chance: random.Random, words: int = 4) -> str:
    return " ".join(
        "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randrange(2, 9))) for _ in range(words)
    )


_MADE: dict[str, Callable[[], bytes]] = {
    "text.txt": _text,
    "formula.cnf": _formula,
    "document.xml": _document,
    "records.json": _json,
    "picture.ppm": _picture,
    "text.md": _markdown,
    "program.c": _c_source,
}


def place_files(names: Iterable[str], folder: Path, build: Path) -> None:
    """Copy files into ``folder``: made ones, those of tools/real_programs/guest, or ``PACKAGE/FILE`` of a package.

    What has to be made is made once, and kept in the directory ``build``, which also has the packages.
    """
    made = build / "inputs"
    for name in names:
        source = build / "sources" / name if "/" in name else GUEST / name
        if name in _MADE:
            source = made / name
            if not source.exists():
                made.mkdir(parents=True, exist_ok=True)
                source.write_bytes(_MADE[name]())
        shutil.copy(source, folder / source.name)
