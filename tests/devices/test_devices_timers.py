"""What counts time, against the manuals: SP804 (DDI 0271), SP805 (DDI 0270), PL031 (DDI 0224), and DS1338."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from dbt.devices.ds1338 import Ds1338
from dbt.devices.pl031 import Pl031
from dbt.devices.sp804 import Sp804
from dbt.devices.sp805 import Sp805
from tests.devices.virtual_time import Line, VirtualTime

LOAD, VALUE, CONTROL, CLEAR, RIS, MIS, BGLOAD = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18
ONE_SHOT, SIZE_32, BY_16, BY_256, INTERRUPT, PERIODIC, ENABLE = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40, 0x80
SECOND = 0x20
CONTROLS = [
    size | prescale | interrupt | mode | enable
    for size in (0, SIZE_32)
    for prescale in (0, 0, BY_16)
    for interrupt in (0, INTERRUPT, INTERRUPT)
    for mode in (0, PERIODIC, PERIODIC, ONE_SHOT, ONE_SHOT | PERIODIC)
    for enable in (0, ENABLE, ENABLE)
]
US = 100  # ticks in a microsecond, which is a count


def make_timer() -> tuple[Sp804, VirtualTime, Line]:
    time, line = VirtualTime(), Line()
    return Sp804(time.named(), line), time, line


def test_a_periodic_timer_never_drifts() -> None:
    timer, time, line = make_timer()
    time.advance(37)
    timer.write(LOAD, 4, 10_000)
    timer.write(CONTROL, 4, SIZE_32 | INTERRUPT | PERIODIC | ENABLE)
    for zero in range(37 + 10_000 * US, 200 * 10_000 * US, 10_000 * US):
        assert time.timeline.next_tick == zero
        time.advance(zero - 1 - time.tick)
        assert not line.level
        time.advance(1 + zero % 7919)  # The guest is more or less slow to answer.
        assert line.level
        timer.write(CLEAR, 4, 1)
        assert not line.level


def test_missed_periods_are_one_interrupt_and_cost_no_events() -> None:
    timer, time, line = make_timer()
    timer.write(LOAD, 4, 10)
    timer.write(CONTROL, 4, SIZE_32 | INTERRUPT | PERIODIC | ENABLE)
    time.advance(10 * US)
    assert line.rises == 1 and time.timeline.next_tick is None
    time.advance(1003 * US)
    assert timer.read(VALUE, 4) == 7
    timer.write(CLEAR, 4, 0)
    assert not line.level and time.timeline.next_tick == 1020 * US
    time.advance(7 * US)
    assert line.rises == 2


def test_the_value_is_what_is_left() -> None:
    timer, time, _ = make_timer()
    timer.write(LOAD, 4, 5)
    timer.write(CONTROL, 4, SIZE_32 | PERIODIC | ENABLE)
    seen = []
    for _ in range(12):
        seen.append(timer.read(VALUE, 4))
        time.advance(US // 2)
    assert seen == [5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 5, 4]


def test_a_free_running_timer_wraps_after_zero() -> None:
    timer, time, line = make_timer()
    timer.write(LOAD, 4, 3)
    timer.write(CONTROL, 4, SIZE_32 | INTERRUPT | ENABLE)
    time.advance(3 * US)
    assert line.level and timer.read(VALUE, 4) == 0
    time.advance(1)
    assert timer.read(VALUE, 4) == 0xFFFFFFFF
    time.advance(2 * US)
    assert timer.read(VALUE, 4) == 0xFFFFFFFD
    timer.write(CLEAR, 4, 0)
    assert time.timeline.next_tick == (3 + (1 << 32)) * US


def test_sixteen_bits() -> None:
    timer, time, line = make_timer()
    timer.write(CONTROL, 4, INTERRUPT | ENABLE)
    timer.write(LOAD, 4, 0x12340002)
    assert timer.read(VALUE, 4) == 2 and timer.read(LOAD, 4) == 0x12340002
    time.advance(2 * US)
    assert line.level
    time.advance(US)
    assert timer.read(VALUE, 4) == 0xFFFF


def test_all_bits_count_if_the_size_is_set_with_the_enable() -> None:
    timer, time, _ = make_timer()
    timer.write(LOAD, 4, 0x12345678)
    timer.write(CONTROL, 4, SIZE_32 | ENABLE)
    time.advance(8 * US)
    assert timer.read(VALUE, 4) == 0x12345670


def test_a_one_shot_stops_at_zero_until_it_is_loaded() -> None:
    timer, time, line = make_timer()
    timer.write(LOAD, 4, 100)
    timer.write(CONTROL, 4, SIZE_32 | ONE_SHOT | INTERRUPT | ENABLE)
    time.advance(99 * US)
    assert not line.level
    time.advance(1000 * US)
    assert line.level and timer.read(VALUE, 4) == 0 and timer.read(CONTROL, 4) & ENABLE
    timer.write(CLEAR, 4, 0)
    time.advance(1000 * US)
    assert not line.level and time.timeline.next_tick is None
    timer.write(LOAD, 4, 50)
    time.advance(50 * US)
    assert line.level and line.rises == 2


def test_a_one_shot_that_is_enabled_again_starts_from_its_load() -> None:
    timer, time, line = make_timer()
    timer.write(LOAD, 4, 100)
    timer.write(CONTROL, 4, SIZE_32 | ONE_SHOT | INTERRUPT | ENABLE)
    time.advance(100 * US)
    timer.write(CLEAR, 4, 0)
    timer.write(CONTROL, 4, 0)
    timer.write(CONTROL, 4, SIZE_32 | ONE_SHOT | INTERRUPT | ENABLE)
    assert timer.read(VALUE, 4) == 100
    time.advance(100 * US)
    assert line.rises == 2


@pytest.mark.parametrize(("prescale", "divisor"), [(0, 1), (BY_16, 16), (BY_256, 256)])
def test_the_prescaler_divides_the_clock(prescale: int, divisor: int) -> None:
    timer, time, line = make_timer()
    timer.write(LOAD, 4, 1000)
    timer.write(CONTROL, 4, SIZE_32 | INTERRUPT | PERIODIC | ENABLE | prescale)
    time.advance(400 * divisor * US)
    assert timer.read(VALUE, 4) == 600
    time.advance(600 * divisor * US - 1)
    assert not line.level
    time.advance(1)
    assert line.level


def test_a_background_load_counts_from_the_next_zero_on() -> None:
    timer, time, line = make_timer()
    timer.write(LOAD, 4, 100)
    timer.write(CONTROL, 4, SIZE_32 | INTERRUPT | PERIODIC | ENABLE)
    time.advance(50 * US)
    timer.write(BGLOAD, 4, 10)
    assert timer.read(VALUE, 4) == 50 and timer.read(LOAD, 4) == 10 == timer.read(BGLOAD, 4)
    time.advance(50 * US)
    timer.write(CLEAR, 4, 0)
    assert line.rises == 1 and time.timeline.next_tick == 110 * US


def test_a_stopped_timer_keeps_its_value_and_goes_on_from_it() -> None:
    timer, time, _ = make_timer()
    timer.write(LOAD, 4, 100)
    timer.write(CONTROL, 4, SIZE_32 | PERIODIC | ENABLE)
    time.advance(30 * US)
    timer.write(CONTROL, 4, SIZE_32 | PERIODIC)
    time.advance(1000 * US)
    assert timer.read(VALUE, 4) == 70
    timer.write(CONTROL, 4, SIZE_32 | PERIODIC | ENABLE)
    time.advance(69 * US)
    assert timer.read(VALUE, 4) == 1


def test_enabling_the_interrupt_does_not_disturb_the_counter() -> None:
    timer, time, line = make_timer()
    timer.write(LOAD, 4, 100)
    timer.write(CONTROL, 4, SIZE_32 | PERIODIC | ENABLE)
    time.advance(50 * US + 33)
    timer.write(CONTROL, 4, SIZE_32 | PERIODIC | ENABLE | INTERRUPT)
    time.advance(50 * US - 33)
    assert line.level and time.tick == 100 * US


def test_a_masked_interrupt_is_raw_only() -> None:
    timer, time, line = make_timer()
    timer.write(LOAD, 4, 10)
    timer.write(CONTROL, 4, SIZE_32 | PERIODIC | ENABLE)
    assert time.timeline.next_tick is None
    time.advance(10 * US)
    assert timer.read(RIS, 4) == 1 and timer.read(MIS, 4) == 0 and not line.level
    timer.write(CONTROL, 4, SIZE_32 | PERIODIC | ENABLE | INTERRUPT)
    assert timer.read(MIS, 4) == 1 and line.level


def test_a_load_of_zero_interrupts_at_once_and_only_once() -> None:
    timer, time, line = make_timer()
    timer.write(CONTROL, 4, SIZE_32 | INTERRUPT | PERIODIC | ENABLE)
    timer.write(LOAD, 4, 0)
    assert line.level
    timer.write(CLEAR, 4, 0)
    assert not line.level and time.timeline.next_tick is None


def test_the_two_timers_are_apart_and_share_the_line() -> None:
    timer, time, line = make_timer()
    for base, load in ((0, 10), (SECOND, 15)):
        timer.write(base + LOAD, 4, load)
        timer.write(base + CONTROL, 4, SIZE_32 | ONE_SHOT | INTERRUPT | ENABLE)
    time.advance(20 * US)
    assert timer.read(MIS, 4) == 1 == timer.read(SECOND + MIS, 4) and line.level
    timer.write(CLEAR, 4, 0)
    assert line.level
    timer.write(SECOND + CLEAR, 4, 0)
    assert not line.level


def test_the_timer_identifies_itself() -> None:
    timer, _, _ = make_timer()
    identification = [timer.read(offset, 4) for offset in range(0xFE0, 0x1000, 4)]
    assert identification == [0x04, 0x18, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


@dataclass
class TickByTick:
    """The same timer, moved on by every tick, with nothing computed ahead."""

    ticks: int
    load: int = 0
    control: int = INTERRUPT
    left: int = 0xFFFFFFFF  # counts while it stands still, else ticks
    running: bool = False
    raised: bool = False

    @property
    def mask(self) -> int:
        return 0xFFFFFFFF if self.control & SIZE_32 else 0xFFFF

    @property
    def scale(self) -> int:
        return self.ticks * {0: 1, BY_16: 16}.get(self.control & (BY_16 | BY_256), 256)

    @property
    def free(self) -> bool:
        return not self.control & (ONE_SHOT | PERIODIC)

    @property
    def value(self) -> int:
        return (self.left // self.scale if self.running else self.left) & self.mask

    def run_from(self, count: int) -> None:
        self.running, self.left = True, (count or (self.mask + 1 if self.free else 0)) * self.scale
        if not self.left:
            self.reach_zero()

    def reach_zero(self) -> None:
        self.raised = True
        period = 0 if self.control & ONE_SHOT else self.mask + 1 if self.free else self.load & self.mask
        self.running, self.left = period != 0, period * self.scale

    def tick(self) -> None:
        if self.running:
            self.left -= 1
            if not self.left:
                self.reach_zero()

    def write(self, offset: int, value: int) -> None:
        if offset == LOAD:
            self.load = value
            if self.control & ENABLE:
                self.run_from(value & self.mask)
            else:
                self.left = value
        elif offset == CONTROL:
            count = self.value if self.running else self.left
            old, self.control = self.control, value
            over = old & ENABLE and not self.running
            if not value & ENABLE:
                self.running, self.left = False, count
            elif (old ^ value) & (ENABLE | SIZE_32 | BY_16 | BY_256) or (over and (old ^ value) & ONE_SHOT):
                count &= self.mask
                self.run_from(count or (0 if self.free else self.load & self.mask))
        elif offset == CLEAR:
            self.raised = False
        elif offset == BGLOAD:
            self.load = value


@pytest.mark.parametrize("seed", range(20))
def test_a_timer_is_as_one_that_is_moved_tick_by_tick(seed: int) -> None:
    random, time, line = Random(seed), VirtualTime(), Line()
    timer = Sp804(time.named(), line, frequency=time.timeline.ticks_per_second // 3)
    model = TickByTick(3)
    for step in range(300):
        if random.random() < 0.6:
            offset = random.choice((LOAD, CONTROL, CONTROL, CLEAR, CLEAR, BGLOAD))
            value = random.choice((0, 1, 2, 5, 9, 0x10003)) if offset != CONTROL else random.choice(CONTROLS)
            timer.write(offset, 4, value)
            model.write(offset, value)
        for _ in range(random.choice((0, 0, 1, 1, 2, 3, 10, 100))):
            time.advance(1)
            model.tick()
            assert line.level == (model.raised and model.control & INTERRUPT != 0), f"seed {seed}, step {step}"
        assert timer.read(VALUE, 4) == model.value, f"seed {seed}, step {step}"
        assert timer.read(RIS, 4) == model.raised, f"seed {seed}, step {step}"


def make_watchdog() -> tuple[Sp805, VirtualTime, Line, list[int]]:
    time, line, resets = VirtualTime(), Line(), []
    return Sp805(time.named(), line, lambda: resets.append(time.tick)), time, line, resets


WDOG_CONTROL, WDOG_CLEAR, WDOG_RIS, WDOG_MIS, WDOG_LOCK = 0x08, 0x0C, 0x10, 0x14, 0xC00
INTEN, RESEN = 1, 2


def test_a_watchdog_that_nobody_feeds_interrupts_and_then_resets() -> None:
    watchdog, time, line, resets = make_watchdog()
    watchdog.write(LOAD, 4, 1000)
    watchdog.write(WDOG_CONTROL, 4, INTEN | RESEN)
    time.advance(400 * US)
    assert watchdog.read(VALUE, 4) == 600
    time.advance(600 * US)
    assert line.level and watchdog.read(WDOG_MIS, 4) == 1 and not resets
    time.advance(5000 * US)
    assert resets == [2000 * US] and time.timeline.next_tick is None


def test_a_watchdog_that_is_fed_starts_again() -> None:
    watchdog, time, line, resets = make_watchdog()
    watchdog.write(LOAD, 4, 1000)
    watchdog.write(WDOG_CONTROL, 4, INTEN | RESEN)
    for _ in range(5):
        time.advance(1700 * US)
        assert line.level
        watchdog.write(WDOG_CLEAR, 4, 1)
        assert not line.level and watchdog.read(VALUE, 4) == 1000
    assert not resets
    watchdog.write(WDOG_CONTROL, 4, RESEN)
    time.advance(5000 * US)
    assert not line.level and not resets and watchdog.read(VALUE, 4) == 1000


def test_a_watchdog_without_reset_only_interrupts() -> None:
    watchdog, time, line, resets = make_watchdog()
    watchdog.write(LOAD, 4, 0)  # The manual's minimum is 1.
    watchdog.write(WDOG_CONTROL, 4, INTEN)
    time.advance(10 * US)
    assert line.level and not resets and watchdog.read(WDOG_RIS, 4) == 1


def test_a_locked_watchdog_cannot_be_written() -> None:
    watchdog, _, _, _ = make_watchdog()
    assert watchdog.read(LOAD, 4) == 0xFFFFFFFF == watchdog.read(VALUE, 4) and watchdog.read(WDOG_LOCK, 4) == 0
    watchdog.write(WDOG_LOCK, 4, 1)
    watchdog.write(LOAD, 4, 5)
    watchdog.write(WDOG_CONTROL, 4, INTEN)
    assert watchdog.read(WDOG_LOCK, 4) == 1
    assert watchdog.read(LOAD, 4) == 0xFFFFFFFF and watchdog.read(WDOG_CONTROL, 4) == 0
    watchdog.write(WDOG_LOCK, 4, 0x1ACCE551)
    watchdog.write(LOAD, 4, 5)
    assert watchdog.read(WDOG_LOCK, 4) == 0 and watchdog.read(LOAD, 4) == 5


DATA, MATCH, RTC_LOAD, RTC_MASK, RTC_RIS, RTC_CLEAR = 0x00, 0x04, 0x08, 0x10, 0x14, 0x1C
SECONDS = 1_000_000 * US


def test_the_clock_counts_seconds_and_matches() -> None:
    time, line = VirtualTime(), Line()
    clock = Pl031(time.named(), line, 1_767_225_600)
    time.advance(5 * SECONDS - 1)
    assert clock.read(DATA, 4) == 1_767_225_604
    time.advance(1)
    assert clock.read(DATA, 4) == 1_767_225_605
    clock.write(RTC_MASK, 4, 1)
    clock.write(MATCH, 4, 1_767_225_608)
    time.advance(3 * SECONDS - 1)
    assert not line.level
    time.advance(1)
    assert line.level and clock.read(RTC_RIS, 4) == 1
    clock.write(RTC_CLEAR, 4, 1)
    assert not line.level and time.timeline.next_tick is None


def test_the_clock_can_be_set() -> None:
    time, line = VirtualTime(), Line()
    clock = Pl031(time.named(), line, 0)
    time.advance(SECONDS // 2)
    clock.write(RTC_LOAD, 4, 0xFFFFFFFE)
    clock.write(RTC_MASK, 4, 1)
    clock.write(MATCH, 4, 1)
    time.advance(2 * SECONDS)
    assert clock.read(DATA, 4) == 0 and clock.read(RTC_LOAD, 4) == 0xFFFFFFFE and not line.level
    time.advance(SECONDS)
    assert clock.read(DATA, 4) == 1 and line.level


def test_the_clock_on_the_serial_bus_shows_virtual_time() -> None:
    time = VirtualTime()
    clock = Ds1338(time.named(), 1_767_225_600)  # Thursday, 2026-01-01 00:00:00

    def registers() -> list[int]:
        clock.start(reading=False)
        clock.write(0)
        clock.start(reading=True)
        return [clock.read() for _ in range(7)]

    assert registers() == [0x00, 0x00, 0x00, 5, 0x01, 0x01, 0x26]
    time.advance((31 * 86400 + 3661) * SECONDS)
    assert registers() == [0x01, 0x01, 0x01, 1, 0x01, 0x02, 0x26]
    clock.start(reading=False)
    for value in (0, 0x59, 0x59, 0x23, 1, 0x31, 0x12, 0x29):
        clock.write(value)
    assert registers() == [0x59, 0x59, 0x23, 2, 0x31, 0x12, 0x29]
    time.advance(SECONDS)
    assert registers() == [0x00, 0x00, 0x00, 3, 0x01, 0x01, 0x30]
