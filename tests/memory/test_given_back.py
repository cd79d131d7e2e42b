"""RAM that is given back to the host: it is zero, takes no memory, and what others have of it stays."""

from __future__ import annotations

from random import Random

import pytest

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.memory.contents import nonzero_pages, stored, touched
from dbt.memory.dma import Dma, DmaError
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram, RamRegion
from dbt.memory.ram_image import RamImage, forked

_BASE, _SIZE = 0x40000000, 4 << 20
_REGIONS = [RamRegion(Gpa(_BASE), _SIZE), RamRegion(Gpa(_BASE + _SIZE), 1 << 16, True)]
_PAGES = range(_BASE, _BASE + _SIZE, PAGE_SIZE)


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE_SIZE


def full(kind: str) -> tuple[Ram, RamImage | None]:
    """RAM without a zero page: new RAM, RAM in a file of its own, or RAM that is mapped from an image."""
    ram = Ram(_REGIONS)
    if kind == "own file":
        ram.keep_in_file()
    for gpa in _PAGES:
        ram.bytes[gpa] = gpa >> 12 & 0xFF | 1
    if kind != "mapped":
        return ram, None
    image = RamImage.of(ram)
    image.map_into(ram)
    return ram, image


@pytest.mark.parametrize("kind", ["new", "own file", "mapped"])
def test_it_is_zero_and_takes_no_memory(kind: str) -> None:
    ram, image = full(kind)
    if image is not None:
        for gpa in _PAGES:
            ram.bytes[gpa] = 1  # private pages
    held, before = len(list(nonzero_pages(ram))), resident()
    ram.give_back(Gpa(_BASE + PAGE_SIZE), _SIZE // 2)
    assert before - resident() > _SIZE // 2 - (256 << 10)
    assert sum(size for _, size in touched(ram)) == _SIZE // 2
    assert len(list(nonzero_pages(ram))) == held - _SIZE // 2 // PAGE_SIZE
    assert not any(ram.bytes[_BASE + PAGE_SIZE : _BASE + PAGE_SIZE + _SIZE // 2])
    assert ram.bytes[_BASE] and ram.bytes[_BASE + PAGE_SIZE + _SIZE // 2]
    if image is not None:
        assert len(image.pages) == held, "others have what there was"
        other = Ram(_REGIONS)
        image.map_into(other)
        assert len(list(nonzero_pages(other))) == held
        other.close()
    ram.close()


def test_it_is_in_no_later_image() -> None:
    """An image, and a fork, of RAM that was mapped and of which much or little was given back."""
    for size in (_SIZE // 2, 3 * PAGE_SIZE):
        ram, image = full("mapped")
        assert image is not None and not list(stored(ram))
        ram.give_back(Gpa(_BASE), size)
        assert sum(found for _, found in stored(ram)) == size
        other = Ram(_REGIONS)
        forked(ram).map_into(other)
        with_image = RamImage.of(ram)
        expected = [gpa for gpa in _PAGES if gpa >= _BASE + size]
        for found in (nonzero_pages(ram), nonzero_pages(other), with_image.nonzero_pages()):
            assert [gpa for gpa, _ in found] == expected
        assert len(image.pages) == len(_PAGES)
        for one in (ram, other):
            one.close()


def test_scattered_pages_take_no_mappings() -> None:
    """The host has 65,000 of them for the whole process."""

    def mappings() -> int:
        with open("/proc/self/maps") as file:
            return sum(1 for _ in file)

    ram, _ = full("mapped")
    before = mappings()
    for gpa in _PAGES[::2]:
        ram.give_back(Gpa(gpa), PAGE_SIZE)
    assert mappings() == before
    assert [gpa for gpa, _ in nonzero_pages(ram)] == list(_PAGES[1::2])
    ram.close()


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_stores_images_and_forks(seed: int) -> None:
    """Each of some RAM that share files holds what a dictionary says."""
    random = Random(seed)
    first = Ram(_REGIONS)
    if seed % 2:
        first.keep_in_file()
    machines: list[tuple[Ram, dict[int, int]]] = [(first, {})]
    for step in range(150):
        ram, model = random.choice(machines)
        action = random.random()
        if action < 0.4:
            for gpa in random.sample(_PAGES, random.choice((1, 20, 300))):
                ram.bytes[gpa] = model[gpa] = random.randrange(1, 256)
        elif action < 0.8:
            start = random.choice(_PAGES)
            size = min(random.choice((1, 3, 64, 100, 700)) * PAGE_SIZE, _BASE + _SIZE - start)
            ram.give_back(Gpa(start), size)
            for gpa in range(start, start + size, PAGE_SIZE):
                model.pop(gpa, None)
        elif len(machines) < 5:
            other = Ram(_REGIONS)
            source = forked(ram) if action < 0.9 else RamImage.of(ram)
            source.map_into(other)
            machines.append((other, dict(model)))
        if step % 10 == 0:
            for one, held in machines:
                assert {gpa: data[0] for gpa, data in nonzero_pages(one)} == held
    for one, held in machines:
        assert {gpa: one.bytes[gpa] for gpa in _PAGES if one.bytes[gpa]} == held
        one.close()


def test_a_device_gives_back_what_is_ram() -> None:
    memory = GuestMemory(Ram(_REGIONS))
    dma, end = Dma(memory), _BASE + _SIZE
    for size in (0x10000, 0x3000, 10):  # over the end of the read-only RAM, to its beginning, and within a page
        memory.write_ram(Gpa(end - 0x4000), b"x" * 0x14000)
        epoch = memory.begin_epoch()
        start = end - 0x3000 - 5
        dma.give_back(start, size)
        after = memory.read_ram(Gpa(end - 0x4000), 0x14000)
        zeros = min(size, 0x3005)
        assert after == b"x" * 0xFFB + bytes(zeros) + b"x" * (0x14000 - 0xFFB - zeros)
        first, last = start >> 12, start + zeros - 1 >> 12
        assert epoch.dirty_pages() == list(range(first, last + 1))
        epoch.close()
    for address, size in ((_BASE - 1, 4096), (end + 0xF000, 0x2000), (1 << 63, 4096), (-4096, 4096)):
        with pytest.raises(DmaError):
            dma.give_back(address, size)
    memory.ram.close()


def test_ram_goes_back_to_what_was_given() -> None:
    memory = GuestMemory(Ram(_REGIONS))
    memory.write_ram(Gpa(_BASE), b"y" * _SIZE)
    with_contents = memory.begin_epoch(keeps_contents=True)
    memory.give_back(Gpa(_BASE + 0x1000), _SIZE // 2)
    assert not any(memory.read_ram(Gpa(_BASE + 0x1000), _SIZE // 2))
    memory.roll_back(with_contents)
    assert memory.read_ram(Gpa(_BASE), _SIZE) == b"y" * _SIZE
    with_contents.close()
    memory.ram.close()
