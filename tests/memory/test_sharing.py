"""Equal memory is shared, and nobody's RAM changes by that, nor by what others do afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from dbt import CaptureConsole, Machine
from dbt.abi.addresses import Gpa
from dbt.memory.contents import own_parts, stored, touched
from dbt.memory.ram import SHARED_RUN, Ram
from dbt.memory.ram_image import RamImage, forked
from dbt.memory.sharing import mappings_left, share_equal_runs
from dbt.vm.state import hash_ram, state_hash

_SIZE = 4 << 20


def data(seed: int) -> bytes:
    return Random(seed).randbytes(SHARED_RUN)


@contextmanager
def rams(count: int = 3) -> Iterator[list[Ram]]:
    """RAMs whose runs 2 to 5 are equal, the first also equal to its run 9, and whose run 20 is different."""
    made = [Ram(_SIZE) for _ in range(count)]
    for number, ram in enumerate(made):
        for run in range(2, 6):
            write(ram, run, data(run))
        write(ram, 20, data(100 + number))
    write(made[0], 9, data(2))
    yield made
    for ram in made:
        ram.close()


def write(ram: Ram, run: int, content: bytes) -> None:
    ram.bytes[run * SHARED_RUN : run * SHARED_RUN + len(content)] = content


def own(ram: Ram) -> int:
    return sum(size for _, size in own_parts(ram))


def test_equal_runs_are_shared_and_content_stays() -> None:
    with rams() as made:
        before, sizes = [hash_ram(ram) for ram in made], [own(ram) for ram in made]
        report = share_equal_runs(made)
        assert (report.runs, report.saved) == (13, 9 * SHARED_RUN)
        assert report.stretches == 4  # one in each RAM, and run 9
        assert [hash_ram(ram) for ram in made] == before
        assert [before - own(ram) for before, ram in zip(sizes, made, strict=True)] == [
            5 * SHARED_RUN,
            4 * SHARED_RUN,
            4 * SHARED_RUN,
        ]


def test_a_store_is_seen_by_one_alone() -> None:
    with rams() as made:
        share_equal_runs(made)
        write(made[1], 3, b"x")
        assert made[1].bytes[3 * SHARED_RUN] == ord("x")
        for other in (made[0], made[2]):
            assert other.bytes[3 * SHARED_RUN : 4 * SHARED_RUN] == data(3)
        assert own(made[1]) == SHARED_RUN + 4096


def test_what_is_saved_forked_and_given_back_is_right() -> None:
    with rams() as made:
        share_equal_runs(made)
        write(made[1], 3, b"x")
        expected = hash_ram(made[1])
        image = RamImage.copy_of(made[1])
        restored = Ram(_SIZE)
        image.map_into(restored)
        assert hash_ram(restored) == expected
        share_equal_runs([restored, made[0]])
        assert hash_ram(restored) == expected
        write(restored, 4, data(7))
        write(made[0], 4, data(7))
        share_equal_runs([restored, made[0]])
        changed, fork = hash_ram(restored), Ram(_SIZE)
        forked(restored).map_into(fork)
        assert hash_ram(fork) == hash_ram(restored) == changed
        restored.give_back(Gpa(4 * SHARED_RUN), SHARED_RUN)
        assert not any(restored.bytes[4 * SHARED_RUN : 5 * SHARED_RUN])
        assert restored.bytes[5 * SHARED_RUN : 6 * SHARED_RUN] == data(5)
        assert {gpa for gpa, _ in touched(restored)} and list(stored(restored))
        for ram in (restored, fork):
            ram.close()
        made[1].give_back(Gpa(2 * SHARED_RUN), 4 * SHARED_RUN)
        assert not any(made[1].bytes[2 * SHARED_RUN : 6 * SHARED_RUN])
        assert made[0].bytes[2 * SHARED_RUN : 3 * SHARED_RUN] == data(2)


def test_equal_digests_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are compared byte by byte: with a digest that is always the same, nothing else is shared."""

    class Alike:
        def __init__(self, *_: object, **__: object) -> None: ...
        def digest(self) -> bytes:
            return b""

    monkeypatch.setattr("dbt.memory.sharing.blake2b", Alike)
    with rams() as made:
        before = [hash_ram(ram) for ram in made]
        assert share_equal_runs(made).runs == 13
        assert [hash_ram(ram) for ram in made] == before


def mappings() -> int:
    with open("/proc/self/maps", "rb") as maps:
        return sum(1 for _ in maps)


@pytest.mark.parametrize("most", [0, 1, 10, 64, None])
def test_the_number_of_mappings_is_bounded(most: int | None) -> None:
    """RAMs that are equal in every second run alone would need a mapping for each of these."""
    made = [Ram(64 << 20) for _ in range(2)]
    for ram in made:
        for run in range(0, 1024, 2):
            write(ram, run, data(run)[:4096])
    expected, before = hash_ram(made[0]), mappings()
    report = share_equal_runs(made, most)
    assert mappings() - before <= (2 * 2 * 256 if most is None else most)
    assert report.stretches <= (2 * 256 if most is None else most // 2)
    assert [hash_ram(ram) for ram in made] == [expected] * 2
    for ram in made:
        ram.close()


def test_half_of_what_the_host_allows_is_left() -> None:
    with open("/proc/sys/vm/max_map_count") as file:
        assert 0 < mappings_left() <= int(file.read()) // 2 - mappings() + 10


def test_machines_go_on_as_they_would_have() -> None:
    """Restored machines of one state that share what they have stored, in the middle of a program."""

    def made() -> Machine:
        machine = Machine(16 << 20, console=CaptureConsole())
        machine.load("guests/images/minios-armv5te-O2.elf")
        return machine

    with made() as alone, made() as one, made() as other:
        for machine in (alone, one, other):
            machine.run(fuel=300_000)
        assert share_equal_runs([one.ram, other.ram]).runs > 0
        for machine in (alone, one, other):
            machine.run(fuel=200_000)
        assert state_hash(one) == state_hash(other) == state_hash(alone)
