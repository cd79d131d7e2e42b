"""A replay is the run that was recorded, instruction for instruction, or says where it is not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbt.host.console import CaptureConsole, HostConsole
from dbt.vm.input import ConsoleInput, RecordingError, ReplayDiverged
from dbt.vm.machine import Machine, TierName
from dbt.vm.playback import Delivery, PassedTime
from dbt.vm.recording import Recorder, Recording, RunIdentity, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import RunResult, StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.lines import Trickle
from tests.vm.programs import EXIT, RT, RX, TIERS, interrupt_driven, make_elf

RAM = 1 << 20
#: Adds up what SYS_READC gives until its end, and exits with the sum.
SUM = make_elf(
    assemble(f"""
        mov r4, #0
        loop: mov r0, #7 ; svc 0x123456
        cmn r0, #1 ; addne r4, r4, r0 ; bne loop
        mov r2, r4
        {EXIT}
        b .
    """)
)
IDENTITY = RunIdentity("0", RAM, "versatile", "any", 0, 10, 0, True, False, "guest", "0" * 64)


def machine(data: bytes = b"", tier: TierName = "threaded", program: bytes = SUM, **options: Any) -> Machine:
    made = Machine(memory=RAM, tier=tier, console=CaptureConsole(data), **options)
    made.load_bytes(program, path="sum.elf")
    return made


def record(path: Path, data: bytes, **options: Any) -> tuple[Machine, RunResult]:
    made = machine(data, **options)
    recorder = Recorder(made.input_source, str(path), identify(made, "1.0"))
    made.attach_input(recorder)
    result = made.run(fuel=1000)
    recorder.end(made, result)
    return made, result


def replay(path: Path, made: Machine) -> tuple[RunResult, list[str]]:
    source = Replay(read_recording(str(path)), identify(made, "1.0"))
    made.attach_input(source)
    notices: list[str] = []
    return source.compare(made, made.run(source.fuel(0, None)), notices.append), notices


@pytest.mark.parametrize("tier", TIERS)
def test_a_replay_needs_no_input(tmp_path: Path, tier: TierName) -> None:
    recorded, result = record(tmp_path / "run", b"\x01\x02\x03")
    made = machine(tier=tier)
    assert replay(tmp_path / "run", made) == (result, [])
    assert result.exit_code == 6 and state_hash(made) == state_hash(recorded)


@pytest.mark.parametrize("seed", range(4))
def test_input_comes_to_a_guest_that_waits_for_nothing_else(tmp_path: Path, seed: int) -> None:
    """It comes after the WFI has begun, or before it is executed, as it did when it was recorded."""
    code = interrupt_driven(RX | RT, wait="mcr p15, #0, r0, c7, c0, #4")
    recorded = Machine(RAM, tier="threaded", console=Trickle(b"abcdefghijklmnopq" * 3 + b"Z", seed))
    recorded.load_bytes(code, 0)
    recorder = Recorder(recorded.input_source, str(tmp_path / "run"), identify(recorded, "1.0"))
    recorded.attach_input(recorder)
    result = recorded.run(timeout=30)
    assert result.reason is StopReason.EXITED
    recorder.end(recorded, result)
    for tier in TIERS:
        made = Machine(RAM, tier=tier, console=CaptureConsole())
        made.load_bytes(code, 0)
        assert replay(tmp_path / "run", made) == (result, [])


def test_another_input_is_another_run(tmp_path: Path) -> None:
    record(tmp_path / "run", b"\x01\x02\x03")
    text = (tmp_path / "run").read_text().replace("\\u0002", "\\u0005")
    (tmp_path / "run").write_text(text)
    with pytest.raises(ReplayDiverged, match=r"exited with 9 after (\d+) .*, and was exited with 6 after \1 "):
        replay(tmp_path / "run", machine())


def test_the_same_end_with_another_state(tmp_path: Path) -> None:
    record(tmp_path / "run", b"\x01\x03")
    text = (tmp_path / "run").read_text().replace("\\u0001", "\\u0002").replace("\\u0003", "\\u0001\\u0002")
    (tmp_path / "run").write_text(text)
    with pytest.raises(ReplayDiverged, match="reads 1 bytes at 7, and was to read 2 bytes at 7"):
        replay(tmp_path / "run", machine())
    made, result = record(tmp_path / "run", b"\x01")
    made.write(0x4000, b"x")
    road = Replay(read_recording(str(tmp_path / "run")), identify(machine(), "1.0"))
    with pytest.raises(ReplayDiverged, match="registers, RAM or devices"):
        road.compare(made, result, print)


def test_what_was_stopped_stops_there_again(tmp_path: Path) -> None:
    endless = make_elf(assemble("loop: add r0, r0, #1 ; b loop"))
    _, result = record(tmp_path / "run", b"", program=endless)
    assert result.reason is StopReason.FUEL
    again, notices = replay(tmp_path / "run", machine(program=endless))
    assert (again.reason, again.icount, notices) == (StopReason.FUEL, 1000, [])
    faulty = make_elf(assemble("mov r0, #0x80000000 ; ldr r0, [r0]"))
    _, result = record(tmp_path / "run", b"", program=faulty)
    assert replay(tmp_path / "run", machine(program=faulty)) == (result, [])
    assert result.reason is StopReason.FAULT


def test_a_replay_that_is_stopped_before_the_end(tmp_path: Path) -> None:
    record(tmp_path / "run", b"\x01\x02\x03")
    made = machine()
    source = Replay(read_recording(str(tmp_path / "run")), identify(made, "1.0"))
    made.attach_input(source)
    notices: list[str] = []
    assert source.compare(made, made.run(source.fuel(0, 10)), notices.append).icount == 10
    assert len(notices) == 1 and "stopped before" in notices[0]


def test_after_a_recording_that_was_cut_off_there_is_no_input(tmp_path: Path) -> None:
    record(tmp_path / "run", b"\x01\x02\x03")
    lines = (tmp_path / "run").read_bytes().splitlines(keepends=True)
    (tmp_path / "run").write_bytes(b"".join(lines[:3]) + lines[3][:5])
    result, notices = replay(tmp_path / "run", machine())
    assert result.exit_code == 3 and notices == ["the recording has no end, so nothing was compared"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"memory": 2 * RAM}, "the size of the RAM is 2097152 here and was 1048576"),
        ({"cpu": "arm926"}, "the processor is arm926 here and was any"),
        ({"epoch": 5}, "the time of day at the start is 5 here"),
        ({"insn_ns": 5}, "the time of an instruction in ns is 5 here and was 10"),
        ({"semihosting": False}, "semihosting is off here and was on"),
        ({"files": "."}, "access to files is on here and was off"),
    ],
)
def test_a_replay_of_another_machine(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    record(tmp_path / "run", b"")
    made = Machine(**{"memory": RAM, "tier": "reference", "console": CaptureConsole(), **other})
    made.load_bytes(SUM, path="sum.elf")
    with pytest.raises(RecordingError, match=said):
        replay(tmp_path / "run", made)


def test_a_replay_of_another_program(tmp_path: Path) -> None:
    record(tmp_path / "run", b"")
    with pytest.raises(RecordingError, match="it is another program"):
        replay(tmp_path / "run", machine(program=make_elf(assemble("b ."))))
    made = machine()
    with pytest.raises(RecordingError, match=r"dbt's version is 2\.0 here and was 1\.0"):
        Replay(read_recording(str(tmp_path / "run")), identify(made, "2.0"))
    made.load_bytes(SUM, path="sum.elf", args=["x"])
    with pytest.raises(RecordingError, match=r"arguments is sum\.elf x here and was sum\.elf"):
        replay(tmp_path / "run", made)


def test_the_hash_does_not_depend_on_which_pages_the_host_has() -> None:
    one, other = machine(), machine()
    assert state_hash(one) == state_hash(other)
    bytes(one.ram.bytes)
    other.write(0x80000, bytes(4096))
    assert state_hash(one) == state_hash(other)
    other.write(RAM - 1, b"x")
    assert state_hash(one) != state_hash(other)


# -- the UART's side -----------------------------------------------------------------------------

#: Adds up what comes by the UART, each byte times the number of polls before it, without end.
UART_SUM = make_elf(
    assemble("""
        ldr r1, =0x101f1000 ; mov r2, #0 ; mov r4, #0
        loop: add r2, r2, #1
        ldr r0, [r1, #0x18] ; tst r0, #0x10 ; bne loop
        ldr r0, [r1] ; mla r4, r0, r2, r4 ; b loop
    """)
)


def run_in_slices(made: Machine, slices: list[int], end: int) -> None:
    for slice_ in slices:
        made.run(fuel=min(slice_, end - made.icount))


@pytest.mark.parametrize("tier", TIERS)
def test_a_uart_guest_is_the_same_however_its_slices_lie(tmp_path: Path, tier: TierName) -> None:
    path = str(tmp_path / "run")
    states: list[tuple[int, int, str]] = []
    for slices in ([11] * 20, [200] * 20, [1] * 220):
        console = CaptureConsole(b"" if states else b"first")
        made = Machine(memory=RAM, tier=tier, console=console)
        made.load_bytes(UART_SUM)
        identity = identify(made, "1.0")
        if not states:
            recorder = Recorder(ConsoleInput(console), path, identity)
            made.attach_input(recorder)
            run_in_slices(made, slices[:5], 220)
            console.input = b"some more than the UART has room for"
            run_in_slices(made, slices[5:], 220)
            recorder.close()
        else:
            made.attach_input(Replay(read_recording(path), identity))
            run_in_slices(made, slices, 220)
        states.append((made.icount, made.r[4], state_hash(made)))
    assert states[0][0] == 220 and states[0][1] and states == [states[0]] * 3


# -- the same, without a machine ----------------------------------------------------------


def uart_guest(road: Any, times: Iterable[int]) -> list[tuple[int, bytes]]:
    """What a run loop pushes into its UART: it polls at these times, and where the road says that it must."""
    got, now = [], 0
    for time in times:
        while now < time:
            data = road.poll(now, 16)
            if data:
                got.append((now, data))
            due = road.next_delivery
            now = time if due is None else min(time, due)
    return got


def test_uart_input_comes_at_the_same_time_however_the_slices_lie(tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    console = CaptureConsole(b"")

    def typing() -> Iterator[int]:
        for time in (7, 20, 21, 100, 333):
            console.input += b"<%d>" % time
            yield time

    recorder = Recorder(ConsoleInput(console), path, IDENTITY)
    recorded = uart_guest(recorder, typing())
    assert recorded == [(0, b"<7>"), (7, b"<20>"), (20, b"<21>"), (21, b"<100>"), (100, b"<333>")]
    for slices in ([1000], list(range(1000)), [5, 20, 999]):
        assert uart_guest(Replay(read_recording(path), IDENTITY), slices) == recorded


def test_pieces_that_come_at_one_tick_stay_pieces() -> None:
    """A console of virtio has a buffer for each: together they would be another input."""
    pieces = (Delivery("uart", 30, b"a"), Delivery("uart", 30, b"bc"), Delivery("uart", 31, b"d"))
    replay = Replay(Recording("run", IDENTITY, pieces, None), IDENTITY)
    assert [replay.poll(now, 16) for now in (29, 30, 30, 30, 31, 31)] == [b"", b"a", b"bc", b"", b"d", b""]


def test_time_passes_between_the_instructions_where_it_did() -> None:
    recording = Recording("run", IDENTITY, (Delivery("uart", 30, b"a"),), None, (PassedTime(5, 10), PassedTime(40, 1)))
    replay = Replay(recording, IDENTITY)
    assert replay.next_delivery == 5 and replay.pass_time(4, 100) == 0 and replay.pass_time(5, 0) == 10
    assert replay.next_delivery == 30 and replay.pass_time(20, 100) == 0 and replay.poll(30, 1) == b"a"
    assert replay.next_delivery == 40
    with pytest.raises(ReplayDiverged, match="time is to pass at 40, and no instruction ended there until 41"):
        replay.pass_time(41, 0)


def test_a_run_without_an_end_is_repeated_as_far_as_it_is_known_to_have_got(tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    recorder = Recorder(ConsoleInput(CaptureConsole()), path, IDENTITY)
    for icount in (10, 25):
        recorder.mark(icount)
    recorder.close()
    replay = Replay(read_recording(path), IDENTITY)
    assert [replay.fuel(5, wanted) for wanted in (None, 7, 100)] == [20, 7, 20]
    with open(path, "ab") as file:
        file.write(b'["reached", 24]\n')
    with pytest.raises(RecordingError, match="damaged in line 4"):
        read_recording(path)


def test_a_uart_that_is_not_ready(tmp_path: Path) -> None:
    recording = Recording(
        "run", IDENTITY, (Delivery("uart", 5, b"ab"), Delivery("read", 6, b"c"), Delivery("uart", 6, b"d")), None
    )
    road = Replay(recording, IDENTITY)
    assert road.next_delivery == 5 and road.poll(4, 16) == b"" and road.poll(5, 2) == b"ab"
    assert road.next_delivery == 6 and road.read(6, 1) == b"c" and road.poll(6, 1) == b"d"
    assert road.next_delivery is None and road.poll(7, 1) == b"" and road.read(7, 1) == b""
    with pytest.raises(ReplayDiverged, match="room for 1"):
        Replay(recording, IDENTITY).poll(5, 1)
    with pytest.raises(ReplayDiverged, match="nobody asked for it until 8"):
        Replay(recording, IDENTITY).poll(8, 16)
    with pytest.raises(ReplayDiverged, match="reads 1 bytes at 5, and was to read at 6"):
        Replay(recording, IDENTITY).read(5, 1)


def test_each_access_of_an_instruction_gets_what_it_got(tmp_path: Path) -> None:
    """And what an access got does not come before it, between two instructions, where it could interrupt."""
    console = CaptureConsole()
    recorder = Recorder(ConsoleInput(console), str(tmp_path / "run"), IDENTITY)

    def polls(source: Any, typed: list[bytes]) -> list[bytes]:
        got = []
        for data, access in zip(typed, (False, True, True, True), strict=True):
            console.input += data
            got.append(source.poll(5, 1, access))
        return got

    expected = polls(recorder, [b"", b"", b"a", b"b"])
    assert expected == [b"", b"", b"a", b"b"]
    replay = Replay(read_recording(str(tmp_path / "run")), IDENTITY)
    assert polls(replay, [b""] * 4) == expected and replay.ended


def test_the_console_gives_what_there_is_room_for() -> None:
    stdin, typing = os.pipe()
    road = ConsoleInput(HostConsole(stdin))
    assert road.poll(0, 16) == b"" and road.next_delivery is None
    road.wait(0.001)
    os.write(typing, b"abc")
    road.wait(10)
    assert road.poll(0, 0) == b"" and road.poll(0, 2) == b"ab" and road.poll(0, 16) == b"c"
    os.close(typing)
    road.wait(0.001)
    assert road.poll(0, 16) == b"" and road.read(0, 1) == b""


# -- files ---------------------------------------------------------------------------------------


def test_every_byte_comes_back(tmp_path: Path) -> None:
    everything = bytes(range(256))
    recorder = Recorder(ConsoleInput(CaptureConsole(everything)), str(tmp_path / "run"), IDENTITY)
    assert recorder.poll(1, 300) == everything
    assert read_recording(str(tmp_path / "run")).deliveries == (Delivery("uart", 1, everything),)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for data, said in (
        (b"", "no recording of dbt"),
        (b"\x7fELF\n", "no recording of dbt"),
        (b"[]\n", "no recording of dbt"),
        (b'{"dbt-recording": 7}\n', "no recording of dbt"),
        (b'{"dbt-recording": 3}\n', "format 3, and this dbt knows format 7"),
        (b"[" * 100000 + b"\n", "no recording of dbt"),
    ):
        path.write_bytes(data)
        with pytest.raises(RecordingError, match=said):
            read_recording(str(path))
    with pytest.raises(RecordingError, match="cannot be read: No such file"):
        read_recording(str(tmp_path / "missing"))
    with pytest.raises(RecordingError, match="cannot be written: Is a directory"):
        Recorder(ConsoleInput(CaptureConsole()), str(tmp_path), IDENTITY)
    recorder = Recorder(ConsoleInput(CaptureConsole(b"x")), str(path), IDENTITY)
    header = path.read_bytes()
    recorder.close()
    for line in (
        b"x",
        b'["uart"]',
        b'["uart", 1, "\\u1234"]',
        b'["end", {}]',
        b'["other", 1, ""]',
        b'["uart", "1", "", 0]',
        b'["uart", 1, ""]',
        b'["read", 1, "", 0]',
        b'["time", 1, 0]',
        b'["time", 1, -1]',
        b'["time", 1, "2"]',
        b'["uart", 4611686018427387904, "x", 0]',
        b'["uart", -1, "x", 0]',
        b'["uart", true, "x", 0]',
        b'["time", 1, 4611686018427387904]',
        b'{"time": 1}',
    ):
        path.write_bytes(header + line + b"\n")
        with pytest.raises(RecordingError, match="damaged in line 2"):
            read_recording(str(path))
    end = json.dumps(["end", {"icount": 1, "now": 1, "reason": "boredom", "exit_code": None, "state": ""}]).encode()
    path.write_bytes(header + end + b"\n")
    with pytest.raises(RecordingError, match="damaged in line 2"):
        read_recording(str(path))


@pytest.mark.parametrize(
    "wrong", [{"epoch": True}, {"memory": -1}, {"rng_seed": 1 << 63}, {"position": [1 << 62, 0, 0]}, {"files": 1}]
)
def test_a_header_with_wrong_numbers_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = tmp_path / "run"
    Recorder(ConsoleInput(CaptureConsole()), str(path), IDENTITY).close()
    header = json.loads(path.read_bytes())
    path.write_text(json.dumps(header | {"rng_seed": (1 << 63) - 1}) + "\n")
    read_recording(str(path))
    path.write_text(json.dumps(header | wrong) + "\n")
    with pytest.raises(RecordingError, match="no recording of dbt"):
        read_recording(str(path))


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=100)
def test_any_file_is_a_recording_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    with pytest.raises(RecordingError):
        read_recording(str(path))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (str(tmp_path / "fifo"), "/dev/zero", str(tmp_path)):
        with pytest.raises(RecordingError, match="cannot be read"):
            read_recording(path)
