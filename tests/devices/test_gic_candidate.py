"""What the GIC finds out from one line that changes is what it finds by looking at all interrupts again."""

from __future__ import annotations

from random import Random

import pytest

from dbt.devices.gic import LINES, Gic
from tests.devices.virtual_time import Line

_FIRST_LINE = 16


def started(random: Random) -> tuple[Gic, Line, Line]:
    """A GIC with random priorities, masks, groups and kinds of lines."""
    irq, fiq = Line(), Line()
    gic = Gic(irq, fiq)
    gic.write_word(0x000, random.choice((1, 3)))
    for word in range(LINES // 32):
        gic.write_word(0x100 + 4 * word, random.getrandbits(32))
        gic.write_word(0x080 + 4 * word, random.getrandbits(32) & random.getrandbits(32))
    for word in range(LINES // 4):
        gic.write_word(0x400 + 4 * word, sum(random.choice((0x40, 0x80, 0xA0)) << 8 * byte for byte in range(4)))
    for word in range(2, LINES // 16):
        gic.write_word(0xC00 + 4 * word, random.getrandbits(32))
    gic.write_word(0x10004, random.choice((0x60, 0xA0, 0xF0)))
    gic.write_word(0x10000, random.choice((1, 3, 0xB)))
    return gic, irq, fiq


@pytest.mark.parametrize("seed", range(20))
def test_one_line_changes(seed: int) -> None:
    random = Random(seed)
    gic, irq, fiq = started(random)
    raised = 0
    for _ in range(300):
        if random.random() < 0.2:
            number = gic.read_word(0x1000C)
            if random.random() < 0.7:
                gic.write_word(0x10010, number)
        gic.drive(random.randrange(_FIRST_LINE, LINES), random.random() < 0.6)
        found = gic.save(), irq.level, fiq.level
        raised += gic.candidate < LINES
        gic._update()
        assert (gic.save(), irq.level, fiq.level) == found
    assert raised
