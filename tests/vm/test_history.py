"""Histories: wherever the machine goes back to, it is in the state in which it was there first, and goes on alike."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

import dbt.vm.history
from dbt import Machine
from dbt.abi.addresses import Gva
from dbt.engine.debug_points import Watchpoint
from dbt.host.console import CaptureConsole
from dbt.vm.history import HistoryError, SearchInterrupted
from dbt.vm.hits import Hit, NoPoints
from dbt.vm.machine import JitMode, TierName
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.lines import Trickle
from tests.vm.programs import EXIT, MODES, RT, RX, interrupt_driven, make_elf

IMAGES = Path(__file__).resolve().parents[2] / "guests" / "images"
MINIOS = str(IMAGES / "minios-armv5te-O2.elf")
COMMANDS = b"help\nps\nmem\n"

#: Reads a line from the console, a file piece by piece, writes another file and the console, and removes a file.
FILES = """
    mov r0, #7 ; svc 0x123456 ; mov r6, r0
    mov r0, #1 ; adr r1, source ; svc 0x123456 ; str r0, reading
    mov r0, #1 ; adr r1, target ; svc 0x123456 ; str r0, writing
next: mov r0, #6 ; adr r1, reading ; svc 0x123456 ; cmp r0, #4 ; beq last
    mov r0, #5 ; adr r1, writing ; svc 0x123456
    mov r0, #3 ; ldr r1, buffer ; svc 0x123456
    mov r4, #50
spin: subs r4, r4, #1 ; bne spin
    b next
last: mov r0, #2 ; adr r1, writing ; svc 0x123456
    mov r0, #12 ; adr r1, reading ; svc 0x123456 ; add r6, r6, r0
    mov r0, #14 ; adr r1, old ; svc 0x123456 ; sub r6, r6, r0
    mov r0, #7 ; svc 0x123456 ; add r2, r6, r0
""" + EXIT + """
    b .
reading: .word 0
buffer: .word 0x20000
    .word 4
writing: .word 0
    .word 0x20000
    .word 4
source: .word first
    .word 0
    .word 4
target: .word second
    .word 4
    .word 3
old: .word third
    .word 3
first: .asciz "data"
second: .asciz "new"
third: .asciz "old"
"""  # fmt: skip


def minios(tier: TierName, jit: JitMode) -> Machine:
    machine = Machine(16 << 20, tier=tier, jit=jit, console=CaptureConsole(COMMANDS))
    machine.load(MINIOS)
    return machine


def output(machine: Machine) -> bytes:
    assert isinstance(machine.console, CaptureConsole)
    return bytes(machine.console.output)


def forward(machine: Machine, icounts: Iterable[int]) -> dict[int, str]:
    """Return the state hashes at these icounts of a run without a history."""
    found = {}
    for icount in icounts:
        machine.run(fuel=icount - machine.icount)
        assert machine.icount == icount
        found[icount] = state_hash(machine)
    return found


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_an_operating_system_in_both_directions(tier: TierName, jit: JitMode) -> None:
    """Timers, WFI, processes, and a console that is read. What has been sent is not sent again."""
    last, count = (60_000, 5) if tier == "reference" else (1_200_000, 10)
    chance = random.Random(f"{tier}/{jit}")
    icounts = [*sorted(chance.sample(range(1, last), count)), last]
    machine = minios(tier, jit)
    states, sent = forward(machine, icounts), output(machine)
    machine.close()
    machine = minios(tier, jit)
    history = machine.begin_history()
    assert history.run(last).reason is StopReason.FUEL
    for icount in [*reversed(icounts), *icounts, *chance.choices(icounts, k=count)]:
        assert history.run_to(icount)
        assert state_hash(machine) == states[icount]
        assert history.is_past == (icount < last) and history.newest == last
        assert output(machine) == sent
    machine.close()


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_steps_back(tier: TierName, jit: JitMode) -> None:
    """A step back leads to the state before it, at interrupts and waits too. Steps forward lead to the same again."""
    machine = minios(tier, jit)
    history = machine.begin_history()
    history.run(30_000)
    states = []
    for _ in range(120):
        states.append(state_hash(machine))
        history.pass_instruction()
    for state in reversed(states):
        assert history.step_back()
        assert state_hash(machine) == state
    machine.close()


def reading(tmp_path: Path, tier: TierName, jit: JitMode) -> Machine:
    (tmp_path / "data").write_bytes(bytes(range(65, 91)) * 2)
    (tmp_path / "old").write_bytes(b"x")
    (tmp_path / "new").unlink(missing_ok=True)
    machine = Machine(1 << 20, tier=tier, jit=jit, console=CaptureConsole(b"!?"), files=tmp_path)
    machine.load_bytes(make_elf(assemble(FILES, 0x8000)))
    return machine


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_files_are_read_and_written_once(tmp_path: Path, tier: TierName, jit: JitMode) -> None:
    """In its past the guest finds the files as they were when it used them, and the host's are left alone."""
    machine = reading(tmp_path, tier, jit)
    icounts = [10, 40, 100, 500, 900]
    states = forward(machine, icounts)
    result, sent = machine.run(), output(machine)
    machine.close()
    machine = reading(tmp_path, tier, jit)
    history = machine.begin_history()
    assert history.run() == result and history.end == result
    assert not (tmp_path / "old").exists()
    (tmp_path / "data").write_bytes(b"other")
    (tmp_path / "new").write_bytes(b"mine")
    for icount in [*reversed(icounts), *icounts]:
        assert history.run_to(icount)
        assert state_hash(machine) == states[icount]
    assert history.run() == result
    assert history.run() == result, "it does not go on behind its end"
    assert output(machine) == sent and (tmp_path / "new").read_bytes() == b"mine"
    machine.close()


