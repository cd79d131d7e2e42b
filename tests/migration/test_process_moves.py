"""Machines in processes of their own are moved: into processes, out of them, and whatever a process says meanwhile."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dbt import Machine, Net
from dbt.board.boards import POWER_KEY
from dbt.host.console import CaptureConsole, Console
from dbt.host.disk import DiskError, RawFile
from dbt.host.drive import Drive
from dbt.hypervisor import Clock, Domain, DomainState, Host, ProcessCarrier
from dbt.hypervisor.carrier import Carrier
from dbt.hypervisor.migration import MigrationError, Place, Point, Progress, Settings, Undecided
from dbt.hypervisor.migration.precopy import PageSender
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.process_vm import ProcessVm
from dbt.hypervisor.threads import ThreadCarrier
from dbt.vm.input import Arrival
from dbt.vm.options import HostOptions
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.devices.virtio.guest import ORIGIN, SECTOR, copier
from tests.domains.guests import GUESTS, boot
from tests.migration.sides import WAYS, place_of, running
from tests.waiting import BOUND_S, wait_until

_RATE = 10_000_000
_MIXES = [("processes", "processes"), ("processes", "threads"), ("threads", "processes")]


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessCarrier]:
    with ProcessCarrier() as carrier:
        yield carrier


@contextmanager
def hosts(*carriers: Carrier) -> Iterator[list[Host]]:
    """Hosts that run while the block does."""
    made = [Host(1, Clock.FREE, _RATE, carrier=carrier) for carrier in carriers]
    idle = boot("sleeper", "threaded")
    for one in made:
        one.define("idle", idle).start()  # so that the host waits
    threads = [Thread(target=one.run, kwargs={"timeout": BOUND_S}) for one in made]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        for one, thread in zip(made, threads, strict=True):
            one.stop()
            thread.join(BOUND_S)
            one.close()


class Receiving:
    """A domain that waits for a machine in a thread."""

    def __init__(self, domain: Domain, place: Place, options: HostOptions | None = None, **more: object) -> None:
        self.error: BaseException | None = None
        self._addresses = list[str]()
        self._domain, self._place, self._more = domain, place, more
        self._options: HostOptions = {"tier": "threaded", **(options or {})}
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()
        wait_until(lambda: self._addresses or self.error, "a destination that listens")
        assert self.error is None, self.error
        self.place = Place.parse(self._addresses[0])

    def _run(self) -> None:
        try:
            self._domain.receive(
                self._place,
                BOUND_S,
                self._options,
                listening=self._addresses.append,
                **self._more,  # type: ignore[arg-type]
            )
        except BaseException as error:  # which the test wants to see
            self.error = error

    def end(self) -> BaseException | None:
        self.thread.join(BOUND_S)
        return self.error


def carriers(mix: tuple[str, str], processes: ProcessCarrier) -> list[Carrier]:
    return [processes if one == "processes" else ThreadCarrier() for one in mix]


@pytest.mark.parametrize(("way", "mix"), [(way, mix) for way in WAYS for mix in _MIXES])
def test_a_domain_moves_while_its_guest_runs(
    way: str, mix: tuple[str, str], tmp_path: Path, processes: ProcessCarrier
) -> None:
    with hosts(*carriers(mix, processes)) as (here, there):
        source, target = here.define("a", boot("memory", "threaded")), there.define("b", boot("memory", "threaded"))
        source.start()
        wait_until(lambda: source.usage.instructions > 100_000, "the guest")
        receiving, progress = Receiving(target, place_of(way, tmp_path)), Progress()
        source.migrate(receiving.place, Settings(by_descriptor=WAYS[way][1]), progress)
        assert receiving.end() is None
        assert source.state is DomainState.DEFINED and source.reason == "it was migrated"
        wait_until(lambda: target.usage.instructions > 100_000, "the guest after its move")
        target.pause()
        with running(fuel=target.icount) as alone:
            assert target.state_hash() == state_hash(alone)
        assert progress.downtime_s > 0


def test_what_comes_before_the_stop_does_not_wait_for_the_state(
    tmp_path: Path, processes: ProcessCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of the rounds after which little is left are not kept for the moment in which the guest stands still."""
    asked, ask = list[say.ToVm](), ProcessVm.ask

    def note(vm: ProcessVm, message: say.ToVm, *more: Any, **options: Any) -> Any:
        asked.append(message)
        return ask(vm, message, *more, **options)

    monkeypatch.setattr(ProcessVm, "ask", note)
    with hosts(processes, processes) as (here, there):
        source, target = here.define("a", boot("memory", "threaded")), there.define("b", boot("memory", "threaded"))
        source.start()
        wait_until(lambda: source.usage.instructions > 100_000, "the guest")
        receiving = Receiving(target, place_of("unix", tmp_path))

        def reached(at: Point) -> None:
            if at is Point.SOURCE_HAS_LITTLE_LEFT:  # the guest may have no turn from now on
                source.write(0x80000, b"late")

        source.migrate(receiving.place, reached=reached)
        assert receiving.end() is None
        assert target.read(0x80000, 4) == b"late"
    kinds = [type(message) for message in asked]
    early = [number for number, kind in enumerate(kinds) if kind is say.PutPages]
    assert early and early[-1] < kinds.index(say.TakeOver)


