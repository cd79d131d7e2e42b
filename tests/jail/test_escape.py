"""Escapes: Python that runs in the place of a machine's process reaches nothing outside of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dbt.codecache.store import cache_directory
from dbt.host.endpoint import Endpoint, Listener
from dbt.hypervisor import Clock, DomainState, Host, ProcessCarrier
from dbt.hypervisor.jail.measures import MEASURES, try_measures
from dbt.hypervisor.process.process_vm import ProcessVm
from tests.domains.guests import boot
from tests.jail.attacks import Attacks
from tests.waiting import wait_until

RATE = 10_000_000
MISSING = try_measures()
NEEDS_JAIL = pytest.mark.skipif(bool(MISSING), reason=f"the host does not give {', '.join(MISSING)}")


@contextmanager
def _listening() -> Iterator[Listener]:
    """Give somebody who listens at a path that is short enough to be reached from an open directory."""
    with TemporaryDirectory() as folder, Endpoint(path=f"{folder}/s").listen() as listener:
        yield listener


def attacked(path: Path, carrier: ProcessCarrier, own: str = "") -> list[str]:
    """Return what attacks on a file, a socket and a process outside have come to, a line for each."""
    path.write_bytes(b"secret")
    with (
        _listening() as listener,
        subprocess.Popen(["sleep", "1000"]) as victim,
        Host(1, Clock.LOCKSTEP, RATE, carrier=carrier) as host,
    ):
        try:
            attacks = Attacks(victim.pid, str(path), cache_directory(), listener.path, own)
            domain = host.define("attacker", attacks)
            domain.start()
            while b"over\n" not in domain.console.output and domain.state is DomainState.RUNNING:
                host.run(periods=1)
            assert domain.state is DomainState.RUNNING, domain.reason
            assert victim.poll() is None
            assert path.read_bytes() == b"secret"
            return domain.console.output.decode().splitlines()
        finally:
            victim.kill()


@NEEDS_JAIL
def test_nothing_outside_a_jail_is_reached(tmp_path: Path) -> None:
    with ProcessCarrier(jail="strict") as carrier:
        lines = attacked(tmp_path / "file", carrier)
    assert len(lines) > 50
    own = re.fullmatch(r"open: \['\d+: (-r--r--r--)', '\d+: (-r--------)'\]", lines[-2])
    assert own, lines[-2]  # how its own memory is mapped, and which pages of it the host has
    assert lines[-1] == "over"
    assert not [line for line in lines[:-3] if "refused" not in line]


@NEEDS_JAIL
@pytest.mark.parametrize("leases", [False, True])
def test_a_guest_with_directories_and_sockets_reaches_no_others(tmp_path: Path, leases: bool) -> None:
    """Nor is the directory of its lease a way to others."""
    own = tmp_path / "own"
    for name in ("files", "share", "sockets"):
        (own / name).mkdir(parents=True)
    with ProcessCarrier(str(tmp_path / "leases") if leases else None, jail="strict") as carrier:
        lines = attacked(tmp_path / "file", carrier, str(own))
    assert lines[-1] == "over"
    assert [line.partition(":")[0] for line in lines[:-3] if "refused" not in line] == ["unix socket"]


@NEEDS_JAIL
def test_machines_share_no_memory_that_one_of_them_can_change(tmp_path: Path) -> None:
    """Native code and code pages are one file for all of them."""
    with ProcessCarrier(jail="strict") as carrier, Host(1, Clock.LOCKSTEP, RATE, carrier=carrier) as host:
        machines = [host.define(name, Attacks(os.getpid(), str(tmp_path), cache_directory())) for name in "ab"]
        for domain in machines:
            domain.start()
        host.run(periods=2)
        seen = [_shared(domain.console.output) for domain in machines]
    assert all(seen) and not set(seen[0]) & set(seen[1])


def _shared(output: bytes) -> list[int]:
    """Return what a machine has said of the memory that it can change."""
    (text,) = re.findall(rb"^shared: \[(.*)\]$", output, re.MULTILINE)
    return [int(number) for number in text.split(b", ")]


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Without a jail, they reach what a process of this user reaches."""
    script = (
        "from tests.jail.attacks import Attacks, _outcome; import os, sys; "
        "attempts = Attacks(os.getppid(), sys.argv[1], '/tmp', sys.argv[2]).attempts(); os.open('/', os.O_PATH); "
        "[print(name, _outcome(attempts[name])) for name in sys.argv[3:]]"
    )
    path = tmp_path / "file"
    path.write_bytes(b"secret")
    names = ["read a file", "write a file", "create a file", "list the root", "internet", "unix socket", "signal"]
    names += ["look at a file", "path of a file", "look at a process", "listener", "above a directory"]
    names += ["signal by a file", "signal by a file, as a structure", "which signal of a file"]
    names += ["handle of a process", "executable memory", "memory made executable", "own memory", "socketpair"]
    root = Path(__file__).resolve().parents[2]
    with _listening() as listener:
        command = [sys.executable, "-c", script, str(path), listener.path, *names]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.count("REACHED") == len(names), done.stdout


@NEEDS_JAIL
def test_a_jailed_machine_does_everything_that_it_did(tmp_path: Path) -> None:
    with ProcessCarrier(jail="strict") as carrier, Host(1, Clock.LOCKSTEP, RATE, carrier=carrier) as host:
        memory, echo = host.define("memory", boot("memory")), host.define("echo", boot("echo"))
        memory.start()
        echo.start()
        host.run(periods=2)
        clone = memory.clone("clone")
        assert clone.state_hash() == memory.state_hash()
        clone.resume()
        echo.console.send(b"hello")
        host.run(periods=2)
        assert echo.console.output == b"hello"
        memory.save()
        memory.start()
        host.run(periods=1)
        for domain in (memory, clone, echo):
            assert domain.state in (DomainState.RUNNING, DomainState.BLOCKED), domain.reason


@NEEDS_JAIL
def test_a_jailed_machine_goes_on_after_it_was_stopped() -> None:
    """The kernel goes on with a wait by a system call of its own, also when the host was asleep."""
    with ProcessCarrier(jail="strict") as carrier, Host(1, Clock.LOCKSTEP, RATE, carrier=carrier) as host:
        echo = host.define("echo", boot("echo"))
        echo.start()
        host.run(periods=1)
        assert isinstance(echo.vm, ProcessVm)
        pid = echo.vm.pid
        for _ in range(3):  # it may be awake once, to give memory back
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: _state_of(pid) == "T", "the process to stop")
            os.kill(pid, signal.SIGCONT)
            wait_until(lambda: _state_of(pid) == "S", "the process to wait again")
        echo.console.send(b"hello")
        host.run(periods=2)
        assert echo.console.output == b"hello", echo.reason


def _state_of(pid: int) -> str:
    """Return the state of a process as a letter (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_the_measures_that_are_missing_are_said() -> None:
    assert set(MISSING) <= {measure.name for measure in MEASURES}
    told: list[str] = []
    with ProcessCarrier(notice=told.append) as carrier, Host(1, carrier=carrier) as host:
        for name in "ab":
            host.define(name, boot("memory")).start()
    assert len(told) == len(MISSING)
