"""Every register of the coprocessors in every tier is compared with what QEMU answered, and so is every gap."""

from __future__ import annotations

import re
from functools import partial

import pytest

from dbt.vm.machine import TierName
from tests.long import LONG
from tests.oracle.coprocessors import CPUS, expected_file, monitors, psci, timers
from tests.oracle.coprocessors.differences import DIFFERENCES, expected_of, is_of_a_range
from tests.oracle.coprocessors.emulators import run_machine
from tests.oracle.coprocessors.sweep import places_of, sweep


def _expected(cpu: str) -> list[str]:
    return [ours for line in expected_file(cpu).read_text().splitlines() for ours in expected_of(line)]


@pytest.mark.parametrize("cpu", CPUS if LONG else CPUS[-1:])
def test_every_place_is_as_qemu_has_it(cpu: str) -> None:
    found = [line for line in sweep(partial(run_machine, cpu, "threaded")) if not is_of_a_range(line)]
    assert set(found) == set(_expected(cpu))


@pytest.mark.parametrize("tier", ["reference", "stitched", "auto"])
def test_what_is_there_is_the_same_in_every_tier(tier: TierName) -> None:
    expected = _expected("cortex-a15")
    found = sweep(partial(run_machine, "cortex-a15", tier), places_of(expected))
    assert {line for line in found if not is_of_a_range(line)} == set(expected)


@pytest.mark.parametrize("tier", ["reference", "threaded"])
def test_the_firmware_answers_as_qemu_does(tier: TierName) -> None:
    assert (
        list(psci.answers(partial(run_machine, "cortex-a15", tier))) == expected_file("psci").read_text().splitlines()
    )


@pytest.mark.parametrize("tier", ["reference", "threaded"])
def test_the_performance_monitors_are_as_qemus(tier: TierName) -> None:
    expected = expected_file("monitors").read_text().splitlines()
    assert list(monitors.answers(partial(run_machine, "cortex-a15", tier))) == expected


@pytest.mark.parametrize("tier", ["reference", "threaded"])
def test_the_generic_timer_is_as_qemus(tier: TierName) -> None:
    expected = expected_file("timers").read_text().splitlines()
    assert list(timers.answers(partial(run_machine, "cortex-a15", tier))) == expected


def test_every_difference_occurs() -> None:
    lines = [line for cpu in CPUS for line in expected_file(cpu).read_text().splitlines()]
    for known in DIFFERENCES:
        assert any(re.fullmatch(known.lines, line) for line in lines), known.reason
