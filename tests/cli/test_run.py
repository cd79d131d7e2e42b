"""``dbt run``: streams, statuses, limits and messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dbt.frontend.optimizations import Optimizations
from tests.assembler import assemble
from tests.board.kernels import zimage
from tests.cli.command import COMMAND, ROOT, dbt, environment, json_of, paragraph
from tests.vm.programs import EXIT, TIERS, exiting, make_elf
from tests.waiting import BOUND_S


@pytest.mark.parametrize("tier", TIERS)
def test_the_guest_has_the_console_and_the_exit_status(hello: Path, tier: str) -> None:
    done = dbt("run", "--tier", tier, hello)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"hello\n", b"")


def test_a_flat_binary(exit_5: Path) -> None:
    assert dbt("run", "--base", "0x8000", exit_5).returncode == 5
    assert dbt("run", "--base", "0x8000", "--entry", "0x8004", "--fuel", "1", exit_5).returncode == 123


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], b"args.elf"),
        (["a b", "c"], b'args.elf "a b" c'),
        (["--help", "-x", "--fuel", "3"], b"args.elf --help -x --fuel 3"),
        (["--", "--json"], b"args.elf -- --json"),
        (["--version"], b"args.elf --version"),
    ],
)
def test_arguments_after_the_program_are_the_guests(command_line: Path, arguments: list[str], line: bytes) -> None:
    done = dbt("run", command_line, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, line, b"")


def test_standard_input_is_passed_byte_for_byte(echo: Path) -> None:
    data = bytes(range(256)) + b"\r\n\0"
    done = dbt("run", echo, stdin=data)
    assert (done.returncode, done.stdout) == (0, data)


# -- limits --------------------------------------------------------------------------------------


def test_fuel(endless: Path) -> None:
    text = paragraph(dbt("run", "--fuel", "1_001", endless), 123)
    assert "after 1001 instructions" in text and "(spin+0x4: b #0x8004)" in text


@pytest.mark.parametrize("tier", TIERS)
def test_timeout(endless: Path, tier: str) -> None:
    text = paragraph(dbt("run", "--timeout", "0.2", "--tier", tier, endless), 124)
    assert "time limit" in text and "spin" in text


@pytest.mark.parametrize("tier", TIERS)
def test_ctrl_c(ready: Path, tier: str) -> None:
    process = start("run", "--tier", tier, str(ready))
    assert process.stdout is not None and process.stdout.read(1) == b"!"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=BOUND_S)
    assert process.returncode == 130
    assert b"interrupted after" in errors and b"spin+0x4" in errors


def test_ctrl_c_while_waiting_for_input(echo: Path) -> None:
    process = start("run", str(echo), stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"!")
    process.stdin.flush()
    assert process.stdout.read(1) == b"!"
    process.send_signal(signal.SIGINT)
    process.wait(timeout=BOUND_S)
    assert process.returncode == 130
    process.communicate()


def start(*arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )


# -- what goes wrong -----------------------------------------------------------------------------


def test_a_guest_fault(faulty: Path) -> None:
    text = paragraph(dbt("run", faulty), 122)
    for word in ("0x00008004", "main+0x4", "ldr r1, [r0]", "0xdeadbee0", "RAM"):
        assert word in text


def test_waiting_for_ever(tmp_path: Path) -> None:
    (tmp_path / "wait.elf").write_bytes(make_elf(assemble("wfi")))
    assert "waits for an interrupt" in paragraph(dbt("run", tmp_path / "wait.elf"), 119)


def test_an_abnormal_exit(tmp_path: Path) -> None:
    (tmp_path / "abort.elf").write_bytes(make_elf(assemble("mov r0, #0x18; ldr r1, =0x20023; svc 0x123456")))
    assert "run-time error" in paragraph(dbt("run", tmp_path / "abort.elf"), 1)


@pytest.mark.parametrize("what", ["missing", "directory", "empty", "text", "x86", "thumb", "high"])
def test_bad_images(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    match what:
        case "directory":
            path.mkdir()
        case "empty":
            path.touch()
        case "text":
            path.write_text("#!/bin/sh\n")
        case "x86":
            path = Path(sys.executable)
        case "thumb":
            path.write_bytes(make_elf(exiting(0), entry=0x8001))
        case "high":
            path.write_bytes(make_elf(exiting(0), base=0x8000000))
    text = paragraph(dbt("run", path), 121)
    assert str(path) in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "PROGRAM is missing"),
        (["run", "--nonsense", "x"], "--nonsense"),
        (["run", "--memory", "3", "x"], "--memory 3"),
        (["run", "--epoch", "0x100000000", "x"], "--epoch 0x100000000"),
        (["run", "--memory", "lots", "x"], "--memory lots"),
        (["run", "--memory=-4K", "x"], "--memory -4K"),
        (["run", "--memory", "3G", "x"], "--memory 3G"),
        (["run", "--memory", "", "x"], "--memory"),
        (["run", "--fuel", "-1", "x"], "--fuel -1"),
        (["run", "--fuel", "much", "x"], "--fuel much"),
        (["run", "--timeout", "0", "x"], "--timeout 0"),
        (["run", "--timeout", "nan", "x"], "--timeout nan"),
        (["run", "--tier", "magic", "x"], "--tier magic"),
        (["run", "--tier", "auto", "--without", "flat,magic", "x"], "no optimization 'magic': they are stitching, "),
        (["run", "--tier", "auto", "--without", "", "x"], "no optimization ''"),
        (["run", "--tier", "threaded", "--without", "flat", "x"], "--without flat: the tier threaded"),
        (["run", "--base", "zero", "x"], "--base zero"),
        (["run", "--entry", "0x100000000", "x"], "--entry 0x100000000"),
        (["run", "--epoch", "then", "x"], "--epoch then"),
        (
            ["run", "--insn-ns", "3", "x"],
            "--insn-ns 3: this is not one of the nanoseconds that divide 1000: 0.1, 0.2, 0.5, ",
        ),
        (["run", "--insn-ns", "fast", "x"], "--insn-ns fast"),
        (["run", "--files", "/nonexistent", "x"], "--files /nonexistent"),
        (["run", "--cpu", "z80", "x"], "--cpu z80: this is none of arm926, arm1176, "),
        (["run", "--semihosting", "maybe", "x"], "--semihosting maybe"),
        (["run", "--initrd", "disk", "x"], "--initrd disk: it is for a kernel"),
        (["run", "--dtb", "tree", "x"], "--dtb tree: it is for a kernel"),
        (["run", "--append", "quiet", "x"], "--append quiet: it is for a kernel"),
        (["run", "--atags", "x"], "--atags: it is for a kernel"),
        (["run", "--initrd", "disk"], "PROGRAM is missing, or --kernel FILE"),
        (["run", "--kernel", "image", "x"], "--kernel is given, so there is no program"),
        (["run", "--kernel", "x", "--atags", "--dtb", "tree"], "--dtb tree: a kernel is given"),
        (["run", "--kernel", "x", "--files", "/"], "--semihosting on"),
        (["frobnicate"], "frobnicate"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], words: str, hello: Path) -> None:
    assert words in paragraph(dbt(*(str(hello) if word == "x" else word for word in arguments)), 120)


def test_a_trace_that_cannot_be_written(hello: Path) -> None:
    assert "--trace /nonexistent/x" in paragraph(dbt("run", "--trace", "/nonexistent/x", hello), 120)


def test_a_reader_that_is_gone(hello: Path) -> None:
    source, sink = os.pipe()
    os.close(source)
    done = subprocess.run(
        [*COMMAND, "run", str(hello)], stdout=sink, stderr=subprocess.PIPE, env=environment(), check=False
    )
    os.close(sink)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk(hello: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "run", str(hello)], stdout=full, stderr=subprocess.PIPE, env=environment(), check=False
        )
    assert done.returncode == 125 and b"No space left" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(hello: Path, closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "run", str(hello)],
        capture_output=True, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == (125 if ">&-" in closed.replace("2>&-", "") else 3)
    assert b"Traceback" not in done.stderr


def test_an_internal_error_is_one_paragraph(hello: Path) -> None:
    code = (
        "import sys, dbt.vm.machine as m\n"
        "def fail(*a, **k): raise KeyError('boom')\n"
        "m.Machine.run = fail\n"
        "from dbt.cli.app import run_app\n"
        f"sys.exit(run_app(['run', {str(hello)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment(), check=False)
    assert "KeyError: 'boom'" in (text := paragraph(done, 125)) and "DBT_DEBUG=1" in text
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(DBT_DEBUG="1"), check=False
    )
    assert done.returncode == 1 and b"Traceback" in done.stderr


# -- what is printed -----------------------------------------------------------------------------

KEYS = {
    "schema", "status", "reason", "exit_code", "message", "icount", "pc", "location", "registers", "seconds", "tier",
    "exits", "statistics", "saved",
}  # fmt: skip


def test_json_of_an_exit(hello: Path) -> None:
    done = dbt("run", "--json", hello)
    answer = json_of(done)
    assert done.stdout == b"hello\n" and set(answer) == KEYS
    expected = {"schema": 1, "status": 3, "reason": "exited", "exit_code": 3, "message": "", "icount": 10}
    assert expected.items() <= answer.items()
    assert answer["registers"]["r15"] == answer["pc"] and answer["registers"]["cpsr"] == 0x1D3
    assert answer["tier"] == "auto" and answer["exits"] == {"semihosting": 2} and answer["seconds"] >= 0


def test_json_of_a_fault(faulty: Path) -> None:
    done = dbt("run", "--json", faulty)
    answer = json_of(done)
    assert set(answer) == KEYS and len(done.stderr.splitlines()) == 1
    assert (
        (answer["reason"], answer["exit_code"], answer["status"])
        == ("fault", None, done.returncode)
        == ("fault", None, 122)
    )
    assert answer["location"] == "main+0x4" and answer["pc"] == 0x8004 and "0xdeadbee0" in answer["message"]


def test_json_of_what_never_ran(tmp_path: Path, hello: Path) -> None:
    for arguments, status, reason in (
        ([tmp_path / "missing"], 121, "bad image"),
        (["--memory", "3", hello], 120, "usage"),
    ):
        done = dbt("run", "--json", *arguments)
        answer = json_of(done)
        assert set(answer) == KEYS and (done.returncode, answer["status"], answer["reason"]) == (status, status, reason)
        assert answer["message"] and answer["icount"] == 0


def test_statistics_and_registers(hello: Path) -> None:
    done = dbt("run", "--stats", "--registers", hello)
    text = done.stderr.decode()
    assert done.stdout == b"hello\n" and done.returncode == 3
    for words in ("threaded", "instructions", "semihosting exits", "r0 00000020", "cpsr 000001d3"):
        assert words in text


def test_json_has_the_statistics(only_handlers: Path, tmp_path: Path) -> None:
    code = f"movw r1, #30000; loop: subs r1, r1, #1; bne loop; mrs r3, cpsr; msr cpsr_c, r3; mov r2, #0; {EXIT}"
    (tmp_path / "loop.elf").write_bytes(make_elf(assemble(code)))
    for regions in ({"requested": 1, "compiled": 1, "loaded": 0}, {"requested": 0, "compiled": 0, "loaded": 1}):
        done = dbt("run", "--json", "--tier", "auto", "--jit", "sync", tmp_path / "loop.elf")
        answer = json_of(done)
        found = answer["statistics"]
        assert sum(found["instructions"].values()) == answer["icount"] == 60_010
        assert found["instructions"]["region"] > 40_000 and found["instructions"]["machine"] == 1
        assert found["instructions"]["reference"] == 0
        assert regions.items() <= found["regions"].items()
        assert (found["compile_seconds"]["longest"] > 0) == regions["compiled"]
        assert found["store"]["saved"] == regions["compiled"]
    answer = json_of(dbt("run", "--json", "--tier", "threaded", tmp_path / "loop.elf"))
    assert answer["statistics"].keys() == {"instructions", "insn_ns", "callouts", "callout_places"}
    assert answer["statistics"]["insn_ns"] == 10
    assert answer["statistics"]["callouts"] == {"write_cpsr": 1}


def test_a_run_without_optimizations(only_handlers: Path, tmp_path: Path) -> None:
    code = f"movw r1, #30000; loop: ldr r0, [sp, #-4]; subs r1, r1, #1; bne loop; mov r2, #7; {EXIT}"
    (tmp_path / "loop.elf").write_bytes(make_elf(assemble(code)))
    sizes = []
    for names in ("shared_exits", "flat, lazy_flags,sroa", ",".join(Optimizations.names())):
        arguments = ("run", "--json", "--tier", "auto", "--jit", "sync", "--without", names)
        answer = json_of(dbt(*arguments, tmp_path / "loop.elf"))
        regions = answer["statistics"]["regions"]
        assert (answer["status"], answer["icount"], regions["compiled"], regions["loaded"]) == (7, 90_008, 1, 0)
        sizes.append(regions["code_bytes"])
    assert len(set(sizes)) == 3


def test_a_trace(hello: Path, tmp_path: Path) -> None:
    done = dbt("run", "--trace", tmp_path / "trace", hello)
    lines = (tmp_path / "trace").read_text().splitlines()
    assert (done.returncode, done.stdout) == (3, b"hello\n")
    assert len(lines) == 11 and lines[-1].startswith("     9 00008024 ef123456  svc #0x123456")


def test_a_large_ram_hides_the_board_and_says_so(hello: Path) -> None:
    done = dbt("run", "--memory", "512M", hello)
    assert done.returncode == 3 and b"hides the board" in done.stderr


# -- files ---------------------------------------------------------------------------------------

CREATE = """
    adr r1, block ; mov r0, #1 ; svc 0x123456
    cmn r0, #1
    moveq r2, #1
    movne r2, #0
    push {r2}
    ldr r3, =0x20026
    push {r3}
    mov r1, sp
    mov r0, #0x20
    svc 0x123456
    .align 2
    block: .word name, 4, 8
    name: .asciz "file.txt"
