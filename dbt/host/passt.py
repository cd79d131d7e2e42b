"""A network for a guest without privileges: the program ``passt``, which makes sockets of the host from its frames.

By default the guest sees the addresses of QEMU's user network: it is 10.0.2.15, the gateway is 10.0.2.2 and reaches the
host's loopback, and 10.0.2.3 answers DNS. ``passt`` ends when its socket is closed, so it ends with this process,
however that ends. Run by root, it becomes the user nobody.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from typing import Final, NamedTuple

from dbt.host.net_option import Forward, NetworkError

_PROGRAM: Final = "passt"
#: passt(1). Search domains, the MTU and the host's own addresses are left out, as in QEMU's network.
_OPTIONS: Final = ("--quiet", "--ipv4-only", "--search", "none", "--mtu", "0")
_PORTS: Final = {"tcp": "--tcp-ports", "udp": "--udp-ports"}
#: The bytes that a socket holds; the kernel may give fewer (net.core.wmem_max). passt loses frames when it is full, and
#: then sends much again.
_BUFFER: Final = 8 << 20
#: Seconds for what takes some milliseconds.
_TIMEOUT_S: Final = 30.0
#: What it says besides an error, and how much of the rest is shown.
_NO_ERROR: Final = re.compile(r"Failed to send \d+ bytes to syslog|Don't run as root\. .*|\s*")
_MOST_LINES: Final = 4
_MOST_BYTES: Final = 4096


class Place(NamedTuple):
    """Where a guest is: its address and how long the network's part of it is, the gateway's address and hardware
    address, and an address that answers DNS. ``reaches_host``: the gateway is the host's loopback. ``name`` is what
    wants the network, for messages.
    """

    address: str = "10.0.2.15"
    prefix: int = 24
    gateway: str = "10.0.2.2"
    mac: str = "52:55:0a:00:02:02"
    names: str = "10.0.2.3"
    reaches_host: bool = True
    name: str = "--net user"

    @property
    def options(self) -> list[str]:
        """The options of passt(1)."""
        found = ["--address", self.address, "--netmask", str(self.prefix), "--gateway", self.gateway]
        found += ["--mac-addr", self.mac, "--dns-forward", self.names]
        return found if self.reaches_host else [*found, "--no-map-gw"]


#: Where QEMU's user network has its guest.
QEMU_PLACE: Final = Place()


def start_passt(forwards: Sequence[Forward], place: Place = QEMU_PLACE) -> socket.socket:
    """Start ``passt``. Return the socket at which it takes and gives frames, each behind its length in four bytes.

    Raise NetworkError if it is not installed or refuses.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise NetworkError(
            f"{place.name} needs the program passt, which is not installed. It is in the package passt of Debian 12 "
            "and Ubuntu 23.04 and later: apt install passt. See https://passt.top for others"
        )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    ports = [word for forward in forwards for word in _option_of(forward)]
    try:
        with theirs:
            command = [program, *_OPTIONS, *place.options, "--fd", str(theirs.fileno()), *ports]
            _run(command, theirs.fileno(), place.name)
    except BaseException:
        ours.close()
        raise
    return ours


def _option_of(forward: Forward) -> tuple[str, str]:
    return _PORTS[forward.protocol], f"{forward.address}/{forward.port}:{forward.guest_port}"


def _run(command: Sequence[str], descriptor: int, what: str) -> None:
    """Run the program until it goes on in the background, which it does when it is ready. Raise NetworkError."""
    with open(os.memfd_create(_PROGRAM), "r+b") as said:  # not a pipe, which could be full
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=[descriptor]
            )
        except OSError as error:
            raise NetworkError(f"cannot run {command[0]}: {error.strerror}") from None
        try:
            status = process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise NetworkError(f"{command[0]} was not ready after {_TIMEOUT_S:.0f} seconds") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if status:
            text = os.pread(said.fileno(), _MOST_BYTES, 0).decode(errors="replace")
            raise NetworkError(f"{what} cannot be had: {_error_in(text, status)}")


def _error_in(text: str, status: int) -> str:
    lines = [line.strip() for line in text.splitlines() if not _NO_ERROR.fullmatch(line)]
    if lines:
        return f"passt says: {'; '.join(lines[:_MOST_LINES])}"
    return f"passt ended with status {status}" if status > 0 else f"signal {-status} ended passt"
