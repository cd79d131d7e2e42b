"""A walk through a guest by packets: what ``make mutants`` relies on holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.gdb.walk import WALKS


@pytest.mark.parametrize("walk", WALKS)
def test_each_answer_of_the_walk_is_right(walk: Callable[[], None]) -> None:
    walk()
