"""The dirty log against a model that keeps all of RAM: epochs of several consumers, and rolling back to each."""

from __future__ import annotations

import weakref
from random import Random

import pytest

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_LOGGED, PAGE_SIZE
from dbt.memory.epochs import Epoch, EpochClosed
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram, RamRegion

PAGES = 24
REGIONS = (RamRegion(Gpa(0x3000), 20 * PAGE_SIZE), RamRegion(Gpa(0x40_0000), 4 * PAGE_SIZE, read_only=True))


class Modelled:
    """A guest memory, and what all of RAM held when each epoch began."""

    def __init__(self) -> None:
        self.memory = GuestMemory(Ram(REGIONS))
        self.epochs: dict[Epoch, dict[int, bytes]] = {}

    def content(self) -> dict[int, bytes]:
        ram = self.memory.ram
        pages = [page for region in REGIONS for page in range(region.base >> 12, region.end >> 12)]
        return {page: ram.bytes[page << 12 : page + 1 << 12].tobytes() for page in pages}

    def write(self, gpa: int, data: bytes) -> None:
        self.memory.write_ram(Gpa(gpa), data)

    def begin(self, keeps_contents: bool = True) -> Epoch:
        epoch = self.memory.begin_epoch(keeps_contents)
        self.epochs[epoch] = self.content()
        return epoch

    def check(self) -> None:
        """Every page that differs from what it held is dirty, for every epoch."""
        now = self.content()
        for epoch, then in self.epochs.items():
            assert {page for page in now if now[page] != then[page]} <= set(epoch.dirty_pages())

    def roll_back(self, epoch: Epoch) -> None:
        self.memory.roll_back(epoch)
        assert self.content() == self.epochs[epoch] and not epoch.dirty_pages()

    def step(self, random: Random) -> None:
        match random.randrange(12):
            case 0:
                self.begin(random.random() < 0.7)
            case 1 if self.epochs:
                epoch = random.choice(list(self.epochs))
                epoch.renew()
                self.epochs[epoch] = self.content()
            case 2 if len(self.epochs) > 3:
                epoch = random.choice(list(self.epochs))
                epoch.close()
                del self.epochs[epoch]
            case 3 | 4:
                if kept := [epoch for epoch in self.epochs if epoch.keeps_contents]:
                    self.roll_back(random.choice(kept))
            case _:
                region = random.choice(REGIONS)
                size = random.choice((1, 4, 4, 4, 100, PAGE_SIZE, 3 * PAGE_SIZE))
                self.write(region.base + random.randrange(region.size - size), random.randbytes(size))


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_epochs_and_writes(seed: int) -> None:
    random, modelled = Random(seed), Modelled()
    for _ in range(300):
        modelled.step(random)
        modelled.check()
    assert any(epoch.dirty_pages() for epoch in modelled.epochs)


def test_only_pages_that_were_written_are_dirty() -> None:
    modelled = Modelled()
    modelled.write(0x3000, b"before")
    epoch = modelled.begin()
    assert epoch.dirty_pages() == []
    modelled.write(0x5FFE, b"over the end")
    modelled.write(0x9000, b"\0")
    modelled.write(0x9000, b"")
    assert epoch.dirty_pages() == [5, 6, 9], "zero is written over zero"
    epoch.renew()
    assert epoch.dirty_pages() == []


def test_each_consumer_has_its_own_set() -> None:
    modelled = Modelled()
    first = modelled.begin()
    modelled.write(0x3000, b"1")
    second = modelled.begin(keeps_contents=False)
    modelled.write(0x4000, b"2")
    third = modelled.begin()
    modelled.write(0x3000, b"3")
    assert [epoch.dirty_pages() for epoch in (first, second, third)] == [[3, 4], [3, 4], [3]]
    second.renew()
    assert [epoch.dirty_pages() for epoch in (first, second, third)] == [[3, 4], [], [3]]


def test_a_later_checkpoint_remains_when_an_earlier_one_is_returned_to() -> None:
    modelled = Modelled()
    modelled.write(0x3000, b"a")
    first = modelled.begin()
    modelled.write(0x3000, b"b")
    second = modelled.begin()
    modelled.write(0x4000, b"c")
    modelled.roll_back(first)
    assert second.dirty_pages() == [3, 4]
    modelled.write(0x5000, b"d")
    modelled.roll_back(second)
    assert first.dirty_pages() == [3, 4, 5]
    modelled.roll_back(first)
    modelled.check()


def test_what_is_kept_is_given_up() -> None:
    modelled = Modelled()
    epochs, log = modelled.memory.epochs, modelled.memory.ram.dirty_log
    outer, inner = modelled.begin(), modelled.begin()
    for _ in range(50):
        modelled.write(0x4000, b"x")
        inner.renew()
    assert epochs.kept_spans == 50
    outer.close()
    assert epochs.kept_spans == 0
    modelled.write(0x4000, b"y")
    kept = weakref.ref(inner)
    modelled.epochs.clear()
    del inner
    assert kept() is None
    epochs.settle()
    assert not log.keeps_contents


def test_epochs_that_cannot_be_used() -> None:
    modelled = Modelled()
    epoch = modelled.begin(keeps_contents=False)
    with pytest.raises(ValueError, match="keeps no contents"):
        modelled.memory.roll_back(epoch)
    epoch.close()
    epoch.close()
    for use in (epoch.dirty_pages, epoch.renew, lambda: modelled.memory.roll_back(epoch)):
        with pytest.raises(EpochClosed, match="begin another"):
            use()


def test_many_pages() -> None:
    """More pages than are unmarked one by one, and than copies are kept of."""
    memory = GuestMemory(Ram(8 << 20))
    epoch = memory.begin_epoch(keeps_contents=True)
    memory.write_ram(Gpa(PAGE_SIZE), b"\1" * (6 << 20))
    assert epoch.dirty_pages() == list(range(1, 1537))
    assert memory.roll_back(epoch) == 1536
    assert not any(memory.ram.bytes[: 8 << 20]) and not any(flags & PAGE_LOGGED for flags in memory.ram.page_flags)
    memory.ram.close()
