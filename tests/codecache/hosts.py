"""Processes on hosts that refuse something: to write, or to hold more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_in_background(script: str, *prefix: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def as_one_who_obeys() -> list[str]:
    """A command in front of a command that makes permissions count, as they do not for root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root without setpriv may write everywhere")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def on_small_disk(place: Path, size: str) -> list[str]:
    """A command in front of a command that mounts an empty file system for it."""
    mount = f'mount -t tmpfs -o mode=700,size={size} none "{place}" && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this host lets nobody mount a file system of their own")
    return prefix