def test_live_input_goes_on_at_the_newest_point(tmp_path: Path) -> None:
    """The guest goes on with its files where it was, and with what comes from the console then."""
    machine = reading(tmp_path, "auto", "sync")
    history = machine.begin_history()
    history.run(600)
    written = (tmp_path / "new").read_bytes()
    assert history.run_to(20) and (tmp_path / "new").read_bytes() == written
    result = history.run()
    assert (tmp_path / "new").read_bytes() == bytes(range(65, 91)) * 2
    assert result.exit_code == ord("!") + 52 + ord("?") & 0xFF
    machine.close()


#: Adds up what SYS_READC gives until its end, with a pause in between.
READS = f"""
    mov r4, #0
1:  mov r5, #100
2:  subs r5, r5, #1 ; bne 2b
    mov r0, #7 ; svc 0x123456 ; cmn r0, #1 ; addne r4, r4, r0 ; bne 1b
    mov r2, r4 ; {EXIT}
"""
#: Adds up in real time, in which virtual time is raised to the host's.
COMPUTES = f"ldr r4, =300000 ; 1: subs r4, r4, #1 ; bne 1b ; mov r2, #0 ; {EXIT}"


@pytest.mark.parametrize(("tier", "jit"), MODES)
@pytest.mark.parametrize("name", ["interrupts", "waits", "semihosting", "realtime"])
def test_input_comes_again_where_it_came(name: str, tier: TierName, jit: JitMode) -> None:
    """By interrupts, to a guest that waits for them and to one that does not, by semihosting, and by passing time."""
    code = {
        "interrupts": interrupt_driven(RX | RT),
        "waits": interrupt_driven(RX | RT, wait="mcr p15, #0, r0, c7, c0, #4"),
        "semihosting": assemble(READS),
        "realtime": assemble(COMPUTES),
    }[name]
    text = bytes(random.Random(5).choices(b"abcdefgh", k=40)) + b"Z"
    line = CaptureConsole(text) if name == "semihosting" else Trickle(text, 1)
    realtime = name == "realtime"
    machine = Machine(1 << 20, tier=tier, jit=jit, console=line, realtime=realtime, insn_ns=1 if realtime else 10)
    machine.load_bytes(code, 0)
    history, states = machine.begin_history(), {}
    states[0] = state_hash(machine)
    while history.run(random.Random(machine.icount).randrange(1, 4000), timeout=20).reason is StopReason.FUEL:
        states[machine.icount] = state_hash(machine)
    end, last = history.end, state_hash(machine)
    assert end is not None and end.reason is StopReason.EXITED
    sent = bytes(line.output)
    for icount in random.Random(name).choices(list(states), k=10):
        assert history.run_to(icount)
        assert state_hash(machine) == states[icount]
    assert history.run() == end and state_hash(machine) == last and bytes(line.output) == sent
    machine.close()


