"""Virtual time that a test moves by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

from dbt.board.timeline import DeviceTime, Timeline


@dataclass
class Line:
    """Remembers an interrupt line's level and how often it rose."""

    level: bool = False
    rises: int = 0

    def __call__(self, level: bool) -> None:
        self.rises += level and not self.level
        self.level = level


@dataclass
class VirtualTime:
    tick: int = 0
    timeline: Timeline = field(init=False)

    def __post_init__(self) -> None:
        self.timeline = Timeline(lambda: self.tick)

    def named(self, device: str = "a device") -> DeviceTime:
        """Time as a device of this name sees it."""
        return self.timeline.named(device)

    def advance(self, ticks: int) -> None:
        """Let ``ticks`` pass as the machine does: events happen at their ticks."""
        end = self.tick + ticks
        while (due := self.timeline.next_tick) is not None and due <= end:
            self.tick = max(self.tick, due)
            self.timeline.run_due()
        self.tick = end

    def jump(self, ticks: int) -> None:
        """Let ``ticks`` pass at once: what is due in between happens afterwards."""
        self.tick += ticks
        self.timeline.run_due()
