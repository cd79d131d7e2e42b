"""Every privileged program in every tier is compared with what QEMU answered."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial

import pytest

from dbt.vm.machine import TierName
from tests.long import LONG
from tests.oracle.privileged import (
    CORRECTIONS,
    OPEN,
    PROGRAMS,
    Program,
    Reader,
    differing,
    expected_file,
    expected_of,
    make_program,
    parse,
    run_machine,
    run_regions,
    text,
)

EVERY = int(os.environ.get("EVERY", "5"))
#: "regions": the code of the steps is compiled before it is executed, that of every EVERY-th step.
RUNNERS: dict[str, Callable[[Program], tuple[bytes, str]]] = {
    **{tier: partial(run_machine, tier=tier) for tier in ("reference", "threaded", "stitched", "auto")},
    "regions": partial(run_regions, every=EVERY),
}
#: How many of the steps that differ a failure shows.
SHOWN = int(os.environ.get("SHOWN", "20"))


@pytest.mark.parametrize("tier", RUNNERS if LONG else [tier for tier in RUNNERS if tier != "auto"])
@pytest.mark.parametrize(("cpu", "name"), PROGRAMS, ids=lambda value: value)
def test_program(cpu: str, name: str, tier: str) -> None:
    _compare(make_program(cpu, name), RUNNERS[tier])


@pytest.mark.parametrize("tier", ["threaded", "auto"])
@pytest.mark.parametrize("name", [name for cpu, name in PROGRAMS if cpu == "cortex-a8" and name != "cp15"])
def test_the_cortex_a15_does_as_the_cortex_a8(name: str, tier: TierName) -> None:
    """On QEMU's Versatile/PB a Cortex-A15 begins in Hyp mode, which ours has not. Its MMU and exceptions are the same.

    Its registers are compared in test_coprocessors.py.
    """
    _compare(make_program("cortex-a8", name), partial(run_machine, tier=tier, cpu="cortex-a15"))


def _compare(program: Program, run: Callable[[Program], tuple[bytes, str]]) -> None:
    cpu, name = program.cpu.name, program.name
    answers = parse(expected_file(cpu, name).read_text())
    assert list(answers) == [step.name for step in program.steps], (
        f"the program has changed: python -m tests.oracle.privileged.refresh {cpu}/{name} asks QEMU again"
    )
    data, stopped = run(program)
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


def test_every_correction_changes_answers() -> None:
    """A correction that changes nothing is left over: QEMU no longer has that defect, or no step shows it."""
    needed = {known.name: False for known in CORRECTIONS}
    for entry in PROGRAMS:
        program = make_program(*entry)
        answers = parse(expected_file(*entry).read_text())
        for known in CORRECTIONS:
            if program.cpu.arch in known.archs:
                right = (answer for name, answer in answers.items() if re.fullmatch(known.steps, name))
                needed[known.name] |= any(known.correct(answer) != answer for answer in right)
    assert all(needed.values()), needed


def test_what_is_open_occurs() -> None:
    names = {step.name for entry in PROGRAMS for step in make_program(*entry).steps}
    assert all(any(re.fullmatch(known.steps, name) for name in names) for known in OPEN)
