"""`dbt vm` with a domain of Xen: it is created by its type, and its XenStore goes wherever the machine goes."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.cli.status import Status
from tests.assembler import assemble
from tests.cli.command import COMMAND, dbt, environment, paragraph
from tests.daemon.daemons import TestDaemon, daemon_in
from tests.waiting import wait_until
from tests.xen.pairs import BASE, hypercall

#: Makes a hypercall, with which the toolstack makes its nodes, and waits for ever.
_CODE = f"{hypercall(17, 0)} ; 1: wfi ; b 1b"

#: Resets its machine after 200 ms (PSCI).
_RESETTER = f"""
    {hypercall(29, 3, "poll")} ; ldr r0, =0x84000009 ; .word 0xe1400070
    .ltorg ; .balign 8
poll: .word 0, 0, 0, 0, 200000000, 0
"""

_MACHINE = f"""
[machine]
program = "sleeper.bin"
base = {BASE}
memory = "2M"
jit = "off"
"""


@pytest.fixture
def sleeper(daemon: TestDaemon) -> str:
    """A domain of Xen that runs and waits for ever."""
    daemon.ok("create", "--type", "pv", defined(daemon, "one"))
    wait_until(lambda: not asked(daemon, "one", "ls", "data").returncode, "nodes")
    return "one"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[TestDaemon]:
    with daemon_in(tmp_path) as made:
        made.ok("list")
        yield made


def defined(daemon: TestDaemon, name: str, top: str = "", more: str = "", code: str = _CODE) -> Path:
    """Write a definition of a guest that waits, or of one with other code."""
    (daemon.folder / "sleeper.bin").write_bytes(assemble(code, BASE))
    path = daemon.folder / f"{name}.toml"
    path.write_text(f'name = "{name}"\n{top}{_MACHINE}{more}')
    return path


def asked(daemon: TestDaemon, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return dbt("xenstore", *arguments, DBT_VM_DIR=str(daemon.state))


def store(daemon: TestDaemon, *arguments: str) -> str:
    """Do something with a domain's XenStore; what was printed."""
    done = asked(daemon, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().rstrip("\n")


def test_a_domain_is_asked_by_its_xenstore(daemon: TestDaemon, sleeper: str) -> None:
    """To have less memory, and to power off. What programs of the host change is seen by those that watch."""
    assert store(daemon, "one", "read", "domid") == "1"
    assert store(daemon, "one", "read", "memory/target") == "2048"
    command = [*COMMAND, "xenstore", "one", "watch", "data"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(DBT_VM_DIR=str(daemon.state))) as watcher:
        assert watcher.stdout is not None and watcher.stdout.readline() == b"data\n"
        store(daemon, "one", "write", "data/x", "y")
        assert watcher.stdout.readline() == b"/local/domain/1/data/x\n"
        watcher.kill()
    daemon.ok("setmem", "one", "1M")
    daemon.ok("shutdown", "one")
    wait_until(lambda: store(daemon, "one", "read", "memory/target") == "1024", "a request for memory")
    wait_until(lambda: store(daemon, "one", "read", "control/shutdown") == "poweroff", "a request to power off")
    daemon.ok("reboot", "one")
    wait_until(lambda: store(daemon, "one", "read", "control/shutdown") == "reboot", "a request to reboot")
    assert daemon.state_of("one") in ("running", "blocked"), "what the guest does is its own affair"


def test_a_domain_reboots_by_itself(daemon: TestDaemon) -> None:
    """To wait for that is to wait until the guest has reset its machine. When it powers off later, that is the end."""
    daemon.ok("create", "--type", "pv", defined(daemon, "one", code=_RESETTER))
    daemon.ok("reboot", "--timeout", "60", "one")
    assert daemon.state_of("one") in ("running", "blocked")
    daemon.ok("destroy", "one")
    wait_until(lambda: "one" not in daemon.vm("list", "--all").stdout.decode(), "the end of a transient domain")


def test_its_xenstore_goes_where_the_machine_goes(daemon: TestDaemon, other: TestDaemon, sleeper: str) -> None:
    saved = daemon.folder / "saved"
    store(daemon, "one", "write", "data/x", "first")
    daemon.ok("snapshot-create", "one", "then")
    store(daemon, "one", "write", "data/x", "second")
    daemon.ok("clone", "one", "two")
    assert store(daemon, "two", "read", "data/x") == "second"
    store(daemon, "two", "write", "data/x", "of the clone")
    daemon.ok("snapshot-revert", "one", "then")
    daemon.ok("save", "one", saved)
    daemon.ok("restore", saved)
    assert store(daemon, "one", "read", "data/x") == "first"
    daemon.ok("migrate", "--live", "one", f"unix:{other.state / 'vm.sock'}")
    assert store(other, "one", "read", "data/x") == "first"
    store(other, "one", "write", "data/x", "third")
    other.ok("migrate", "one", f"unix:{daemon.state / 'vm.sock'}")
    assert store(daemon, "one", "read", "data/x") == "third"
    assert store(daemon, "two", "read", "data/x") == "of the clone"


def test_its_xenstore_outlives_the_daemon_and_goes_with_the_domain(daemon: TestDaemon, sleeper: str) -> None:
    store(daemon, "one", "write", "data/x", "y")
    path = Path(daemon.json("dominfo", "one")["xenstore"])
    daemon.ok("daemon", "--stop")
    assert store(daemon, str(path), "read", "data/x") == "y"
    assert store(daemon, "one", "read", "data/x") == "y", "the next daemon"
    daemon.ok("destroy", "one")
    wait_until(lambda: not path.exists(), "the end of a socket")
    said = paragraph(asked(daemon, "one", "ls", "data"), Status.USAGE)
    assert "there is no domain one" in said


def test_its_socket_ends_with_the_machine(daemon: TestDaemon) -> None:
    """Also if the definition stays, whether the machine was destroyed or saved."""
    daemon.ok("define", "--type", "pv", defined(daemon, "one"))
    daemon.ok("start", "one")
    path, saved = Path(daemon.json("dominfo", "one")["xenstore"]), daemon.folder / "saved"
    for end, start in (("destroy", "start"), ("managedsave", "start"), ("save", "restore"), ("destroy", "start")):
        wait_until(path.exists, "a socket")
        daemon.ok(end, "one", *[saved] * (end == "save"))
        wait_until(lambda: not path.exists(), "the end of a socket")
        daemon.ok(start, saved if start == "restore" else "one")


def test_what_cannot_be(daemon: TestDaemon) -> None:
    """A type that contradicts the options, limits of devices, and XenStore where there is none."""
    said = daemon.vm("define", "--type", "pv", defined(daemon, "x", more='board = "versatilepb"\n'))
    assert "type = 'pv', and the board is versatilepb" in paragraph(said, Status.BAD_INPUT)
    said = daemon.vm("define", defined(daemon, "x", 'type = "full"\n', "xen = true\n"))
    assert "type = 'full', and the board is xen" in paragraph(said, Status.BAD_INPUT)
    said = daemon.vm("define", defined(daemon, "x", 'type = "pv"\n', "[limits]\ndisk-operations = 5\n"))
    assert "of a domain of Xen have no limits" in paragraph(said, Status.BAD_INPUT)
    assert "none of full, pv" in paragraph(daemon.vm("define", "--type", "hvm", defined(daemon, "x")), Status.USAGE)
    daemon.define("full", "ticker")
    daemon.ok("start", "full")
    assert "full is no domain of Xen that has a machine" in paragraph(
        asked(daemon, "full", "ls", "data"), Status.FAILURE
    )


def test_a_file_of_the_user_that_a_definition_names_is_no_socket_to_be_removed(
    daemon: TestDaemon, tmp_path: Path
) -> None:
    """Nor is the socket of somebody else, whether its machine has been or not."""
    file, place = tmp_path / "file", tmp_path / "socket"
    file.write_text("precious")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        for path in (file, place):
            daemon.ok("define", "--type", "pv", defined(daemon, "one", more=f'xenstore = "unix:{path}"\n'))
            assert "cannot listen at" in paragraph(daemon.vm("start", "one"), Status.BAD_INPUT)
            daemon.ok("undefine", "one")
        assert file.read_text() == "precious"
        assert place.exists()
    daemon.ok("define", "--type", "pv", defined(daemon, "one", more=f'xenstore = "unix:{place}"\n'))
    daemon.ok("start", "one")
    assert store(daemon, "one", "read", "domid") == "1"
    daemon.ok("clone", "one", "two")
    assert daemon.json("dominfo", "two")["xenstore"] != str(place), "a clone has one of its own"
    daemon.ok("undefine", "two")
    daemon.ok("destroy", "two")
    assert place.exists()


def test_whoever_says_nonsense_to_a_socket_device_is_sent_away(daemon: TestDaemon, tmp_path: Path) -> None:
    """The machine's process, which is jailed, takes the connection and goes on."""
    vsock = tmp_path / "v"
    daemon.ok("create", defined(daemon, "one", more=f'board = "virt"\ncpu = "cortex-a15"\nvsock = "3,unix:{vsock}"\n'))
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(vsock))
            client.sendall(b"nonsense\n")
            assert client.recv(100) == b""
    assert daemon.state_of("one") in ("running", "blocked")
