"""A guest memory with epochs, beside a model that keeps all of RAM for each of them."""

from __future__ import annotations

from random import Random

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.memory.epochs import Epoch
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram, RamRegion

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
        match random.randrange(13):
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
            case 12:
                self.memory.epochs.merge()
            case 3 | 4:
                if kept := [epoch for epoch in self.epochs if epoch.keeps_contents]:
                    self.roll_back(random.choice(kept))
            case _:
                region = random.choice(REGIONS)
                size = random.choice((1, 4, 4, 4, 100, PAGE_SIZE, 3 * PAGE_SIZE))
                self.write(region.base + random.randrange(region.size - size), random.randbytes(size))


def any_order_of_steps(seed: int) -> None:
    """Raise AssertionError if a page that differs is not dirty, or if RAM is not what it was after it was rolled
    back.
    """
    random, modelled = Random(seed), Modelled()
    for _ in range(300):
        modelled.step(random)
        modelled.check()
    assert any(epoch.dirty_pages() for epoch in modelled.epochs)


def inner_loop() -> None:
    """Raise AssertionError if rounds that are rolled back leave anything to the epoch around them."""
    modelled = Modelled()
    outer = modelled.begin()
    modelled.write(0x3000, b"outer")
    inner = modelled.begin()
    for number in range(20):
        modelled.write(0x3000 + number, b"i")
        modelled.write(0x5000, b"inner")
        modelled.begin().close()
        modelled.write(0x6000, b"inner")
        assert outer.dirty_pages() == [3, 5, 6]
        modelled.epochs = {outer: modelled.epochs[outer], inner: modelled.epochs[inner]}
        modelled.roll_back(inner)
        assert outer.dirty_pages() == [3] and modelled.memory.epochs.kept_spans == 1
    modelled.roll_back(outer)
