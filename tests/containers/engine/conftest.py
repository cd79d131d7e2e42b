"""An engine for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.containers.engine.engines import TestEngine, engine_in
from tests.containers.engine.images import add_images


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestEngine]:
    folder = tmp_path_factory.mktemp("e") / "c"
    folder.mkdir(mode=0o700)
    add_images(folder)
    with engine_in(folder) as made:
        yield made
