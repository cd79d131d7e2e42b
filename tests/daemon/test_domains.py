"""Domains as the daemon has them, without its server: who forgets them, and when."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from dbt.cli.vm.machines import OptionMachines
from dbt.daemon.definition import Definition
from dbt.daemon.domains import Domains, Record
from dbt.daemon.store import Store
from dbt.hypervisor.threads import ThreadCarrier
from tests.assembler import assemble
from tests.domains.guests import GUESTS
from tests.waiting import wait_until


@contextmanager
def domains_in(folder: Path) -> Iterator[Domains]:
    store = Store(str(folder / "vm.sqlite"))
    made = Domains(store, OptionMachines(), ThreadCarrier(), str(folder), lambda *event: None, 1, 1_000_000)
    try:
        yield made
    finally:
        for record in made.all():
            made.undefine(record.name)
        made.close()
        store.close()


def definition(folder: Path, name: str) -> Definition:
    (folder / "guest").write_bytes(assemble(GUESTS["exits"], 0))
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


def test_one_end_that_fails_leaves_the_others_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settle = Domains._settle_one

    def fails_once(self: Domains, record: Record) -> None:
        if record.name == "one":
            raise RuntimeError("on purpose")
        settle(self, record)

    monkeypatch.setattr(Domains, "_settle_one", fails_once)
    with domains_in(tmp_path) as domains:
        for name in ("one", "two"):
            domains.create(definition(tmp_path, name))
        wait_until(lambda: [record.name for record in domains.all()] == ["one"], "the end of a transient domain")
        assert "the end of the domain one is not settled" in caplog.text
