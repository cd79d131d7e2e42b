"""Machines that are saved, restored, reverted and cloned by the daemon, and definitions that change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.command import dbt, paragraph
from tests.daemon.daemons import TestDaemon
from tests.waiting import wait_until


@pytest.fixture
def letters(daemon: TestDaemon) -> str:
    """A domain whose guest has answered twice."""
    daemon.define("one", "letters")
    daemon.ok("start", "one")
    assert daemon.type("one", b"xx") == "AB"
    return "one"


def test_a_machine_goes_on_from_the_file_to_which_it_was_saved(
    daemon: TestDaemon, letters: str, tmp_path: Path
) -> None:
    file = tmp_path / "saved"
    daemon.ok("save", letters, file)
    assert daemon.state_of(letters) == "defined"
    daemon.ok("undefine", letters)
    assert daemon.ok("restore", file) == f"domain one goes on from {file}\n"
    assert daemon.type(letters) == "C"
    assert "already" in paragraph(daemon.vm("restore", file), 125)


def test_the_name_of_a_transient_domain_is_free_when_the_verb_that_ends_it_is_over(
    daemon: TestDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "saved"
    transient = daemon.definition("passing", "letters")
    for _ in range(10):
        daemon.ok("create", transient)
        daemon.ask("POST", "/v1/domains/passing/save", {"path": str(file)})
        assert daemon.ask("GET", "/v1/domains") == []
        daemon.ask("POST", "/v1/restore", {"path": str(file)})
        daemon.ask("DELETE", "/v1/domains/passing")
        daemon.ask("POST", "/v1/domains/passing/destroy")
        assert daemon.ask("GET", "/v1/domains") == []


def test_a_reboot_that_was_asked_for_is_none_of_a_machine_that_is_saved(daemon: TestDaemon, tmp_path: Path) -> None:
    """Its guest may never hear of the power key. What ends the machine then is no shutdown, so nothing boots."""
    daemon.define_deaf("one")
    for verb, state in ((("save", "one", tmp_path / "saved"), "defined"), (("managedsave", "one"), "defined")):
        daemon.ok("start", "one")
        daemon.ok("reboot", "one")
        daemon.ok(*verb)
        assert daemon.state_of("one") == state
    assert daemon.json("dominfo", "one")["managed_save"]


def test_a_file_without_its_definition_is_refused(daemon: TestDaemon, tmp_path: Path) -> None:
    (tmp_path / "saved").write_text("x")
    assert "cannot be read from" in paragraph(daemon.vm("restore", tmp_path / "saved"), 120)
    (tmp_path / "saved.json").write_text("{")
    assert "is no definition" in paragraph(daemon.vm("restore", tmp_path / "saved"), 121)


def test_a_damaged_file_starts_nothing(daemon: TestDaemon, letters: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    daemon.ok("save", letters, file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert "cannot start" in paragraph(daemon.vm("restore", file), 121)
    assert daemon.state_of(letters) == "defined"


def test_a_file_is_restored_by_its_own_domain_alone(daemon: TestDaemon, letters: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    daemon.ok("save", letters, file)
    daemon.ok("undefine", letters)
    daemon.define("one", "letters")
    assert "that of another domain one" in paragraph(daemon.vm("restore", file), 125)
    assert daemon.state_of("one") == "defined"
    daemon.ok("undefine", "one")
    daemon.ok("restore", file)
    assert daemon.type("one") == "C"


def test_files_that_are_gone_are_said_before_anything_is_lost(daemon: TestDaemon, letters: str, tmp_path: Path) -> None:
    states = daemon.state / "states"
    for name in ("kept", "gone"):
        daemon.ok("snapshot-create", letters, name)
    (snapshot,) = states.glob("*/gone.dbt")
    snapshot.unlink()
    assert "is not there any more" in paragraph(daemon.vm("snapshot-revert", letters, "gone"), 120)
    assert daemon.type(letters) == "C"  # the machine goes on
    daemon.ok("snapshot-delete", letters, "gone")
    assert [one["name"] for one in daemon.json("snapshot-list", letters)] == ["kept"]
    daemon.ok("managedsave", letters)
    (saved,) = states.glob("*.dbt")
    saved.unlink()
    assert "--force-boot" in paragraph(daemon.vm("start", letters), 120)
    assert daemon.state_of(letters) == "defined"
    daemon.ok("start", letters, "--force-boot")
    assert daemon.type(letters) == "A"
    assert not daemon.json("dominfo", letters)["managed_save"]
    assert "is not there any more" in paragraph(daemon.vm("restore", tmp_path / "none"), 120)


def test_a_save_that_cannot_be_written_leaves_the_machine_running(daemon: TestDaemon, letters: str) -> None:
    assert "is not saved" in paragraph(daemon.vm("save", letters, "/nowhere/file"), 125)
    assert daemon.type(letters) == "C"


def test_a_managed_save_is_taken_up_by_the_next_start_alone(daemon: TestDaemon, letters: str) -> None:
    daemon.ok("managedsave", letters)
    assert "saved" in daemon.ok("list", "--all")
    daemon.ok("daemon", "--stop")
    daemon.ok("start", letters)
    assert daemon.type(letters) == "C"
    daemon.ok("reset", letters)
    assert daemon.type(letters) == "A"
    daemon.ok("managedsave", letters)
    daemon.ok("start", letters, "--force-boot")
    assert daemon.type(letters) == "A"
    assert not daemon.json("dominfo", letters)["managed_save"]
    assert not list((daemon.state / "states").iterdir())


def test_a_managed_save_is_forgotten_if_its_domain_goes_on_from_elsewhere(
    daemon: TestDaemon, letters: str, tmp_path: Path
) -> None:
    """A start from there later would be a second past, whether the daemon has been another one meanwhile or not."""
    states = daemon.state / "states"
    daemon.ok("snapshot-create", letters, "then")
    daemon.ok("dump", letters, tmp_path / "saved")
    definition = next(states.glob("*/then.dbt.json"))
    (tmp_path / "saved.json").write_bytes(definition.read_bytes())
    for verb in (("snapshot-revert", letters, "then"), ("restore", tmp_path / "saved")):
        daemon.ok("managedsave", letters)
        assert list(states.glob("*.dbt"))
        daemon.ok(*verb)
        assert not daemon.json("dominfo", letters)["managed_save"]
        assert not list(states.glob("*.dbt*"))
        assert daemon.type(letters) == "C"
        daemon.ok("destroy", letters)
        daemon.ok("start", letters)
        assert daemon.type(letters) == "A"


def test_a_damaged_snapshot_ends_no_machine(daemon: TestDaemon, letters: str) -> None:
    daemon.ok("snapshot-create", letters, "hurt")
    (path,) = (daemon.state / "states").glob("*/hurt.dbt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    said = paragraph(daemon.vm("snapshot-revert", letters, "hurt"), 125)
    assert "the snapshot hurt cannot be used, and the domain stays as it is" in said
    assert daemon.type(letters) == "C"
    daemon.ok("snapshot-delete", letters, "hurt")


def test_a_snapshot_whose_disk_is_another_now_ends_no_machine(daemon: TestDaemon, letters: str, tmp_path: Path) -> None:
    """Whether that is seen beforehand, or not before the next machine is made."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    daemon.ok("attach-disk", letters, disk)
    daemon.ok("reset", letters)
    daemon.ok("snapshot-create", letters, "then")
    assert daemon.type(letters) == "A"
    os.utime(disk, (1, 1))
    said = paragraph(daemon.vm("snapshot-revert", letters, "then"), 125)
    assert f"the domain {letters} goes on as it was: " in said and "has been written since" in said
    assert daemon.type(letters) == "B"
    daemon.ok("suspend", letters)
    daemon.vm("snapshot-revert", letters, "then")
    assert daemon.state_of(letters) == "paused"
    daemon.ok("resume", letters)
    disk.rename(tmp_path / "elsewhere")
    said = paragraph(daemon.vm("snapshot-revert", letters, "then"), 120)
    assert f"the disk {disk} of the snapshot's machine is not there" in said
    assert daemon.type(letters) == "C"


