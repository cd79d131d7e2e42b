"""A Linux is moved between two daemons: its connection by a tap interface lives, and the network hears where it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import ROOT, environment
from tests.linux.debian import NEEDS_DEBIAN, TIMEOUT

_PROBE = (
    "import fcntl, os, struct; tun = os.open('/dev/net/tun', os.O_RDWR);"
    "fcntl.ioctl(tun, 0x400454CA, struct.pack('16sH22x', b'tap9', 2))"
)


@pytest.fixture(scope="module", autouse=True)
def network() -> None:
    """Skip the tests where a process cannot have a network of its own with a tap interface in it."""
    try:
        done = subprocess.run(["unshare", "-rn", sys.executable, "-c", _PROBE], capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"unshare cannot be run: {error}")
    if done.returncode:
        pytest.skip("no network of the test's own with a tap interface")


@NEEDS_DEBIAN
@pytest.mark.parametrize("way", ["unix", "tls"])
def test_a_connection_by_a_tap_interface_lives_on(way: str, tmp_path: Path) -> None:
    command = ["unshare", "-rn", sys.executable, "-m", "tests.linux.moved_daemons", str(tmp_path), way, "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT, cwd=ROOT, env=environment()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found["downtimes_ms"]) == 2 and found["lines"] >= 20
    assert found["told"] == 2
