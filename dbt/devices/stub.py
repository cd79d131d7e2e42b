"""A device that does nothing: a driver that looks finds its identification, or finds that nothing is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dbt.devices.registers import WordRegisters, identification
from dbt.devices.state import Wiring


@dataclass(eq=False)
class Stub(WordRegisters):
    """A stub. ``peripheral_id`` is its PrimeCell identification, 0 for none; ``words`` has registers by offset."""

    peripheral_id: Wiring[int] = 0
    words: Wiring[Mapping[int, int]] = field(default_factory=dict)

    def read_word(self, offset: int) -> int:
        if offset in self.words:
            return self.words[offset]
        return identification(self.peripheral_id).get(offset, 0) if self.peripheral_id else 0

    def write_word(self, offset: int, value: int) -> None:
        pass
