"""What tests of networks need of this host."""

from __future__ import annotations

import shutil
import socket

import pytest

NEEDS_PASST = pytest.mark.skipif(shutil.which("passt") is None, reason="there is no passt")


def own_address() -> str:
    """Return an address of this host that is not its loopback's, or skip the test."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # which sends nothing
        except OSError:
            pytest.skip("this host has no route")
        return str(probe.getsockname()[0])
