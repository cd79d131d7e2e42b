"""Code of one machine with which others begin: they execute as without it, and stitch less."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_machines_with_the_code_of_another_one_execute_as_without_it() -> None:
    command = [sys.executable, "-m", "tests.engine.warm_code_processes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, sealed = done.stdout.splitlines()
    found = {name: (adopted == "True", int(insns), digest) for name, adopted, insns, digest in map(str.split, lines)}
    assert {digest for _, _, digest in found.values()} == {found["nothing"][2]}
    adopted = {name for name, (has_adopted, _, _) in found.items() if has_adopted}
    assert adopted == {"warm", "rests", "compiles"}
    assert found["warm"][1] < found["nothing"][1] == found["another-template"][1]
    assert found["rests"][1] > found["warm"][1]
    assert sealed == "sealed Operation not permitted"
