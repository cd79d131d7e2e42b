"""A daemon for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemon.daemons import TestDaemon, daemon_in


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestDaemon]:
    with daemon_in(tmp_path_factory.mktemp("d")) as daemon:
        daemon.ok("list")
        yield daemon


@pytest.fixture
def daemon(shared_daemon: TestDaemon) -> Iterator[TestDaemon]:
    """A daemon without domains."""
    yield shared_daemon
    shared_daemon.remove_all()
