"""What a device writes to a chain is where its buffers say, however they lie, and side by side it is one write."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from dbt.devices.virtio.queue import Chain


class Memory:
    """Memory that notes what is written to it."""

    def __init__(self, is_writable: bool) -> None:
        self.bytes = bytearray(1000)
        self.writes: list[tuple[int, int]] = []
        self.is_writable = is_writable

    def write(self, address: int, data: bytes | memoryview) -> None:
        self.bytes[address : address + len(data)] = data
        self.writes.append((address, len(data)))


def chain(memory: Memory, buffers: list[tuple[int, int]]) -> Chain:
    return Chain(cast(Any, memory), 0, (), buffers, 0, sum(size for _, size in buffers))


@pytest.mark.parametrize(("is_writable", "writes"), [(True, [(100, 8), (50, 4), (60, 2)]), (False, None)])
def test_buffers_side_by_side_are_one_write(is_writable: bool, writes: list[tuple[int, int]] | None) -> None:
    """Not where some RAM ignores writes: there each buffer is one of its own."""
    memory = Memory(is_writable)
    buffers = [(100, 4), (104, 4), (50, 4), (60, 4)]
    assert chain(memory, buffers).write(b"abcdefghijklmn") == 14
    assert memory.writes == (writes or [(100, 4), (104, 4), (50, 4), (60, 2)])
    assert memory.bytes[100:108] + memory.bytes[50:54] + memory.bytes[60:64] == b"abcdefghijklmn\0\0"


@pytest.mark.parametrize("seed", range(50))
def test_any_buffers_get_what_is_written(seed: int) -> None:
    """Adjacent ones, the same one twice, and one in another, from any offset."""
    data = random.Random(seed)
    buffers: list[tuple[int, int]] = []
    for _ in range(data.randrange(1, 9)):
        last = sum(buffers[-1]) if buffers and data.random() < 0.6 else data.randrange(800)
        buffers.append((last, data.randrange(1, 20)))
    text = data.randbytes(data.randrange(200))
    offset = data.randrange(20)
    memory = Memory(True)
    places = [address + at for address, size in buffers for at in range(size)][offset:]
    expected = bytearray(1000)
    for place, byte in zip(places, text, strict=False):
        expected[place] = byte
    assert chain(memory, buffers).write(text, offset) == min(len(places), len(text))
    assert memory.bytes == expected
