"""A Debian whose guest uses a virtio device of each kind at the same time, with the host at the other ends: what was
recorded is the same without the host, in each tier, saved and forked anywhere.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.recording import Position, read_recording
from dbt.vm.replay import Replay
from tests.linux.booting import MODES
from tests.linux.busy_guest import (
    TYPED,
    Ends,
    Session,
    boot,
    check_work,
    make_disk,
    make_initramfs,
    make_session,
    run_to_end,
    run_until,
)
from tests.linux.debian import NEEDS_DEBIAN, TIMEOUT
from tests.long import LONG
from tests.vm.saved_runs import check_saves

pytestmark = [
    NEEDS_DEBIAN,
    pytest.mark.skipif(shutil.which("mke2fs") is None, reason="mke2fs is not installed (e2fsprogs)"),
]
_POINTS = 1000 if LONG else 8
_AHEAD = 5_000_000
#: The devices, by what virtio calls them.
_NAMES = {1: "network", 2: "disk", 3: "console", 4: "numbers", 5: "balloon", 9: "share", 19: "vsock"}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return make_session(tmp_path_factory.mktemp("session"))


def _replaying(session: Session, mode: str) -> Machine:
    """A machine at the beginning of the session, whose input comes from the recording alone."""
    tier, jit = MODES[mode]
    return boot(session.initramfs, {**session.nobody, "tier": tier, "jit": jit, "console": CaptureConsole()})


def test_each_device_is_used_and_the_session_is_replayed_without_the_host(session: Session) -> None:
    check_work(session.output)
    recording = read_recording(str(session.run))
    came = Counter(item.arrival.receiver for item in recording.arrivals)
    assert came["net"] > 300 and came["vsock"] > 30 and came["balloon"] == 1, came
    assert len(recording.answers) > 100 and recording.passed
    assert sum(len(delivery.data) for delivery in recording.deliveries) == len(TYPED)
    for mode in ("threaded", "auto-async"):
        with _replaying(session, mode) as machine:
            replay = Replay(recording, session.identity)
            machine.attach_input(replay)
            replay.compare(machine, machine.run(fuel=replay.fuel(0, None), timeout=TIMEOUT), pytest.fail)
            assert isinstance(machine.console, CaptureConsole)
            assert machine.console.output == session.output


def _unfinished(machine: Machine) -> set[str]:
    """What the devices of a machine are in the middle of."""
    found = set()
    transports: Any = machine.board.save().devices["virtio slots"]["transports"]
    for transport in transports:
        if transport["serving"] >= 0:
            found.add(f"request {_NAMES[transport['device_id']]}")
        for values in transport["device"]:
            found |= {name for name in ("connections", "frames", "fids", "received") if values.get(name)}
    return found


def test_every_device_is_saved_anywhere(session: Session) -> None:
    recording, names = read_recording(str(session.run)), {mode: name for name, mode in MODES.items()}
    in_flight: Counter[str] = Counter()

    def attach(machine: Machine) -> None:
        position = Position.of(machine)
        machine.attach_input(Replay(recording, replace(session.identity, position=position)))
        if position.now:
            in_flight.update(_unfinished(machine))

    chance = random.Random(29)
    icounts = {chance.randrange(session.work if index % 4 else 1, session.end) for index in range(_POINTS // 2)}
    while len(icounts) < _POINTS:
        icounts.add(chance.choice(session.arrived) + chance.choice((0, 1, 2, chance.randrange(300))))
    check_saves(
        lambda mode: _replaying(session, names[mode]), MODES["auto-async"], sorted(icounts), _AHEAD,
        host=session.nobody, attach=attach,
    )  # fmt: skip
    print(f"{len(icounts)} points; in the middle of {dict(in_flight)}")
    assert not LONG or in_flight >= Counter(("request disk", "request vsock", "connections", "fids")), in_flight


def test_a_fork_in_the_middle_of_the_work_does_the_rest_with_other_ends(tmp_path: Path) -> None:
    """Both do it all. The fork has a network, a directory and sockets of its own, and loses what was under way."""
    disk, initramfs = make_disk(tmp_path), make_initramfs(tmp_path)
    ends, others = Ends(tmp_path / "ends", disk), Ends(tmp_path / "others", disk)
    with boot(initramfs, {**ends.options, "realtime": True}) as machine:
        ends.console.machine = machine
        run_until(machine, ends.console, b"cid 3")
        machine.run(fuel=5_000_000, timeout=TIMEOUT)
        assert b"listening" not in ends.console.output
        shutil.copytree(ends.folder / "share", others.folder / "share", dirs_exist_ok=True)
        with machine.fork(**others.options) as fork:
            others.console.machine = fork
            others.console.go_on_from(ends.console)
            run_to_end(machine, ends.console)
            check_work(ends.console.output)
            run_to_end(fork, others.console)
    check_work(others.console.output, is_fork=True)
    assert b"=== BUSY DONE ===" in others.console.output and others.network.reflected > 10
