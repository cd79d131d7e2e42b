"""kill -9 of either side, and a lost connection, at each point of the protocol: never two guests run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from dbt.hypervisor.migration import Point
from dbt.hypervisor.migration.arriving_storage import MARK, ArrivingFile
from tests.long import LONG
from tests.migration.certificates import make_credentials
from tests.migration.kills import COPIES, FORMS, Case, Ended, drives_of, run_case

_WAYS = ("unix", "descriptor", "tcp", "tls")
_LOCAL = ("unix", "descriptor")
_P = Point
#: The points of the source at which the destination cannot know whether it has decided.
_BEFORE_DECISION = (_P.SOURCE_SENT_ROOT, _P.SOURCE_HEARD_VOTE, _P.SOURCE_DECIDED)
_AFTER_DECISION = (_P.SOURCE_COMMITTED, _P.SOURCE_HEARD_ACKNOWLEDGEMENT, _P.SOURCE_DISCARDED)
#: Those of the destination at which a source by TCP may not know whether it runs the machine.
_IN_DOUBT = (
    _P.DESTINATION_VOTED,
    _P.DESTINATION_HEARD_COMMIT,
    _P.DESTINATION_KEPT_DISKS,
    _P.DESTINATION_RUNNABLE,
)


def cases() -> Iterator[Case]:
    """All of them; or each point once, by another way and form from one to the next."""
    usual = [point for point in Point if not point.is_of_copies]
    every = [Case(way, form, point) for way, form in product(_WAYS, FORMS) for point in usual]
    cuts = [Case(way, "disk", point, cut=True) for way in ("unix", "tcp") for point in usual]
    copies = [Case(way, form, point) for way, form in product(_WAYS, COPIES) for point in Point]
    cuts += [Case(way, "copied", point, cut=True) for way in ("unix", "tcp") for point in Point if point.is_of_copies]
    if LONG:
        yield from (*every, *copies, *cuts)
        return
    for number, point in enumerate(usual):
        yield Case(_WAYS[number % 3], FORMS[number % len(FORMS)], point)
        yield Case(("tcp", "unix")[number % 2], "disk", point, cut=True)
    for number, point in enumerate(Point):
        if point.is_of_copies or number % 3 == 0:
            yield Case(_WAYS[number % 3], COPIES[number % len(COPIES)], point)
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
    if case.form in COPIES:
        check_copies(case, folder, found)


def check_copies(case: Case, folder: Path, found: Ended) -> None:
    """What is copied is whole, or nothing is left of it that stands in the way of another migration."""
    for here, there in zip(drives_of(case, folder), drives_of(case, folder / "there"), strict=True):
        for (path, _), (copy, _) in zip(here.files, there.files, strict=True):
            is_marked = os.path.exists(copy + MARK)
            if found.destination in ("runs", "undecided") or (os.path.exists(copy) and not is_marked):
                assert not is_marked and Path(path).read_bytes() == Path(copy).read_bytes()
            elif found.destination == "failed":
                assert not is_marked and not os.path.exists(copy)
            else:
                ArrivingFile(copy, 4096).close()
                assert not os.path.exists(copy) and not os.path.exists(copy + MARK)


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


@pytest.mark.parametrize("form", (*FORMS, *COPIES))
@pytest.mark.parametrize("way", _WAYS)
def test_if_nobody_is_killed_the_destination_runs_it(way: str, form: str, tmp_path: Path) -> None:
    if way == "tls":
        make_credentials(tmp_path / "credentials")
    (tmp_path / "case").mkdir()
    assert run_case(Case(way, form, None), tmp_path / "case") == Ended("gone", "runs")


def test_there_are_enough_cases() -> None:
    assert len(Point) * len(_WAYS) * len(FORMS) >= 200
