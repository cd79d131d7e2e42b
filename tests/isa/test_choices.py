"""Choices are named where they are made, and listed once."""

from __future__ import annotations

import re
from pathlib import Path

from isa.arm.choices import CHOICES

ROOT = Path(__file__).resolve().parents[2]
#: How far behind the word UNPREDICTABLE the name of the choice may be, in characters.
REACH = 400


def sources() -> dict[Path, str]:
    files = (path for room in ("isa", "dbt") for path in (ROOT / room).rglob("*.py"))
    return {path: path.read_text() for path in files if path.name != "choices.py"}


def test_each_is_listed_once() -> None:
    names = [choice.name for choice in CHOICES]
    assert len(names) == len(set(names))


def test_names_in_the_code_are_the_names_in_the_list() -> None:
    used = {name for text in sources().values() for name in re.findall(r"choice: ([a-z0-9-]+)", text)}
    assert used == {choice.name for choice in CHOICES}


def test_everything_unpredictable_names_its_choice() -> None:
    for path, text in sources().items():
        for match in re.finditer("UNPREDICTABLE", text):
            where = f"{path.name}:{text.count(chr(10), 0, match.start()) + 1}"
            assert "choice: " in text[match.start() : match.start() + REACH], where
