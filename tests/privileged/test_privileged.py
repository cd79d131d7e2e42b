"""Every program in every tier against what QEMU answered."""

from __future__ import annotations

import os

import pytest

from tests.privileged.emulators import run_machine
from tests.privileged.programs import PROGRAMS, expected_file, make_program
from tests.privileged.record import Reader, line, parse

TIERS = ("reference", "threaded", "auto")
SHOWN = int(os.environ.get("SHOWN", "20"))


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("cpu", "name"), PROGRAMS, ids=lambda value: value)
def test_program(cpu: str, name: str, tier: str) -> None:
    program = make_program(cpu, name)
    expected = parse(expected_file(cpu, name).read_text())
    assert list(expected) == [step.name for step in program.steps], "run `make refresh-oracle`"
    data, stopped = run_machine(program, tier)
    wrong = []
    count = 0
    for step, result in Reader(program, data).results():
        count += 1
        ours = parse(line(step, result))[step.name]
        if ours != expected[step.name]:
            wrong.append(f"{step.name}\n  QEMU {expected[step.name]}\n  ours {ours}")
    if count < len(program.steps):
        wrong.append(f"stopped in step {count}, {program.steps[count].name}: {stopped}")
    assert not wrong, f"{len(wrong)} of {len(program.steps)} differ:\n" + "\n".join(wrong[:SHOWN])
