"""What a daemon remembers of migrations."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from uuid import UUID

import pytest

from dbt.daemon import moves as moves_module
from dbt.daemon.moves import Moved, Moves, Whose

_DOMAIN = UUID(int=5)


def move(number: int, whose: Whose = Whose.OPEN, domain: UUID = _DOMAIN) -> Moved:
    return Moved(bytes([number]) * 16, domain, is_source=True, whose=whose, peers=("unix:/x",), paused=True)


def test_it_is_remembered_by_the_next_daemon(tmp_path: Path) -> None:
    folder = str(tmp_path / "moves")
    moves = Moves(folder)
    for number in (1, 2):
        moves.put(move(number))
        os.utime(tmp_path / "moves" / (bytes([number]) * 16).hex(), (1_000 * number, 1_000 * number))
    moves.decide(bytes([2]) * 16, Whose.THERE)
    moves.decide(bytes([3]) * 16, Whose.THERE)  # of which it knows nothing
    again = Moves(folder)
    assert again.all() == [move(1), move(2, Whose.THERE)]
    assert again.last_of(_DOMAIN) == move(2, Whose.THERE)
    assert again.last_of(UUID(int=6)) is None
    assert again.get(bytes([3]) * 16) is None


def test_what_is_none_is_removed_if_it_is_a_file(tmp_path: Path) -> None:
    Moves(str(tmp_path)).put(move(1))
    (tmp_path / "junk").write_bytes(b"\xff")
    (tmp_path / "folder").mkdir()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert Moves(str(tmp_path)).all() == [move(1)]
    assert not (tmp_path / "junk").exists() and (tmp_path / "folder").exists()


def test_what_cannot_be_written_is_known_to_this_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves = Moves(str(tmp_path))
    moves.put(move(1))

    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", is_full)
        with pytest.raises(OSError, match="space"):
            moves.put(move(2))
        patched.setattr(os, "write", is_full)
        moves.decide(move(1).number, Whose.THERE)
    assert moves.all() == [move(1, Whose.THERE)]
    assert Moves(str(tmp_path)).all() == [move(1)]


def test_what_is_decided_is_as_long_as_what_was_open(tmp_path: Path) -> None:
    moves = Moves(str(tmp_path))
    moves.put(move(1))
    for whose in (*Whose, *Whose):
        moves.decide(move(1).number, whose)
        assert Moves(str(tmp_path)).all() == [move(1, whose)]


def test_what_is_decided_and_old_is_forgotten(tmp_path: Path) -> None:
    moves = Moves(str(tmp_path))
    for number, whose in ((1, Whose.OPEN), (2, Whose.HERE), (3, Whose.HERE)):
        moves.put(move(number, whose))
    long_ago = time.time() - 8 * 24 * 3600
    for number in (1, 2):
        os.utime(tmp_path / (bytes([number]) * 16).hex(), (long_ago, long_ago))
    (tmp_path / ("04" * 16)).write_bytes(b"something else")
    (tmp_path / ("05" * 16 + ".new")).write_bytes(b"half of")
    assert Moves(str(tmp_path)).all() == [move(1), move(3, Whose.HERE)]
    assert sorted(os.listdir(tmp_path)) == ["01" * 16, "03" * 16]


def test_a_daemon_that_lives_long_forgets_what_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves_module, "_MOST", 3)
    moves = Moves(str(tmp_path))
    moves.put(move(1))
    for number in range(2, 9):
        moves.put(move(number))
        moves.decide(bytes([number]) * 16, Whose.THERE)
    assert [moved.number[0] for moved in moves.all()] == [1, 6, 7, 8]
    assert sorted(os.listdir(tmp_path)) == [f"{number:02}" * 16 for number in (1, 6, 7, 8)]
    moves.decide(bytes([1]) * 16, Whose.HERE)  # late: the others were decided before
    assert [moved.number[0] for moved in moves.all()] == [1, 7, 8]
    assert Moves(str(tmp_path)).get(bytes([1]) * 16) == move(1, Whose.HERE)


def test_a_daemon_that_lives_long_forgets_what_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    moves = Moves(str(tmp_path))
    for number in range(1, 21):
        moves.put(move(number, Whose.THERE))
    moves.put(move(21))
    now += 8 * 24 * 3600
    moves.put(move(22))
    assert len(moves.all()) == 22 - 4  # a few at a time, because a guest may stand still
    for number in range(23, 28):
        moves.put(move(number))
    assert [moved.number[0] for moved in moves.all()] == list(range(21, 28))
    assert len(os.listdir(tmp_path)) == 7
