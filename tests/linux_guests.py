"""What the packages of tests have in common whose guests are Linux."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def hot_as_users_have_it() -> Iterator[None]:
    """Compile what users have compiled. A Linux executes enough for that, and to compile all that it executes a few
    hundred times, anew for each engine, takes longer than the tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DBT_HOT_AFTER")
        yield
