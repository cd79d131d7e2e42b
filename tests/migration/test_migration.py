"""Machines that are moved: the very same state arrives, by every way, or the machine stays where it was."""

from __future__ import annotations

import random
from pathlib import Path
from threading import Thread

import pytest

from dbt import CaptureConsole, Machine
from dbt.abi.addresses import Gpa
from dbt.board.boards import POWER_KEY
from dbt.host.console import Console
from dbt.host.disk import DiskError, RawFile
from dbt.host.drive import Drive
from dbt.hypervisor import Clock, Domain, DomainState, Host, LifecycleError
from dbt.hypervisor.migration import MigrationError, Place, Point, Progress, Settings, Status, Undecided
from dbt.hypervisor.migration.convergence import Convergence
from dbt.hypervisor.migration.page_tree import PageTree
from dbt.vm.input import Arrival
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.devices.virtio.guest import ORIGIN, SECTOR, copier
from tests.domains.guests import boot
from tests.migration.sides import WAYS, outgoing, place_of, receiving, running
from tests.waiting import BOUND_S, wait_until

_RATE = 10_000_000


# -- the tree ------------------------------------------------------------------------------------


def test_a_tree_that_was_kept_up_is_that_of_the_content() -> None:
    chance = random.Random(3)
    kept, content = PageTree(), dict[int, bytes]()
    for _ in range(300):
        page = chance.choice((0, 1, 255, 256, 257, 70_000, 0xFFFFF))
        content[page] = bytes(4096) if chance.random() < 0.3 else chance.randbytes(4096)
        kept.update(page, content[page])
        kept.root(b"now and then")
    fresh = PageTree()
    for page, data in content.items():
        fresh.update(page, data)
    assert kept.root(b"values") == fresh.root(b"values")
    pages = [page for first, count in kept.runs() for page in range(first, first + count)]
    assert pages == sorted(page for page, data in content.items() if any(data))
    nothing = PageTree()
    for page in content:
        kept.clear(page, 1)
    assert kept.root(b"values") == nothing.root(b"values")


def test_each_bit_of_a_state_counts() -> None:
    def root(values: bytes, pages: dict[int, bytes]) -> bytes:
        tree = PageTree()
        for page, data in pages.items():
            tree.update(page, data)
        return tree.root(values)

    page = bytes(4095) + b"\1"
    states = [
        (b"", {}),
        (b"v", {}),
        (b"v", {0: page}),
        (b"v", {1: page}),
        (b"v", {256: page}),
        (b"v", {0: page, 1: page}),
        (b"v", {0: page, 256: page}),
        (b"v", {0: page[::-1]}),
        (b"v" + (0).to_bytes(8, "little"), {0: page}),
    ]
    assert len({root(*state) for state in states}) == len(states)


# -- a machine that nobody runs ------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_the_same_state_arrives_and_goes_on(way: str, tmp_path: Path) -> None:
    machine = running()
    before = state_hash(machine)
    with running() as alone, receiving(place_of(way, tmp_path)) as there:
        migration = outgoing(machine, there, way)
        migration.run()
        with there.machine() as moved:
            assert state_hash(moved) == before
            moved.run(fuel=100_000)
            alone.run(fuel=100_000)
            assert state_hash(moved) == state_hash(alone)
    assert migration.progress.status is Status.COMPLETED
    assert migration.progress.downtime_s > 0
    with pytest.raises(RuntimeError, match="closed"):
        machine.run(fuel=1)


@pytest.mark.parametrize("way", WAYS)
def test_pages_that_become_zero_are_zero_there(way: str, tmp_path: Path) -> None:
    machine = running()
    machine.write(Gpa(0x40000), b"x" * 8192)
    seen = list[Point]()

    def reached(point: Point) -> None:
        if point is Point.SOURCE_SENT_ROUND and point not in seen:
            seen.append(point)
            machine.write(Gpa(0x40000), bytes(4096))
            machine.write(Gpa(0x50000), b"y" * 100_000)

    with receiving(place_of(way, tmp_path)) as there:
        outgoing(machine, there, way, reached=reached).run()
        with there.machine() as moved:
            assert moved.read(Gpa(0x40000), 8192) == bytes(4096) + b"x" * 4096
            assert moved.read(Gpa(0x50000), 100_000) == b"y" * 100_000


