"""A Linux that computes, writes its disk and talks by a tap interface is moved to and fro between two daemons.

    unshare -rn python -m tests.linux.moved_daemons FOLDER WAY MOVES

It is run in a network of its own, in which it may make interfaces. WAY is "unix" or "tls". A connection to the guest
has to live, and the network is told where the guest is. What was measured is printed as JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from tests.daemon.daemons import TestDaemon
from tests.linux.debian import DISK, KERNEL, TIMEOUT
from tests.migration.certificates import make_credentials
from tests.waiting import BOUND_S, wait_until

_TAP, _GUEST, _PORT = "tap9", "10.9.9.2", 80
#: The EtherType of RARP, by which the network is told.
_RARP = 0x8035
_WORK = (
    b"ip addr add 10.9.9.2/24 dev eth0; ip link set eth0 up; (while :; do nc -l -p 80 -e cat; done) &\n"
    b"(while :; do i=$((i+1)); echo $i | dd of=/dev/vda bs=512 seek=$((i%8000)) conv=notrunc 2>/dev/null; done) &\n"
    b"echo at ''work\n"
)


def make_network() -> None:
    """Make a tap interface with the host's address, which stays."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", _TAP.encode(), 0x1002))
    fcntl.ioctl(descriptor, 0x400454CB, 1)
    os.close(descriptor)
    with socket.socket() as any_:
        address = struct.pack("16sHH4s8x", _TAP.encode(), socket.AF_INET, 0, socket.inet_aton("10.9.9.1"))
        mask = struct.pack("16sHH4s8x", _TAP.encode(), socket.AF_INET, 0, socket.inet_aton("255.255.255.0"))
        fcntl.ioctl(any_, 0x8916, address)
        fcntl.ioctl(any_, 0x891C, mask)
        for name in (_TAP, "lo"):
            fcntl.ioctl(any_, 0x8914, struct.pack("16sH22x", name.encode(), 1))


class Talk:
    """Sends lines to the guest's echo server by one connection, and notes how long each answer takes."""

    def __init__(self) -> None:
        self.lines, self.longest, self.error = 0, 0.0, ""
        wait_until(self._connect, "the guest's server")
        self._ends = False
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _connect(self) -> bool:
        with suppress(OSError):
            self._connection = socket.create_connection((_GUEST, _PORT), BOUND_S)
            return True
        return False

    def _run(self) -> None:
        with self._connection as connection, connection.makefile("rb") as answers:
            while not self._ends:
                began, line = time.monotonic(), b"line %d\n" % self.lines
                connection.sendall(line)
                if (answer := answers.readline()) != line:
                    self.error = f"{line!r} came back as {answer!r}"
                    return
                self.longest = max(self.longest, time.monotonic() - began)
                self.lines += 1

    def await_more(self) -> None:
        """Return when some more lines have come back."""
        before = self.lines
        wait_until(lambda: self.error or self.lines >= before + 5, "an answer by the connection")
        assert not self.error, self.error

    def end(self) -> None:
        self._ends = True
        self._thread.join(BOUND_S)


def boot(daemon: TestDaemon, folder: Path) -> None:
    """Let the Linux boot and begin its work."""
    (folder / "disk").write_bytes(bytes(4 << 20))
    (folder / "linux.toml").write_text(
        f'name = "linux"\n[machine]\nkernel = "{KERNEL}"\ninitrd = "{DISK}"\nboard = "virt"\ncpu = "cortex-a15"\n'
        f'append = "console=ttyAMA0 rdinit=/init-virt nowait quiet"\nmemory = "128M"\n'
        f'drive = ["file={folder}/disk"]\nnet = ["tap:{_TAP}"]\n'
    )
    daemon.ok("create", folder / "linux.toml")
    client = daemon.client()
    output = client.hijack("/v1/domains/linux/console?position=0")
    client.socket.settimeout(TIMEOUT)
    for wanted, then in ((b" DONE ===", _WORK), (b"at work\r\n", b"")):
        while wanted not in output:
            piece = client.socket.recv(4096)
            assert piece, output[-2000:]
            output += piece
        client.socket.sendall(then)
    client.close()


def instructions(daemon: TestDaemon, seconds: float) -> float:
    """Return how many instructions a second the guest executes."""

    def now() -> tuple[int, float]:
        return daemon.ask("GET", "/v1/domains/linux/stats")["instructions"], time.monotonic()

    before, began = now()
    time.sleep(seconds)
    after, ended = now()
    return (after - before) / (ended - began)


def seconds_to_speed(daemon: TestDaemon, before: float) -> float:
    """Return after how long the guest executes at 90 % of a rate; 3 if it does not before."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < 3:
        if instructions(daemon, 0.1) >= 0.9 * before:
            return passed
    return 3.0


def listening(folder: Path, options: list[str], opened: ExitStack) -> tuple[TestDaemon, str]:
    """Start a daemon, and return it with the place where it takes machines of others."""
    daemon = TestDaemon(folder)
    folder.mkdir()
    log = folder / "log"
    environment = {**os.environ, "DBT_VM_DIR": str(daemon.state)}
    with open(log, "wb") as file:
        child = subprocess.Popen([sys.executable, "-m", "dbt", "vm", "daemon", *options], env=environment, stderr=file)
    opened.callback(child.wait)
    opened.callback(child.kill)
    opened.callback(daemon.vm, "daemon", "--stop")
    opened.callback(daemon.remove_all)
    wait_until(lambda: b"the daemon listens" in log.read_bytes(), "a daemon that listens")
    found = re.search(r"are taken at (tcp:\S+)", log.read_text())
    return daemon, f"unix:{daemon.state / 'vm.sock'}" if found is None else found[1]


def run(folder: Path, way: str, moves: int) -> dict[str, Any]:
    credentials: list[str] = []
    options: list[str] = []
    if way == "tls":
        credentials = ["--tls-creds", str(make_credentials(folder / "credentials"))]
        options = ["--migration", "tcp:127.0.0.1:0", *credentials]
    make_network()
    downtimes, waits, speeds, told = [], [], [], 0
    with ExitStack() as opened:
        sides = [listening(folder / name, options, opened) for name in ("a", "b")]
        boot(sides[0][0], folder)
        talk = Talk()
        watching = opened.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_RARP)))
        watching.bind((_TAP, _RARP))
        watching.setblocking(False)
        for _ in range(moves):
            (here, _), (there, place) = sides
            talk.await_more()
            before, talk.longest = instructions(here, 1.0), 0.0
            report = here.json("migrate", "--live", "linux", place, *credentials)
            speeds.append(seconds_to_speed(there, before))
            talk.await_more()
            downtimes.append(report["downtime_s"] * 1000)
            waits.append(talk.longest * 1000)
            with suppress(BlockingIOError):
                told += bool(watching.recv(100))
            sides.reverse()
        talk.end()
        assert not talk.error, talk.error
    return {"downtimes_ms": downtimes, "waits_ms": waits, "speeds_s": speeds, "lines": talk.lines, "told": told}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
