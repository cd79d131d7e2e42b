"""What all tests share."""

from __future__ import annotations

import pytest

from dbt.codecache.handlers import load_image


@pytest.fixture(scope="session", autouse=True)
def _warm_cache() -> None:
    """Build the handlers before any test looks at what a command prints, or how long it takes."""
    load_image(print)
