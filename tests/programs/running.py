"""How tests run programs for Linux: by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: A program that does what its arguments say (guests/linux/words.c).
WORDS = str(ROOT / "guests/linux/images/words")
DBT = (sys.executable, "-m", "dbt", "run")
#: Seconds after which a command is taken to hang.
TIMEOUT = 300


def environment() -> dict[str, str]:
    """Return the environment of a command that runs the dbt of this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run_command(
    words: Sequence[str], cwd: Path, stdin: bytes = b"", more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, with ``more`` in its environment."""
    variables = environment() | dict(more or {})
    return subprocess.run(words, check=False, input=stdin, capture_output=True, cwd=cwd, timeout=TIMEOUT, env=variables)


def run(
    *words: str, options: Sequence[str] = (), stdin: bytes = b"", cwd: Path = ROOT, program: str = WORDS
) -> subprocess.CompletedProcess[bytes]:
    """Run a program by ``dbt run`` with these arguments."""
    return run_command((*DBT, *options, program, *words), cwd, stdin)
