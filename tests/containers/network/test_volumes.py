"""Volumes: their names, records and files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dbt.containers.network.errors import Conflict, Forbidden, Invalid, NotFound
from dbt.containers.network.volumes import Volumes


def nobody(name: str) -> list[str]:
    return []


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(str(tmp_path / "volumes"))


def test_a_volume_is_remembered_with_its_files(tmp_path: Path, volumes: Volumes) -> None:
    made = volumes.create("data", labels={"a": "b"})
    Path(made.path, "file").write_text("text")
    volumes.close()
    again = Volumes(str(tmp_path / "volumes"))
    assert again.all() == [made] == [again.find("data")]
    assert Path(again.find("data").path, "file").read_text() == "text"
    assert again.size(made) == 4
    assert again.create("data", labels={"other": ""}) == made  # as docker: the one that there is
    assert made.path == str(tmp_path / "volumes/data/_data")
    assert os.stat(made.path).st_mode & 0o7777 == 0o755


def test_volumes_without_a_name(volumes: Volumes) -> None:
    one, other = volumes.create(), volumes.create()
    assert one.name != other.name
    assert len(one.name) == 64
    assert one.is_anonymous
    assert not volumes.create("named").is_anonymous


@pytest.mark.parametrize(
    "name", ["../x", "..", "a/b", "/etc", "-x", ".x", "a b", "a\0b", "a\n", "ä-name", "x" * 256, "metadata.db-wal"]
)
def test_hostile_names(volumes: Volumes, tmp_path: Path, name: str) -> None:
    with pytest.raises((Invalid, Conflict)):
        volumes.create(name)
    assert volumes.all() == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["volumes"]


def test_dockers_texts(volumes: Volumes) -> None:
    with pytest.raises(Invalid, match="names should be at least two alphanumeric characters"):
        volumes.create("x")
    with pytest.raises(NotFound, match=r"^get none: no such volume$"):
        volumes.find("none")
    with pytest.raises(NotFound, match="no such volume"):
        volumes.remove("none", nobody)
    assert volumes.remove("none", nobody, force=True) is None
    with pytest.raises(NotFound, match='plugin "nfs" not found'):
        volumes.create("data", "nfs")
    with pytest.raises(Forbidden, match='"device"'):
        volumes.create("data", options={"device": "/etc"})


def test_a_volume_that_is_used_stays(volumes: Volumes) -> None:
    made = volumes.create("data")
    with pytest.raises(Conflict, match=r"^remove data: volume is in use - \[abc, def\]$"):
        volumes.remove("data", lambda name: ["abc", "def"])
    assert Path(made.path).is_dir()
    assert volumes.remove("data", nobody) == made
    assert not Path(made.path).parent.exists()
    assert volumes.all() == []


def test_prune_leaves_what_is_used_or_not_wanted(volumes: Volumes) -> None:
    for name in ("one", "two", "three"):
        Path(volumes.create(name).path, "file").write_bytes(bytes(10))
    removed, room = volumes.prune(lambda name: ["abc"] if name == "one" else [], lambda one: one.name != "two")
    assert [one.name for one in removed] == ["three"]
    assert room == 10
    assert [one.name for one in volumes.all()] == ["one", "two"]


def test_files_that_nobody_may_write_are_removed_too_and_links_are_not_followed(
    tmp_path: Path, volumes: Volumes
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    inside = Path(volumes.create("data").path, "locked")
    inside.mkdir()
    (inside / "file").write_text("")
    (inside / "link").symlink_to(outside)
    inside.chmod(0)
    volumes.remove("data", nobody)
    assert (outside / "kept").exists()
    assert not (tmp_path / "volumes/data").exists()


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path, volumes: Volumes) -> None:
    made = volumes.create("data")
    volumes.close()
    (tmp_path / "volumes/half/_data").mkdir(parents=True)
    assert Volumes(str(tmp_path / "volumes")).all() == [made]
    assert not (tmp_path / "volumes/half").exists()
    assert Path(made.path).is_dir()
