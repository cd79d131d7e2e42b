"""The dirty log against a model that keeps all of RAM: epochs of several consumers, and rolling back to each."""

from __future__ import annotations

import weakref

import pytest

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_LOGGED, PAGE_SIZE
from dbt.memory.epochs import EpochClosed
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram
from tests.memory.modelled_epochs import Modelled, any_order_of_steps, inner_loop


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_epochs_and_writes(seed: int) -> None:
    any_order_of_steps(seed)


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


def test_rounds_that_are_rolled_back_leave_nothing() -> None:
    inner_loop()


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


def test_spans_that_nobody_tells_apart_are_merged() -> None:
    """A page is kept once for the checkpoints that are left, with its oldest content."""
    modelled = Modelled()
    epochs = modelled.memory.epochs
    outer = modelled.begin()
    for number in range(20):
        modelled.write(0x4000, bytes([number]))
        modelled.write(0x8000 + 0x1000 * (number % 2), bytes([number]))
        inner = modelled.begin()
    before = epochs.kept_bytes
    for epoch in list(modelled.epochs):
        if epoch not in (outer, inner):
            epoch.close()
            del modelled.epochs[epoch]
    epochs.merge()
    assert (before, epochs.kept_bytes) == (40 << 12, 3 << 12) and epochs.kept_spans == 1
    modelled.check()
    modelled.write(0x4000, b"later")
    modelled.roll_back(outer)


def test_contents_of_many_pages_are_handed_over() -> None:
    """So many pages in a span are kept in the memory in which the log had them, and the next ones elsewhere."""
    pages = 600
    memory = GuestMemory(Ram(pages * PAGE_SIZE))
    marks = [bytes([number]) * pages for number in range(1, 5)]

    def mark(number: int) -> None:
        for page, byte in enumerate(marks[number]):
            memory.write_ram(Gpa(page * PAGE_SIZE + page), bytes([byte]))

    def marked() -> bytes:
        return bytes(memory.ram.bytes[page * PAGE_SIZE + page] for page in range(pages))

    epochs = []
    for number in range(4):
        mark(number)
        epochs.append(memory.begin_epoch(keeps_contents=True))
    assert memory.epochs.kept_spans == 3 and memory.epochs.kept_bytes == 3 * pages * PAGE_SIZE
    epochs[1].close()
    memory.epochs.merge()
    assert memory.epochs.kept_bytes == 2 * pages * PAGE_SIZE
    for number in (2, 3, 0):
        memory.roll_back(epochs[number])
        assert marked() == marks[number]
    memory.ram.close()
    assert memory.epochs.kept_spans == 0
