"""An engine for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.containers.engine.engines import TestEngine, engine_in


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestEngine]:
    with engine_in(tmp_path_factory.mktemp("e") / "c") as made:
        yield made