"""


def test_files_are_there_if_allowed(tmp_path: Path) -> None:
    program = tmp_path / "create.elf"
    program.write_bytes(make_elf(assemble(CREATE)))
    (tmp_path / "files").mkdir()
    refused = dbt("run", program)
    assert refused.returncode == 1 and b"--files" in refused.stderr
    assert dbt("run", "--files", tmp_path / "files", program).returncode == 0
    assert (tmp_path / "files" / "file.txt").exists()
    assert not (ROOT / "file.txt").exists()


def test_a_recording_is_replayed(tmp_path: Path, echo: Path, hello: Path) -> None:
    file = tmp_path / "recording"
    chosen = ("--epoch", "now", "--insn-ns", "1")
    assert dbt("run", "--record", file, *chosen, echo, stdin=b"some words").stdout == b"some words"
    for tier in ("threaded", "reference"):
        done = dbt("run", "--replay", file, "--tier", tier, echo, stdin=b"others")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"some words", b"")
    assert "another run" in paragraph(dbt("run", "--replay", file, hello), 121)
    assert "nothing new to record" in paragraph(dbt("run", "--replay", file, "--record", file, echo), 120)
    assert "no recording" in paragraph(dbt("run", "--replay", echo, echo), 121)
    assert "cannot be written" in paragraph(dbt("run", "--record", tmp_path, echo), 120)
    file.write_text(file.read_text().replace('"icount": ', '"icount": 1'))
    done = dbt("run", "--replay", file, "--json", echo)
    assert done.returncode == 118 and "the replay differs" in json_of(done)["message"]


def test_a_recording_is_readable_after_a_kill(tmp_path: Path, echo: Path) -> None:
    file = tmp_path / "recording"
    with subprocess.Popen(
        [*COMMAND, "run", "--record", file, echo], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"abc")
        process.stdin.flush()
        assert process.stdout.read(3) == b"abc"
        process.kill()
    done = dbt("run", "--replay", file, echo)
    assert (done.returncode, done.stdout) == (0, b"abc") and b"nothing was compared" in done.stderr


def test_what_was_interrupted_is_replayed_up_to_there(tmp_path: Path, endless: Path) -> None:
    file = tmp_path / "recording"
    assert dbt("run", "--record", file, "--timeout", "0.1", endless).returncode == 124
    done = dbt("run", "--replay", file, endless)
    assert done.returncode == 124 and b"as recorded" in done.stderr


def test_a_kernel(tmp_path: Path) -> None:
    kernel, disk = tmp_path / "zImage", tmp_path / "initrd"
    kernel.write_bytes(zimage())
    disk.write_bytes(b"disk")
    done = dbt("run", "--kernel", kernel, "--initrd", disk, "--append", "quiet", "--memory", "16M", "--json")
    answer = json_of(done)
    assert done.returncode == 122 and answer["reason"] == "fault"
    assert (answer["registers"]["r1"], answer["registers"]["r2"]) == (387, (8 << 20) + 4096)
    assert "no such file" in paragraph(dbt("run", "--kernel", tmp_path / "missing"), 121)
    assert "no device tree" in paragraph(dbt("run", "--kernel", kernel, "--dtb", kernel), 121)


def test_a_guest_that_writes_into_a_broken_pipe_by_semihosting_is_ended(tmp_path: Path) -> None:
    """Its writes do not fail: a guest that goes on after a failed write would never end."""
    path = tmp_path / "guest.bin"
    path.write_bytes(
        assemble('loop: mov r0, #4 ; adr r1, text ; svc 0x123456 ; b loop ; .align 2 ; text: .asciz "words words"')
    )
    readable, writable = os.pipe()
    os.close(readable)
    command = [*COMMAND, "run", "--tier", "reference", "--memory", "1M", "--base", "0x8000", str(path)]
    done = subprocess.run(command, stdout=writable, stderr=subprocess.PIPE, env=environment(), timeout=60, check=False)
    os.close(writable)
    assert done.returncode == 141 and done.stderr == b""


def test_where_addresses_are_limited_the_remedy_is_less_memory(hello: Path) -> None:
    """In the threaded tier, whose code pages take 16 times the addresses of RAM."""
    dbt("run", "--memory", "1M", hello)  # builds the handlers, if there are none yet
    limited = f'ulimit -v 3000000; exec {" ".join(COMMAND)} run --tier threaded --memory "$0" "$1"'

    def run(memory: str) -> subprocess.CompletedProcess[bytes]:
        command = ["sh", "-c", limited, memory, str(hello)]
        return subprocess.run(command, capture_output=True, timeout=BOUND_S, env=environment(), check=False)

    assert run("1M").returncode == 3
    text = paragraph(run("256M"), 125)
    assert "--memory" in text and "bug" not in text
