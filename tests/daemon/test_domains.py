"""Domains as the daemon has them, without its server: who forgets them, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest

from dbt.cli.vm.machines import OptionMachines
from dbt.daemon.database import Database
from dbt.daemon.definition import Definition
from dbt.daemon.domains import RUNS, Domains
from dbt.daemon.errors import Conflict, HostFailed, NotFound
from dbt.daemon.known_domains import Record
from dbt.daemon.states import SavedStates
from dbt.daemon.store import Store
from dbt.hypervisor.domain import Domain
from dbt.hypervisor.lifecycle import ALIVE, DomainState
from dbt.hypervisor.threads import ThreadCarrier
from tests.assembler import assemble
from tests.domains.guests import GUESTS
from tests.waiting import wait_until


@contextmanager
def domains_in(folder: Path) -> Iterator[Domains]:
    store, states = Store(str(folder / "vm.sqlite")), folder / "states"
    states.mkdir()
    made = Domains(store, OptionMachines(), ThreadCarrier(), str(states), lambda *event: None, 1, 1_000_000)
    try:
        yield made
    finally:
        for record in made.all():
            if record.domain.state in ALIVE:
                record.domain.destroy()
            if record.persistent:  # others are forgotten then
                made.undefine(record.name)
        made.close()
        store.close()


def definition(folder: Path, name: str, guest: str = "exits") -> Definition:
    (folder / "guest").write_bytes(assemble(GUESTS[guest], 0))
    options: dict[str, str | int | bool | list[str]] = {"program": str(folder / "guest"), "base": 0, "memory": "1M"}
    return Definition(name=name, machine=options, uuid=uuid4())


def test_a_domain_that_was_expected_can_be_undefined_by_somebody_else(tmp_path: Path) -> None:
    """What has gone wrong is what is told, and not that there is none to forget."""
    with domains_in(tmp_path) as domains:
        wanted = definition(tmp_path, "one")
        with pytest.raises(ConnectionError, match="gone"), domains.expected(wanted, wanted, True):
            domains.undefine("one")
            raise ConnectionError("the source is gone")
        assert domains.all() == []


@pytest.mark.parametrize("persistent", [False, True])
def test_a_domain_is_there_until_the_machine_has_come_and_is_remembered(tmp_path: Path, persistent: bool) -> None:
    """Also if the machine that it had before has ended just now, or the one that has come ends at once."""
    with domains_in(tmp_path) as domains:
        wanted = definition(tmp_path, "one", "spinner")
        with domains.expected(wanted, wanted, persistent) as record:
            domains.settle(record)
            domains.undefine("one")
            for verb in (domains.start, domains.destroy):
                with pytest.raises(Conflict):
                    verb("one")
            with (
                pytest.raises(Conflict, match="a machine comes for the domain one"),
                domains.expected(wanted, wanted, True),
            ):
                pass
            assert domains.all() == [record]
            record.domain.start()
            record.domain.destroy()
            domains.settle(record)
        assert [one.definition.name for one in domains._store.domains()] == ["one"] * persistent
        assert domains.all() == [record] * persistent


def test_a_domain_is_as_it_was_if_no_machine_comes(tmp_path: Path) -> None:
    with domains_in(tmp_path) as domains:
        first = domains.define(definition(tmp_path, "one", "spinner")).definition
        wanted = msgspec.structs.replace(first, autostart=True)
        for undefines in (False, True):
            with pytest.raises(ConnectionError), domains.expected(wanted, wanted, True):
                assert domains.get("one").definition == wanted
                if undefines:
                    domains.undefine("one")
                raise ConnectionError("the source is gone")
            assert [record.definition for record in domains.all()] == [first] * (not undefines)
        assert domains._store.domains() == []


def test_one_end_that_fails_leaves_the_others_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settle = Domains.settle

    def fails_once(self: Domains, record: Record) -> None:
        if record.name == "one":
            raise RuntimeError("on purpose")
        settle(self, record)

    monkeypatch.setattr(Domains, "settle", fails_once)
    with domains_in(tmp_path) as domains:
        for name in ("one", "two"):
            domains.create(definition(tmp_path, name))
        wait_until(lambda: [record.name for record in domains.all()] == ["one"], "the end of a transient domain")
        wait_until(lambda: "the end of the domain one is not settled" in caplog.text, "the word of a failure")


class FullDisk:
    """A disk on which nothing can be remembered from :meth:`fill` on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def fill(self) -> None:
        @contextmanager
        def writing(database: Database, durable: bool = True) -> Iterator[None]:
            raise HostFailed("there is no room left on the disk")
            yield

        self._monkeypatch.setattr(Database, "writing", writing)

    def empty(self) -> None:
        self._monkeypatch.undo()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


