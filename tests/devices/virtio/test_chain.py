"""What a device writes to a chain is where its buffers say, however they lie, and is noted as any write is."""

from __future__ import annotations

import random

import pytest

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_HAS_CODE, PAGE_SHIFT, PAGE_SIZE
from dbt.devices.virtio.queue import Chain
from dbt.memory.dma import Dma
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram, RamRegion

_RAM = 8 * PAGE_SIZE
_ROM = RamRegion(Gpa(_RAM), PAGE_SIZE, read_only=True)


def memory(*more: RamRegion) -> GuestMemory:
    return GuestMemory(Ram([RamRegion(Gpa(0), _RAM), *more]))


def chain(of: GuestMemory, buffers: list[tuple[int, int]]) -> Chain:
    return Chain(Dma(of), 0, (), buffers, 0, sum(size for _, size in buffers))


def test_read_only_ram_ignores_its_part() -> None:
    rom = memory(_ROM)
    buffers = [(100, 4), (_RAM + 8, 4), (50, 4), (60, 4)]
    assert chain(rom, buffers).write(b"abcdefghijklmn") == 14
    assert rom.ram.bytes[100:104].tobytes() + rom.ram.bytes[50:54].tobytes() == b"abcdijkl"
    assert rom.ram.bytes[60:64].tobytes() == b"mn\0\0"
    assert not any(rom.ram.bytes[_RAM : _RAM + PAGE_SIZE])


@pytest.mark.parametrize("seed", range(50))
def test_any_buffers_get_what_is_written(seed: int) -> None:
    """Adjacent ones, the same one twice, and one in another, on one page or several, from any offset."""
    data = random.Random(seed)
    buffers: list[tuple[int, int]] = []
    for _ in range(data.randrange(1, 9)):
        last = sum(buffers[-1]) if buffers and data.random() < 0.6 else data.randrange(_RAM)
        buffers.append((last % _RAM, min(data.randrange(1, 3 * PAGE_SIZE), _RAM - last % _RAM)))
    text = data.randbytes(data.randrange(10 * PAGE_SIZE))
    offset = data.randrange(2 * PAGE_SIZE)
    written = memory()
    epoch = written.begin_epoch()
    has_code = {page for page in range(_RAM >> PAGE_SHIFT) if data.random() < 0.5}
    for page in has_code:
        written.ram.page_flags[page] |= PAGE_HAS_CODE
    heard: set[int] = set()
    written.on_write = lambda gpa, size: heard.update(range(gpa >> PAGE_SHIFT, (gpa + size - 1 >> PAGE_SHIFT) + 1))
    places = [address + at for address, size in buffers for at in range(size)][offset:]
    expected = bytearray(_RAM)
    for place, byte in zip(places, text, strict=False):
        expected[place] = byte
    assert chain(written, buffers).write(text, offset) == min(len(places), len(text))
    assert written.ram.bytes == expected
    pages = {place >> PAGE_SHIFT for place in places[: len(text)]}
    assert set(epoch.dirty_pages()) == pages
    assert heard & has_code == pages & has_code
