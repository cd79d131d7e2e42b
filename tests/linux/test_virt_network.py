"""Debian's kernel on the boards virt and xen has a network by ``passt``: an address, connections in both directions, a
recording that needs no network, and a saved state that gets a new one.
"""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dbt import Forward, Machine, Net
from dbt.host.console import CaptureConsole, Console
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import RunResult, StopReason
from tests.host.passt import free_port, need_passt
from tests.linux.debian import DISK, KERNEL, NEEDS_DEBIAN, TIMEOUT
from tests.linux.domu import NEEDS_DOMU
from tests.linux.typist import Typist, typed
from tests.waiting import BOUND_S

pytestmark = NEEDS_DEBIAN
_PAGE = b"served by the guest\n"


#: The arguments of the kernel on each board, whose drivers it then has.
_ARGUMENTS = {
    "virt": "console=ttyAMA0 rdinit=/init-virt",
    "xen": "console=hvc0 rdinit=/init-xen",
}


def booting(board: str, console: Console, *nets: Net, **more: Any) -> Machine:
    machine = Machine(256 << 20, console=console, cpu="cortex-a15", board=board, nets=nets, **more)
    machine.load_kernel(KERNEL, initrd=DISK, append=f"{_ARGUMENTS[board]} nowait quiet panic=-1")
    return machine


def run_until(machine: Machine, console: CaptureConsole, text: bytes) -> None:
    """Run the guest, which may wait for the next command afterwards."""
    deadline = time.monotonic() + TIMEOUT
    while text not in console.output:
        result = machine.run(timeout=0.1)
        assert result.reason is StopReason.TIMEOUT and time.monotonic() < deadline, (result, console.output[-2000:])


def end(machine: Machine, console: Typist) -> RunResult:
    """Let the guest switch itself off."""
    console.steps += typed(["poweroff -f"])
    result = machine.run(timeout=TIMEOUT)
    assert result.reason is StopReason.EXITED, (result, console.output[-2000:])
    return result


def get_page(machine: Machine, port: int) -> None:
    """Get a page of the guest's web server by the forwarded port, while the guest runs."""

    def get() -> bytes:
        with socket.create_connection(("127.0.0.1", port), BOUND_S) as client:
            client.sendall(b"GET /page HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: client.recv(1000), b""))

    with ThreadPoolExecutor(1) as client:
        answer = client.submit(get)
        while not answer.done():
            assert machine.run(timeout=0.1).reason is StopReason.TIMEOUT
    assert answer.result().endswith(b"\r\n\r\n" + _PAGE)


def ask_host(machine: Machine, console: Typist, word: str) -> None:
    """Have the guest ask a server on the host's loopback interface. The server closes the connection first: to a guest
    that has closed its half, Debian's passt may never say that the other half is closed.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(BOUND_S)
        port = server.getsockname()[1]

        def serve() -> bytes:
            with server.accept()[0] as client:
                client.settimeout(BOUND_S)
                asked = bytearray()
                while b"\r\n\r\n" not in asked:
                    asked += client.recv(1000)
                client.sendall(f"HTTP/1.0 200 OK\r\n\r\nthe host has heard: {word}\n".encode())
            return bytes(asked)

        with ThreadPoolExecutor(1) as host:
            heard = host.submit(serve)
            console.steps += typed([f"wget -q -O - http://10.0.2.2:{port}/{word}"])
            run_until(machine, console, f"the host has heard: {word}\r\n".encode())
            assert heard.result().startswith(f"GET /{word} HTTP/1.".encode())


@pytest.mark.parametrize("board", ["virt", pytest.param("xen", marks=NEEDS_DOMU)])
def test_a_session_is_replayed_and_its_state_gets_a_network_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: str
) -> None:
    need_passt()
    port, other = free_port(), free_port()
    console = Typist([])
    net = Net("user", forwards=(Forward("tcp", "127.0.0.1", port, 80),))
    with booting(board, console, net, realtime=True) as machine:
        recorder = Recorder(machine.input_source, str(tmp_path / "run"), identify(machine, ""))
        machine.attach_input(recorder)
        run_until(machine, console, b" DONE ===")
        assert b"udhcpc: lease of 10.0.2.15 obtained from 10.0.2.2" in console.output
        console.steps += typed(
            [
                "ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2",
                f"mkdir /www; echo {_PAGE.decode().strip()} > /www/page; httpd -h /www; echo ser''ving",
            ]
        )
        run_until(machine, console, b"serving\r\n")
        ask_host(machine, console, "first")
        get_page(machine, port)
        state = machine.save()
        recorder.end(machine, end(machine, console))

    again = Typist([])
    with (
        state,
        Machine.restore(
            state, nets=[Net("user", forwards=(Forward("tcp", "127.0.0.1", other, 80),))], console=again, realtime=True
        ) as restored,
    ):
        get_page(restored, other)
        again.output += b"/ # "  # the first machine has written the prompt
        ask_host(restored, again, "second")
        end(restored, again)

    monkeypatch.setenv("PATH", str(tmp_path))  # there is no passt
    recording = read_recording(str(tmp_path / "run"))
    assert sum(item.arrival.receiver == "net" for item in recording.arrivals) > 10
    with booting(board, CaptureConsole(), Net("none")) as machine:
        replay = Replay(recording, identify(machine, ""))
        machine.attach_input(replay)
        replay.compare(machine, machine.run(fuel=replay.fuel(0, None), timeout=TIMEOUT), pytest.fail)