class _Points(NoPoints):
    def __init__(self, *breakpoints: int, watched: int | None = None) -> None:
        self.breakpoints = tuple(map(Gva, breakpoints))
        self.watchpoints = () if watched is None else (Watchpoint(Gva(watched), 4, loads=False, stores=True),)

    def stops_at(self, pc: Gva) -> bool:
        return pc in self.breakpoints

    def stops_for(self, gva: Gva, size: int, write: bool) -> bool:
        return any(watchpoint.touches(gva, size, write) for watchpoint in self.watchpoints)


#: Counts to 10,000 in memory.
COUNTER = """
    ldr r1, =0x20000 ; ldr r2, =10000 ; mov r0, #0
again: add r0, r0, #1 ; and r3, r0, #0xff ; str r0, [r1] ; str r3, [r1, #4] ; subs r2, r2, #1 ; bne again
    b .
    .ltorg
"""


def counting(tier: TierName, jit: JitMode) -> Machine:
    machine = Machine(1 << 20, tier=tier, jit=jit, console=CaptureConsole())
    machine.load_bytes(assemble(COUNTER, 0x8000), base=0x8000)
    return machine


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_the_last_hit(tier: TierName, jit: JitMode) -> None:
    """Breakpoints and watchpoints are hit in the other order, at the icounts at which they were hit forward."""
    machine = counting(tier, jit)
    history = machine.begin_history()
    history.run(3 + 6 * 9000 + 3)
    stores, again = [3 + 6 * number + 2 for number in range(9001)], [3 + 6 * number for number in range(9001)]
    for icount in stores[:-4:-1]:
        hit = history.last_hit(_Points(watched=0x20000))
        assert hit is not None and (hit.icount, hit.pc, hit.access) == (icount, 0x8014, (0x20000, 4, True))
        assert machine.icount == icount and machine.cpu.pc == 0x8014
    for icount in again[-3:-6:-1]:
        hit = history.last_hit(_Points(0x800C))
        assert hit is not None and hit == Hit(icount, Gva(0x800C)) and machine.icount == icount
    hit = history.last_hit(_Points(0x8004, watched=0x20100))
    assert hit is not None and hit.icount == 1
    assert history.last_hit(_Points(0x8004)) is None and machine.icount == history.oldest == 0
    assert not history.step_back()
    machine.close()


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_who_wrote_last(tier: TierName, jit: JitMode) -> None:
    machine = counting(tier, jit)
    history = machine.begin_history()
    history.run(40_000)
    state = state_hash(machine)
    hit = history.last_write(Gva(0x20006), 1)
    assert hit is not None and hit.pc == 0x8018 and hit.icount in range(39_994, 40_000)
    assert history.last_write(Gva(0x30000)) is None
    assert state_hash(machine) == state and not history.is_past
    machine.close()


def test_the_past_is_not_changed() -> None:
    """It has to become the newest point first. An edit of the present leaves no past that would lead to it."""
    machine = counting("threaded", "off")
    history = machine.begin_history()
    history.run(6000)
    assert history.run_to(3000)
    with pytest.raises(HistoryError, match="3000 instructions before the newest point"):
        history.note_edit()
    history.branch()
    assert history.newest == 3000 and not history.is_past
    history.note_edit()
    machine.write(0x20000, b"edit")
    history.run(6000)
    assert history.oldest == 3000
    with pytest.raises(HistoryError, match="begins at 3000"):
        history.run_to(2999)
    assert history.run_to(3000) and machine.read(0x20000, 4) == b"edit"
    with pytest.raises(RuntimeError, match="a history already"):
        machine.begin_history()
    history.close()
    assert not history.is_past and machine.run(100).icount == 3100
    machine.begin_history().close()
    machine.close()


def test_a_file_that_was_closed_later_on_allows_no_branch(tmp_path: Path) -> None:
    machine = reading(tmp_path, "threaded", "off")
    history = machine.begin_history()
    history.run()
    history.run_to(300)
    with pytest.raises(HistoryError, match="the file 'new' open, which has been closed"):
        history.branch()
    assert history.is_past and history.run().exit_code == ord("!") + 52 + ord("?") & 0xFF
    machine.close()