def test_a_page_that_changes_on_the_way_is_noticed(tmp_path: Path) -> None:
    """A store that no epoch has noticed, as of a damaged host, makes another hash, and the machine stays."""
    machine = running()
    before = state_hash(machine)
    with receiving(place_of("tcp", tmp_path)) as there:
        migration = outgoing(machine, there, "tcp", reached=damage)
        with pytest.raises(MigrationError, match="its hash is another one"):
            migration.run()
        assert isinstance(there.result(), MigrationError)
    assert migration.progress.status is Status.FAILED
    assert state_hash(machine) == before
    machine.run(fuel=10)
    machine.close()


def damage(point: Point) -> None:
    """Let every leaf of trees from now on be wrong at the source: it is asked for its root next."""
    if point is Point.SOURCE_RELEASED:
        raise_root()


def raise_root() -> None:
    original = PageTree.root

    def root(self: PageTree, values: bytes) -> bytes:
        PageTree.root = original  # type: ignore[method-assign]
        return bytes(32)

    PageTree.root = root  # type: ignore[method-assign]


def test_an_abort_before_the_stop_costs_nothing(tmp_path: Path) -> None:
    machine = running()
    with receiving(place_of("unix", tmp_path)) as there:
        migration = outgoing(machine, there, reached=lambda point: migration.cancel())
        with pytest.raises(MigrationError, match="cancelled"):
            migration.run()
        assert isinstance(there.result(), MigrationError)
    assert migration.progress.status is Status.CANCELLED
    machine.run(fuel=10)
    machine.close()


# -- domains -------------------------------------------------------------------------------------


def host() -> Host:
    return Host(1, Clock.FREE, _RATE)


def moved(source: Domain, target: Domain, way: str, folder: Path, settings: Settings | None = None) -> Progress:
    """Move a domain in the time in which its host runs."""
    progress, errors = Progress(), list[BaseException]()
    addresses = list[str]()

    def receive() -> None:
        try:
            options = {"tier": "threaded"}
            target.receive(place_of(way, folder), BOUND_S, options, listening=addresses.append)  # type: ignore[arg-type]
        except BaseException as error:  # which the test wants to see
            errors.append(error)

    thread = Thread(target=receive, daemon=True)
    thread.start()
    wait_until(lambda: addresses or errors, "a destination that listens")
    assert not errors, errors
    source.migrate(Place.parse(addresses[0]), settings, progress)
    thread.join(BOUND_S)
    assert not errors
    return progress


@pytest.mark.parametrize("way", WAYS)
def test_a_domain_moves_while_its_guest_runs(way: str, tmp_path: Path) -> None:
    """It executes what it would have executed alone: after as many instructions the states are equal."""
    with host() as here, host() as there:
        source, target = here.define("a", boot("memory", "threaded")), there.define("b", boot("memory", "threaded"))
        source.start()
        here_thread, there_thread = (Thread(target=one.run, kwargs={"timeout": BOUND_S}) for one in (here, there))
        here_thread.start()
        wait_until(lambda: source.usage.instructions > 100_000, "the guest")
        progress = moved(source, target, way, tmp_path)
        assert source.state is DomainState.DEFINED and source.reason == "it was migrated"
        there_thread.start()
        wait_until(lambda: target.usage.instructions > 100_000, "the guest after its move")
        target.pause()
        with running(fuel=target.machine.icount) as alone:
            assert state_hash(target.machine) == state_hash(alone)
        for one, runner in ((here, here_thread), (there, there_thread)):
            one.stop()
            runner.join(BOUND_S)
    assert progress.status is Status.COMPLETED