def talkative(console: Console) -> Machine:
    """A machine whose values are more than the processes say in a message."""
    machine = Machine(1 << 20, "threaded", console=console, jit="off")
    machine.load_bytes(assemble(GUESTS["memory"], 0), base=0, entry=0, args=["x" * ((1 << 20) - 100)])
    return machine


@pytest.mark.parametrize("mix", _MIXES)
def test_values_that_are_too_long_for_a_message_go_in_a_file(
    mix: tuple[str, str], tmp_path: Path, processes: ProcessCarrier
) -> None:
    with hosts(*carriers(mix, processes)) as (here, there):
        source, target = here.define("a", talkative), there.define("b", talkative)
        source.start()
        wait_until(lambda: source.usage.instructions > 1000, "the guest")
        receiving = Receiving(target, place_of("unix", tmp_path))
        source.migrate(receiving.place)
        assert receiving.end() is None
        wait_until(lambda: target.usage.instructions > 1000, "the guest after its move")
        target.pause()
        with talkative(CaptureConsole()) as alone:
            alone.run(fuel=target.icount)
            assert target.state_hash() == state_hash(alone)


def test_a_wrong_root_ends_the_process_that_is_in_the_state_already(
    tmp_path: Path, processes: ProcessCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told the state before the hash is known, and it is not the domain's. The source goes on."""
    with hosts(processes, processes) as (here, there):
        source, target = here.define("a", boot("memory", "threaded")), there.define("b", boot("memory", "threaded"))
        source.start()
        wait_until(lambda: source.usage.instructions > 100_000, "the guest")
        receiving = Receiving(target, place_of("unix", tmp_path))
        with monkeypatch.context() as patch, pytest.raises(MigrationError, match="its hash is another one"):
            patch.setattr(PageSender, "root", lambda sender, values: bytes(32))
            source.migrate(receiving.place)
        assert isinstance(receiving.end(), MigrationError)
        assert target.state is DomainState.DEFINED
        before = source.usage.instructions
        wait_until(lambda: source.usage.instructions > before + 1000, "the guest, which has not moved")
        source.pause()
        with running(fuel=source.icount) as alone:
            assert source.state_hash() == state_hash(alone)


def test_a_paused_domain_stays_paused_without_its_host_too(tmp_path: Path, processes: ProcessCarrier) -> None:
    with hosts(processes, processes) as (here, there):
        source, target = here.define("a", boot("memory", "threaded")), there.define("b", boot("memory", "threaded"))
        source.start()
        source.pause()
        before = source.icount
        receiving = Receiving(target, place_of("unix", tmp_path))
        source.migrate(receiving.place)
        assert receiving.end() is None
        assert target.state is DomainState.PAUSED and target.icount == before
        target.resume()
        wait_until(lambda: target.usage.instructions > 1000, "the guest after its move")


def test_a_key_that_the_guest_has_not_got_is_not_lost(tmp_path: Path, processes: ProcessCarrier) -> None:
    made = partial(with_net, Net("none"))
    with hosts(processes, processes) as (here, there):
        source, target = here.define("a", made), there.define("b", made)
        source.start()
        source.pause()
        source.vm.press_power_key()
        receiving = Receiving(target, place_of("unix", tmp_path), {"nets": [Net("none")]})
        source.migrate(receiving.place)
        assert receiving.end() is None
        for _ in range(2):  # the second time it has been given back
            leaving = target.vm.leaving()
            leaving.release((), keeps_networks=True)
            keys = [one for one in leaving.pending if not one.receiver.startswith("limits")]
            assert keys == [Arrival(POWER_KEY, b"")]
            leaving.claim()
            leaving.permit()


# -- disks and networks ---------------------------------------------------------------------------


def with_disk(drive: Drive, console: Console) -> Machine:
    machine = Machine(32 << 20, "threaded", board="virt", drives=[drive], console=console)
    machine.load_bytes(copier(), base=ORIGIN)
    return machine


def held_disk(path: Path) -> bool:
    try:
        RawFile(str(path), writable=True).close()
    except DiskError:
        return True
    return False


@pytest.mark.parametrize("way", ["descriptor", "tcp"])
@pytest.mark.parametrize("form", ["raw", "overlay"])
def test_the_lock_of_a_disk_is_handed_over(way: str, form: str, tmp_path: Path, processes: ProcessCarrier) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(os.urandom(64 * SECTOR))
    drive = Drive(str(disk), overlay=str(tmp_path / "overlay") if form == "overlay" else "")
    locked = tmp_path / "overlay" if form == "overlay" else disk
    made = partial(with_disk, drive)
    with hosts(processes, processes) as (here, there):
        source, target = here.define("a", made, cap=0.0005), there.define("b", made)
        source.start()
        source.pause()  # with its cap, the guest has done little
        assert held_disk(locked)
        receiving = Receiving(target, place_of(way, tmp_path), {"drives": [drive]})
        source.migrate(receiving.place, Settings(by_descriptor=True))
        assert receiving.end() is None
        assert held_disk(locked)
        target.resume()
        wait_until(lambda: target.state is DomainState.DEFINED, "the end of the guest")
        assert target.exit_code == 0
        wait_until(lambda: not held_disk(locked), "a disk that nobody has")


def test_a_socket_lives_on(tmp_path: Path, processes: ProcessCarrier) -> None:
    """The other end of the card's socket stays connected, and the destination has not connected a second time."""
    path = tmp_path / "switch"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        net = Net(f"unix:{path}")
        made = partial(with_net, net)
        with hosts(processes, processes) as (here, there):
            source, target = here.define("a", made), there.define("b", made)
            source.start()
            card, _ = listener.accept()
            source.pause()
            receiving = Receiving(target, place_of("unix", tmp_path), {"nets": [net]})
            source.migrate(receiving.place)
            assert receiving.end() is None
            listener.settimeout(0.1)
            with pytest.raises(TimeoutError):
                listener.accept()
            card.settimeout(0.1)
            with pytest.raises(TimeoutError):  # nobody has closed it; this guest sends nothing
                card.recv(1)
            target.destroy()
            card.settimeout(BOUND_S)
            assert card.recv(1) == b""
            card.close()


def with_net(net: Net, console: Console) -> Machine:
    machine = Machine(1 << 20, "threaded", board="virt", nets=[net], console=console)
    machine.load_bytes(assemble("1: b 1b", 0x40000000), base=0x40000000)
    return machine


def test_networks_are_connected_anew_over_tcp_and_again_at_a_source_that_goes_on(
    tmp_path: Path, processes: ProcessCarrier
) -> None:
    path = tmp_path / "switch"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(BOUND_S)
        net = Net(f"unix:{path}")
        made = partial(with_net, net)

        def refuse(point: Point) -> None:
            if point is Point.DESTINATION_CLAIMED and not refused:
                refused.append(point)
                raise ValueError("the destination has changed its mind")

        refused = list[Point]()
        with hosts(processes, processes) as (here, there):
            source, target = here.define("a", made), there.define("b", made)
            source.start()
            first, _ = listener.accept()
            receiving = Receiving(target, place_of("tcp", tmp_path), {"nets": [net]}, reached=refuse)
            with pytest.raises(MigrationError, match="changed its mind"):
                source.migrate(receiving.place)
            receiving.end()
            assert first.recv(1) == b""
            second, _ = listener.accept()  # the destination's, which has given up
            assert second.recv(1) == b""
            third, _ = listener.accept()  # the source's again
            wait_until(lambda: source.state is DomainState.RUNNING, "the guest")
            receiving = Receiving(target, place_of("tcp", tmp_path), {"nets": [net]}, reached=refuse)
            source.migrate(receiving.place)
            assert receiving.end() is None
            assert third.recv(1) == b""
            for one in (first, second, third, listener.accept()[0]):
                one.close()


# -- processes that end ----------------------------------------------------------------------------


def vm_of(domain: Domain) -> ProcessVm:
    assert isinstance(domain.vm, ProcessVm)
    return domain.vm


@pytest.mark.parametrize("point", [Point.SOURCE_SENT_ROUND, Point.SOURCE_HAS_LITTLE_LEFT, Point.SOURCE_STOPPED])
def test_a_process_that_ends_on_the_way_is_a_crash_here_and_nothing_there(
    point: Point, tmp_path: Path, processes: ProcessCarrier
) -> None:
    with hosts(processes, processes) as (here, there):
        source, target = here.define("a", boot("memory", "threaded")), there.define("b", boot("memory", "threaded"))
        source.start()
        pid = vm_of(source).pid
        receiving = Receiving(target, place_of("unix", tmp_path))
        with pytest.raises(MigrationError, match=r"SIGKILL|it is crashed now"):
            source.migrate(receiving.place, reached=lambda at: os.kill(pid, signal.SIGKILL) if at is point else None)
        assert isinstance(receiving.end(), MigrationError)
        assert target.state is DomainState.DEFINED
        wait_until(lambda: source.state is DomainState.CRASHED, "a crash")


def test_a_process_that_has_given_everything_away_is_not_needed_any_more(
    tmp_path: Path, processes: ProcessCarrier
) -> None:
    with hosts(processes, processes) as (here, there):
        source, target = here.define("a", boot("memory", "threaded")), there.define("b", boot("memory", "threaded"))
        source.start()
        pid = vm_of(source).pid
        receiving = Receiving(target, place_of("unix", tmp_path))
        source.migrate(
            receiving.place, reached=lambda at: os.kill(pid, signal.SIGKILL) if at is Point.SOURCE_RELEASED else None
        )
        assert receiving.end() is None
        assert source.state is DomainState.DEFINED
        wait_until(lambda: target.usage.instructions > 1000, "the guest after its move")


@pytest.mark.parametrize("point", [Point.DESTINATION_PREPARED, Point.DESTINATION_CLAIMED, Point.DESTINATION_VOTED])
def test_a_process_that_ends_at_the_destination_costs_nothing(
    point: Point, tmp_path: Path, processes: ProcessCarrier
) -> None:
    with hosts(processes, processes) as (here, there):
        source, target = here.define("a", boot("memory", "threaded")), there.define("b", boot("memory", "threaded"))
        source.start()

        def kill(at: Point) -> None:
            if at is point:
                for pid in children():
                    if pid not in before:
                        os.kill(pid, signal.SIGKILL)

        before = children()
        receiving = Receiving(target, place_of("unix", tmp_path), reached=kill)
        with pytest.raises((MigrationError, Undecided)):
            source.migrate(receiving.place)
        assert receiving.end() is not None
        wait_until(lambda: target.state is DomainState.DEFINED, "a destination that has given up")
        used = source.usage.instructions
        wait_until(lambda: source.usage.instructions > used, "the guest, which has stayed")


def children() -> set[int]:
    """The processes of machines, of all zygotes of this process."""
    found = set[int]()
    for zygote in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        found |= {int(pid) for pid in Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()}
    return found
