"""Every program in every tier against what QEMU answered."""

from __future__ import annotations

import os

import pytest

from tests.privileged.differences import differing, expected_of
from tests.privileged.emulators import run_machine
from tests.privileged.programs import PROGRAMS, expected_file, make_program
from tests.privileged.record import Reader, parse, text

TIERS = ("reference", "threaded", "auto")
#: How many of the steps that differ a failure shows.
SHOWN = int(os.environ.get("SHOWN", "20"))


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("cpu", "name"), PROGRAMS, ids=lambda value: value)
def test_program(cpu: str, name: str, tier: str) -> None:
    program = make_program(cpu, name)
    answers = parse(expected_file(cpu, name).read_text())
    assert list(answers) == [step.name for step in program.steps], "the program has changed: make refresh-oracle"
    data, stopped = run_machine(program, tier)
    wrong = []
    count = 0
    for step, ours in Reader(program, data).results():
        count += 1
        expected = expected_of(program.cpu, step, answers[step.name])
        if differing(program.cpu, step, expected, ours):
            wrong.append(f"{step.name}\n  expected {text(expected)}\n  got      {text(ours)}")
    if count < len(program.steps):
        wrong.append(f"stopped in step {count}, {program.steps[count].name}: {stopped}")
    assert not wrong, f"{len(wrong)} of {len(program.steps)} differ:\n" + "\n".join(wrong[:SHOWN])


def test_answers_are_all_used() -> None:
    """No file of expected/ is left over from a program that is no more."""
    kept = {expected_file(*entry) for entry in PROGRAMS}
    assert kept == set(next(iter(kept)).parent.parent.glob("*/*.txt"))
