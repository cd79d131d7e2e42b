"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt.codecache.handlers import load_image
from tests.codecache.samples import use_only_handlers


@pytest.fixture(scope="session", autouse=True)
def _warm_cache() -> None:
    """Build the handlers before any test looks at what a command prints, or how long it takes."""
    load_image(print)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache directory, which is not there yet."""
    monkeypatch.setenv("DBT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("DBT_CACHE_SIZE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def only_handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory with the handlers' image alone."""
    return use_only_handlers(tmp_path / "cache", monkeypatch)
