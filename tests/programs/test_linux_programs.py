"""Programs for Linux by ``dbt run``: what they are given and what comes of them is as under qemu-arm."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dbt.abi.addresses import Gva
from dbt.cli.linux_program import conclude
from dbt.cli.status import CommandError
from dbt.host.console import CaptureConsole
from dbt.linux.console import ProgramConsole
from dbt.linux.program import ProgramError, check_place
from dbt.vm.result import RunResult, StopReason
from tests.programs.running import DBT, TIMEOUT, WORDS, environment, run
from tests.waiting import wait_until


@pytest.fixture(scope="module", autouse=True)
def _booted() -> None:
    """Boot the guest, so that its notice is in no output."""
    assert run("status", "0").returncode == 0


def test_streams_and_status() -> None:
    done = run("say", "hello", "complain", "oh", "say", "again", "status", "5")
    assert (done.stdout, done.stderr, done.returncode) == (b"hello\nagain\n", b"oh\n", 5)


def test_input_comes_whole_and_ends() -> None:
    data = bytes(range(256)) * 4096  # more than may be on its way at once
    done = run("copy", "status", "3", stdin=data)
    assert (done.stdout == data, done.stderr, done.returncode) == (True, b"", 3)


def test_a_program_that_does_not_read_its_input() -> None:
    done = run("say", "done", stdin=bytes(1 << 20))
    assert (done.stdout, done.returncode) == (b"done\n", 0)


def test_arguments_environment_and_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDS_TEST", "a value = 7")
    done = run("say", "", "say", "two words", "variable", "WORDS_TEST", "directory", "owner", cwd=tmp_path)
    owner = f"{os.geteuid():08x}\n{os.getegid():08x}\n"
    assert done.stdout.decode() == f"\ntwo words\na value = 7\n{tmp_path}\n{owner}"


def test_files_of_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("content\n")
    done = run("file", "in", "write", "out", "written", cwd=tmp_path)
    assert (done.stdout, done.returncode) == (b"content\n", 0)
    assert (tmp_path / "out").read_text() == "written\n"
    assert (tmp_path / "out").stat().st_uid == os.geteuid()


def test_other_files_are_not_there_unless_they_are_given(tmp_path: Path) -> None:
    other, work = tmp_path / "other", tmp_path / "work"
    other.mkdir()
    work.mkdir()
    (other / "file").write_text("there\n")
    assert run("file", str(other / "file"), cwd=work).returncode == 98
    done = run("file", str(other / "file"), cwd=work, options=("--files", str(other)))
    assert (done.stdout, done.returncode) == (b"there\n", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGKILL])
def test_a_signal_that_ends_the_program(number: signal.Signals) -> None:
    done = run("say", "first", "kill", str(int(number)))
    assert (done.stdout, done.returncode) == (b"first\n", 128 + number)


def test_processes_of_its_own() -> None:
    assert run("fork").stdout == b"00000700\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_forwarded(number: signal.Signals) -> None:
    with subprocess.Popen((*DBT, WORDS, "say", "ready", "wait"), stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 128 + number


def test_a_terminal() -> None:
    child, master = pty.fork()
    if child == 0:
        os.environ.update(environment())
        termios.tcsetwinsize(0, (40, 100))
        os.execv(sys.executable, [*DBT, WORDS, "terminal", "copy", "status", "4"])
    os.set_blocking(master, False)
    output = b""

    def read() -> bytes:
        nonlocal output
        if select.select([master], [], [], 0.1)[0]:
            with suppress(OSError):  # the other side is closed
                output += os.read(master, 4096)
        return output

    wait_until(lambda: b"\n" in read(), "the size of the terminal")
    rows_and_columns = output.split()[0]
    os.write(master, b"typed\r")
    wait_until(lambda: read().count(b"typed") >= 2, "the echo and the copy")  # its echo, and the copy
    os.write(master, b"\x04")
    status = os.waitpid(child, 0)[1]
    os.close(master)
    assert rows_and_columns == b"00280064"
    assert os.waitstatus_to_exitcode(status) == 4


def test_ctrl_c_at_a_terminal_goes_to_the_program() -> None:
    child, master = pty.fork()
    if child == 0:
        os.environ.update(environment())
        os.execv(sys.executable, [*DBT, WORDS, "say", "ready", "wait"])
    output = b""
    while b"ready" not in output:
        output += os.read(master, 4096)
    os.write(master, b"\x03")
    status = os.waitpid(child, 0)[1]
    os.close(master)
    assert os.waitstatus_to_exitcode(status) == 130


def test_two_programs_have_different_random_numbers_unless_a_seed_is_given() -> None:
    first, second = run("random").stdout, run("random").stdout
    assert first != second and len(first) == 18
    same = ("--rng", "seed=3", "--epoch", "1000000000", "--realtime", "off")
    assert run("random", options=same).stdout == run("random", options=same).stdout


def test_a_recording_is_replayed_without_the_files(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "in").write_text("content\n")
    recording = str(tmp_path / "recording")
    done = run("file", "in", "copy", "random", options=("--record", recording), stdin=b"typed\n", cwd=work)
    (work / "in").unlink()
    again = run("file", "in", "copy", "random", options=("--replay", recording), cwd=work)
    assert (again.stdout, again.returncode) == (done.stdout, 0), again.stderr
    assert done.stdout.startswith(b"content\ntyped\n")


def test_fuel_and_time() -> None:
    done = run("wait", options=("--timeout", "2"))
    assert done.returncode == 124
    started = time.monotonic()
    done = run("say", "x", options=("--fuel", "1000"))
    assert (done.stdout, done.returncode) == (b"", 123)
    assert time.monotonic() - started < TIMEOUT


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--root", "/nonexistent"), b"--root /nonexistent: this is not a directory"),
        (("--board", "versatile"), b"--board versatile: the program is one for Linux"),
        (("--os", "beos"), b"--os beos"),
        (("--memory", "8M"), b"--memory 8M: a program for Linux needs at least 32M"),
        (("--epoch", "1"), b"--epoch 1: Linux takes no time that is before its start"),
        (("--save", "state"), b"--save state: a program for Linux cannot be saved"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...], text: bytes) -> None:
    done = run("say", "x", options=options)
    assert done.returncode == 120 and text in done.stderr


def test_a_program_that_is_not_executable(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(Path(WORDS).read_bytes())
    done = run(program=str(copy), cwd=tmp_path)
    assert done.returncode == 121 and b"it cannot be executed: Permission denied" in done.stderr


def test_the_root_directory_of_the_host_is_not_that_of_the_program(tmp_path: Path) -> None:
    """From ``/``, with another root directory, the program is still found."""
    done = run("directory", options=("--root", str(tmp_path)), cwd=Path("/"))
    assert (done.stdout, done.returncode) == (b"/\n", 0), done.stderr


def test_a_guest_that_ends_before_its_program() -> None:
    console = ProgramConsole(CaptureConsole())
    console.write_error(b"Kernel panic")
    result = RunResult(StopReason.EXITED, 0, 1000, Gva(0), "the guest switched the machine off")
    with pytest.raises(CommandError, match=r"ended before its program(.|\n)*Kernel panic"):
        conclude(console, result)


def _root_with_words(folder: Path) -> Path:
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(WORDS, root / "bin/words")
    return root


def test_a_program_below_the_root_has_the_name_that_it_has_there(tmp_path: Path) -> None:
    root = _root_with_words(tmp_path)
    script = root / "bin/script"
    script.write_text("#!/bin/words say\n")
    script.chmod(0o755)
    done = run(options=("--root", str(root)), program=str(script), cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (b"/bin/script\n", b"", 0)
    done = run("directory", options=("--root", str(root)), program=str(root / "bin/words"), cwd=tmp_path)
    assert done.stdout == f"{tmp_path}\n".encode()


def test_a_script_needs_a_root(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/words say\n")
    done = run(program=str(script))
    assert (done.returncode, b"it is a script" in done.stderr, b"--root DIR" in done.stderr) == (121, True, True)


def test_a_program_in_the_root_directory_is_hidden_by_another_one(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="Move it elsewhere"):
        check_place("/words", str(tmp_path))
    check_place("/words", None)
    check_place(WORDS, str(tmp_path))


def test_the_streams_have_names() -> None:
    done = run("file", "/dev/stdin", "write", "/dev/stdout", "out", "write", "/dev/fd/2", "err", stdin=b"in")
    assert (done.stdout, done.stderr, done.returncode) == (b"inout\n", b"err\n", 0)
