"""``--net`` and ``--forward``: what they mean, what is said of wrong ones, and that passt ends with dbt."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from dbt.cli.net_options import nets_of, parse_forward, parse_net
from dbt.cli.options import host_options
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.engine.observer import NOBODY
from dbt.host.console import CaptureConsole
from dbt.host.net_option import Forward, Net
from tests.assembler import assemble
from tests.cli.command import COMMAND, dbt, environment, paragraph
from tests.host.passt import free_port, need_passt, passts
from tests.vm.programs import EXIT
from tests.waiting import BOUND_S, wait_until

_BASE = 0x40008000
_LINE = ("--tier", "threaded", "--board", "virt", "--base", hex(_BASE))
_USER = ("--board", "virt", "--net", "user")


@pytest.fixture
def spinning(tmp_path: Path) -> Path:
    """A guest that never ends."""
    path = tmp_path / "spin.bin"
    path.write_bytes(assemble("again: b again", _BASE))
    return path


def test_what_a_network_means() -> None:
    address = b"\x52\x54\0\1\2\xff"
    assert parse_net("--net", "hub:a,mac=52:54:00:01:02:ff") == Net("hub:a", address)
    assert parse_net("--net", "user,mac=52:54:00:01:02:ff") == Net("user", address)
    for text in ("unix:/a", "tap:tap0", "none", "user"):
        assert parse_net("--net", text) == Net(text)


@pytest.mark.parametrize(
    "text",
    [
        *("hub", "unix:", "tap:", "tap", "user:x", "none:x", "user,x", "vde:x", ""),
        *(
            "hub:a,mca=52:54:00:01:02:ff",
            "tap:a,b",
            "hub:a,mac=1",
            "hub:a,mac=01:54:00:01:02:ff",
            "hub:a,mac=52:54:00:01:02:1ff",
            "hub:a,mac=x",
        ),
    ],
)
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(CommandError, match="this is not user, unix:PATH, tap:NAME, hub:NAME or none"):
        parse_net("--net", text)


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("8080:80", Forward("tcp", "127.0.0.1", 8080, 80)),
        ("tcp:1:65535", Forward("tcp", "127.0.0.1", 1, 65535)),
        ("udp:5353:53", Forward("udp", "127.0.0.1", 5353, 53)),
        ("0.0.0.0:8080:80", Forward("tcp", "0.0.0.0", 8080, 80)),
        ("udp:192.0.2.1:8080:80", Forward("udp", "192.0.2.1", 8080, 80)),
    ],
)
def test_what_a_forward_means(text: str, forward: Forward) -> None:
    assert parse_forward("--forward", text) == forward


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"this is not \[tcp:"),
        ("80", r"this is not \[tcp:"),
        (":80", r"this is not \[tcp:"),
        ("80:", r"this is not \[tcp:"),
        (":80:80", r"this is not \[tcp:"),
        ("tcp:80", r"this is not \[tcp:"),
        ("0:80", "0 is no port"),
        ("80:65536", "65536 is no port"),
        ("-1:80", "-1 is no port"),
        ("\u0663:80", "is no port"),
        ("80-90:80", "80-90 is no port"),
        ("localhost:80:80", "localhost is no IPv4 address"),
        ("[::1]:80:80", r"\[::1\] is no IPv4 address"),
        ("sctp:80:80", "sctp is no IPv4 address"),
        ("1.2.3:80:80", r"1\.2\.3 is no IPv4 address"),
        ("a\0b:80:80", "is no IPv4 address"),
    ],
)
def test_what_is_no_forward(text: str, why: str) -> None:
    with pytest.raises(CommandError, match=why):
        parse_forward("--forward", text)


@pytest.mark.parametrize(
    ("net", "follows"),
    [("user", True), ("unix:x", True), ("tap:x", True), ("hub:x", False), ("none", False)],
)
def test_time_follows_the_hosts_with_a_network_outside(net: str, follows: bool) -> None:
    options = RunOptions(net=(net,), serial="null")
    console = CaptureConsole()
    assert host_options(options, NOBODY, console)["realtime"] is follows
    for text, value in (("on", True), ("off", False)):
        assert host_options(options._replace(realtime=text), NOBODY, console)["realtime"] is value


def test_a_recorded_run_is_repeated_without_its_network(tmp_path: Path) -> None:
    """Neither by the same command nor by ``dbt replay`` does anybody ask who was there."""
    guest, path = tmp_path / "guest.bin", str(tmp_path / "net")
    guest.write_bytes(assemble(f"mov r5, #20 ; again: subs r5, r5, #1 ; bne again ; mov r2, #3 ; {EXIT}", _BASE))
    run = ("run", *_LINE, "--net", f"unix:{path}", "--net", "hub:a", "--balloon")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
        there.bind(path)
        there.listen()
        recorded = dbt(*run, "--record", tmp_path / "run", guest)
        assert recorded.returncode == 3, recorded.stderr
    assert dbt(*run, "--replay", tmp_path / "run", guest).returncode == 3
    again = dbt("replay", tmp_path / "run", "--at", "10")
    assert again.returncode == 0 and b"at instruction 10" in again.stderr, again.stderr
    traced = ("run", *_LINE[2:], "--net", "hub:a", "--record-trace", tmp_path / "trace", guest)
    assert dbt(*traced).returncode == 3
    text = paragraph(dbt("replay", tmp_path / "trace", "--at", "10"), Status.BAD_INPUT)
    assert "its guest had networks (--net), and what came from there may have changed" in text


def test_forwards_belong_to_the_first_card_with_passt() -> None:
    options = RunOptions(net=("none", "hub:a", "user", "user"), forward=("1:2", "udp:3:4"))
    forwards = (Forward("tcp", "127.0.0.1", 1, 2), Forward("udp", "127.0.0.1", 3, 4))
    assert nets_of(options) == (Net("hub:a"), Net("user", forwards=forwards), Net("user"))
    assert nets_of(options._replace(replay="x")) == (Net("none"),) * 3


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (("--forward", "80:80"), Status.USAGE, "--forward 80:80: only the network of passt forwards ports: add --net"),
        (("--net", "hub:a", "--forward", "80:80"), Status.USAGE, "add --net user"),
        ((*_USER, "--forward", "80"), Status.USAGE, "--forward 80: this is not [tcp:|udp:][HOSTADDR:]HOST:GUEST"),
        (("--board", "virt", "--net", "tap:none9"), Status.BAD_INPUT, "there is no network interface of this name"),
    ],
)
def test_what_cannot_be_had(spinning: Path, options: tuple[str, ...], status: Status, text: str) -> None:
    assert text in paragraph(dbt("run", *options, spinning), status)


def test_without_passt(spinning: Path, tmp_path: Path) -> None:
    text = paragraph(dbt("run", *_USER, spinning, PATH=str(tmp_path)), Status.BAD_INPUT)
    assert "--net user needs the program passt, which is not installed" in text and "apt install passt" in text


def test_a_port_that_is_taken(spinning: Path) -> None:
    need_passt()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = dbt("run", *_USER, "--forward", f"{port}:80", spinning)
    assert f"passt says: Failed to bind any port for '-t 127.0.0.1/{port}:80'" in paragraph(done, Status.BAD_INPUT)


@pytest.mark.parametrize("kill", [True, False])
def test_passt_ends_with_dbt(spinning: Path, kill: bool) -> None:
    """However that ends: by SIGKILL, or in order by SIGTERM."""
    need_passt()
    port = free_port()
    command = [*COMMAND, "run", *_LINE, "--net", "user", "--forward", f"{port}:80", str(spinning)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as process:
        wait_until(lambda: passts(port) and _answers(port), "passt and the port that it forwards")
        if kill:
            process.kill()
        else:
            process.terminate()
        _, said = process.communicate(timeout=BOUND_S)
        wait_until(lambda: not passts(port), "the end of passt")
    assert b"Traceback" not in said and b"is gone" not in said


def _answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
