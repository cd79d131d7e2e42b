"""kill -9 of either side, and a lost connection, at each point of the protocol: never two guests run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from dbt.hypervisor.migration import Point
from tests.migration.certificates import make_credentials
from tests.migration.kills import FORMS, Case, Ended, run_case

_LONG = bool(os.environ.get("DBT_LONG_TESTS"))
_WAYS = ("unix", "descriptor", "tcp", "tls")
_LOCAL = ("unix", "descriptor")
_P = Point
#: The points of the source at which the destination cannot know whether it has decided.
_BEFORE_DECISION = (_P.SOURCE_SENT_STATE, _P.SOURCE_HEARD_VOTE, _P.SOURCE_DECIDED)
_AFTER_DECISION = (_P.SOURCE_COMMITTED, _P.SOURCE_HEARD_ACKNOWLEDGEMENT, _P.SOURCE_DISCARDED)
#: Those of the destination at which a source by TCP may not know whether it runs the machine.
_IN_DOUBT = (_P.DESTINATION_VOTED, _P.DESTINATION_HEARD_COMMIT, _P.DESTINATION_RUNNABLE)


def cases() -> Iterator[Case]:
    """All of them; or each point once, by another way and form from one to the next."""
    every = [Case(way, form, point) for way, form in product(_WAYS, FORMS) for point in Point]
    cuts = [Case(way, "disk", point, cut=True) for way in ("unix", "tcp") for point in Point]
    if _LONG:
        yield from (*every, *cuts)
        return
    for number, point in enumerate(Point):
        yield Case(_WAYS[number % 3], FORMS[number % len(FORMS)], point)
        yield Case(("tcp", "unix")[number % 2], "disk", point, cut=True)
    yield Case("tls", "plain", Point.DESTINATION_VOTED)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_never_two_and_one_where_both_live(case: Case, tmp_path: Path) -> None:
    assert case.point is not None
    if case.way == "tls":
        make_credentials(tmp_path / "credentials")
    folder = tmp_path / "case"
    folder.mkdir()
    found = run_case(case, folder)
    if case.cut:
        assert [found.source, found.destination].count("runs") == 1, found
    elif case.point.is_of_source:
        assert found.source == "killed"
        assert found.destination in possible_destinations(case.point, case.way in _LOCAL), found
    else:
        assert found.destination == "killed"
        assert found.source in possible_sources(case.point, case.way in _LOCAL), found


def possible_destinations(point: Point, is_local: bool) -> tuple[str, ...]:
    """What may become of the destination if the source is killed at a point. On one host it runs what it could
    acknowledge: a source that has closed the connection before may have gone on.
    """
    if point is Point.SOURCE_COMMITTED and is_local:
        return ("runs", "undecided")
    if point in _AFTER_DECISION:
        return ("runs",)
    return ("undecided", "failed") if point in _BEFORE_DECISION else ("failed",)


def possible_sources(point: Point, is_local: bool) -> tuple[str, ...]:
    """What may become of the source if the destination is killed at a point. On one host it always knows."""
    if point is Point.DESTINATION_ACKNOWLEDGED:
        return ("gone",) if is_local else ("gone", "undecided")
    return ("undecided", "runs") if point in _IN_DOUBT and not is_local else ("runs",)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", _WAYS)
def test_if_nobody_is_killed_the_destination_runs_it(way: str, form: str, tmp_path: Path) -> None:
    if way == "tls":
        make_credentials(tmp_path / "credentials")
    (tmp_path / "case").mkdir()
    assert run_case(Case(way, form, None), tmp_path / "case") == Ended("gone", "runs")


def test_there_are_enough_cases() -> None:
    assert len(Point) * len(_WAYS) * len(FORMS) >= 200
