"""``passt`` as a network: the real one where it is installed, and programs of its name that fail in every way."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dbt.host.net_option import Forward, Net, NetworkError
from dbt.host.network import NetworkEnd, open_end
from dbt.host.passt import start_passt
from tests.host.passt import dhcp_discover, free_port, need_passt, passts, udp_frame
from tests.waiting import has_ended, wait_until

_DHCP_OPTIONS = 14 + 20 + 8 + 240


def first(end: NetworkEnd) -> bytes:
    frames: list[bytes] = wait_until(end.receive, "a frame")
    return frames[0]


def options_of(frame: bytes) -> dict[int, bytes]:
    """The options of a DHCP answer, by number."""
    found, data = {}, frame[_DHCP_OPTIONS:]
    while data and data[0] != 255:
        found[data[0]], data = data[2 : 2 + data[1]], data[2 + data[1] :]
    return found


def test_the_guest_gets_the_addresses_of_qemus_network() -> None:
    need_passt()
    end = open_end(Net("user"), pytest.fail)
    end.send(dhcp_discover())
    answer = first(end)
    end.close()
    assert answer[6:12] == bytes.fromhex("52550a000202")
    assert answer[14 + 20 + 8 + 16 :][:4] == bytes((10, 0, 2, 15))
    options = options_of(answer)
    gateway = bytes((10, 0, 2, 2))
    assert (options[1], options[3], options[54]) == (b"\xff\xff\xff\0", gateway, gateway)
    assert 26 not in options and 119 not in options  # MTU and search domains, which QEMU does not give either


def test_the_gateway_is_the_hosts_loopback_and_ports_are_forwarded() -> None:
    """A datagram of the guest's comes to the host, and one to the forwarded port comes to the guest."""
    need_passt()
    port = free_port(socket.SOCK_DGRAM)
    end = open_end(Net("user", forwards=(Forward("udp", "127.0.0.1", port, 53),)), pytest.fail)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("127.0.0.1", 0))
        host.settimeout(60)
        end.send(udp_frame(host.getsockname()[1], b"out"))
        assert host.recv(100) == b"out"
        host.sendto(b"in", ("127.0.0.1", port))
        frame = wait_until(lambda: next((f for f in end.receive() if f.endswith(b"in")), b""), "the datagram")
    assert frame[30:34] == bytes((10, 0, 2, 15)) and int.from_bytes(frame[36:38], "big") == 53
    end.close()


def test_it_ends_with_its_socket() -> None:
    need_passt()
    port = free_port()
    connection = start_passt((Forward("tcp", "127.0.0.1", port, 80),))
    most = int(Path("/proc/sys/net/core/wmem_max").read_text())
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * min(8 << 20, most)  # socket(7)
    (process,) = passts(port)
    socket.create_connection(("127.0.0.1", port)).close()
    if not os.geteuid():
        assert Path(f"/proc/{process}").stat().st_uid == 65534  # nobody
    connection.close()
    wait_until(lambda: has_ended(process), "the end of passt")


def test_passt_is_killed_while_it_is_used() -> None:
    need_passt()
    port, said = free_port(), list[str]()
    end = open_end(Net("user", forwards=(Forward("tcp", "127.0.0.1", port, 80),)), said.append)
    (process,) = passts(port)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: end.receive() or said, "what is said of it")
    assert said == [
        "the network user (passt) is gone: the other side has ended the connection. "
        "The guest's card is connected to nothing now"
    ]
    end.send(dhcp_discover())
    assert end.receive() == [] and not end.descriptors()


def test_what_passt_says_is_the_error() -> None:
    need_passt()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NetworkError) as caught:
            start_passt((Forward("tcp", "127.0.0.1", port, 80),))
    assert str(caught.value) == (
        f"--net user cannot be had: passt says: Failed to bind any port for '-t 127.0.0.1/{port}:80', exiting"
    )


def test_without_passt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NetworkError, match=r"not installed\. .*: apt install passt"):
        start_passt(())


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give this process a program ``passt`` of a shell's lines; ``$FD`` is its descriptor of the socket."""

    def make(lines: str) -> None:
        program = tmp_path / "passt"
        program.write_text(f'#!/bin/sh\nwhile [ "$1" != --fd ]; do shift; done; FD=$2\n{lines}\n')
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return make


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("exit 3", "passt ended with status 3"),
        ("echo Failed to send 3 bytes to syslog >&2; exit 1", "passt ended with status 1"),
        ("kill -9 $$", "signal 9 ended passt"),
        ("echo no; echo; echo never >&2; exit 1", "passt says: no; never"),
        ("printf 'a\\377\\n'; exit 1", "passt says: a\ufffd"),
        ("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; exit 1", "line 0; line 1; line 2; line 3"),
    ],
)
def test_a_passt_that_fails(pretend: Callable[[str], None], lines: str, text: str) -> None:
    pretend(lines)
    with pytest.raises(NetworkError) as caught:
        start_passt(())
    assert str(caught.value).startswith("--net user cannot be had: ") and str(caught.value).endswith(text)


def test_a_passt_that_cannot_be_run(pretend: Callable[[str], None], tmp_path: Path) -> None:
    pretend("")
    (tmp_path / "passt").write_text("#!/none/sh\n")
    with pytest.raises(NetworkError, match=r"cannot run .*/passt: No such file"):
        start_passt(())


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"", "the other side has ended the connection"),
        (b"HTTP/1.1 200", "it sent a frame of"),
        (b"\0\0\0\x20the beginning", "the other side has ended the connection"),
    ],
)
def test_a_passt_that_dies_later(pretend: Callable[[str], None], sent: bytes, why: str) -> None:
    script = f"import os, sys; os.write(int(sys.argv[1]), {sent!r})"
    pretend(shlex.join(["exec", sys.executable, "-c", script]) + " $FD")
    said: list[str] = []
    end = open_end(Net("user"), said.append)
    assert wait_until(lambda: end.receive() or said, "the end of the connection") == said
    assert len(said) == 1 and said[0].startswith("the network user (passt) is gone: ") and why in said[0]
    end.send(b"lost")
    assert end.receive() == [] and not end.descriptors()
