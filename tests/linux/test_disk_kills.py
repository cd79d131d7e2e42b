"""Some rounds of ``kill -9`` under load (:mod:`tests.linux.disk_kills`), and a hundred with DBT_LONG_TESTS."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.linux.debian import NEEDS_DEBIAN
from tests.linux.disk_kills import KINDS, PROGRAMS, kill_often
from tests.long import LONG

pytestmark = NEEDS_DEBIAN
_ROUNDS = 100 if LONG else 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_synchronised_survives(tmp_path: Path, kind: str) -> None:
    for program in (*PROGRAMS, *(["qemu-img"] if "qcow2" in kind else [])):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (e2fsprogs, qemu-utils)")
    assert kill_often(tmp_path, kind, _ROUNDS, seed=3) >= _ROUNDS
