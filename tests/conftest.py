"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.codecache.handlers import load_image
from dbt.engine.worker import CompileWorker
from tests.codecache.samples import use_only_handlers


def pytest_sessionstart(session: pytest.Session) -> None:
    """Build the handlers before any test looks at what a command prints, or how long it takes, and before there are
    workers, each of which would build them.
    """
    if not hasattr(session.config, "workerinput") and not session.config.option.collectonly:
        load_image(print)


@pytest.fixture(scope="session", autouse=True)
def _soon_hot() -> Iterator[None]:
    """Let code be hot soon, because the tests' guests are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBT_HOT_AFTER", "256")
        yield


@pytest.fixture(autouse=True)
def _new_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test's machines have a compiler of their own, which is forked from this process as the test has patched
    it. A compiler that runs already, for machines that an earlier test has left open, would not know the patches.
    """
    monkeypatch.setattr("dbt.engine.worker._SHARED", CompileWorker())


@pytest.fixture(autouse=True)
def _few_descriptors() -> Iterator[None]:
    """Fail a test that leaves many files open, in this process with all the tests. A few are those of objects that
    nothing refers to and that are not collected yet.
    """
    before = len(os.listdir("/proc/self/fd"))
    yield
    if len(os.listdir("/proc/self/fd")) > before + 16:
        gc.collect()
    left = len(os.listdir("/proc/self/fd")) - before
    assert left <= 16, f"the test leaves {left} files open"


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
