"""Containers go on from one booted Linux, and no two of them have the same random numbers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.containers.runtime.boxes import Boxes, words_layer
from tests.long import LONG

#: A second or so each. tests/linux/test_random_clones.py has a thousand, without all that a container is besides.
_CONTAINERS = 200 if LONG else 8
_AT_ONCE = 8


def test_no_two_containers_have_the_same_random_numbers(tmp_path: Path) -> None:
    """The program asks with getrandom, and is the first to do so after the agent has told the kernel."""
    boxes = Boxes(tmp_path, (words_layer(tmp_path),))

    async def number(_: int) -> bytes:
        said, ended = await boxes.said("words", "random")
        assert (said.code, said.errors) == (0, b""), ended
        return said.output

    async def some(first: int) -> list[bytes]:
        return await asyncio.gather(*(number(at) for at in range(first, min(first + _AT_ONCE, _CONTAINERS))))

    try:
        found = [one for first in range(0, _CONTAINERS, _AT_ONCE) for one in boxes.run(some(first))]
    finally:
        boxes.close()
    assert len(found) == len(set(found)) == _CONTAINERS
    assert {len(one) for one in found} == {18}
