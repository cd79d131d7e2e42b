"""Machines that are moved between two daemons: `dbt vm migrate`, and daemons that are killed at each point of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import pytest

from dbt.host.disk import DiskError, RawFile
from dbt.hypervisor.migration import Place, Point
from dbt.hypervisor.migration.errors import Refused
from dbt.hypervisor.migration.messages import MAGIC, NUMBER_SIZE, VERSION, Kind
from dbt.hypervisor.process.lease import leases
from tests.cli.command import ROOT, environment, paragraph
from tests.daemon.daemons import TestDaemon, daemon_in
from tests.long import LONG
from tests.migration.certificates import make_credentials
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def shared_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestDaemon, TestDaemon]]:
    with daemon_in(tmp_path_factory.mktemp("a")) as here, daemon_in(tmp_path_factory.mktemp("b")) as there:
        here.ok("list")
        there.ok("list")
        yield here, there


@pytest.fixture
def pair(shared_pair: tuple[TestDaemon, TestDaemon]) -> Iterator[tuple[TestDaemon, TestDaemon]]:
    """Two daemons without domains."""
    yield shared_pair
    for one in shared_pair:
        one.remove_all()


def socket_of(daemon: TestDaemon) -> str:
    return f"unix:{daemon.state / 'vm.sock'}"


def states(daemon: TestDaemon) -> dict[str, str]:
    return {one["name"]: one["state"] for one in daemon.json("list", "--all")}


def test_a_machine_moves_to_another_daemon_and_back(pair: tuple[TestDaemon, TestDaemon]) -> None:
    here, there = pair
    here.define("one", "letters")
    here.ok("start", "one")
    assert here.type("one") == "A"
    assert "its guest stood still for" in here.ok("migrate", "--live", "one", socket_of(there))
    assert states(here) == {"one": "defined"}
    assert there.type("one") == "B"
    assert not there.json("dominfo", "one")["persistent"]
    uuids = {daemon.json("dominfo", "one")["uuid"] for daemon in pair}
    assert len(uuids) == 1
    report = there.json("migrate", "one", socket_of(here))  # not live
    assert report["downtime_s"] > 0 and report["pages"] > 0
    wait_until(lambda: states(there) == {}, "a transient domain that is forgotten")
    assert here.type("one") == "C"


@pytest.mark.parametrize("suspends", [False, True])
def test_a_machine_that_stood_still_on_its_way_goes_on_with_the_next_daemon_too(
    pair: tuple[TestDaemon, TestDaemon], suspends: bool
) -> None:
    here, there = pair
    here.define("one", "letters")
    here.ok("start", "one")
    if suspends:
        here.ok("suspend", "one")
    here.ok("migrate", "one", socket_of(there))
    there.ok("daemon", "--stop")
    assert (there.state_of("one") == "paused") == suspends


def test_a_managed_save_is_forgotten_where_a_machine_of_its_domain_comes(pair: tuple[TestDaemon, TestDaemon]) -> None:
    here, there = pair
    here.define("one", "letters")
    here.ok("start", "one")
    here.ok("snapshot-create", "one", "then")
    here.ok("migrate", "--persistent", "one", socket_of(there))
    there.ok("managedsave", "one")
    here.ok("snapshot-revert", "one", "then")
    here.ok("migrate", "one", socket_of(there))
    assert not there.json("dominfo", "one")["managed_save"]
    there.ok("destroy", "one")
    there.ok("start", "one")


def test_snapshots_are_not_lost_with_a_domain_that_is_to_be_forgotten(pair: tuple[TestDaemon, TestDaemon]) -> None:
    here, there = pair
    here.define("one", "letters")
    here.ok("start", "one")
    here.ok("snapshot-create", "one", "then")
    said = paragraph(here.vm("migrate", "--live", "--persistent", "--undefinesource", "one", socket_of(there)), 125)
    assert "its 1 snapshots would be lost" in said
    here.ok("migrate", "--live", "one", socket_of(there))
    assert [one["name"] for one in here.json("snapshot-list", "one")] == ["then"]
    there.ok("snapshot-create", "one", "there")
    assert "would be lost" in paragraph(there.vm("migrate", "one", socket_of(here)), 125)  # it is transient there
    there.ok("snapshot-delete", "one", "there")
    there.ok("migrate", "one", socket_of(here))
    here.ok("snapshot-revert", "one", "then")


def test_a_snapshot_that_is_made_meanwhile_is_not_lost(pair: tuple[TestDaemon, TestDaemon]) -> None:
    here, there = pair
    here.define("one", "letters")
    here.ok("start", "one")
    moves = len(list((here.state / "moves").iterdir()))
    slowly = {"destination": socket_of(there), "live": True, "bandwidth": 4096, "undefine_source": True}
    thread = Thread(target=here.ask, args=("POST", "/v1/domains/one/migrate", slowly))
    thread.start()
    wait_until(lambda: len(list((here.state / "moves").iterdir())) > moves, "a migration")
    here.ok("snapshot-create", "one", "meanwhile")
    thread.join()
    assert there.type("one") == "A"
    assert states(here) == {"one": "defined"}
    assert [one["name"] for one in here.json("snapshot-list", "one")] == ["meanwhile"]


def test_what_is_persistent_stays_and_what_is_undefined_goes(pair: tuple[TestDaemon, TestDaemon]) -> None:
    here, there = pair
    here.define("one", "letters")
    here.ok("start", "one")
    here.ok("suspend", "one")
    here.ok("migrate", "--persistent", "--undefinesource", "one", socket_of(there))
    assert states(here) == {}
    assert states(there) == {"one": "paused"}
    there.ok("resume", "one")
    assert there.type("one") == "A"
    there.ok("destroy", "one")
    assert states(there) == {"one": "defined"}


def test_a_reboot_that_was_asked_for_does_not_happen_where_the_machine_was(pair: tuple[TestDaemon, TestDaemon]) -> None:
    """Its guest never hears of it, and goes on at the other daemon. There is never a second one."""
    here, there = pair
    here.define_deaf("one")
    here.ok("start", "one")
    here.ok("reboot", "one")
    here.ok("migrate", "--live", "one", socket_of(there))
    assert states(here) == {"one": "defined"}
    assert states(there) == {"one": "running"}
    here.ok("start", "one")
    here.ok("destroy", "one")


def test_what_cannot_be_moved_stays(pair: tuple[TestDaemon, TestDaemon]) -> None:
    here, there = pair
    here.define("one", "letters")
    assert b"which is defined" in here.vm("migrate", "one", socket_of(there)).stderr
    here.ok("start", "one")
    for destination, why in (
        ("unix:/nowhere/vm.sock", b"cannot connect"),
        ("tcp:192.0.2.1:1", b"without TLS"),
        ("nonsense", b"write unix:PATH or tcp:HOST:PORT"),
    ):
        done = here.vm("migrate", "one", destination)
        assert done.returncode != 0 and why in done.stderr, (destination, done.stderr)
    there.define("one", "echo")
    assert b"already, with the UUID" in here.vm("migrate", "one", socket_of(there)).stderr
    assert states(there) == {"one": "defined"}
    there.ok("undefine", "one")
    assert here.type("one") == "A"


@pytest.mark.parametrize("side", [0, 1])
def test_a_machine_whose_migration_cannot_be_remembered_stays(pair: tuple[TestDaemon, TestDaemon], side: int) -> None:
    here, there = pair
    here.define("one", "letters")
    here.ok("start", "one")
    moves = pair[side].state / "moves"
    moves.rename(moves.with_name("elsewhere"))
    try:
        said = paragraph(here.vm("migrate", "--live", "one", socket_of(there)), 125)
    finally:
        moves.with_name("elsewhere").rename(moves)
    assert "stays here" in said and "what becomes of the machine cannot be remembered: No such file" in said
    assert here.type("one") == "A"
    here.ok("migrate", "--live", "one", socket_of(there))
    assert there.type("one") == "B"


@pytest.mark.parametrize(
    ("about", "why"),
    [
        (b"[" * 5000, "nothing of the domain that this daemon understands"),
        ({"machine": {"program": "/x\0"}}, "a zero byte"),
        ({"machine": {"program": "~\0"}}, "a zero byte"),
        ({"machine": {"program": "/x", "drive": ["file=/nowhere/disk"]}}, "the offer has not the fields"),
    ],
)
def test_a_source_that_says_nonsense_is_told_so_and_leaves_nothing(
    pair: tuple[TestDaemon, TestDaemon], about: bytes | dict[str, Any], why: str
) -> None:
    _, there = pair
    if isinstance(about, dict):
        flags = {"persistent": True, "goes_on": False, "copies_storage": True, "paused": False, "asked_at": []}
        about = json.dumps({"definition": {"name": "one", "uuid": str(UUID(int=5)), **about}, **flags}).encode()
    hello = {"magic": MAGIC, "version": VERSION, "id": os.urandom(NUMBER_SIZE), "asks": False, "about": about}
    with Place.parse(f"unix:{there.state / 'vm-in.sock'}").connect() as channel:
        channel.send(Kind.HELLO, hello)
        channel.receive(Kind.HELLO)
        channel.send(Kind.OFFER, {})
        with pytest.raises(Refused, match=why):
            channel.receive(Kind.ACCEPTED)
    wait_until(lambda: states(there) == {}, "the end of a domain without a machine")
    assert not list((there.state / "disks").iterdir())
    assert "Traceback" not in (there.state / "log").read_text()


def test_a_second_migration_at_the_same_time_leaves_nothing(pair: tuple[TestDaemon, TestDaemon]) -> None:
    """It would be taken for the one that is under way, if that became undecided."""
    here, there = pair
    here.define("one", "letters")
    here.ok("start", "one")
    moves = here.state / "moves"
    before = len(list(moves.iterdir()))
    slowly = {"destination": socket_of(there), "live": True, "bandwidth": 4096}
    thread = Thread(target=here.ask, args=("POST", "/v1/domains/one/migrate", slowly))
    thread.start()
    wait_until(lambda: len(list(moves.iterdir())) > before, "a migration")
    assert "is being migrated already" in paragraph(here.vm("migrate", "one", socket_of(there)), 125)
    assert len(list(moves.iterdir())) == before + 1
    thread.join()
    assert there.type("one") == "A"


def test_a_machine_that_does_not_come_leaves_the_destination_as_it_was(pair: tuple[TestDaemon, TestDaemon]) -> None:
    """A source cannot change the definition of a domain that runs, nor that of one for which no machine comes."""
    here, there = pair
    here.define("one", "letters")
    uuid = here.json("dominfo", "one")["uuid"]
    there.define("one", "letters", [f'uuid = "{uuid}"'])
    before = there.ask("GET", "/v1/domains/one/definition")
    here.ok("schedinfo", "one", "--weight", "7")
    here.ok("start", "one")
    there.ok("start", "one")
    assert b"is running here already" in _refused(here, there) or b"is blocked here already" in _refused(here, there)
    there.ok("destroy", "one")
    assert before["share"]["weight"] == 256
    here.ok("destroy", "one")
    folder = here.folder / "files"
    folder.mkdir()
    here.ok("define", here.definition("one", "letters", [f'uuid = "{uuid}"'], ['files = "files"']))
    here.ok("schedinfo", "one", "--weight", "7")
    here.ok("start", "one")
    folder.rmdir()
    assert b"this is not a directory" in _refused(here, there)
    assert there.ask("GET", "/v1/domains/one/definition") == before
    folder.mkdir()
    here.ok("migrate", "one", socket_of(there))
    assert there.json("dominfo", "one")["weight"] == 7
    assert there.json("dominfo", "one")["persistent"]


def _refused(here: TestDaemon, there: TestDaemon) -> bytes:
    done = here.vm("migrate", "one", socket_of(there))
    assert done.returncode != 0
    assert there.json("dominfo", "one")["weight"] == 256
    return done.stderr


def test_a_machine_moves_as_it_was_made(pair: tuple[TestDaemon, TestDaemon], tmp_path: Path) -> None:
    """What its domain is defined as meanwhile holds there from the next start on."""
    here, there = pair
    here.define("one", "letters")
    here.ok("start", "one")
    (tmp_path / "disk").write_bytes(bytes(4096))
    here.ok("attach-disk", "one", tmp_path / "disk")
    refusal = here.vm("migrate", "--copy-storage", "one", socket_of(there))
    assert b"has changed since its machine was made" in refusal.stderr and states(there) == {}
    here.ok("migrate", "--live", "--persistent", "one", socket_of(there))
    assert there.type("one") == "A"
    there.ok("managedsave", "one")
    there.ok("start", "one")
    assert there.type("one") == "B"
    there.ok("destroy", "one")
    (tmp_path / "disk").unlink()
    assert str(tmp_path / "disk").encode() in there.vm("start", "one").stderr


def test_the_disk_goes_along(pair: tuple[TestDaemon, TestDaemon], tmp_path: Path) -> None:
    here, there = pair
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(65536))
    program = here.folder / "spin.bin"
    program.write_bytes((0xEAFFFFFE).to_bytes(4, "little"))
    (here.folder / "d.toml").write_text(
        f'name = "d"\n[machine]\nprogram = "{program}"\nbase = "0x40000000"\nboard = "virt"\nmemory = "1M"\n'
        f'drive = ["file={disk}"]\nnet = ["hub:lab"]\n'
    )
    here.ok("define", here.folder / "d.toml")
    here.ok("start", "d")
    for source, target in ((here, there), (there, here)):
        with pytest.raises(DiskError):
            RawFile(str(disk), writable=True)
        source.ok("migrate", "--live", "d", socket_of(target))
    here.ok("destroy", "d")
    RawFile(str(disk), writable=True).close()


def test_the_disk_is_copied_and_each_daemon_has_its_own(pair: tuple[TestDaemon, TestDaemon], tmp_path: Path) -> None:
    """An image that is only read, and is here already, is not copied."""
    here, there = pair
    names = ("disk", "a,b", "base")
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([number + 1]) * 65536)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "disk").write_bytes(b"o" * 65536)
    program = here.folder / "spin.bin"
    program.write_bytes((0xEAFFFFFE).to_bytes(4, "little"))
    drives = ["disk", "a,,b", "other/disk", f"base,overlay={tmp_path}/over"]
    (here.folder / "d.toml").write_text(
        f'name = "d"\n[machine]\nprogram = "{program}"\nbase = "0x40000000"\nboard = "virt"\nmemory = "1M"\n'
        f"drive = {[f'file={tmp_path}/{drive}' for drive in drives]}\n"
    )
    here.ok("define", here.folder / "d.toml")
    here.ok("start", "d")
    uuid = here.json("dominfo", "d")["uuid"]
    report = here.json("migrate", "--live", "--copy-storage", "d", socket_of(there))
    assert report["storage_bytes"] >= 3 * 65536
    place = there.state / "disks" / uuid
    assert sorted(os.listdir(place)) == ["2-disk", "a,b", "disk", "over"]
    for copy, original in (("2-disk", "other/disk"), ("a,b", "a,b"), ("disk", "disk")):
        assert (place / copy).read_bytes() == (tmp_path / original).read_bytes()
        with pytest.raises(DiskError):
            RawFile(str(place / copy), writable=True)
    RawFile(str(tmp_path / "disk"), writable=True).close()
    texts = there.ask("GET", "/v1/domains/d/definition")["machine"]["drive"]
    assert texts[1] == f"file={place}/a,,b" and texts[3] == f"file={tmp_path}/base,overlay={place}/over"
    there.ok("migrate", "--live", "--copy-storage", "d", socket_of(here))
    assert sorted(os.listdir(here.state / "disks" / uuid)) == sorted(os.listdir(place))
    done = here.vm("migrate", "--live", "--copy-storage", "d", socket_of(there))
    assert done.returncode != 0 and b"exists already" in done.stderr
    assert here.state_of("d") == "running"


def test_a_machine_does_not_leave_others_at_its_hub_unless_it_may(pair: tuple[TestDaemon, TestDaemon]) -> None:
    here, there = pair
    program = here.folder / "spin.bin"
    program.write_bytes((0xEAFFFFFE).to_bytes(4, "little"))
    for name, hub in (("one", "lab"), ("two", "lab"), ("three", "other")):
        (here.folder / f"{name}.toml").write_text(
            f'name = "{name}"\n[machine]\nprogram = "{program}"\nbase = "0x40000000"\nboard = "virt"\n'
            f'memory = "1M"\nnet = ["hub:{hub}"]\n'
        )
        here.ok("define", here.folder / f"{name}.toml")
        here.ok("start", name)
    done = here.vm("migrate", "--live", "one", socket_of(there))
    assert done.returncode != 0 and b"its network hub:lab has two, too" in done.stderr
    assert here.state_of("one") == "running"
    here.ok("migrate", "--live", "--leave-hubs", "one", socket_of(there))
    here.ok("migrate", "--live", "two", socket_of(there))
    here.ok("migrate", "--live", "three", socket_of(there))
    assert states(there) == dict.fromkeys(("one", "two", "three"), "running")


@contextmanager
def daemon_process(folder: Path, *command: str) -> Iterator[tuple[TestDaemon, str]]:
    """A daemon as a child of this process, and its log."""
    daemon = TestDaemon(folder)
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    with open(log, "wb") as file:
        child = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment(DBT_VM_DIR=str(daemon.state)), stderr=file
        )
    try:
        wait_until(lambda: b"the daemon listens" in log.read_bytes(), "a daemon that listens")
        yield daemon, log.read_text()
    finally:
        daemon.remove_all()
        daemon.vm("daemon", "--stop")
        child.kill()
        child.wait()


def test_over_tcp_both_sides_prove_who_they_are(tmp_path: Path) -> None:
    make_credentials(tmp_path / "ours")
    make_credentials(tmp_path / "others")
    options = ["--migration", "tcp:127.0.0.1:0", "--tls-creds", str(tmp_path / "ours")]
    with (
        daemon_in(tmp_path / "a") as here,
        daemon_process(tmp_path / "b", "-m", "dbt", "vm", "daemon", *options) as (there, log),
    ):
        here.folder.mkdir()
        here.define("one", "letters")
        here.ok("start", "one")
        found = re.search(r"are taken at (tcp:\S+)", log)
        assert found is not None
        for credentials in (["--tls-creds", str(tmp_path / "others")], []):
            assert here.vm("migrate", "one", found[1], *credentials).returncode != 0
        assert here.type("one") == "A"
        here.ok("migrate", "--live", "one", found[1], "--tls-creds", tmp_path / "ours")
        assert there.type("one") == "B"
        assert states(here) == {"one": "defined"}


def test_a_daemon_takes_no_machines_of_anybody(tmp_path: Path) -> None:
    daemon = TestDaemon(tmp_path)
    done = daemon.vm("daemon", "--migration", "tcp:127.0.0.1:0")
    assert b"could have this daemon run machines" in done.stderr and done.returncode != 0


# -- kill -9 ---------------------------------------------------------------------------------------

_ALIVE = ("running", "blocked")
_SHORT = (
    Point.SOURCE_RELEASED,
    Point.SOURCE_COMMITTED,
    Point.DESTINATION_PREPARED,
    Point.DESTINATION_VOTED,
)


_USUAL = [point for point in Point if not point.is_of_copies]


_STRIKES = [
    *(("unix", point) for point in (_USUAL if LONG else _SHORT)),
    *(("tls", point) for point in (_USUAL if LONG else _SHORT[-1:])),
]


def settled(here: TestDaemon, there: TestDaemon) -> TestDaemon:
    """Wait until both daemons know whose the machine is, and return that one."""

    def decided() -> list[str] | None:
        found = [states(daemon).get("one", "defined") for daemon in (here, there)]
        assert sum(state in _ALIVE for state in found) <= 1, found
        assert set(found) != {"defined"}, found
        return found if all(state in (*_ALIVE, "defined") for state in found) else None

    found = wait_until(decided, "daemons that know whose it is")
    assert found is not None
    return there if found[0] == "defined" else here


@pytest.mark.parametrize(("way", "point"), _STRIKES, ids=lambda one: one if isinstance(one, str) else one.name.lower())
def test_a_daemon_that_is_killed_at_a_point_and_comes_again(way: str, point: Point, tmp_path: Path) -> None:
    """Never two run, nothing is lost, and the daemons find out by themselves whose the machine is."""
    options: tuple[str, ...] = ()
    credentials: list[str] = []
    if way == "tls":
        make_credentials(tmp_path / "ours")
        credentials = ["--tls-creds", str(tmp_path / "ours")]
        options = ("--migration", "tcp:127.0.0.1:0", *credentials)
    striking = ("-m", "tests.daemon.striking_daemon", point.name, *options)
    plain = ("-m", "dbt", "vm", "daemon")
    sides = (striking, (*plain, *options)) if point.is_of_source else ((*plain, *options), striking)
    with (
        daemon_process(tmp_path / "a", *sides[0]) as (here, log_here),
        daemon_process(tmp_path / "b", *sides[1]) as (there, log),
    ):
        here.define("one", "letters")
        here.ok("start", "one")
        assert here.type("one") == "A"
        place = socket_of(there) if way == "unix" else door_in(log)
        here.vm("migrate", "--live", "--persistent", "one", place, *credentials)
        again = "a" if point.is_of_source else "b"
        if way == "tls":  # at the same port
            options = ("--migration", door_in(log_here if point.is_of_source else log), *credentials)
        with daemon_process(tmp_path / again, *plain, *options):
            runs = settled(here, there)
            assert runs.type("one") == "B"
            for daemon in (here, there):
                assert len(list(leases(str(daemon.state / "machines")))) == (daemon is runs)


def door_in(log: str) -> str:
    """Return where a daemon takes machines of other hosts, by its log."""
    found = re.search(r"are taken at (tcp:\S+)", log)
    assert found is not None
    return found[1]


# -- a daemon that does not come again -------------------------------------------------------------


@contextmanager
def undecided(tmp_path: Path, point: Point) -> Iterator[tuple[TestDaemon, TestDaemon]]:
    """Give two daemons, of which the second has an undecided machine, and the first is gone."""
    striking = ("-m", "tests.daemon.striking_daemon", point.name)
    with (
        daemon_process(tmp_path / "a", *striking) as (here, _),
        daemon_process(tmp_path / "b", "-m", "dbt", "vm", "daemon") as (there, _),
    ):
        here.define("one", "letters")
        here.ok("start", "one")
        assert here.type("one") == "A"
        here.vm("migrate", "--live", "--persistent", "one", socket_of(there))
        wait_until(lambda: states(there).get("one") == "undecided", "a destination that does not know")
        yield here, there


def test_what_nobody_answers_for_is_undecided_until_its_user_decides(tmp_path: Path) -> None:
    """The source was killed when it had decided and had not said so. Its user runs the machine at the destination, and
    the source hears of it when it comes again.
    """
    with undecided(tmp_path, Point.SOURCE_DECIDED) as (here, there):
        assert "paused (undecided)" in there.ok("list")
        said = there.vm("resume", "one").stderr
        assert b"does not answer at unix:" in said and b"resume --force one" in said and b"destroy one" in said
        for verb in ("suspend", "reset", "shutdown", "start"):
            assert b"undecided" in there.vm(verb, "one").stderr, verb
        assert states(there) == {"one": "undecided"}
        there.ok("resume", "--force", "one")
        assert there.type("one") == "B"
        assert there.json("dominfo", "one")["persistent"], "as it was to be there"
        assert settled(here, there) is there


def test_a_machine_that_its_user_gives_up_is_the_other_sides(tmp_path: Path) -> None:
    with undecided(tmp_path, Point.SOURCE_DECIDED) as (here, there):
        there.ok("destroy", "one")
        assert settled(here, there) is here
        assert here.type("one") == "B"
