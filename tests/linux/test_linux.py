"""An unmodified Linux: it boots with every device tree, in every tier, to the same states, and its shell can be used.

``make test-linux`` runs these; see tests/linux/booting.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from dbt.host.console import CaptureConsole
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from isa.arm.state import PSR_I
from tests.engine.stitched_memory import MOST_BYTES, growth
from tests.gdb.sessions import debugged, gdb_says, needs_gdb
from tests.linux.booting import IMAGES, MODES, NEEDS_LINUX, TIMEOUT, TREES, boot
from tests.linux.typist import PROMPT, Typist, typed

pytestmark = NEEDS_LINUX

_HASH_INTERVAL = 10_000_000
#: What /init prints; the sums are checked by whoever computes them on another machine.
BUSYBOX_MD5 = "742242d9184326bfe5cb2552d2048149"
ZEROS_SHA1 = "3b71f43ff30f4b15b5cd85dd9e95ebc7e84eb5a3"
TESTS = (
    "=== USERSPACE UP ===",
    f"md5 of busybox: {BUSYBOX_MD5}  /bin/busybox",
    "loop 200",
    "bg-done",
    f"{ZEROS_SHA1}  -",
    "=== TESTS DONE ===",
    "reboot: Restarting system",
)


def in_order(output: bytes | bytearray, lines: Iterable[str]) -> None:
    """Every line is there, after the one before."""
    found = output.decode(errors="replace").replace("\r\n", "\n")
    place = 0
    for line in lines:
        at = found.find(line + "\n", place)
        assert at >= 0, f"{line!r} is missing in\n{found[-4000:]}"
        place = at + len(line)


# -- booting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tree", TREES, ids=("minimal", "full", "own"))
def test_boot(tree: str | None, mode: str) -> None:
    console = CaptureConsole()
    result = boot(mode, console, tree, "autoreboot").run(timeout=TIMEOUT)
    assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), result.message
    in_order(console.output, TESTS)


@needs_gdb
def test_gdb_attaches_to_a_running_linux() -> None:
    """It stops in the handler of an interrupt, leaves, and comes again, however far the boot is by then."""
    files = ["--initrd", str(IMAGES / "initramfs-armel.cpio.gz"), "--dtb", str(IMAGES / "versatile-pb.dtb")]
    kernel = ["--kernel", str(IMAGES / "zImage"), "--append", "console=ttyAMA0", "--realtime", "on"]
    symbols = IMAGES / "vmlinux"
    with debugged(*kernel, *files, wait=False) as (process, place):
        time.sleep(2)
        caught = [
            "monitor catch irq",
            "continue",
            "p/x $cpsr & 0x1f",
            "p/x (int) $pc & 0xff",
            "monitor catch none",
            "stepi 5",
        ]
        texts = [gdb_says(place, ["set architecture arm", "monitor info", *caught, "detach"]) for _ in range(2)]
        if symbols.is_file():
            texts.append(gdb_says(place, ["hbreak generic_handle_arch_irq", "continue", "bt 3", "detach"], symbols))
            assert "Breakpoint 1, " in texts[-1]
        gdb_says(place, ["kill"])
        assert process.wait(TIMEOUT) == 130
    for text in texts[:2]:
        assert "processor  arm926" in text
        assert "dbt: interrupt after" in text
        assert "= 0x12\n" in text
        assert "= 0x18\n" in text


def test_the_stock_kernel_knows_no_atags() -> None:
    """``versatile_defconfig`` has boards with device trees alone: the kernel says so, and what it was given."""
    console = CaptureConsole()
    machine = boot("threaded", console, None, atags=True)
    result = machine.run(timeout=TIMEOUT)
    assert result.reason is StopReason.HALTED, result.message
    assert b"Please check your kernel config" in console.output
    assert b"r1=0x00000183, r2=0x00000100" in console.output
    assert b"r2[]=05 00 00 00 01 00 41 54 " in console.output


def test_every_tier_has_the_same_states() -> None:
    def states(mode: str) -> list[tuple[int, str]]:
        machine = boot(mode, CaptureConsole(), "versatile-pb.dtb", "autoreboot")
        found = []
        while True:
            result = machine.run(fuel=_HASH_INTERVAL, timeout=TIMEOUT)
            found.append((result.icount, state_hash(machine)))
            if result.reason is not StopReason.FUEL:
                assert result.reason is StopReason.EXITED, result.message
                return found

    expected = states("threaded")
    assert len(expected) > 10
    for mode in MODES.keys() - {"threaded"}:
        assert states(mode) == expected, mode


def test_what_stitched_instructions_take() -> None:
    insns, found = growth("linux")
    assert insns > 50_000
    assert all(10 < size <= MOST_BYTES for size in found.values()), found


# -- the shell -----------------------------------------------------------------------------------

#: Commands and what they print; the shell echoes the command itself.
SESSION = {
    "ls /": "bin    dev    etc    init   init2  proc   root   sbin   sys    tmp",
    "grep Hardware /proc/cpuinfo": "Hardware	: ARM-Versatile (Device Tree Support)",
    "cat /proc/cpuinfo": "CPU architecture: 5TEJ",
    "echo a b c | wc -w": "3",
    "(sleep 1; echo job-done) & wait": "job-done",
    "sleep 1; echo slept": "slept",
    "date +%Y": "2026",
    "md5sum /bin/busybox": f"{BUSYBOX_MD5}  /bin/busybox",
    "dd if=/dev/zero bs=64k count=16 2>/dev/null | sha1sum": f"{ZEROS_SHA1}  -",
    "seq 1000 | awk '{ s += $1 } END { print s, s / 16 }'": "500500 31281.2",
}
_EDIT = [
    (PROMPT, b"vi /tmp/note\n"),
    (b"- /tmp/note 1/1 100%", b"ihello from vi"),
    (b"from vi", b"\x1b"),
    (b"[Modified]", b":wq\n"),
    (PROMPT, b"cat /tmp/note | tr a-z A-Z\n"),
]
_LINES = [line for command, answer in SESSION.items() for line in (command, answer)]


@pytest.mark.parametrize("mode", MODES)
def test_session(mode: str) -> None:
    console = Typist([*typed(SESSION), *_EDIT, *typed(["reboot -f"])])
    result = boot(mode, console, "versatile-pb.dtb").run(timeout=TIMEOUT)
    assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), console.output[-2000:]
    in_order(console.output, [*_LINES, "cat /tmp/note | tr a-z A-Z", "HELLO FROM VI", "reboot: Restarting system"])


@pytest.mark.parametrize("mode", MODES)
def test_power_off(mode: str) -> None:
    """The board cannot switch itself off: the kernel says that it halts, and spins with IRQs masked."""
    console = Typist(typed(["poweroff -f"]))
    machine = boot(mode, console, "versatile-pb-minimal.dtb")
    result = machine.run(timeout=TIMEOUT)
    assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), result.message
    assert machine.cpsr & PSR_I and console.output.rstrip().endswith(b"reboot: System halted")
    assert result.icount % (1 << 24) == 0


@pytest.mark.parametrize("realtime", [False, True])
def test_a_session_can_be_replayed(realtime: bool, tmp_path: Path) -> None:
    console = Typist([*typed(["echo $((6 * 7))", "sleep 1; date"]), *_EDIT, *typed(["reboot -f"])])
    machine = boot("auto-async", console, "versatile-pb.dtb", realtime=realtime)
    path = str(tmp_path / "recording")
    recorder = Recorder(machine.input_source, path, identify(machine, ""))
    machine.attach_input(recorder)
    result = machine.run(timeout=TIMEOUT)
    recorder.end(machine, result)
    assert result.exit_code == 0 and b"HELLO FROM VI" in console.output, console.output[-2000:]
    for mode in ("threaded", "stitched", "auto-sync"):
        listener = CaptureConsole()
        again = boot(mode, listener, "versatile-pb.dtb")
        replay = Replay(read_recording(path), identify(again, ""))
        again.attach_input(replay)
        assert replay.compare(again, again.run(timeout=TIMEOUT), pytest.fail).exit_code == 0
        assert listener.output == console.output
        assert state_hash(again) == state_hash(machine)


def test_a_prompt_in_real_time() -> None:
    """Three seconds of the guest are three seconds at least. ``make timing`` measures how busy the host is."""
    console = Typist([*typed(["sleep 3; echo slept", "reboot -f"])])
    machine = boot("threaded", console, "versatile-pb-minimal.dtb", realtime=True)
    assert machine.run(timeout=TIMEOUT).exit_code == 0
    assert b"slept\r\n" in console.output
    (started, _), (ended, _) = console.times
    assert ended - started >= 3
