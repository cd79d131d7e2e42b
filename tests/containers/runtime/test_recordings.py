"""Containers that are recorded, and replayed to the instruction by a process that has nothing but the recording."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbt.containers.runtime.checkpoint import copy_disk
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.recordings import RecordingPlan
from dbt.containers.runtime.replays import container_replay, read_container_recording
from dbt.containers.runtime.spec import Mount, Process, RuntimeFailure
from dbt.host.console import CaptureConsole, ConsoleError
from dbt.vm.input import RecordingError, ReplayDiverged
from dbt.vm.recording import STOPPED
from dbt.vm.result import RunResult, StopReason
from dbt.vm.state import state_hash
from tests.containers.runtime.boxes import Boxes, Said, all_of, words_layer
from tests.long import LONG


def digest_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Recorder:
    """Starts containers that are recorded below ``folder``."""

    def __init__(self, boxes: Boxes, folder: Path) -> None:
        self.boxes, self.folder = boxes, folder
        self.layers = {digest_of(path): path for path in boxes.layers}

    async def start(self, name: str, *argv: str, **fields: Any) -> ContainerVm:
        plan = RecordingPlan(str(self.folder / name), tuple(self.layers))
        return await self.boxes.runtime.start(self.boxes.spec(*argv, **fields), None, plan)

    def run(self, name: str, *argv: str, stdin: bytes = b"", **fields: Any) -> Said:
        """Run a container to its end, and return what it has said."""

        async def work() -> Said:
            vm = await self.start(name, *argv, **fields)
            await vm.main.write(stdin)
            vm.main.end_input()
            said = await all_of(vm.main)
            await vm.wait()
            await vm.gone()
            return said

        return self.boxes.run(work())

    def replay(self, name: str, notices: list[str] | None = None) -> tuple[Said, RunResult]:
        """Replay a recording. Return what the container says, and how the run ended."""
        console, told = CaptureConsole(), [] if notices is None else notices
        recorded = read_container_recording(str(self.folder / name))
        with container_replay(recorded, self.layers.get, console, told.append) as replay:
            result = replay.run(told.append)
            code = -1 if replay.port.code is None else replay.port.code
            return Said(bytes(console.output), bytes(console.errors), code), result


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    folder = tmp_path_factory.mktemp("recorded")
    boxes = Boxes(folder, (words_layer(folder),))
    yield Recorder(boxes, folder)
    boxes.close()


def test_a_replay_is_the_same_to_the_instruction(recorder: Recorder) -> None:
    """The recorded run ends with a hash of the whole state at an instruction, with which the replay is compared."""
    recorder.run("one", "words", "say", "x")
    said = recorder.run("two", "words", "say", "out", "complain", "err", "copy", "status", "3", stdin=b"typed")
    assert said == Said(b"out\ntyped", b"err\n", 3)
    again, result = recorder.replay("two")
    assert again == said
    end = read_container_recording(str(recorder.folder / "two")).recording.end
    assert end is not None and (result.icount, result.reason.value) == (end.icount, end.reason)


def test_what_came_from_a_directory_of_the_host_comes_again_without_it(recorder: Recorder, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "file").write_bytes(b"of the host\n")
    said = recorder.run("mounted", "words", "file", "/data/file", mounts=(Mount(str(shared), "/data"),))
    assert said.output.startswith(b"of the host\n")
    shutil.rmtree(shared)
    assert recorder.replay("mounted")[0] == said


def test_what_happens_meanwhile_is_input(recorder: Recorder) -> None:
    """Other programs, a pause, other limits, and the end by a signal."""

    async def work() -> Said:
        vm = await recorder.start("busy", "words", "say", "begun", "copy")
        other = await vm.exec(Process(("words", "say", "else"), ("PATH=/bin",)))
        assert (await all_of(other)).output == b"else\n"
        await vm.pause()
        await vm.resume()
        await vm.kill(9)
        said = await all_of(vm.main)
        await vm.wait()
        await vm.gone()
        return said

    said = recorder.boxes.run(work())
    assert said == Said(b"begun\n", b"", 137)
    assert recorder.replay("busy")[0] == said


def test_a_machine_that_is_killed_leaves_a_recording_that_says_so(recorder: Recorder) -> None:
    async def work() -> None:
        vm = await recorder.start("cut", "words", "say", "begun", "copy")
        said = b""
        while said != b"begun\n":
            piece = await vm.main.read()
            assert piece is not None
            said += piece[1]
        (process,) = [
            int(pid)
            for pid in os.listdir("/proc")
            if pid.isdigit() and _has_open(pid, str(recorder.folder / "cut" / "input"))
        ]
        os.kill(process, 9)
        await vm.gone()

    recorder.boxes.run(work())
    assert not read_container_recording(str(recorder.folder / "cut")).is_complete
    notices: list[str] = []
    said, _ = recorder.replay("cut", notices)
    assert said.output == b"begun\n" and any("has no end" in notice for notice in notices)


def _has_open(pid: str, path: str) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{name}") == path for name in os.listdir(f"/proc/{pid}/fd"))
    except OSError:  # it has ended, or is somebody else's
        return False


def test_a_replay_goes_back(recorder: Recorder) -> None:
    recorder.run("back", "words", "say", "x", "write", "/mark", "y", "file", "/mark")
    recorded = read_container_recording(str(recorder.folder / "back"))
    end = recorded.recording.end
    assert end is not None
    with container_replay(recorded, recorder.layers.get, CaptureConsole(), lambda line: None, goes_back=True) as replay:
        machine = replay.machine
        begin, history = machine.icount, machine.begin_history()
        half = (begin + end.icount) // 2
        assert history.run_to(half)
        there = state_hash(machine)
        result = history.run(replay.replay.fuel(machine.icount, None))
        assert result.icount == end.icount
        reasons = {result.reason, StopReason(end.reason)}
        assert len(reasons) == 1 or reasons <= set(STOPPED), "it ended by itself, or both were stopped from outside"
        assert history.run_to(half) and state_hash(machine) == there
        history.close()


def test_a_recording_that_cannot_be_written_is_no_start(recorder: Recorder) -> None:
    (recorder.folder / "taken").mkdir()
    with pytest.raises(RuntimeFailure, match="taken cannot be written: File exists"):
        recorder.boxes.run(recorder.start("taken", "words"))


@pytest.fixture
def copy(recorder: Recorder, tmp_path: Path) -> Recorder:
    """A copy of a recording, which may be changed: it is called ``copy``."""
    if not (recorder.folder / "plain").exists():
        recorder.run("plain", "words", "say", "x")
    shutil.copytree(recorder.folder / "plain", tmp_path / "copy", copy_function=copy_disk)  # with its holes
    made = Recorder(recorder.boxes, tmp_path)
    made.layers = dict(recorder.layers)
    return made


def test_a_layer_that_is_gone_is_named(copy: Recorder) -> None:
    digest = next(iter(copy.layers))
    copy.layers.clear()
    with pytest.raises(RecordingError, match=f"the layer {digest} is not in the store any more"):
        copy.replay("copy")


def test_another_disk_is_refused(copy: Recorder) -> None:
    with open(copy.folder / "copy" / "disk", "r+b") as file:
        file.seek(2048)
        file.write(b"else")
    with pytest.raises(RecordingError, match="the disk is not the one that it names"):
        copy.replay("copy")


def _with_header(line: bytes, name: str, value: object) -> bytes:
    header = json.loads(line)
    origin = header["origin"]
    (origin if name in origin else header)[name] = value
    return json.dumps(header).encode()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("dbt-container-recording", 2, "has format 2"),
        ("dbt-container-recording", None, "has format None"),
        ("origin", None, "no recording of a container"),
        ("layers", ["../../etc/passwd"], "no recording of a container"),
        ("layers", [], "another one than that of the recording"),
        ("addresses", ["AAAA"], "no recording of a container"),
        ("memory", 1 << 40, "no recording of a container"),
        ("wall_clock", (1 << 40) - 1, "damaged"),
        ("rng_seed", -1, "no recording"),
        ("state", "0" * 64, "another one than that of the recording"),
        ("dbt", "0.0.1", "dbt's version is 0.1.0 here and was 0.0.1"),
    ],
)
def test_a_header_that_says_otherwise_is_refused(copy: Recorder, name: str, value: object, text: str) -> None:
    path = copy.folder / "copy" / "input"
    head, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(_with_header(head, name, value) + b"\n" + rest)
    with pytest.raises(RecordingError, match=text):
        copy.replay("copy")


def test_parts_that_are_no_files_are_refused(copy: Recorder) -> None:
    path = copy.folder / "copy" / "input"
    path.rename(copy.folder / "else")
    path.symlink_to(copy.folder / "else")
    with pytest.raises(RecordingError, match="no files"):
        copy.replay("copy")
    path.unlink()
    with pytest.raises(RecordingError, match="No such file"):
        copy.replay("copy")


@pytest.mark.parametrize("seed", range(60 if LONG else 6))
def test_a_changed_recording_is_refused_or_differs(copy: Recorder, seed: int) -> None:
    """Whatever has been changed in the lines behind the first one, the replay says so, or repeats a run."""
    path, draw = copy.folder / "copy" / "input", random.Random(seed)
    head, *lines = path.read_bytes().splitlines(keepends=True)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        match draw.randrange(5):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[draw.randrange(len(lines))])
            case 2:
                lines[at] = lines[at][: draw.randrange(len(lines[at]))]
            case 3:
                place = draw.randrange(len(lines[at]))
                lines[at] = lines[at][:place] + bytes([draw.randrange(256)]) + lines[at][place + 1 :]
            case _:
                lines[at] = re.sub(rb"\d+", lambda found: b"%d" % (int(found[0]) + draw.randint(-2, 9)), lines[at])
    path.write_bytes(head + b"".join(lines))
    with contextlib.suppress(RecordingError, ReplayDiverged, ConsoleError):
        copy.replay("copy")
