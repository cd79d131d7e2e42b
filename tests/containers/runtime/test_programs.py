"""Programs of containers, each in its VM: streams, exit codes, users, terminals, signals and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from dbt.containers.runtime.spec import Ended, Mount, Process, ProcessFailure, RuntimeFailure, VmEnded
from tests.containers.runtime.boxes import Boxes, Said, all_of, words_layer

_UPTIME = ("file", "/proc/uptime")
_STEP_S = 0.01  # of /proc/uptime


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    folder = tmp_path_factory.mktemp("boxes")
    made = Boxes(folder, (words_layer(folder),))
    yield made
    made.close()


def test_streams_and_exit_codes(boxes: Boxes) -> None:
    said, ended = boxes.run(boxes.said("words", "say", "hello", "complain", "oh", "status", "5"))
    assert said == (b"hello\n", b"oh\n", 5)
    assert ended == Ended(5)


def test_a_program_that_computes_has_the_hosts_time(boxes: Boxes) -> None:
    """Its clock is not ahead of the host's, however fast its code is and whatever the host does besides."""

    async def computed() -> tuple[float, Said]:
        began = monotonic()  # before the program reads its clock for the first time
        vm = await boxes.start("words", "copy", *_UPTIME, "compute", "1000", *_UPTIME)
        vm.main.end_input()
        said = await all_of(vm.main)
        return monotonic() - began, said

    passed, said = boxes.run(computed())
    before, after = (float(line.split()[0]) for line in said.output.splitlines())
    assert 2 * 1000e6 * 1e-10 - _STEP_S <= after - before <= passed + _STEP_S


def test_input_and_output_are_complete(boxes: Boxes) -> None:
    """More goes both ways than may be on its way at once."""
    data = bytes(range(256)) * 2048

    async def copied() -> None:
        vm = await boxes.start("words", "copy")

        async def feed() -> None:
            await vm.main.write(data)
            vm.main.end_input()

        _, said = await asyncio.gather(feed(), all_of(vm.main))
        assert said == (data, b"", 0)
        assert await vm.wait() == Ended(0)

    boxes.run(copied())


@pytest.mark.parametrize(
    ("user", "owner", "home"),
    [
        ("", (0, 0), "/root"),
        ("ann", (1000, 1001), "/home/ann"),
        ("1000", (1000, 1001), "/home/ann"),
        ("7", (7, 0), "/"),
        ("ann:users", (1000, 100), "/home/ann"),
        ("7:9", (7, 9), "/"),
    ],
)
def test_users(boxes: Boxes, user: str, owner: tuple[int, int], home: str) -> None:
    process = Process(("words", "owner", "variable", "HOME"), ("PATH=/bin",), user=user)
    said, _ = boxes.run(boxes.said(process=process))
    assert said.output.decode() == f"{owner[0]:08x}\n{owner[1]:08x}\n{home}\n"


def test_a_working_directory_is_made(boxes: Boxes) -> None:
    said, _ = boxes.run(boxes.said(process=Process(("words", "directory"), ("PATH=/bin",), cwd="/a/b")))
    assert said.output == b"/a/b\n"


@pytest.mark.parametrize(
    ("process", "message", "code"),
    [
        (Process(("nothing",), ("PATH=/bin",)), 'exec: "nothing": executable file not found in $PATH', 127),
        (Process(("/nothing",)), 'exec: "/nothing": stat /nothing: no such file or directory', 127),
        (Process(("/etc/passwd",)), 'exec: "/etc/passwd": permission denied', 126),
        (Process(("words",), user="nobody"), "unable to find user nobody: no matching entries in passwd file", 126),
        (Process(("words",), user="ann:x"), "unable to find group x: no matching entries in group file", 126),
    ],
)
def test_programs_that_cannot_start(boxes: Boxes, process: Process, message: str, code: int) -> None:
    with pytest.raises(ProcessFailure) as failure:
        boxes.run(boxes.start(process=process))
    assert (str(failure.value), failure.value.exit_code) == (message, code)


def test_other_programs_in_a_container(boxes: Boxes) -> None:
    async def run() -> None:
        vm = await boxes.start("words", "copy")
        inside = Process(("words", "say", "inside", "write", "/tmp/new", "text", "status", "3"), ("PATH=/bin",))
        assert await all_of(await vm.exec(inside)) == (b"inside\n", b"", 3)
        read = replace(inside, argv=("words", "file", "/tmp/new", "owner"), user="ann")
        assert await all_of(await vm.exec(read)) == (b"text\n000003e8\n000003e9\n", b"", 0)
        with pytest.raises(ProcessFailure, match="executable file not found"):
            await vm.exec(replace(inside, argv=("nothing",)))
        vm.main.end_input()
        assert await all_of(vm.main) == (b"", b"", 0)
        assert await vm.wait() == Ended(0)
        with pytest.raises(VmEnded):
            await vm.exec(inside)

    boxes.run(run())


