"""The state hash: of all that a guest can observe, the same in every tier, and cheap for what nobody has touched."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.host.console import CaptureConsole
from dbt.memory.contents import nonzero_pages, touched
from dbt.memory.ram import Ram, RamRegion
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import encode, observable_state, state_hash
from tests.assembler import assemble
from tests.vm.programs import EXIT

ROOT = Path(__file__).resolve().parents[2]
MINIOS = ROOT / "guests" / "images" / "minios-armv5te-O2.elf"
MODES: dict[str, tuple[Any, Any]] = {
    "reference": ("reference", "off"),
    "threaded": ("threaded", "off"),
    "stitched": ("stitched", "off"),
    "auto-sync": ("auto", "sync"),
    "auto-async": ("auto", "async"),
}
#: Icounts at which states are compared: anywhere, in the middle of an interrupt's service as well.
EARLY = sorted(random.Random(1).sample(range(1, 250_000), 12))
LATE = sorted(random.Random(2).sample(range(250_000, 1_552_000), 12))


def minios(mode: str) -> Machine:
    tier, jit = MODES[mode]
    machine = Machine(16 << 20, tier=tier, jit=jit, console=CaptureConsole(b"help\nps\nmem\n"))
    machine.load(str(MINIOS))
    return machine


@cache
def states(mode: str, icounts: tuple[int, ...]) -> list[str]:
    machine, found = minios(mode), []
    for icount in icounts:
        while machine.icount < icount:
            assert machine.run(fuel=icount - machine.icount).reason is StopReason.FUEL
        found.append(state_hash(machine))
    return found


@pytest.mark.parametrize("mode", ["threaded", "stitched", "auto-sync", "auto-async"])
def test_every_tier_has_the_states_of_the_reference(mode: str) -> None:
    assert states(mode, tuple(EARLY)) == states("reference", tuple(EARLY))


@pytest.mark.parametrize("mode", ["stitched", "auto-sync", "auto-async"])
def test_the_native_tiers_have_the_same_states_later(mode: str) -> None:
    expected = states("threaded", tuple(LATE))
    assert states(mode, tuple(LATE)) == expected and len(set(expected)) == len(LATE)


def test_to_look_at_the_state_changes_nothing() -> None:
    watched, other = minios("threaded"), minios("threaded")
    for _ in range(100):
        watched.run(fuel=2_003)
        state_hash(watched)
    other.run(fuel=watched.icount)
    assert state_hash(watched) == state_hash(other)


# -- what belongs to it --------------------------------------------------------------------------


def machine(code: str = "b .") -> Machine:
    made = Machine(1 << 20, tier="reference", console=CaptureConsole(b"x"))
    made.load_bytes(assemble(code, 0x8000), 0x8000)
    return made


def _wait(made: Machine) -> None:
    made.wait_until(made.timeline.now + 1)


def _ask_for_reset(made: Machine) -> None:
    made.board.bus.write(Gpa(0x10000020), 4, 0xA05F)
    made.board.bus.write(Gpa(0x10000040), 4, 0x100)


CHANGES: dict[str, Callable[[Machine], object]] = {
    "processor": lambda made: made.r.__setitem__(3, 1),
    "lines": lambda made: made.cpu.set_native("interrupt_lines", 0x80),
    "icount": lambda made: made.step(),
    "now": _wait,
    "devices": lambda made: made.board.bus.write(Gpa(0x101F1024), 4, 1),
    "events": lambda made: made.board.bus.write(Gpa(0x101E8004), 4, 0),
    "input": lambda made: made.board.bus.read(Gpa(0x101F1000), 4),
    "reset": _ask_for_reset,
    "semihosting": lambda made: made.semihosting.call(0x999, 0),
}


@pytest.mark.parametrize("part", CHANGES)
def test_each_part_counts(part: str) -> None:
    made = machine()
    before, found = observable_state(made), state_hash(made)
    CHANGES[part](made)
    after = observable_state(made)
    assert before[part] != after[part] and state_hash(made) != found
    assert before.keys() == {*CHANGES, "ram", "insn_ns"}  # with which the machine was made


def test_open_files_and_their_positions_count(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"0123456789")
    made = Machine(1 << 20, tier="reference", console=CaptureConsole(), files=str(tmp_path))
    made.load_bytes(assemble("b .", 0x8000), 0x8000)
    made.write(0x1000, struct.pack("<3I", 0x1100, 0, 4))
    made.write(0x1100, b"data")
    found = {state_hash(made)}
    assert made.semihosting.call(1, 0x1000) == 1
    assert observable_state(made)["semihosting"] == [0, [[1, 0]]]
    found.add(state_hash(made))
    made.write(0x1200, struct.pack("<2I", 1, 7))
    found.add(state_hash(made))
    assert made.semihosting.call(10, 0x1200) == 0
    assert observable_state(made)["semihosting"] == [0, [[1, 7]]]
    found.add(state_hash(made))
    assert len(found) == 4


def test_where_there_is_ram_counts() -> None:
    small, large = (Machine(size, tier="reference", console=CaptureConsole()) for size in (1 << 20, 2 << 20))
    large.r[13] = small.r[13]
    one, other = observable_state(small), observable_state(large)
    assert [part for part in one if one[part] != other[part]] == ["ram"] and state_hash(small) != state_hash(large)


def test_mappings_are_encoded_in_the_order_of_their_keys() -> None:
    assert encode({"a": {1: 2, 3: [True, b"x"]}, "b": None}) == encode({"b": None, "a": {3: [True, b"x"], 1: 2}})
    assert encode(True) != encode(1) != encode("1")


# -- RAM -----------------------------------------------------------------------------------------


def resident() -> int:
    """The bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE


