"""`dbt run --incoming` and the monitor's `migrate`, as the users of QEMU's know them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbt.cli.status import Status
from tests.assembler import assemble
from tests.domains.guests import GUESTS
from tests.migration.certificates import make_credentials
from tests.qmp.client import QmpClient
from tests.waiting import BOUND_S, wait_until


@contextmanager
def command(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run the command while the block runs."""
    line = [sys.executable, "-m", "dbt", "run", "--tier", "threaded", *map(str, arguments)]
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def guest(tmp_path: Path) -> list[str | Path]:
    (tmp_path / "guest").write_bytes(assemble(GUESTS["memory"], 0))
    return ["--base", "0", "--entry", "0", "--memory", "1M", "--qmp", f"unix:{tmp_path}/here", tmp_path / "guest"]


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "waiting for a machine at" in line, line
    return line.split()[-1]


def wait_for_status(client: QmpClient, *wanted: str) -> str:
    return wait_until(lambda: (found := str(client.ask("query-status")["status"])) * (found in wanted), f"{wanted}")


@pytest.mark.parametrize("way", ["unix", "tcp", "tls"])
def test_the_monitor_moves_a_machine(way: str, guest: list[str | Path], tmp_path: Path) -> None:
    place = f"unix:{tmp_path}/door" if way == "unix" else "tcp:127.0.0.1:0"
    more: list[str | Path] = []
    if way == "tls":
        more = ["--tls-creds", make_credentials(tmp_path / "credentials")]
    there = [*more, "--incoming", place, "--qmp", f"unix:{tmp_path}/there"]
    with command(*guest) as source, command(*there) as target:
        here = QmpClient(f"{tmp_path}/here")
        assert here.ask("query-migrate") == {}
        if way == "tls":
            assert here.ask("migrate-set-parameters", **{"tls-creds": str(more[1])}) == {}
        assert here.ask("migrate", uri=address_of(target)) == {}
        wait_for_status(here, "postmigrate")
        found = wait_until(lambda: (q := here.ask("query-migrate"))["status"] == "completed" and q, "the end")
        assert found["downtime"] > 0 and found["ram"]["dirty-sync-count"] >= 1
        wait_until(lambda: here.ask("query-status") and here.events, "an event")
        assert {"event": "MIGRATION", "data": {"status": "completed"}} in here.events
        executed = here.ask("x-dbt-info")["icount"]
        kind, text = here.ask("cont")
        assert kind == "GenericError" and "runs elsewhere" in text
        assert here.ask("migrate", uri=place)[0] == "GenericError"
        client = QmpClient(f"{tmp_path}/there")
        wait_until(lambda: client.ask("x-dbt-info")["icount"] > executed, "the guest")
        assert client.ask("query-status")["status"] == "running"
        client.ask("quit")
        here.ask("quit")
        assert target.wait(BOUND_S) == source.wait(BOUND_S)


def test_a_paused_machine_arrives_paused_and_a_failed_migration_changes_nothing(
    guest: list[str | Path], tmp_path: Path
) -> None:
    with command(*guest), command("--incoming", f"unix:{tmp_path}/door", "--qmp", f"unix:{tmp_path}/there") as target:
        here = QmpClient(f"{tmp_path}/here")
        assert here.ask("migrate", uri=f"unix:{tmp_path}/nobody") == {}
        found = wait_until(lambda: (q := here.ask("query-migrate"))["status"] == "failed" and q, "the end")
        assert "cannot connect" in found["error-desc"]
        assert here.ask("query-status")["status"] == "running"
        here.ask("stop")
        assert here.ask("migrate", uri=address_of(target)) == {}
        wait_for_status(here, "postmigrate")
        client = QmpClient(f"{tmp_path}/there")
        assert client.ask("query-status")["status"] in ("paused", "prelaunch")
        stands_at = client.ask("x-dbt-info")["icount"]
        assert stands_at == here.ask("x-dbt-info")["icount"]
        client.ask("cont")
        wait_until(lambda: client.ask("x-dbt-info")["icount"] > stands_at, "the guest")


def test_what_makes_no_sense_is_refused(guest: list[str | Path], tmp_path: Path) -> None:
    with command(*guest):
        here = QmpClient(f"{tmp_path}/here")
        for uri, why in (("exec:cat", "write unix:PATH or tcp:HOST:PORT"), ("tcp:192.0.2.1:1", "without TLS")):
            kind, text = here.ask("migrate", uri=uri)
            assert kind == "GenericError" and why in text
        assert "no migration" in here.ask("x-dbt-resume", force=True)[1]
        assert "unexpected" in here.ask("migrate-set-parameters", **{"cpu-throttle": 1})[1]
        assert "integer" in here.ask("migrate-set-parameters", **{"downtime-limit": "x"})[1]
    for option, why in ((["--memory", "1M"], "--incoming takes from"), (["--restore", "x"], "has its state from")):
        with command("--incoming", f"unix:{tmp_path}/door", *option) as process:
            assert process.wait(BOUND_S) == Status.USAGE
            assert process.stderr is not None and why in process.stderr.read()
