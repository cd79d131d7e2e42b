"""``--serial``: the same guest with the same words on dbt and on QEMU."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.assembler import assemble
from tests.cli.command import COMMAND, dbt, environment, paragraph
from tests.vm.programs import EXIT, make_elf
from tests.waiting import BOUND_S, wait_until

#: Sends what it receives by the UART until a Q comes.
_ECHO = f"""
    mov sp, #0x100000 ; ldr r1, =0x101f1000 ; mov r0, #0x70 ; str r0, [r1, #0x2c]
l:  ldr r0, [r1, #0x18] ; tst r0, #0x10 ; bne l
    ldr r0, [r1] ; str r0, [r1] ; cmp r0, #0x51 ; bne l
    mov r2, #3 ; {EXIT}
"""


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serial") / "echo.elf"
    path.write_bytes(make_elf(assemble(_ECHO, 0x10000), 0x10000))
    return path


def _qemu() -> str:
    found = shutil.which("qemu-system-arm")
    if found is None:
        pytest.skip("qemu-system-arm is not installed")
    return found


@contextmanager
def running(emulator: str, guest: Path, line: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    if emulator == "dbt":
        command = [*COMMAND, "run", "--tier", "threaded", "--serial", line, *more, str(guest)]
    else:
        machine = ["-M", "versatilepb", "-audiodev", "none,id=none", "-display", "none", "-semihosting"]
        command = [_qemu(), *machine, "-serial", line, "-kernel", str(guest)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def connected(family: int, address: str | tuple[str, int]) -> socket.socket:
    def attempt() -> socket.socket | None:
        client = socket.socket(family)
        try:
            client.settimeout(BOUND_S)
            client.connect(address)
        except OSError:
            client.close()
            return None
        return client

    client = wait_until(attempt, f"somebody to listen at {address}")
    assert client is not None
    return client


def talk(client: socket.socket) -> bytes:
    """Send and receive until the guest ends."""
    with client:
        answer = bytearray()
        for piece in (b"hello, ", b"world", b"Q"):
            client.sendall(piece)
            while len(answer) < len(piece) or not answer.endswith(piece):
                data = client.recv(100)
                assert data
                answer += data
        assert client.recv(100) == b""
    return bytes(answer)


@pytest.mark.parametrize("emulator", ["dbt", "qemu"])
def test_a_server_waits_for_its_client(emulator: str, echo: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "line")
    with running(emulator, echo, f"unix:{path},server") as process:
        assert talk(connected(socket.AF_UNIX, path)) == b"hello, worldQ"
        assert process.wait(BOUND_S) == 3
    assert emulator == "qemu" or not Path(path).exists()


@pytest.mark.parametrize("emulator", ["dbt", "qemu"])
def test_a_client_connects_by_tcp(emulator: str, echo: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(BOUND_S)
        with running(emulator, echo, f"tcp:127.0.0.1:{listener.getsockname()[1]}") as process:
            client, _ = listener.accept()
            client.settimeout(BOUND_S)
            assert talk(client) == b"hello, worldQ"
            assert process.wait(BOUND_S) == 3


@pytest.mark.parametrize("emulator", ["dbt", "qemu"])
def test_clients_come_and_go(emulator: str, echo: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "line")
    with running(emulator, echo, f"unix:{path},server,nowait") as process:
        for _ in range(3):
            with connected(socket.AF_UNIX, path) as client:
                client.sendall(b"a")
                assert client.recv(9) == b"a"
        assert talk(connected(socket.AF_UNIX, path)) == b"hello, worldQ"
        assert process.wait(BOUND_S) == 3


@pytest.mark.parametrize("emulator", ["dbt", "qemu"])
def test_nobody_to_connect_to_is_an_error(emulator: str, echo: Path, tmp_path: Path) -> None:
    with running(emulator, echo, f"unix:{tmp_path}/nobody") as process:
        _, errors = process.communicate(timeout=BOUND_S)
        assert process.returncode == (125 if emulator == "dbt" else 1)
        assert b"No such file or directory" in errors


def test_input_of_a_socket_is_recorded(echo: Path, tmp_path: Path) -> None:
    path, recording = str(tmp_path / "line"), tmp_path / "recording"
    with running("dbt", echo, f"unix:{path},server", "--record", str(recording)) as process:
        assert talk(connected(socket.AF_UNIX, path)) == b"hello, worldQ"
        assert process.wait(BOUND_S) == 3
    for tier in ("threaded", "stitched"):
        again = dbt("run", "--tier", tier, "--replay", recording, echo)
        assert (again.returncode, again.stdout) == (3, b"hello, worldQ")
    out = tmp_path / "out"
    assert dbt("run", "--replay", recording, "--serial", f"file:{out}", echo).returncode == 3
    assert out.read_bytes() == b"hello, worldQ"


def test_a_run_whose_port_is_free_to_choose_says_it(echo: Path) -> None:
    with running("dbt", echo, "tcp::0,server") as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if b"console is at" in line)
        place = line.split()[5].rstrip(b",").decode()
        assert place.startswith("tcp:127.0.0.1:")
        assert talk(connected(socket.AF_INET, ("127.0.0.1", int(place.rpartition(":")[2])))) == b"hello, worldQ"


def test_null_has_no_input(echo: Path) -> None:
    done = dbt("run", "--tier", "threaded", "--serial", "null", "--fuel", "100000", echo, stdin=b"Q")
    assert done.returncode == 123 and done.stdout == b""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--serial", "pty"], "--serial pty: write stdio, null, file:PATH"),
        (["--serial", "null", "--console", "line"], "--console line: this is for a terminal"),
        (["--serial", "file:/nowhere/f"], "it cannot be written: No such file or directory"),
    ],
)
def test_wrong_lines_are_refused(words: list[str], says: str, echo: Path) -> None:
    assert says in paragraph(dbt("run", *words, echo), 120)


def test_the_file_is_none_that_is_read(echo: Path) -> None:
    before = echo.read_bytes()
    assert "this is the program" in paragraph(dbt("run", "--serial", f"file:{echo}", echo), 120)
    assert echo.read_bytes() == before