def test_pages_that_nobody_has_touched_are_not_made() -> None:
    ram = Ram(128 << 20)
    ram.bytes[0x12345] = 1
    ram.bytes[(128 << 20) - 1] = 2
    before = resident()
    found = list(nonzero_pages(ram))
    assert [gpa for gpa, _ in found] == [0x12000, (128 << 20) - PAGE_SIZE] and found[0][1][0x345] == 1
    assert resident() - before < 8 << 20


def test_a_page_that_is_zero_again_does_not_count() -> None:
    ram = Ram(1 << 20)
    ram.bytes[0x20000] = ram.bytes[0x23000] = 7
    assert [gpa for gpa, _ in nonzero_pages(ram)] == [0x20000, 0x23000]
    ram.bytes[0x20000] = 0
    assert [gpa for gpa, _ in nonzero_pages(ram)] == [0x23000]


def test_a_page_that_was_read_does_not_count() -> None:
    ram = Ram(1 << 20)
    assert bytes(ram.bytes[0x40000:0x50000]) == bytes(0x10000)
    ram.bytes[0x50000] = 1
    assert [gpa for gpa, _ in nonzero_pages(ram)] == [0x50000]


def test_without_a_page_map_all_of_ram_is_looked_at() -> None:
    ram = Ram([RamRegion(Gpa(0x4000), 0x8000), RamRegion(Gpa(0x4000_0000), 0x1000)])
    assert list(touched(ram, "/proc/self/no-such-file")) == [(0x4000, 0x8000), (0x4000_0000, 0x1000)]
    assert not list(touched(ram))


@pytest.mark.parametrize("seed", range(5))
def test_ram_is_what_it_is_byte_for_byte(seed: int) -> None:
    rng = random.Random(seed)
    ram = Ram([RamRegion(Gpa(0x10000), 0x40000), RamRegion(Gpa(0x80000000), 0x23000)])
    for _ in range(rng.choice((0, 1, 10, 100))):
        region = rng.choice(ram.layout.regions)
        ram.bytes[region.base + rng.randrange(region.size)] = rng.randrange(3)
    expected = {}
    for region in ram.layout.regions:
        for gpa in range(region.base, region.end, PAGE_SIZE):
            page = bytes(ram.bytes[gpa : gpa + PAGE_SIZE])
            if any(page):
                expected[gpa] = page
    found = list(nonzero_pages(ram))
    assert dict(found) == expected and [gpa for gpa, _ in found] == sorted(expected)


# -- recordings ----------------------------------------------------------------------------------


class Sleeper(CaptureConsole):
    """Nobody types. After some waits, ``alarm`` is called."""

    waits = 0
    alarm: Callable[[], None]

    @property
    def ended(self) -> bool:
        return False

    def wait(self, seconds: float) -> None:
        self.waits += 1
        if self.waits == 3:
            self.alarm()


def test_a_run_that_was_stopped_while_the_guest_waited_is_the_same_again(tmp_path: Path) -> None:
    """Time went on while it waited, though no instruction was executed; a timer shows it."""
    code = f"""
        ldr r0, =0x101e2000 ; ldr r1, =90000000 ; str r1, [r0] ; mov r1, #0xe2 ; str r1, [r0, #8]
        ldr r0, =0x10140000 ; mov r1, #0x10 ; str r1, [r0, #0x10] ; wfi ; mov r2, #0 ; {EXIT}
    """
    console = Sleeper()
    made = Machine(1 << 20, tier="threaded", console=console, realtime=True)
    console.alarm = made.interrupt
    made.load_bytes(assemble(code, 0x8000), 0x8000)
    recorder = Recorder(made.input_source, str(tmp_path / "run"), identify(made, ""))
    made.attach_input(recorder)
    result = made.run(timeout=30)
    assert result.reason is StopReason.INTERRUPTED and made.timeline.now > made.icount
    recorder.end(made, result)

    again = Machine(1 << 20, tier="reference", console=CaptureConsole())
    again.load_bytes(assemble(code, 0x8000), 0x8000)
    replay = Replay(read_recording(str(tmp_path / "run")), identify(again, ""))
    again.attach_input(replay)
    end = again.run(fuel=replay.fuel(0, None))
    assert again.timeline.now < made.timeline.now
    assert replay.compare(again, end, pytest.fail).reason is StopReason.INTERRUPTED
    assert again.timeline.now == made.timeline.now and state_hash(again) == state_hash(made)
