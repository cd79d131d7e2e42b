"""Migrations of which a side is killed, or the connection cut, at a point of the protocol: each side is a process.

Whoever runs the guest holds the lock of a file meanwhile. So two that run at once are noticed, whenever that is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from dbt import CaptureConsole, Machine
from dbt.host.drive import Drive
from dbt.hypervisor.migration import (
    MigrationError,
    Outgoing,
    OwnMachines,
    Place,
    Point,
    Progress,
    Receiver,
    Settings,
    Undecided,
)
from dbt.hypervisor.migration.channel import Channel
from dbt.hypervisor.migration.leaving import OwnLeaving
from dbt.vm.options import HostOptions
from tests.assembler import assemble
from tests.domains.guests import GUESTS
from tests.host.qcow2_images import small_image
from tests.migration.sides import write_disk
from tests.waiting import wait_until

#: What the machine has: nothing, a disk that both sides read and write, or one that is opened at the last moment.
FORMS = ("plain", "disk", "overlay")
#: A disk that is copied, and one with an overlay, or in an image of qcow2.
COPIES = ("copied", "copied-overlay", "copied-qcow2")
#: Where the guest is in RAM.
_RAM = 0x40000000
#: Seconds in which a side that is not sure asks the other. They are short, because the other may be dead.
_ASKING_S, _DECISION_S = 0.6, 1.0
#: The bytes that the guest's disk has.
_DISK = 64 << 10


class Case(NamedTuple):
    """At ``point``, the side that reaches it is killed, or with ``cut``, it loses its connection and lives."""

    way: str
    form: str
    point: Point | None
    cut: bool = False

    def __str__(self) -> str:
        what = "nothing" if self.point is None else self.point.name.lower()
        return f"{self.way}-{self.form}-{'cut-' * self.cut}{what}"


class Ended(NamedTuple):
    """What has become of the machine at each side: "runs", "undecided", "failed", "gone" or "killed"."""

    source: str
    destination: str


def run_case(case: Case, folder: Path) -> Ended:
    """Migrate once, with both sides in processes of their own. Raise AssertionError if ever two guests run."""
    drives = drives_of(case, folder)
    there = drives
    if case.form in COPIES:
        (folder / "there").mkdir()
        there = drives_of(case, folder / "there")
        folder.joinpath("disk").write_bytes(small_image(bits=16) if "qcow2" in case.form else bytes(range(256)) * 4096)
    else:
        (folder / "disk").write_bytes(bytes(_DISK))
    place = folder / "place"
    sides = {
        "destination": _fork(lambda: _receive(case, folder, there, place)),
    }
    wait_until(lambda: place.exists() or _is_over(folder, "destination"), "a destination that listens")
    sides["source"] = _fork(lambda: _send(case, folder, drives, place))
    found = dict[str, str]()
    try:
        wait_until(lambda: note_outcomes(folder, sides, found), "both sides")
        assert not (folder / "two").exists(), f"two guests have run at once: {found}"
    finally:
        for child in sides.values():
            _end(child)
    return Ended(found["source"], found["destination"])


def drives_of(case: Case, folder: Path) -> tuple[Drive, ...]:
    """Return the disks of one side."""
    if case.form == "plain":
        return ()
    overlay = str(folder / "overlay") if "overlay" in case.form else ""
    return (Drive(str(folder / "disk"), overlay=overlay, format="qcow2" if "qcow2" in case.form else "raw"),)


def _fork(act: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        act()
    except BaseException:  # which nobody else would see
        traceback.print_exc()
    finally:
        os._exit(1)


def _end(child: int) -> None:
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _is_over(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def note_outcomes(folder: Path, sides: dict[str, int], found: dict[str, str]) -> bool:
    """Note what has become of each side. Return True if that is known of both."""
    for name, child in sides.items():
        if not found.get(name):
            found[name] = _outcome(folder, name, child)
    return all(found.values())


def _outcome(folder: Path, name: str, child: int) -> str:
    """Return what a side has said, or "killed" once it has been. It is empty before."""
    if _is_over(folder, name):
        return (folder / name).read_text()
    pid, status = os.waitpid(child, os.WNOHANG)
    if not pid:
        return ""
    if _is_over(folder, name):
        return (folder / name).read_text()
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"the {name} has ended by itself: {status}"
    return "killed"


# -- in the processes ----------------------------------------------------------------------------


class _Lease:
    """The lock that whoever runs the guest has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle = os.open(folder / "lease", os.O_RDWR | os.O_CREAT, 0o600)

    def take(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (self._folder / "two").touch()

    def drop(self) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)


