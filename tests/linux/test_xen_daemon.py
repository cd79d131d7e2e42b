"""Debian's kernel as a domain of Xen that `dbt vm` keeps: memory, reboot and shutdown by XenStore, and moves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.daemons import TestDaemon, daemon_in
from tests.linux.debian import DISK, KERNEL, TIMEOUT
from tests.linux.domu import NEEDS_DOMU
from tests.waiting import wait_until

pytestmark = NEEDS_DOMU
_PROMPT = b"/ # "
#: What the kernel runs for a request by XenStore.
_PROGRAMS = (
    "for w in poweroff reboot; do printf '#!/bin/busybox sh\\n/bin/busybox %s -f\\n' $w > /sbin/$w; "
    "chmod +x /sbin/$w; done"
)


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[tuple[TestDaemon, TestDaemon]]:
    for name in "ab":
        (tmp_path / name).mkdir()
    with daemon_in(tmp_path / "a") as one, daemon_in(tmp_path / "b") as other:
        other.ok("list")
        (tmp_path / "disk").write_bytes(bytes(4 << 20))
        (tmp_path / "linux.toml").write_text(
            f'name = "linux"\n[machine]\nkernel = "{KERNEL}"\ninitrd = "{DISK}"\nmemory = "128M"\n'
            f'append = "console=hvc0 panic=-1 rdinit=/init-xen nowait quiet"\ndrive = ["file={tmp_path}/disk"]\n'
        )
        one.ok("create", "--type", "pv", tmp_path / "linux.toml")
        yield one, other


class Shell:
    """The guest's shell at the console that a daemon has."""

    def __init__(self, daemon: TestDaemon, position: int = 0) -> None:
        self.client = daemon.client()
        self.output = self.client.hijack(f"/v1/domains/linux/console?position={position}")
        self.client.socket.settimeout(TIMEOUT)
        self.seen = 0

    def wait_for(self, text: bytes) -> bytes:
        """Return what came until the text did."""
        end = time.monotonic() + TIMEOUT
        while (at := self.output.find(text, self.seen)) < 0:
            assert time.monotonic() < end, self.output[-2000:]
            piece = self.client.socket.recv(4096)
            assert piece, self.output[-2000:]
            self.output += piece
        came, self.seen = self.output[self.seen : at], at + len(text)
        return came

    def do(self, command: str) -> str:
        """Return what a command prints."""
        self.client.socket.sendall(f"echo be''gun; {command}; echo en''ded\n".encode())
        self.wait_for(b"begun\r\n")  # the command itself is echoed with quotes, and in several lines
        return self.wait_for(b"ended\r\n").decode().strip()

    def memory(self) -> int:
        """Return how many MiB the kernel has."""
        return int(self.do("grep MemTotal /proc/meminfo").split()[1]) >> 10

    def close(self) -> None:
        self.client.close()


def test_the_daemon_has_a_linux(daemons: tuple[TestDaemon, TestDaemon], tmp_path: Path) -> None:
    daemon, other = daemons
    shell = Shell(daemon)
    shell.wait_for(_PROMPT)
    assert shell.do("cat /sys/hypervisor/type /sys/hypervisor/version/major") == "xen\r\n4"
    shell.do("echo kept | dd of=/dev/xvda conv=sync 2>/dev/null; sync; x=here")
    before = shell.memory()
    daemon.ok("setmem", "linux", "112M")
    wait_until(lambda: before - 20 <= shell.memory() <= before - 12, "less memory")
    daemon.ok("setmem", "linux", "128M")
    wait_until(lambda: shell.memory() == before, "more memory")
    daemon.ok("suspend", "linux")
    daemon.ok("resume", "linux")
    assert shell.do("echo $x") == "here"
    shell.close()
    daemon.ok("save", "linux", tmp_path / "saved")
    daemon.ok("restore", tmp_path / "saved")
    daemon.ok("migrate", "--live", "linux", f"unix:{other.state / 'vm.sock'}")
    shell = Shell(other)
    assert shell.do("echo $x; dd if=/dev/xvda bs=5 count=1 2>/dev/null") == "here\r\nkept"
    shell.do(_PROGRAMS)
    other.ok("reboot", "--timeout", str(TIMEOUT), "linux")
    shell.wait_for(_PROMPT)
    assert shell.do("echo $x; dd if=/dev/xvda bs=5 count=1 2>/dev/null") == "kept", "it is another kernel"
    shell.do(_PROGRAMS)
    other.ok("shutdown", "--timeout", str(TIMEOUT), "linux")
    wait_until(lambda: "linux" not in other.ok("list", "--all"), "the end")
