"""Tap interfaces as ends, in a network of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbt.host.net_option import NetworkError
from dbt.host.tap import TapEnd
from tests.cli.command import ROOT, environment
from tests.waiting import BOUND_S

#: What each script begins with: it makes interfaces, and frames with a type that nobody else uses.
_BEGIN = """
import fcntl, os, socket, struct, sys
from dbt.host.net_option import Net, NetworkError
from dbt.host.network import open_end
from tests.waiting import wait_until
TAP, TUN, NO_PI, MULTI = 2, 1, 0x1000, 0x100
def make(name, flags, owner=None):
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name, flags | NO_PI))
    fcntl.ioctl(descriptor, 0x400454CB, 1)  # it stays
    return descriptor
def go_up(name, flags=1):
    with socket.socket() as any_:
        fcntl.ioctl(any_, 0x8914, struct.pack("16sH22x", name, flags))
def refused(name):
    try:
        open_end(Net("tap:" + name), print).close()
    except NetworkError as error:
        return str(error)
FRAME = bytes(12) + b"\\x88\\xb5"
"""


def run(script: str, *alone: str) -> str:
    """Run a script in a network of its own, in which it is root. Return what it prints."""
    done = subprocess.run(
        [*(alone or ("unshare", "-rn")), sys.executable, "-c", _BEGIN + script],
        capture_output=True, text=True, check=False, timeout=BOUND_S, cwd=ROOT, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def network() -> None:
    """Skip the tests where a process cannot have a network of its own with a tap interface in it."""
    probe = (
        "import fcntl, os, struct; tun = os.open('/dev/net/tun', os.O_RDWR);"
        "fcntl.ioctl(tun, 0x400454CA, struct.pack('16sH22x', b'tap9', 2))"
    )
    try:
        command = ["unshare", "-rn", sys.executable, "-c", probe]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BOUND_S)
    except OSError as error:
        pytest.skip(f"unshare cannot be run: {error}")
    if done.returncode:
        pytest.skip(f"no network of the test's own with a tap interface: {done.stderr.splitlines()[-1]}")


def test_frames_go_both_ways_until_the_interface_is_removed() -> None:
    assert (
        run("""
os.close(make(b"tap9", TAP))
said = []
end = open_end(Net("tap:tap9"), said.append)
end.send(FRAME + b"lost: it is down")
go_up(b"tap9")
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as host:
    host.bind(("tap9", 0x88B5))
    host.settimeout(60)
    for size in (14, 60, 1514):
        frame = FRAME + bytes(size - 14)
        end.send(frame)
        assert host.recv(2000) == frame, size
        host.send(frame)
        assert len(end.descriptors()) == 1
        got = wait_until(lambda: [f for f in end.receive() if f[12:14] == FRAME[12:]], "a frame")
        assert got == [frame], size
    for _ in range(400):
        host.send(FRAME)
    assert len(end.receive()) == 256
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:  # RTM_DELLINK
    index = socket.if_nametoindex("tap9")
    netlink.send(struct.pack("=IHHIIBxHiII", 32, 17, 5, 1, 0, 0, 0, index, 0, 0))
    netlink.recv(1000)
wait_until(lambda: (end.receive(), not end.descriptors())[1], "the end")
assert said == ["the network tap:tap9 is gone: File descriptor in bad state. "
                "The guest's card is connected to nothing now"], said
end.send(FRAME)
assert end.receive() == []
print("done")
""")
        == "done\n"
    )


def test_what_is_no_tap_interface_or_in_use() -> None:
    """None is made, either."""
    assert (
        run("""
os.close(make(b"tun9", TUN)); os.close(make(b"many9", TAP | MULTI)); kept = make(b"busy9", TAP)
for name in ("lo", "tun9", "many9"):
    assert "this is no tap interface, or one with several queues" in refused(name), refused(name)
assert refused("busy9") == "--net tap:busy9: another program uses it"
for name in ("none9", "x" * 16, "a\\0b", "a/b", "%d"):
    assert "there is no network interface of this name" in refused(name), refused(name)
print("done", *sorted(name for _, name in socket.if_nameindex()))
""")
        == "done busy9 lo many9 tun9\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make an interface of somebody else")
def test_an_interface_of_somebody_else() -> None:
    assert run(
        """
import ctypes
descriptor = make(b"tap9", TAP)
fcntl.ioctl(descriptor, 0x400454CC, 1)  # TUNSETOWNER
os.close(descriptor)
assert refused("tap9") is None  # root may
version_3, nothing = struct.pack("=II", 0x20080522, 0), bytes(24)
assert ctypes.CDLL(None).capset(version_3, nothing) == 0
print(refused("tap9"))
""",
        "unshare",
        "-n",
    ) == (
        "--net tap:tap9: this user may not use it. As root: ip tuntap add dev tap9 mode tap user USER, for a new one\n"
    )


def test_without_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dbt.host.tap._DEVICE", str(tmp_path / "tun"))
    with pytest.raises(NetworkError, match=r"--net tap:lo: cannot open .*/tun: No such file"):
        TapEnd("lo", pytest.fail)
    assert not os.path.exists(tmp_path / "tun")