def test_snapshots_are_kept_listed_and_gone_back_to(daemon: TestDaemon, letters: str) -> None:
    assert daemon.json("snapshot-create", letters)["name"] == "1"
    assert daemon.type(letters) == "C"
    daemon.ok("snapshot-create", letters, "later")
    assert [one["name"] for one in daemon.json("snapshot-list", letters)] == ["1", "later"]
    assert "has a snapshot later already" in paragraph(daemon.vm("snapshot-create", letters, "later"), 125)
    assert "has no snapshot 2" in paragraph(daemon.vm("snapshot-revert", letters, "2"), 120)
    for snapshot, letter in (("1", "C"), ("later", "D"), ("1", "C")):
        daemon.ok("snapshot-revert", letters, snapshot)
        assert daemon.type(letters) == letter
    daemon.ok("suspend", letters)
    daemon.ok("snapshot-create", letters, "still")
    daemon.ok("resume", letters)
    daemon.ok("snapshot-revert", letters, "still")
    assert daemon.state_of(letters) == "paused"
    daemon.ok("snapshot-delete", letters, "1")
    daemon.ok("snapshot-delete", letters, "still")
    assert [one["name"] for one in daemon.json("snapshot-list", letters)] == ["later"]
    daemon.ok("destroy", letters)
    daemon.ok("undefine", letters)
    assert not list((daemon.state / "states").iterdir())


