"""When the guest of a migration is stopped."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from dbt.abi.addresses import Gpa
from dbt.hypervisor.migration import OwnMachine, Point, Progress, Settings
from dbt.hypervisor.migration.convergence import Convergence
from tests.migration.sides import outgoing, place_of, receiving, running


def test_a_guest_is_stopped_when_it_has_little_to_do_or_had_enough_rounds() -> None:
    with running() as machine:
        convergence = Convergence(OwnMachine(machine), Settings(rounds=30), Progress())
        assert convergence.is_enough(30_000, 220, 0.1)
        assert not convergence.is_least(220, 120, 0.003)
        assert convergence.is_least(120, 10, 0.003)
        last = [convergence.is_least(120, 110, 0.003) for _ in range(10)]
        assert last == [*[False] * 9, True]
        assert not convergence.is_least(1_000, 40_000, 0.1)  # it changes faster now, and cannot be stopped
        endless = Convergence(OwnMachine(machine), Settings(rounds=2, throttles=False), Progress())
        assert not endless.is_enough(30_000, 30_000, 1.0)
        assert not endless.is_least(30_000, 30_000, 1.0)
        assert endless.is_enough(30_000, 30_000, 1.0)
        assert endless.is_least(30_000, 30_000, 1.0)


def test_short_rounds_precede_the_stop(tmp_path: Path) -> None:
    """What changes during the round of all of RAM is sent while the guest runs, and not while it is stopped."""
    machine = running()
    sent = list[int]()

    def reached(point: Point) -> None:
        if point is Point.SOURCE_SENT_ROUND:
            sent.append(migration.progress.pages)
            machine.write(Gpa(0x40000), bytes([len(sent)]) * (160 >> len(sent) << 12))
        elif point is Point.SOURCE_HEARD_VOTE:
            sent.append(migration.progress.pages)

    with receiving(place_of("unix", tmp_path)) as there:
        migration = outgoing(machine, there, "descriptor", reached=reached)
        migration.run()
        with there.machine() as moved:
            assert moved.read(Gpa(0x40000), 2) == b"\3\3" and moved.read(Gpa(0x40000 + 40 * 4096), 1) == b"\1"
    assert [after - before for before, after in pairwise(sent)] == [80, 40, 20]
