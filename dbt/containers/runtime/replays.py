"""Replays of recordings of containers (:mod:`dbt.containers.runtime.recordings`), in this process.

A replay asks nobody: no engine, no network, none of the host's directories. It has the Linux guest's template, the
image's layers by their digests, and what is in the recording. Anybody may have made that, so it is checked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import msgspec

from dbt.abi.version import VERSION
from dbt.containers.runtime.checkpoint import copy_disk
from dbt.containers.runtime.recordings import DISK, FORMAT, INPUT, Origin, disk_digest
from dbt.host.drive import Drive
from dbt.host.net_option import NOWHERE, Net
from dbt.linux.console import exit_status
from dbt.linux.protocol import Frame, FrameReader, FromGuest
from dbt.linux.template import Hardware, container_shares, read_template
from dbt.vm.identity import Identity, with_identity
from dbt.vm.input import RecordingError
from dbt.vm.machine import Machine
from dbt.vm.recording import Recording, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import RunResult
from dbt.vm.vm_state import VmState

if TYPE_CHECKING:
    from dbt.host.console import Console
    from dbt.vm.options import HostOptions

_MAIN: Final = 0


class RecordedContainer(NamedTuple):
    """A recording that has been read: its directory, what the machine was made of, and its input."""

    folder: str
    origin: Origin
    recording: Recording

    @property
    def is_complete(self) -> bool:
        """False if the container, or its engine's host, was killed: then it says nothing about the end."""
        return self.recording.end is not None


def read_container_recording(folder: str) -> RecordedContainer:
    """Return the recording in a directory. Raise RecordingError for what is none."""
    path = os.path.join(folder, INPUT)
    try:
        kinds = [os.lstat(os.path.join(folder, name)).st_mode for name in (INPUT, DISK)]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordingError(f"{folder}: this is no recording of a container: {reason}") from None
    if not all(map(stat.S_ISREG, kinds)):
        raise RecordingError(f"{folder}: this is no recording of a container: its parts are no files")
    recording = read_recording(path)
    try:
        version = recording.origin["dbt-container-recording"]  # type: ignore[index]
        if version != FORMAT:
            raise RecordingError(f"{folder}: the recording has format {version!r:.20}, and this dbt reads {FORMAT}")
        origin = msgspec.convert(recording.origin, Origin)
    except (msgspec.ValidationError, TypeError, KeyError) as error:
        raise RecordingError(f"{folder}: this is no recording of a container: {error}") from None
    return RecordedContainer(folder, origin, recording)


class ReplayedPort:
    """The console of the machine: the port to its agent, of which the program's output goes to ``streams``.

    It is a :class:`dbt.host.console.Console`, and so is ``streams``. ``code`` is the program's exit code, as docker
    counts, when it has ended.
    """

    def __init__(self, streams: Console) -> None:
        self._streams = streams
        self._reader = FrameReader()
        self.code: int | None = None

    def write(self, data: bytes) -> None:
        for one in self._reader.feed(data):
            if one.session == _MAIN and self.code is None:
                self._take(one)

    def _take(self, one: Frame) -> None:
        if one.kind is FromGuest.OUTPUT:
            (self._streams.write if one.stream == 1 else self._streams.write_error)(one.value)
        elif one.kind is FromGuest.ENDED:
            self.code = exit_status(one.number & 0xFFFF)[0]

    def write_error(self, data: bytes) -> None:
        """Take messages of the guest's kernel, which are nobody's."""

    def read(self, size: int) -> bytes | None:
        return b""

    def arrived(self) -> bool:
        return False

    @property
    def ended(self) -> bool:
        return True

    def wait(self, seconds: float) -> None:
        """Return at once: what comes has a time."""

    def flush(self) -> None:
        self._streams.flush()


class ContainerReplay:
    """The machine of a recorded container, before its first instruction. ``port`` has the program's exit code."""

    def __init__(self, machine: Machine, replay: Replay, port: ReplayedPort) -> None:
        self.machine, self.replay, self.port = machine, replay, port

    def run(self, notice: Callable[[str], None]) -> RunResult:
        """Repeat all of it. Return the end of the recorded run, or where the recording stops, of which ``notice`` is
        told. Raise ReplayDiverged.
        """
        machine, replay = self.machine, self.replay
        is_unknown = replay.recording.end is None and replay.recording.reached is None
        result = machine.run(0 if is_unknown else replay.fuel(machine.icount, None))
        return replay.compare(machine, result, notice)


@contextmanager
def container_replay(
    recorded: RecordedContainer,
    find_layer: Callable[[str], str | None],
    streams: Console,
    notice: Callable[[str], None],
    options: HostOptions | None = None,
    goes_back: bool = False,
) -> Iterator[ContainerReplay]:
    """Have the machine of a recorded container. ``find_layer`` returns the file of a layer by its digest, or None.
    ``options`` are more of the machine, such as its tier. Raise RecordingError.

    A machine that ``goes_back`` keeps what its guest writes to the disk as a part of its state. So its states are not
    those of the recording, and cannot be compared with them.
    """
    origin = recorded.origin
    layers = [_layer(recorded.folder, digest, find_layer) for digest in origin.layers]
    with TemporaryDirectory(prefix="dbt-replay-") as folder:
        disk = os.path.join(folder, DISK)
        _copy(recorded, disk)
        port = ReplayedPort(streams)
        host: HostOptions = {
            **(options or {}),
            "notice": notice,
            "console": port,
            "drives": [
                Drive(disk, snapshot=goes_back),
                Drive(layers[0], read_only=True, more=tuple(layers[1:])) if layers else Drive("", read_only=True),
            ],
            "nets": [Net(NOWHERE, address) for address in origin.addresses],
            "shares": container_shares({}),
        }
        identity = Identity(UUID(int=0), origin.rng_seed, tuple(origin.addresses), origin.wall_clock)
        with read_template(Hardware(origin.memory, for_container=True), notice) as template:
            try:
                values = with_identity(template.values, identity)
            except ValueError as error:
                raise RecordingError(f"{recorded.folder}: the recording is damaged: {error}") from None
            machine = Machine.restore(VmState(values, template.ram), **host)
        with machine:
            here = identify(machine, VERSION)
            if goes_back:
                here = replace(here, state=recorded.recording.identity.state)
            if here.state != recorded.recording.identity.state and here.dbt == recorded.recording.identity.dbt:
                raise RecordingError(
                    f"{recorded.folder}: the Linux guest of this dbt is another one than that of the recording, which "
                    "can be replayed by the dbt that made it"
                )
            replay = Replay(recorded.recording, here)
            machine.attach_input(replay)
            yield ContainerReplay(machine, replay, port)


def _layer(folder: str, digest: str, find_layer: Callable[[str], str | None]) -> str:
    path = find_layer(digest)
    if path is None:
        raise RecordingError(
            f"{folder}: the layer {digest} is not in the store any more: get an image that has it, and try again"
        )
    return path


def _copy(recorded: RecordedContainer, disk: str) -> None:
    try:
        copy_disk(os.path.join(recorded.folder, DISK), disk)
        digest = disk_digest(disk)
    except OSError as error:
        raise RecordingError(f"{recorded.folder}: the disk of the recording cannot be copied: {error}") from None
    if digest != recorded.origin.disk:
        raise RecordingError(f"{recorded.folder}: the recording is damaged: the disk is not the one that it names")