def test_a_paused_domain_stays_paused_and_a_blocked_one_waits(tmp_path: Path) -> None:
    with host() as here, host() as there:
        source, target = here.define("a", boot("sleeper", "threaded")), there.define("b", boot("sleeper"))
        source.start()
        here.run(periods=2)
        assert source.state is DomainState.BLOCKED
        moved(source, target, "unix", tmp_path)
        there.run(periods=2)
        assert target.state is DomainState.BLOCKED
        target.pause()
        (tmp_path / "back").mkdir()
        moved(target, source, "unix", tmp_path / "back")
        assert [domain.state for domain in (source, target)] == [DomainState.PAUSED, DomainState.DEFINED]


#: It stores to each of 512 pages, again and again.
_DIRTIER = """
    again: mov r3, #0x40000 ; mov r2, #512
    1: str r0, [r3], #4 ; add r3, r3, #4080 ; add r3, r3, #12 ; add r0, r0, #1 ; subs r2, r2, #1 ; bne 1b ; b again
"""


def test_a_guest_that_changes_memory_faster_than_the_line_gets_less_of_a_core(tmp_path: Path) -> None:
    """Its share is a cap, which no period exceeds by an instruction. Afterwards its limits are its own again."""
    parts = list[float | None]()

    def made(console: Console) -> Machine:
        machine = Machine(4 << 20, "threaded", console=console)
        machine.load_bytes(assemble(_DIRTIER, 0), base=0, entry=0)
        return machine

    with host() as here, host() as there:
        source, target = here.define("a", made, cap=0.5), there.define("b", made)
        source.start()
        runner = Thread(target=here.run, kwargs={"timeout": BOUND_S})
        runner.start()
        original = source.share

        class Slow(Convergence):
            def is_enough(self, sent: int, left: int, seconds: float) -> bool:
                found = super().is_enough(sent, left, seconds)
                parts.append(source.share.cap)
                before = len(here.reports) and here.reports[-1].number
                wait_until(lambda: here.reports and here.reports[-1].number > before + 1, "a period")
                assert here.reports[-1].domains["a"].units <= _RATE // 10 * (source.share.cap or 1)
                return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dbt.hypervisor.migration.source.Convergence", Slow)
            progress = moved(source, target, "unix", tmp_path, Settings(bandwidth=40_000_000, rounds=4))
        assert parts[0] == 0.5 and progress.part < 0.5 and progress.part in parts
        assert source.share == original
        here.stop()
        runner.join(BOUND_S)


def test_a_failed_migration_leaves_the_domain_as_it_was(tmp_path: Path) -> None:
    with host() as here:
        source = here.define("a", boot("memory", "threaded"))
        source.start()
        with pytest.raises(MigrationError, match="cannot connect"):
            source.migrate(Place.parse(f"unix:{tmp_path}/nobody"))
        here.run(periods=1)
        assert source.state is DomainState.RUNNING
        idle = here.define("idle", boot("memory", "threaded"))
        with pytest.raises(LifecycleError, match="idle, which is defined"):
            idle.migrate(Place.parse(f"unix:{tmp_path}/nobody"))
        with pytest.raises(TimeoutError):
            idle.receive(Place.parse(f"unix:{tmp_path}/door"), timeout=0.01)
        assert idle.state is DomainState.DEFINED
        with pytest.raises(LifecycleError, match="has a machine"):
            source.receive(Place.parse(f"unix:{tmp_path}/door"), timeout=0.01)


# -- disks ---------------------------------------------------------------------------------------