def test_a_replay_has_a_history(tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    machine = minios("auto", "sync")
    recorder = Recorder(machine.input_source, path, identify(machine, "1"))
    machine.attach_input(recorder)
    result = machine.run(fuel=900_000)
    recorder.end(machine, result)
    machine.close()
    machine = minios("stitched", "off")
    replay = Replay(read_recording(path), identify(machine, "1"))
    machine.attach_input(replay)
    history = machine.begin_history()
    history.run(900_000)
    history.run_to(500_000)
    state = state_hash(machine)
    with pytest.raises(HistoryError, match="one course only"):
        history.branch()
    history.run_to(100_000)
    history.run_to(500_000)
    assert state_hash(machine) == state
    notices: list[str] = []
    assert replay.compare(machine, history.run(400_000), notices.append).message.endswith("as recorded")
    machine.close()


def test_the_ring_stays_below_its_cap() -> None:
    """Older checkpoints are thinned out, and what is left leads to the right states."""
    icounts = list(range(100_000, 1_500_000, 100_000))
    machine = minios("stitched", "off")
    states = forward(machine, icounts)
    machine.close()
    machine = minios("stitched", "off")
    cap = 6 << 20
    history = machine.begin_history(cap)
    history._spacing = 20_000
    history._learn = lambda executed, seconds: None  # type: ignore[method-assign]  # the host's speed plays no part
    for icount in icounts:
        history.run_to(icount)
        assert history.kept_bytes <= cap or history.checkpoints <= 2
    for icount in reversed([icount for icount in icounts if icount >= history.oldest]):
        assert history.run_to(icount) and state_hash(machine) == states[icount]
    machine.close()


class _Counted(NoPoints):
    """A breakpoint at which nothing stops, which takes long to find out. The second time, the user wants it to stop."""

    breakpoints = (Gva(0x8000),)

    def __init__(self, machine: Machine, by_user: bool) -> None:
        self._machine, self._by_user = machine, by_user
        self.hits = 0

    def stops_at(self, pc: Gva) -> bool:
        self.hits += 1
        time.sleep(0.001)
        if self.hits == 2 and self._by_user:
            self._machine.interrupt()
        return False


@pytest.mark.parametrize("by_user", [False, True])
def test_a_search_with_slow_conditions_is_interrupted(by_user: bool) -> None:
    with Machine(1 << 20, tier="stitched", console=CaptureConsole()) as machine:
        machine.load_bytes(assemble("loop: add r0, r0, #1 ; b loop", 0x8000), base=0x8000)
        history = machine.begin_history()
        history.run(300_000)
        points = _Counted(machine, by_user)
        with pytest.raises(SearchInterrupted):
            history.last_hit(points, lambda: points.hits > 1 and not by_user)
        assert points.hits < 100
        assert not machine.is_interrupted


def test_a_step_back_is_not_interrupted_and_the_user_is_heard_afterwards() -> None:
    with Machine(1 << 20, tier="threaded", console=CaptureConsole()) as machine:
        machine.load_bytes(assemble("loop: add r0, r0, #1 ; b loop", 0x8000), base=0x8000)
        history = machine.begin_history()
        history.run(50_001)
        machine.interrupt()
        assert history.step_back()
        assert (machine.icount, machine.r[0]) == (50_000, 25_000)
        assert machine.is_interrupted
        assert history.run(1).reason is StopReason.INTERRUPTED


def test_checkpoints_come_in_time_when_the_guest_becomes_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    with Machine(1 << 20, tier="stitched", console=CaptureConsole()) as machine:
        machine.load_bytes(assemble("loop: add r0, r0, #1 ; b loop", 0x8000), base=0x8000)

        def work(icount: int) -> float:
            """A nanosecond for each instruction at first, and later three."""
            return (icount + 2 * max(icount - 90_000_000, 0)) * 1e-9

        clock = SimpleNamespace(thread_time=lambda: work(machine.icount), monotonic=time.monotonic)
        monkeypatch.setattr(dbt.vm.history, "time", clock)
        history = machine.begin_history()
        history.run(200_000_000)
        icounts = [checkpoint.icount for checkpoint in history._ring]
        gaps = [work(after) - work(before) for before, after in pairwise(icounts)]
        assert max(gaps) < 0.031 and max(gaps[:-2]) > 0.019
