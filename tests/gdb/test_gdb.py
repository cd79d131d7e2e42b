"""gdb-multiarch debugs guests: what its users do, and what QEMU's tests of a whole system's gdbstub ask for."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine, read_snapshot
from tests.assembler import assemble
from tests.gdb.sessions import debugged, gdb_says, needs_gdb, start_gdb, values
from tests.guests import GUESTS
from tests.waiting import wait_until

pytestmark = needs_gdb

QUICKSORT = str(GUESTS / "images" / "quicksort-armv5te-O0.elf")
MINIOS = str(GUESTS / "images" / "minios-armv5te-O2.elf")


# -- what QEMU's memory.py, interrupt.py, registers.py and xpage-bp.py ask for ------------------------


def test_steps_break_and_watches_of_a_whole_system(guest: str) -> None:
    with debugged(guest) as (process, place):
        text = gdb_says(
            place,
            [
                *("p $pc", "si", "p $pc", "si", "p $pc", "si", "p $pc"),
                *("break _exit", "break main", "continue", "delete 2"),
                *(f"{watch} test_data[128]" for watch in ("awatch", "rwatch", "watch")),
                *("continue", "continue", "continue", "info breakpoints", "kill"),
            ],
            guest,
        )
        assert process.wait(20) == 130
    first = values(text)
    assert first == [first[0] + 4 * number for number in range(4)]
    assert "Breakpoint 2, main () at" in text
    assert "New value = 129" in text  # far_away(128 * 1)
    kinds = {"acc": 3, "read": 1, "hw": 2}
    for kind, hits in kinds.items():
        assert re.search(rf"{kind} watchpoint +keep y +test_data\[128\]\n\tbreakpoint already hit {hits} time", text)
    assert re.search(r"1 +breakpoint +keep y +0x\w+ in _exit at [^\n]*\n3 ", text)  # never hit


def test_ctrl_c_stops_where_the_guest_is(guest: str) -> None:
    with debugged(guest) as (_, place):
        commands = [
            "set var wanted = 2",
            "break loop",
            "continue",
            "delete",
            "continue",
            "bt 1",
            "p total > 1000",
            "kill",
        ]
        gdb = start_gdb(place, commands, guest)
        time.sleep(2)
        gdb.send_signal(signal.SIGINT)
        text = gdb.communicate(timeout=60)[0]
    assert "Program received signal SIGINT" in text
    assert re.search(r"#0 +(0x\w+ in )?loop \(\)", text)


def test_every_register_of_the_description_is_there(guest: str) -> None:
    with debugged(guest) as (_, place):
        commands = ["maint print xml-tdesc", "maint print remote-registers", "info registers", "p/x $spsr_svc", "kill"]
        text = gdb_says(place, commands, guest)
    xml = text[text.index("<?xml") : text.index("</target>") + len("</target>")]
    registers = {}
    for feature in ET.fromstring(re.sub("<!DOCTYPE[^>]*>", "", xml)).findall("feature"):
        for register in feature.findall("reg"):
            assert register.attrib["name"] not in registers
            registers[register.attrib["name"]] = int(register.attrib["regnum"])
    seen = {line.split()[0]: int(line.split()[6]) for line in text.splitlines() if len(line.split()) == 8}
    assert registers.items() <= seen.items()
    assert len(registers) > 50
    for name in registers:
        assert re.search(rf"^{name} +0x", text, re.M), name


def test_a_breakpoint_in_another_page_is_hit_when_the_way_there_is_compiled(guest: str) -> None:
    with debugged("--jit", "sync", guest) as (process, place):
        commands = ["break fill if round == 200", "continue", "break far_away", "continue", "p value", "bt", "delete"]
        text = gdb_says(place, [*commands, "continue"], guest)
        assert process.wait(20) == 0
    assert values(text) == [0]
    assert re.search(r"#0 +far_away \(value=.*=0\).*#1 +0x\w+ in fill \(round=.*=200\).*#2 +0x\w+ in main", text, re.S)
    assert "exited normally" in text


# -- what users do -----------------------------------------------------------------------------------


def test_a_program_is_stepped_by_lines_and_finished(guest: str) -> None:
    with debugged(guest) as (process, place):
        text = gdb_says(
            place,
            [
                *("tbreak main", "continue", "step", "step", "bt", "finish", "step"),
                *("p list->value", "p list->next->next->value", "finish", "p twice(21)", "next", "p total"),
                *("set var total = 5", "p total", "info threads", "p $sp == $sp_svc", "continue"),
            ],
            guest,
        )
        assert process.wait(20) == 0
    assert re.search(r"#0 +build \(count=.*=8\).*#1 +0x\w+ in main", text, re.S)
    assert re.search(r"Value returned is \$1 = \(struct node \*\) 0x\w+ <nodes>", text)
    assert values(text)[:3] == [0, 4, 42]
    assert values(text)[3:] == [140, 5, 1]
    assert "Value returned is $4 = 140" in text
    assert 'Thread 1 "CPU 0" (supervisor mode, stopped)' in text
    assert "exited normally" in text


def test_conditions_are_evaluated_in_the_stub(guest: str) -> None:
    with debugged(guest) as (_, place):
        commands = [
            *("set breakpoint condition-evaluation target", "break far_away if value == 250 * 255 && total > 10"),
            *("continue", "info breakpoints", "p value", "kill"),
        ]
        text = gdb_says(place, commands, guest)
    assert "stop only if value == 250 * 255 && total > 10 (target evals)" in text
    assert values(text) == [250 * 255]


def test_a_running_guest_is_attached_to_left_and_attached_to_again(guest: str) -> None:
    with debugged(guest) as (_, place):
        gdb_says(place, ["set var wanted = 2", "detach"], guest)
        time.sleep(1.0)
        texts = [gdb_says(place, ["p total", "hbreak loop", "detach"], guest) for _ in range(2)]
    counts = [values(text)[0] for text in texts]
    assert counts[0] != counts[1]
    assert "[Inferior 1 (Remote target) detached]" in texts[0]


def test_a_second_gdb_is_refused_and_says_why(guest: str) -> None:
    with debugged(guest) as (_, place):
        first = start_gdb(place, ["shell sleep 3", "p $pc", "kill"], guest)
        time.sleep(1.0)
        second = gdb_says(place, ["p 1 + 1"], guest)
        assert "another debugger is connected" in second
        assert values(first.communicate(timeout=60)[0]) != []


def test_a_program_is_loaded_over_the_connection(guest: str) -> None:
    with debugged(QUICKSORT) as (process, place):
        text = gdb_says(
            place, ["load", "p $pc == (int) &_start", "break twice", "continue", "p value", "delete", "continue"], guest
        )
        assert process.wait(20) == 0
    assert "Start address" in text
    assert values(text)[0] == 1


def test_a_program_is_loaded_onto_a_bare_machine(guest: str, tmp_path: Path) -> None:
    """It replaces code that is running, and hot. Afterwards all of it is in RAM, and runs to its end."""
    (tmp_path / "spin.bin").write_bytes(assemble("again: add r0, r0, #1 ; b again", 0x10000))
    with debugged("--memory", "2M", "--base", "0x10000", str(tmp_path / "spin.bin"), wait=False) as (process, place):
        time.sleep(0.5)
        commands = ["load", "compare-sections", "p $pc == (int) &_start", "break twice", "continue", "p value > 0"]
        text = gdb_says(place, [*commands, "finish", "delete", "continue"], guest)
        assert process.wait(20) == 0
    assert re.findall(r"Section (\S+), .*: matched", text) == [".text", ".data"] and "MIS-MATCHED" not in text
    assert values(text)[:2] == [1, 1] and "exited normally" in text


def test_a_kernel_is_debugged_by_name_before_and_after_it_has_turned_on_the_mmu() -> None:
    with debugged("--kernel", MINIOS) as (process, place):
        commands = [
            *("p $sctlr & 1", "hbreak kernel_main", "continue", "p $sctlr & 1", "monitor pages 0xc0012844"),
            *("break space_switch", "continue", "continue", "p $cpsr & 0x1f", "delete", "continue"),
        ]
        text = gdb_says(place, commands, MINIOS)
        assert process.wait(20) == 0
    assert re.search(r"Breakpoint 1, (0xc0012844 in )?kernel_main", text)
    assert "0xc0012844 is at 0x00012844" in text
    assert len(re.findall(r"Breakpoint 2, (?:0x\w+ in )?space_switch", text)) == 2
    assert values(text) == [0, 1, 0x13]
    assert "exited normally" in text


def test_a_replay_can_be_debugged(guest: str, tmp_path: Path) -> None:
    """The debugger does not touch what was recorded, so the replay ends as the recording did: else with status 118."""
    record = str(tmp_path / "input.txt")
    subprocess.run(
        [sys.executable, "-m", "dbt", "run", "--record", record, guest], check=True, stdin=subprocess.DEVNULL
    )
    with debugged("--replay", record, guest) as (process, place):
        text = gdb_says(
            place, ["break twice", "continue", "p value > 0", "watch total", "continue", "delete", "continue"], guest
        )
        assert process.wait(20) == 0
    assert values(text) == [1]
    assert "New value" in text


def test_limits_hold_under_a_debugger(guest: str) -> None:
    with debugged("--fuel", "1000", guest) as (process, place):
        text = gdb_says(place, ["continue", "monitor when", "continue", "monitor when", "detach"], guest)
        assert process.wait(20) == 123
    assert "the fuel is used up after 1000 instructions" in text
    assert text.count("1000 instructions, ") == 2


def test_ctrl_c_in_the_terminal_of_the_guest_ends_the_run(guest: str) -> None:
    for commands, answer in (
        (["shell sleep 2", "continue"], "Target disconnected"),
        (["set var wanted = 2", "continue"], "terminated with signal SIGINT"),
    ):
        with debugged(guest) as (process, place):
            gdb = start_gdb(place, commands, guest)
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert "interrupted after" in (process.stderr.read() if process.stderr is not None else "")
            assert answer in gdb.communicate(timeout=20)[0]


def test_wrong_options_are_refused(guest: str) -> None:
    for arguments, message in (
        (["--gdb", "port"], "write PORT, HOST:PORT or unix:PATH"),
        (["--wait"], "it is for a debugger or a monitor: give it with --gdb PORT or --qmp unix:PATH"),
        (["--gdb", "0", "--trace", "x"], "with --gdb, the debugger steps"),
        (["--gdb", "unix:/nowhere/at/all"], "cannot listen there: No such file or directory"),
        (["--gdb", "no-such-host.invalid:0"], "cannot listen there"),
    ):
        found = subprocess.run(
            [sys.executable, "-m", "dbt", "run", *arguments, guest],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert found.returncode in (120, 125)
        assert message in found.stderr


# -- QEMU's gdbstub as an oracle ---------------------------------------------------------------------

_CORE = "info registers r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 sp lr pc"
_SESSION = [
    *("si", "si", "si", "si", "break main", "continue", _CORE, "step", "step", "bt", "finish", "p $cpsr"),
    *("watch test_data[128]", "continue", _CORE, "rwatch test_data[5]", "continue", "continue", _CORE, "delete"),
    *("watch total", "continue", "continue", _CORE, "delete", "stepi 50", _CORE),
    *("hbreak far_away if value == 1000", "continue", "bt", _CORE, "x/8x $sp", "x/4i $pc", "p twice(4)"),
    *("set var total = 9", "p total", "p $r7 = 11", "info registers r7", "p/x $pc"),
    *("delete", "tbreak _exit", "continue", "p code", "up", _CORE, "detach"),
]


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is not installed")
def test_a_session_shows_what_it_shows_with_qemu(guest: str, tmp_path: Path) -> None:
    socket = tmp_path / "qemu"
    qemu = subprocess.Popen(
        [
            *(
                "qemu-system-arm",
                "-M",
                "versatilepb",
                "-cpu",
                "arm926",
                "-m",
                "128",
                "-display",
                "none",
                "-serial",
                "null",
            ),
            *("-monitor", "none", "-audiodev", "none,id=none", "-kernel", guest, "-S", "-gdb", "chardev:gdb"),
            *("-chardev", f"socket,path={socket},server=on,wait=off,id=gdb"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with qemu:
        try:
            wait_until(socket.exists, "QEMU to listen")
            wanted = gdb_says(str(socket), _SESSION, guest)
        finally:
            qemu.kill()
    with debugged("--cpu", "arm926", guest) as (_, place):
        found = gdb_says(place, _SESSION, guest)
    assert comparable(found) == comparable(wanted)
    assert len(comparable(wanted)) > 150


def comparable(text: str) -> list[str]:
    """Return the lines without how each server calls the guest and its processor."""
    return [line for line in text.splitlines() if "Inferior 1" not in line and "Thread 1" not in line]


@needs_gdb
def test_a_machine_is_saved_from_the_debugger(guest: str, tmp_path: Path) -> None:
    """At the newest point, in the past, and at the end of a run that is killed. A restored machine is where gdb was."""
    path = tmp_path / "state"

    def state() -> tuple[int, int]:
        with read_snapshot(path) as saved, Machine.restore(saved, console=CaptureConsole()) as machine:
            return machine.icount, machine.pc

    commands = ["break twice", "continue", "monitor when", "p/x $pc", "monitor snapshot"]
    with debugged("--save", str(path), guest) as (process, place):
        text = gdb_says(place, [*commands, "detach"], guest)
        assert process.wait(20) == 0
    assert f"saved to {path} at instruction" in text
    assert state() == (int(re.findall(r"(\d+) instructions", text)[0]), values(text)[0])
    with debugged("--history", "--save", str(path), guest) as (process, place):
        back = ["reverse-stepi", "monitor when", "p/x $pc", "monitor snapshot", "stepi", "monitor snapshot now"]
        text = gdb_says(place, [*commands[:2], *back, "detach"], guest)
        assert process.wait(20) == 0
    assert state() == (int(re.findall(r"(\d+) instructions,", text)[0]), values(text)[0])
    assert "usage: monitor snapshot" in text
    with debugged("--save", str(path), guest) as (process, place):
        text = gdb_says(place, ["stepi 5", "p/x $pc", "kill"], guest)
        assert process.wait(20) == 130
    assert state() == (5, values(text)[0])
    with debugged(guest) as (process, place):
        assert "--gdb ... --save FILE" in gdb_says(place, ["monitor snapshot", "detach"], guest)
        assert process.wait(20) == 0
    (tmp_path / "gone").mkdir()
    with debugged("--save", str(tmp_path / "gone" / "state"), guest) as (process, place):
        (tmp_path / "gone").rmdir()
        assert "nothing was saved" in gdb_says(place, ["monitor snapshot", "detach"], guest)
        assert process.wait(20) == 0
