"""The three Linux machines of docs/lab: they ping each other, and shut down and reboot by the power key.

DBT_VIRT_IMAGES names the directory with what ``make virt`` makes.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import ROOT
from tests.daemon.daemons import TestDaemon, daemon_in
from tests.linux.debian import DISK, KERNEL, NEEDS_DEBIAN, TIMEOUT

NAMES = ("client", "router", "server")


def _has_lab() -> bool:
    return DISK.exists() and b"init-lab" in gzip.decompress(DISK.read_bytes())


pytestmark = [
    NEEDS_DEBIAN,
    pytest.mark.skipif(
        not _has_lab(), reason="the disk of `make virt` is an old one, without /init-lab: make it again"
    ),
]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[TestDaemon]:
    """The three machines, defined with these images."""
    with daemon_in(tmp_path) as daemon:
        for name in NAMES:
            text = (ROOT / "docs" / "lab" / f"{name}.toml").read_text()
            for made, file in (("vmlinuz", KERNEL), ("initramfs-virt.cpio.gz", DISK)):
                assert f'"../../build/virt/{made}"' in text
                text = text.replace(f'"../../build/virt/{made}"', f'"{file}"')
            (tmp_path / f"{name}.toml").write_text(text)
        daemon.ok("define", *(tmp_path / f"{name}.toml" for name in NAMES))
        daemon.ok("start", *NAMES)
        yield daemon


class Console:
    """The console of a machine, from the beginning."""

    def __init__(self, daemon: TestDaemon, name: str) -> None:
        self._client = daemon.client()
        self._output = self._client.hijack(f"/v1/domains/{name}/console?position=0")
        self._client.socket.settimeout(TIMEOUT)

    def wait_for(self, text: bytes) -> None:
        while text not in self._output:
            piece = self._client.socket.recv(4096)
            assert piece, self._output[-1000:]
            self._output += piece
        self._output = self._output.partition(text)[2]

    def type(self, line: bytes) -> None:
        self._client.socket.sendall(line + b"\n")

    def close(self) -> None:
        self._client.close()


def test_the_machines_of_the_lab_ping_each_other_and_hear_the_power_key(lab: TestDaemon) -> None:
    consoles = {name: Console(lab, name) for name in NAMES}
    for name, console in consoles.items():
        console.wait_for(f"=== {name} IS UP ===".encode())
        console.wait_for(b"# ")
    for address in (b"10.0.0.2", b"10.0.0.3"):
        consoles["client"].type(b"ping -c 2 " + address)
        consoles["client"].wait_for(b"2 packets transmitted, 2 packets received, 0% packet loss")
    lab.ok("shutdown", "server", "--timeout", str(TIMEOUT))
    assert lab.state_of("server") == "defined"
    lab.ok("reboot", "router")
    consoles["router"].wait_for(b"reboot: Power down")
    for console in consoles.values():
        console.close()
    again = Console(lab, "router")
    again.wait_for(b"=== router IS UP ===")
    again.close()