def test_a_terminal(boxes: Boxes) -> None:
    async def run() -> None:
        tty = Process(("words", "terminal"), ("PATH=/bin",), tty=True, rows=33, columns=99)
        vm = await boxes.start(process=replace(tty, argv=("words", "copy")))
        said = await all_of(await vm.exec(tty))
        assert said.output == b"00210063\r\n"  # rows and columns
        resized = await vm.exec(replace(tty, argv=("words", "copy", "terminal"), open_stdin=True))
        await resized.resize(44, 55)
        await resized.write(b"\x04")
        assert (await all_of(resized)).output.endswith(b"002c0037\r\n")
        await vm.stop()
        assert await vm.wait() == Ended(137)

    boxes.run(run())


def test_signals(boxes: Boxes) -> None:
    async def run() -> None:
        vm = await boxes.start("words", "copy")
        other = await vm.exec(Process(("words", "copy"), ("PATH=/bin",), open_stdin=True))
        await other.kill(15)
        assert (await all_of(other)).code == 128 + 15
        await vm.kill(9)
        assert (await all_of(vm.main)).code == 128 + 9
        assert await vm.wait() == Ended(137)

    boxes.run(run())


def test_a_paused_container_goes_on(boxes: Boxes) -> None:
    async def run() -> None:
        vm = await boxes.start("words", "copy")
        await vm.pause()
        await vm.main.write(b"text")
        vm.main.end_input()
        with pytest.raises(RuntimeFailure):
            await vm.pause()
        await vm.resume()
        assert await all_of(vm.main) == (b"text", b"", 0)

    boxes.run(run())


def test_the_end_of_a_vm_is_the_end_of_its_programs(boxes: Boxes) -> None:
    async def run() -> None:
        vm = await boxes.start("words", "copy")
        other = await vm.exec(Process(("words", "copy"), ("PATH=/bin",), open_stdin=True))
        await vm.destroy()
        assert await other.read() is None
        with pytest.raises(VmEnded):
            await other.wait()
        assert (await vm.wait()).exit_code == 137

    boxes.run(run())


def test_init_ends_as_its_program(boxes: Boxes) -> None:
    async def run() -> None:
        vm = await boxes.start("words", "say", "child", "copy", init=True)
        assert await vm.main.read() is not None
        await vm.kill(15)  # which a program that is PID 1 itself would not notice
        assert (await all_of(vm.main)).code == 128 + 15

    boxes.run(run())


@pytest.mark.parametrize("text", ["a\0b", "a\ud800"])
def test_what_no_program_can_be_given(boxes: Boxes, text: str) -> None:
    with pytest.raises(RuntimeFailure, match=r"that a program can be given|zero character"):
        boxes.run(boxes.start("words", "say", text))


def test_directories_of_the_host(boxes: Boxes, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    mounts = (Mount(str(tmp_path), "/data"), Mount(str(tmp_path), "/fixed", read_only=True))
    argv = ("words", "file", "/data/in", "file", "/fixed/in", "write", "/data/out", "new", "write", "/fixed/not", "x")
    said, _ = boxes.run(boxes.said(*argv, mounts=mounts))
    assert said.output == b"from the host\n" * 2
    assert (tmp_path / "out").read_text() == "new\n" and not (tmp_path / "not").exists()


def test_single_files_of_the_host(boxes: Boxes, tmp_path: Path) -> None:
    """A file is seen at its place, also where there was none, and nothing that is beside it."""
    (tmp_path / "in").write_text("from the host\n")
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "link").symlink_to("in")
    mounts = (
        Mount(str(tmp_path / "in"), "/etc/passwd"),
        Mount(str(tmp_path / "link"), "/new/place/file", read_only=True),
    )
    read = ("words", "file", "/etc/passwd", "file", "/new/place/file", "write", "/etc/passwd", "new")
    said, _ = boxes.run(boxes.said(*read, mounts=mounts))
    assert said == (b"from the host\n" * 2, b"", 0)
    assert (tmp_path / "in").read_text() == "new\n"
    for path in ("/etc/secret", "/new/place/secret", "/new/place/in"):
        said, _ = boxes.run(boxes.said("words", "file", path, mounts=mounts))
        assert said == (b"", path.encode() + b"\n", 98)
    said, _ = boxes.run(boxes.said("words", "write", "/new/place/file", "x", mounts=mounts))
    assert said.code == 98
    assert (tmp_path / "in").read_text() == "new\n"