@pytest.mark.parametrize("name", ["../x", "a/b", ""])
def test_the_name_of_a_snapshot_is_no_path(daemon: TestDaemon, letters: str, name: str) -> None:
    paragraph(daemon.vm("snapshot-create", letters, name), 120)
    assert daemon.json("snapshot-list", letters) == []


def test_a_dump_can_be_run_and_the_machine_goes_on(daemon: TestDaemon, letters: str, tmp_path: Path) -> None:
    daemon.ok("dump", letters, tmp_path / "dump")
    assert daemon.type(letters) == "C"
    done = dbt("run", "--restore", tmp_path / "dump", "--fuel", "100", "--json", "--jit", "off")
    assert json.loads(done.stderr.decode().splitlines()[-1])["registers"]["r6"] == ord("C")


def test_a_clone_has_the_state_and_another_identity(daemon: TestDaemon, letters: str) -> None:
    daemon.ok("clone", letters, "two")
    assert daemon.type("two") == "C"
    assert daemon.type(letters, b"xx") == "CD"
    assert daemon.json("dominfo", "two")["uuid"] != daemon.json("dominfo", letters)["uuid"]
    daemon.ok("destroy", letters)
    daemon.ok("clone", letters, "three")
    assert daemon.state_of("three") == "defined"
    assert "there is a domain two already" in paragraph(daemon.vm("clone", "two", "two"), 125)


def test_the_limits_of_devices_are_kept(daemon: TestDaemon) -> None:
    daemon.define("one", "sleeper", ["[limits]", "disk-bytes = 1000"])
    assert daemon.json("blkdeviotune", "one") == {"disk-bytes": 1000, "disk-operations": None}
    changed = daemon.json("blkdeviotune", "one", "--total-bytes-sec", "0", "--total-iops-sec", "50")
    assert changed == {"disk-bytes": None, "disk-operations": 50}
    assert daemon.json("domiftune", "one", "--inbound", "1000000") == {"net-received": 1_000_000, "net-sent": None}
    assert daemon.json("memtune", "one", "--hard-limit", "2M") == {"memory": 2 << 20}
    assert daemon.ask("GET", "/v1/domains/one/definition")["limits"] == {
        "memory": 2 << 20,
        **{"disk-bytes": None, "disk-operations": 50},
        **{"net-sent": None, "net-received": 1_000_000},
    }


def test_a_machine_that_takes_more_memory_than_it_may_is_crashed(daemon: TestDaemon) -> None:
    """The guest writes to one page, and its code is in another."""
    daemon.define("one", "memory", ["[limits]", "memory = 4096"])
    daemon.ok("start", "one")
    wait_until(lambda: daemon.state_of("one") == "crashed", "a crash")
    assert "limit of memory is 4096" in daemon.json("dominfo", "one")["reason"]
    daemon.ok("destroy", "one")
    daemon.ok("memtune", "one", "--hard-limit", "0")
    daemon.ok("start", "one")
    wait_until(lambda: daemon.json("domstats", "one")[0]["turns"] > 3, "turns")
    assert daemon.state_of("one") == "running"


def test_memory_is_asked_for_by_the_balloon(daemon: TestDaemon) -> None:
    daemon.define("none", "letters")
    daemon.define("some", "letters", machine=["balloon = true"])
    assert "which is defined" in paragraph(daemon.vm("setmem", "some", "512K"), 125)
    daemon.ok("start", "none", "some")
    said = paragraph(daemon.vm("setmem", "none", "512K"), 125)
    assert "no balloon" in said
    assert "`balloon = true` in a definition" in said
    said = paragraph(daemon.vm("setmem", "some", "512M"), 125)
    assert "a multiple of 4096 bytes of memory, and this one at most 1048576" in said
    assert daemon.json("setmem", "some", "512K") == {"domain": "some", "size": 512 << 10}


