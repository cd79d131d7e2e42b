"""States for tests of the file format: RAM as a mapping of pages, and what a file brings back."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.state import Plain, State
from dbt.memory.ram import RamLayout, RamRegion
from dbt.snapshot.chain import SnapshotChain
from dbt.snapshot.writer import Base, changed_pages, write

#: Two regions without a gap, a gap, and one that is read-only.
LAYOUT = RamLayout(
    (
        RamRegion(Gpa(0), 64 * PAGE_SIZE),
        RamRegion(Gpa(64 * PAGE_SIZE), 64 * PAGE_SIZE),
        RamRegion(Gpa(0x8000_0000), 32 * PAGE_SIZE, True),
    )
)
_REGISTERS: dict[int, Plain] = {5: 1, 3: 2}
_UART: dict[str, Plain] = {"received": [0, 255], "overrun": False, "timeout": None}
_DEVICES: dict[str, Plain] = {"UART0": _UART, "net": _REGISTERS}
VALUES: State = {
    "processor": bytes(range(256)) * 4,
    "icount": 1_550_000_000,
    "devices": _DEVICES,
    "events": [["timers", 1, -5, (1 << 63) - 1]],
}


class Pages:
    """RAM with these pages, which are not zero. It satisfies :class:`dbt.snapshot.writer.PageImage`."""

    def __init__(self, pages: Mapping[int, bytes], layout: RamLayout = LAYOUT) -> None:
        self.layout = layout
        self.content = {page: data for page, data in sorted(pages.items()) if any(data)}

    @property
    def pages(self) -> Sequence[int]:
        return list(self.content)

    def read(self, gpa: Gpa, size: int) -> bytes:
        first = gpa >> PAGE_SHIFT
        zero = bytes(PAGE_SIZE)
        return b"".join(self.content.get(page, zero) for page in range(first, first + (size >> PAGE_SHIFT)))


def page_of(number: int) -> bytes:
    """Return a page that compresses to about half."""
    made = random.Random(number)
    return made.randbytes(PAGE_SIZE // 2) + bytes([made.randrange(1, 256)]) * (PAGE_SIZE // 2)


def some_pages(count: int = 60, seed: int = 1) -> Pages:
    """Return RAM with so many pages at random places of all regions."""
    places = [page for region in LAYOUT.regions for page in range(region.base >> PAGE_SHIFT, region.end >> PAGE_SHIFT)]
    return Pages({page: page_of(seed * 1000 + page) for page in random.Random(seed).sample(places, count)})


def save(path: Path, pages: Pages, values: State = VALUES, parent: tuple[Path, Pages] | None = None) -> bytes:
    """Write a snapshot, or an increment to a parent. Return its digest."""
    base = None
    if parent is not None:
        with SnapshotChain(str(parent[0])) as chain:
            base = Base(chain.digest, parent[0].name, changed_pages(parent[1], pages))
    return write(str(path), values, pages, base, durable=False)


def load(path: Path) -> tuple[State, Pages]:
    """Return what a file and its parents bring back. SnapshotError if anything is wrong."""
    with SnapshotChain(str(path)) as chain:
        found: dict[int, bytes] = {}
        end = 0
        for gpa, data in chain.pieces():
            assert gpa >= end
            end = gpa + len(data)
            for at in range(0, len(data), PAGE_SIZE):
                found[gpa + at >> PAGE_SHIFT] = data[at : at + PAGE_SIZE]
        return chain.values(), Pages(found, chain.layout)


def same(one: object, other: object) -> bool:
    """Return True if two values are equal and of equal types: True is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return len(one) == len(other) and all(key in other and same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
