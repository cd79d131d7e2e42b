"""Our engine answers docker's clients, and requests, as a dockerd has answered them.

Scenes, what dockerd said, and how to ask it again: see ``scene``, ``expected`` and ``refresh``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.containers.engine.engines import engine_in
from tests.containers.golden.differences import DIFFERENCES, compared
from tests.containers.golden.expected import Play, expected_file, plays
from tests.containers.golden.registry import registry_for
from tests.containers.golden.scene import Stage, steps
from tests.containers.golden.tidy import tidy

#: Scenes that need no container and no image.
WITHOUT_IMAGES: Final = frozenset({"api/system"})
_ARCHIVE: Final = Path(os.environ.get("DBT_CONTAINER_IMAGES", ""), "busybox-armel.tar")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("golden")
    with engine_in(folder / "state") as found:
        yield found.socket


@pytest.mark.parametrize("play", plays(), ids=str)
def test_answers_are_those_of_dockerd(play: Play, engine: str, tmp_path: Path) -> None:
    if play.missing:
        pytest.skip(play.missing)
    if str(play) not in WITHOUT_IMAGES:
        if not _ARCHIVE.is_file():
            pytest.skip("DBT_CONTAINER_IMAGES is no directory with busybox-armel.tar")
        tidy(engine, _ARCHIVE)
    with registry_for(play, tmp_path) as registry:
        stage = Stage(engine, play.command, tmp_path, str(Path(engine).parent), registry)
        ours = compared(stage.play(steps(play.group, play.scene)))
    theirs = compared(expected_file(play).read_text())
    assert ours == theirs, "\n".join(difflib.unified_diff(theirs, ours, "dockerd", "ours", lineterm="", n=4))


def test_differences_are_ones() -> None:
    expected = [line for play in plays() for line in expected_file(play).read_text().splitlines()]
    for difference in DIFFERENCES:
        assert any(difference.pattern.search(line) for line in expected), difference.reason
