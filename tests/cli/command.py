"""The ``dbt`` command as a user calls it: a process with arguments, streams and a status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.waiting import BOUND_S

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "dbt"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}


def dbt(*arguments: str | Path, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end; ``more`` goes to its environment."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=BOUND_S,
        env=environment(**more),
        check=False,
    )


def paragraph(done: subprocess.CompletedProcess[bytes], status: int) -> str:
    """The one paragraph on standard error of a command that failed with this status."""
    text = done.stderr.decode()
    assert done.returncode == status, text
    assert text.startswith("dbt: ") and text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


def json_of(done: subprocess.CompletedProcess[bytes]) -> Mapping[str, Any]:
    answer = json.loads(done.stderr.decode().splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


def children_of(cache: Path) -> list[int]:
    """The processes whose environment names that cache directory."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if os.fsencode(cache) in (process / "environ").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
    return found