def test_disks_come_and_go_with_the_next_start(daemon: TestDaemon, tmp_path: Path) -> None:
    daemon.define("one", "sleeper")
    (tmp_path / "disk").write_bytes(bytes(4096))
    daemon.ok("attach-disk", "one", tmp_path / "disk")
    assert "has the disk" in paragraph(daemon.vm("attach-disk", "one", tmp_path / "disk"), 125)
    daemon.ok("start", "one")
    daemon.ok("destroy", "one")
    (tmp_path / "disk").unlink()
    assert str(tmp_path / "disk") in paragraph(daemon.vm("start", "one"), 121)
    daemon.ok("detach-disk", "one", tmp_path / "disk")
    daemon.ok("start", "one")
    assert "has no disk" in paragraph(daemon.vm("detach-disk", "one", tmp_path / "disk"), 120)


@pytest.mark.parametrize("name", ["a,b", "profile=x"])
def test_the_file_of_a_disk_may_have_any_name(daemon: TestDaemon, tmp_path: Path, name: str) -> None:
    daemon.define("one", "sleeper")
    (tmp_path / name).write_bytes(bytes(4096))
    daemon.ok("attach-disk", "one", tmp_path / name)
    daemon.ok("start", "one")
    daemon.ok("detach-disk", "one", tmp_path / name)
    assert _drives(daemon, "one") == 0
    assert "is empty" in paragraph(daemon.vm("attach-disk", "one", ""), 120)


def test_a_new_definition_holds_from_the_next_start_on(daemon: TestDaemon, letters: str) -> None:
    daemon.define("one", "echo", ["[share]", "weight = 5"])
    assert daemon.json("dominfo", letters)["weight"] == 5
    assert daemon.type(letters) == "C"
    daemon.ok("reset", letters)
    assert daemon.type(letters) == "x"


@pytest.fixture
def changed(daemon: TestDaemon, letters: str, tmp_path: Path) -> str:
    """A domain whose machine was made without the disk that its next start is to have, and of which there is a clone,
    a snapshot from before and one from after.
    """
    daemon.ok("snapshot-create", letters, "before")
    (tmp_path / "disk").write_bytes(bytes(4096))
    daemon.ok("attach-disk", letters, tmp_path / "disk")
    daemon.ok("snapshot-create", letters, "after")
    return letters


def _drives(daemon: TestDaemon, name: str) -> int:
    return len(daemon.ask("GET", f"/v1/domains/{name}/definition")["machine"].get("drive", []))


@pytest.mark.parametrize("restarts", [False, True])
def test_a_state_belongs_to_the_machine_that_it_is_of(
    daemon: TestDaemon, changed: str, tmp_path: Path, restarts: bool
) -> None:
    """And what the domain is defined as meanwhile holds from the start on that boots."""
    if restarts:
        daemon.ok("daemon", "--stop")
    daemon.ok("managedsave", changed)
    daemon.ok("start", changed)
    assert daemon.type(changed) == "C"
    daemon.ok("save", changed, tmp_path / "saved")
    daemon.ok("restore", tmp_path / "saved")
    assert daemon.type(changed) == "D"
    for snapshot in ("before", "after"):
        daemon.ok("snapshot-revert", changed, snapshot)
        assert daemon.type(changed) == "C"
    daemon.ok("destroy", changed)
    assert _drives(daemon, changed) == 1
    (tmp_path / "disk").unlink()
    assert str(tmp_path / "disk") in paragraph(daemon.vm("start", changed), 121)
    daemon.ok("snapshot-revert", changed, "after")
    assert daemon.type(changed) == "C"


def test_a_clone_goes_on_with_the_machine_that_there_was(daemon: TestDaemon, changed: str) -> None:
    daemon.ok("clone", changed, "two")
    assert daemon.type("two") == "C" and _drives(daemon, "two") == 1
    daemon.ok("managedsave", "two")
    daemon.ok("start", "two")
    assert daemon.type("two") == "D"
    daemon.ok("undefine", changed)
    daemon.ok("destroy", changed)
    assert daemon.json("list", "--all") and not list((daemon.state / "states").iterdir())
