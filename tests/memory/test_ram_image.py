"""Images of RAM: what is frozen, what machines make of it, and what the host has to keep for it."""

from __future__ import annotations

import mmap
import os
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.memory.contents import nonzero_pages, touched
from dbt.memory.ram import Ram, RamLayout, RamRegion
from dbt.memory.ram_image import RamImage, RamSource, forked

LAYOUTS: list[int | Sequence[RamRegion]] = [
    1 << 20,
    [
        RamRegion(Gpa(0x40000000), 1 << 20),
        RamRegion(Gpa(0x40100000), 1 << 20),
        RamRegion(Gpa(0xFFFF0000), 1 << 16, True),
    ],
]


def filled(memory: int | Sequence[RamRegion]) -> Ram:
    """RAM with random bytes at the borders of its regions and elsewhere, and pages that were touched and are zero."""
    ram, chosen = Ram(memory), random.Random(3)
    for region in ram.layout.regions:
        for offset in (0, 5, region.size - 1, *chosen.sample(range(region.size), 12)):
            ram.bytes[region.base + offset] = chosen.randrange(1, 256)
        for offset in chosen.sample(range(region.size), 5):
            ram.bytes[region.base + offset] = ram.bytes[region.base + offset]
    return ram


@pytest.mark.parametrize("memory", LAYOUTS)
def test_other_ram_holds_what_was_frozen(memory: int | Sequence[RamRegion]) -> None:
    ram = filled(memory)
    pages = list(nonzero_pages(ram))
    image = RamImage.of(ram)
    assert list(image.nonzero_pages()) == pages
    assert list(image.pages) == [gpa // PAGE_SIZE for gpa, _ in pages]
    first, second = Ram(memory), Ram(memory)
    first.bytes[ram.layout.regions[0].base + 77] = 9  # which is replaced
    for other in (first, second):
        image.map_into(other)
        assert list(nonzero_pages(other)) == pages
    image.close()
    for region in ram.layout.regions:
        assert first.bytes[region.base : region.end] == ram.bytes[region.base : region.end]
    for one in (ram, first, second):
        one.close()


@pytest.mark.parametrize("memory", LAYOUTS)
def test_stores_are_one_machines_own(memory: int | Sequence[RamRegion]) -> None:
    ram = filled(memory)
    image = RamImage.of(ram)
    before = list(image.nonzero_pages())
    first, second = Ram(memory), Ram(memory)
    image.map_into(first)
    image.map_into(second)
    region = ram.layout.regions[0]
    empty = next(gpa for gpa in range(region.base, region.end, PAGE_SIZE) if gpa // PAGE_SIZE not in image.pages)
    first.bytes[empty], first.bytes[region.base] = 1, first.bytes[region.base] ^ 0xFF
    ram.bytes[region.base + 1] ^= 0xFF
    assert list(image.nonzero_pages()) == before == list(nonzero_pages(second))
    changed = dict(nonzero_pages(first))
    assert changed[Gpa(empty)][0] == 1 and changed[region.base] != dict(before)[region.base]
    assert changed.keys() == {gpa for gpa, _ in before} | {empty}
    again = RamImage.of(first)  # of what was mapped, and written since
    assert dict(again.nonzero_pages()) == changed
    for one in (ram, first, second):
        one.close()


def test_what_was_only_read_is_not_looked_at() -> None:
    ram = Ram(1 << 20)
    ram.bytes[0x5000] = 1
    image, other = RamImage.of(ram), Ram(1 << 20)
    image.map_into(other)
    assert sum(other.bytes[0:0x80000:PAGE_SIZE]) == 1
    assert list(touched(other)) == [(0x5000, PAGE_SIZE)]
    other.bytes[0x20000] = 0
    assert list(touched(other)) == [(0x5000, PAGE_SIZE), (0x20000, PAGE_SIZE)]


def test_nobody_can_change_an_image() -> None:
    image = RamImage(RamLayout.of(1 << 20), [(Gpa(0x1000), b"x" * PAGE_SIZE)])
    path = f"/proc/self/fd/{image._open_file.handle}"
    handle = os.open(path, os.O_RDWR)
    with pytest.raises(PermissionError):
        os.pwrite(handle, b"y", 0)
    for size in (0, 2 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(handle, size)
    for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
        with pytest.raises(PermissionError) if flags == mmap.MAP_SHARED else nullcontext():
            mmap.mmap(handle, 4096, flags).close()
    os.close(handle)
    assert image.read(Gpa(0x1000), 2) == b"xx" and image.read(Gpa(0xFFF), 2) == b"\0x"


@pytest.mark.parametrize("memory", LAYOUTS)
def test_a_fork_has_what_there_was(memory: int | Sequence[RamRegion]) -> None:
    """Its file is a new one the first time, and after many stores; after few stores it is the same again."""
    ram, chosen = filled(memory), random.Random(9)
    pages, files, forks = dict(nonzero_pages(ram)), [], []
    writable = [gpa for region in ram.layout.regions for gpa in range(region.base, region.end, PAGE_SIZE)]
    for count in (0, 0, 3, 40, 250, 5):
        for gpa in chosen.sample(writable, min(count, len(writable))):
            ram.bytes[gpa + 9] ^= 0x55
        pages = dict(nonzero_pages(ram))
        other = Ram(memory)
        forked(ram).map_into(other)
        assert dict(nonzero_pages(other)) == dict(nonzero_pages(ram)) == pages and other.file is ram.file
        files.append(ram.file)
        forks.append((other, pages))
    assert files[0] is files[1] is files[2] is files[3]
    for one, held in forks:  # each has kept what it had
        assert dict(nonzero_pages(one)) == held
        one.close()


@pytest.mark.parametrize(
    "parts",
    [
        [(0x1800, PAGE_SIZE)], [(0x1000, 5)], [(1 << 20, PAGE_SIZE)], [(0xFF000, 2 * PAGE_SIZE)], [(-4096, PAGE_SIZE)],
        [(0x2000, PAGE_SIZE), (0x1000, PAGE_SIZE)], [(0x2000, PAGE_SIZE), (0x2000, PAGE_SIZE)],
    ],
)  # fmt: skip
def test_parts_that_are_no_pages_of_it(parts: list[tuple[int, int]]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="pages"):
        RamImage(RamLayout.of(1 << 20), [(Gpa(gpa), bytes(size)) for gpa, size in parts])
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_image_fits_its_layout_only() -> None:
    image, other = RamImage(RamLayout.of(1 << 20), []), Ram(2 << 20)
    with pytest.raises(ValueError, match="does not fit"):
        image.map_into(other)
    for gpa, size in ((1 << 20, 1), (0xFFFFF, 2), (-1, 1)):
        with pytest.raises(ValueError, match="not all RAM"):
            image.read(Gpa(gpa), size)
    assert image.pages == []
    image.close()
    image.close()
    assert image.is_closed


@pytest.mark.parametrize("memory", LAYOUTS)
@pytest.mark.parametrize("freeze", [RamImage.of, forked])
def test_ram_that_is_kept_in_a_file_is_frozen_without_a_copy(
    memory: int | Sequence[RamRegion], freeze: Callable[[Ram], RamSource]
) -> None:
    """Afterwards neither its stores nor those of others reach the file."""
    ram, chosen = Ram(memory), random.Random(4)
    ram.keep_in_file()
    assert not list(touched(ram))
    places = [region.base + chosen.randrange(region.size) for region in ram.layout.regions for _ in range(9)]
    for place in places:
        ram.bytes[place] = 7
    pages = list(nonzero_pages(ram))
    assert [gpa for gpa, _ in pages] == sorted({place & -PAGE_SIZE for place in places})
    home = ram.home
    image = freeze(ram)
    assert ram.file is home and ram.home is None and list(nonzero_pages(ram)) == pages
    other = Ram(memory)
    image.map_into(other)
    for place in places:
        ram.bytes[place] = 8
        assert other.bytes[place] == 7
        other.bytes[place] = 9
        assert ram.bytes[place] == 8
    third = Ram(memory)
    image.map_into(third)
    assert list(nonzero_pages(third)) == pages
    for one in (ram, other, third):
        one.close()


def test_a_forked_process_has_no_ram_that_is_kept_in_a_file() -> None:
    """So nothing there can change it."""
    ram = Ram(1 << 20)
    ram.keep_in_file()
    ram.bytes[5] = 1
    child = os.fork()
    if not child:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ram.bytes[5] = 2
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV
    assert ram.bytes[5] == 1
    ram.close()