def test_the_lock_of_a_disk_is_handed_over(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(random.Random(5).randbytes(64 * SECTOR))
    drive = Drive(str(disk))

    def held_by(machine: Machine) -> bool:
        with pytest.raises(DiskError, match="another machine uses it"):
            RawFile(str(disk), writable=True)
        return machine.attachments.is_claimed

    for way in WAYS:
        machine = Machine(32 << 20, "threaded", board="virt", drives=[drive], console=CaptureConsole())
        machine.load_bytes(copier(), base=ORIGIN)
        machine.run(fuel=2000)
        assert held_by(machine)
        door = tmp_path / way  # a destination may listen for a moment after its source has heard of the end
        door.mkdir()
        with receiving(place_of(way, door), {"drives": [drive]}) as there:
            outgoing(machine, there, way).run()
            with there.machine() as moved_machine:
                assert held_by(moved_machine)
                assert moved_machine.run(fuel=10**6).exit_code == 0
    RawFile(str(disk), writable=True).close()


def test_a_source_that_takes_its_disk_back_has_it_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(64 * SECTOR))
    machine = Machine(32 << 20, "threaded", board="virt", drives=[Drive(str(disk))], console=CaptureConsole())
    machine.load_bytes(copier(), base=ORIGIN)

    def refuse(point: Point) -> None:
        if point is Point.DESTINATION_CLAIMED:
            raise ValueError("the destination has changed its mind")

    with receiving(place_of("unix", tmp_path), {"drives": [Drive(str(disk))]}, refuse) as there:
        with pytest.raises(MigrationError, match="changed its mind"):
            outgoing(machine, there).run()
        assert isinstance(there.result(), MigrationError)
    with pytest.raises(DiskError):
        RawFile(str(disk), writable=True)
    assert machine.run(fuel=10**6).exit_code == 0
    machine.close()


# -- what is on its way ----------------------------------------------------------------------------


def with_keys() -> Machine:
    """A machine whose power key has been pressed, and which has executed nothing since."""
    machine = Machine(32 << 20, "threaded", board="virt", console=CaptureConsole())
    machine.load_bytes(assemble("1: b 1b", ORIGIN), base=ORIGIN)
    machine.run(fuel=100)
    machine.press_power_key()
    return machine


@pytest.mark.parametrize("way", WAYS)
def test_a_key_that_the_guest_has_not_got_is_not_lost(way: str, tmp_path: Path) -> None:
    with receiving(place_of(way, tmp_path)) as there:
        outgoing(with_keys(), there, way).run()
        with there.machine() as moved_machine:
            assert moved_machine.take_pending() == [Arrival(POWER_KEY, b"")]


def test_a_key_stays_with_a_machine_that_stays(tmp_path: Path) -> None:
    def refuse(point: Point) -> None:
        if point is Point.DESTINATION_CLAIMED:
            raise ValueError("the destination has changed its mind")

    machine = with_keys()
    with receiving(place_of("unix", tmp_path), reached=refuse) as there:
        with pytest.raises(MigrationError, match="changed its mind"):
            outgoing(machine, there).run()
        there.result()
    assert machine.take_pending() == [Arrival(POWER_KEY, b"")]
    machine.close()


@pytest.mark.parametrize("arrival", [Arrival("nobody", b""), Arrival("net", b"frame")])
def test_what_is_for_nothing_of_the_machine_is_refused(arrival: Arrival, tmp_path: Path) -> None:
    machine = with_keys()
    machine.take_pending = lambda: [arrival]  # type: ignore[method-assign]
    with receiving(place_of("unix", tmp_path)) as there:
        with pytest.raises(MigrationError, match="nothing that could be told of"):
            outgoing(machine, there).run()
        there.result()


# -- undecided -----------------------------------------------------------------------------------


def test_an_undecided_machine_runs_only_by_force(tmp_path: Path) -> None:
    """The source is cut off after the vote. Its machine is at the destination, and waits there."""
    machine = running()

    def cut(point: Point) -> None:
        if point is Point.SOURCE_HEARD_VOTE:
            raise KeyboardInterrupt  # as a process that ends without a word: the channel is closed

    with receiving(place_of("tcp", tmp_path)) as there:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dbt.hypervisor.migration.source._tell_abort", lambda channel, error: None)
            with pytest.raises(KeyboardInterrupt):
                outgoing(machine, there, "tcp", reached=cut).run()
        assert isinstance(there.result(), Undecided)
        waiting = there.receiver.undecided
        assert waiting is not None
        with pytest.raises(RuntimeError, match="resume it here with force"):
            waiting.machine.run(fuel=1)
        machine.close()
        with there.receiver.force().machine as forced:
            forced.run(fuel=100)
