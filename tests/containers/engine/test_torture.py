"""Random verbs to an engine that is killed at random moments. DBT_TORTURE_SEED has the seed of a run that failed."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.containers.engine.engines import engine_in
from tests.containers.engine.images import add_images
from tests.containers.engine.torture import Torture
from tests.long import LONG

_SEED = int(os.environ.get("DBT_TORTURE_SEED") or random.randrange(1 << 32))
_DEATHS = 25 if LONG else 2


def test_what_was_acknowledged_survives(tmp_path: Path) -> None:
    print(f"DBT_TORTURE_SEED={_SEED}")
    folder = tmp_path / "c"
    folder.mkdir(mode=0o700)
    add_images(folder)
    with engine_in(folder) as engine:
        torture = Torture(engine, _SEED)
        torture.run(_DEATHS, longest=8.0)
    print(torture.done)


@pytest.mark.parametrize("seed", range(4 if LONG else 0))
def test_short_lives(seed: int, tmp_path: Path) -> None:
    """Engines that die while they find what the one before has left."""
    print(f"seed {seed}")
    folder = tmp_path / "c"
    folder.mkdir(mode=0o700)
    add_images(folder)
    with engine_in(folder) as engine:
        Torture(engine, seed).run(12, longest=1.5)