def _made(drives: tuple[Drive, ...]) -> Machine:
    machine = Machine(8 << 20, "threaded", board="virt", drives=drives, console=CaptureConsole(), jit="off")
    machine.load_bytes(
        assemble(GUESTS["memory"].replace("mov r3, #0x20000", f"ldr r3, ={_RAM + 0x20000}"), _RAM), base=_RAM
    )
    return machine


class _Guest:
    """The subject at the source: a machine that runs whenever nobody holds it."""

    name, is_paused = "guest", False

    def __init__(self, machine: Machine, lease: _Lease) -> None:
        self._machine, self._lease, self.doubts = machine, lease, False
        self._leaving = OwnLeaving(machine)
        lease.take()

    def held(self) -> _Held:
        return _Held(self._leaving)

    def throttle(self, part: float | None) -> None:
        pass

    def suspend(self) -> None:
        self._lease.drop()

    def go_on(self) -> None:
        self._lease.take()
        self._machine.run(fuel=1000)

    def doubt(self, why: str) -> None:
        self.doubts = True

    def give_up(self) -> None:
        self._machine.close()


class _Held:
    """The guest has executed a little more each time when somebody looks, until it is suspended."""

    def __init__(self, leaving: OwnLeaving) -> None:
        self._leaving = leaving

    def __enter__(self) -> OwnLeaving:
        machine = self._leaving.machine
        machine.run(fuel=100)
        if machine.attachments.disks():
            write_disk(machine, machine.icount % 64 * 512, bytes([machine.icount % 251]) * 512)
        return self._leaving

    def __exit__(self, *error: object) -> None:
        pass


def _strikes(case: Case) -> Callable[[Point], None]:
    """Return what is told of points, and kills this process at its own, or cuts its connections."""
    channels = list[Channel]()
    original = Channel.__init__

    def noted(self: Channel, connection: socket.socket, *more: float) -> None:
        original(self, connection, *more)
        channels.append(self)

    Channel.__init__ = noted  # type: ignore[method-assign,assignment] # in this process alone

    def reached(point: Point) -> None:
        if point is case.point and case.cut:
            while channels:
                _shut(channels.pop())
        elif point is case.point:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


def _shut(channel: Channel) -> None:
    with socket.socket(fileno=os.dup(channel.fileno())) as connection, contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # which fails if the other side has closed it already


def _settle(folder: Path, name: str, outcome: str) -> NoReturn:
    """Say what has become of this side, and stay as it is until somebody kills it."""
    (folder / f"{name}.new").write_text(outcome)
    (folder / f"{name}.new").rename(folder / name)
    while True:
        signal.pause()


def _send(case: Case, folder: Path, drives: tuple[Drive, ...], place: Path) -> None:
    guest = _Guest(_made(drives), _Lease(folder))
    there = Place.parse(place.read_text(), credentials=_credentials(case, folder))
    settings = Settings(by_descriptor=case.way == "descriptor", copies_storage=case.form in COPIES, asking_s=_ASKING_S)
    outgoing = Outgoing(guest, there.connect, settings, _strikes(case), Progress())
    try:
        outgoing.run()
        outcome = "gone"
    except Undecided:
        outcome = "undecided"
    except MigrationError:
        outcome = "runs"
    assert guest.doubts == (outcome == "undecided")
    _settle(folder, "source", outcome)


def _receive(case: Case, folder: Path, drives: tuple[Drive, ...], place: Path) -> None:
    options: HostOptions = {"console": CaptureConsole(), "tier": "threaded", "jit": "off", "drives": drives}
    text = f"unix:{folder / 'door'}" if case.way in ("unix", "descriptor") else "tcp:127.0.0.1:0"
    there = Place.parse(text, credentials=_credentials(case, folder))
    with Receiver(there, OwnMachines(options), _strikes(case), _DECISION_S) as receiver:
        (folder / "new").write_text(receiver.address)
        (folder / "new").rename(place)
        try:
            machine = receiver.receive().machine
        except Undecided:
            waiting = receiver.undecided
            assert waiting is not None
            try:
                waiting.machine.run(fuel=1)
            except RuntimeError:
                _settle(folder, "destination", "undecided")
            raise
        except MigrationError:
            _settle(folder, "destination", "failed")
        _Lease(folder).take()
        machine.run(fuel=1000)
        _settle(folder, "destination", "runs")


def _credentials(case: Case, folder: Path) -> str:
    return str(folder.parent / "credentials") if case.way == "tls" else ""
