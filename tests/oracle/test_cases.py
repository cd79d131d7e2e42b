"""Oracle 2: text cases, written from the architecture manual. Every tier must give the results that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle.cases import TIERS, TierMachine, parse, read_cases

FILES = sorted((Path(__file__).parents[1] / "cases").glob("*.txt"))


@pytest.fixture(scope="module", params=list(TIERS))
def machine(request: pytest.FixtureRequest) -> TierMachine:
    return TierMachine(request.param)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_cases(machine: TierMachine, path: Path) -> None:
    failures = []
    for number, line in read_cases(path):
        case, expected = parse(line)
        differences = "; ".join(machine.run(case, stepwise=True).differences(expected))
        if differences:
            failures.append(f"{path}:{number}: {line}\n    {machine.name}, expected: {differences}")
    assert not failures, "\n" + "\n".join(failures)