def states_of(domains: Domains, folder: Path) -> SavedStates:
    return SavedStates(domains, domains._store, OptionMachines(), str(folder / "states"), lambda *event: None)


def test_what_cannot_be_remembered_is_not_done(tmp_path: Path, disk: FullDisk) -> None:
    with domains_in(tmp_path) as domains:
        states = states_of(domains, tmp_path)
        first = definition(tmp_path, "one", "spinner")
        record = domains.define(first)
        domains.start("one")
        before = record.definition
        attempts: list[Callable[[], object]] = [
            lambda: domains.undefine("one"),
            lambda: domains.suspend("one"),
            lambda: domains.set_autostart("one", True),
            lambda: domains.define(msgspec.structs.replace(first, machine={**first.machine, "memory": "2M"})),
            lambda: domains.define(definition(tmp_path, "two", "spinner")),
            lambda: domains.create(definition(tmp_path, "three", "spinner")),
            lambda: states.create_snapshot("one", "then"),
            lambda: states.clone("one", "four"),
            lambda: states.managed_save("one"),
        ]
        disk.fill()
        for attempt in attempts:
            with pytest.raises(HostFailed, match="no room left"):
                attempt()
            assert record.domain.state in RUNS
            assert (record.definition, record.persistent, record.managed_save) == (before, True, None)
            assert domains.all() == [record]
            assert list(domains.host.domains) == ["one"]
            assert [path for path in (tmp_path / "states").rglob("*") if path.is_file()] == []
        disk.empty()
        for attempt in attempts[1:]:
            attempt()
        assert {one.name for one in domains.all()} == {"one", "two", "three", "four"}


def test_what_ends_a_machine_has_done_so_also_if_its_domain_cannot_be_forgotten(tmp_path: Path, disk: FullDisk) -> None:
    with domains_in(tmp_path) as domains:
        states = states_of(domains, tmp_path)
        for name in ("one", "two"):
            domains.create(definition(tmp_path, name, "spinner"))
        disk.fill()
        states.save("one", str(tmp_path / "saved"))
        domains.destroy("two")
        assert {one.name: one.domain.state for one in domains.all()} == dict.fromkeys(
            ("one", "two"), DomainState.DEFINED
        )
        with pytest.raises(HostFailed, match="no room left"):
            domains.destroy("two")
        disk.empty()
        for name in ("one", "two"):
            with suppress(NotFound):  # what hears of ends may have come so late that it could forget it
                domains.destroy(name)
        assert domains.all() == []


def test_a_suspended_domain_that_cannot_go_on_stays_suspended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the next daemon."""

    def refuses(self: Domain, force: bool = False) -> None:
        raise ValueError("its disk has changed")

    def paused() -> list[bool]:
        return [one.paused for one in domains._store.domains()]

    with domains_in(tmp_path) as domains:
        record = domains.define(definition(tmp_path, "one", "spinner"))
        domains.start("one")
        domains.suspend("one")
        with monkeypatch.context() as patched:
            patched.setattr(Domain, "resume", refuses)
            with pytest.raises(Conflict, match="its disk has changed"):
                domains.resume("one")
        assert paused() == [True]
        domains.resume("one")
        assert record.domain.state in RUNS
        assert paused() == [False]
        with pytest.raises(Conflict):
            domains.resume("one")
        assert paused() == [False]


def test_a_saved_machine_that_goes_on_is_not_started_from_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although that cannot be remembered: what it has done since would be done twice."""

    def forgets_nothing(self: Store, uuid: UUID, path: str | None) -> None:
        raise HostFailed("there is no room left on the disk")

    with domains_in(tmp_path) as domains:
        states = states_of(domains, tmp_path)
        record = domains.define(definition(tmp_path, "one", "spinner"))
        domains.start("one")
        states.managed_save("one")
        with monkeypatch.context() as patched:
            patched.setattr(Store, "set_managed_save", forgets_nothing)
            with pytest.raises(HostFailed):
                domains.start("one")
        assert record.domain.state in RUNS
        assert record.managed_save is None
