"""Recordings of a guest's input and of its times, by which the same run can be repeated.

A recording is a text file of JSON lines. The first line says what was run. Then there is a line for each delivery of
input (:class:`Delivery`), for what came for other receivers (:class:`DatedArrival`), for the outcome of each request to
a shared directory (:class:`Answered`), and for each time that virtual time was raised to the host's
(:class:`PassedTime`). A run in turns may also say how far it has got after each. If the run ended in an orderly way, a
last line is about its end. Each line is written at once, so the recording of a process that was killed lacks only its
end. Bytes are written as characters of Latin-1, those of
outcomes in base64. A recording does not depend on the tier.

What a guest reads from files by semihosting (``--files``) is not recorded. These files must not change.
"""

from __future__ import annotations

import json
import os
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dbt.board.clock import END_OF_EPOCHS, INSN_NS_CHOICES
from dbt.board.files import read_bounded
from dbt.devices.virtio.ninep import Outcome
from dbt.vm.input import AccessCounter, Arrival, InputSource, RecordingError
from dbt.vm.playback import ANSWER, ARRIVAL, READ, TIME, UART, Answered, DatedArrival, Delivery, Item, PassedTime
from dbt.vm.result import RunResult, StopReason
from dbt.vm.state import state_hash

if TYPE_CHECKING:
    from dbt.vm.machine import Machine

_FORMAT = 7
#: Bytes of the largest recording that is read.
_LARGEST_RECORDING = 1 << 30

#: What times in ticks and other counts are less than, so that the sum of two has 63 bits.
_LIMIT = 1 << 62
#: The reasons for which a run is stopped from outside, at an icount that the recording states.
STOPPED = (StopReason.FUEL, StopReason.TIMEOUT, StopReason.INTERRUPTED)


# -- what was run --------------------------------------------------------------------------------


class Position(NamedTuple):
    """Where a machine stands in its input: the virtual time in ticks, the bytes that its UART and semihosting have
    got, and how many requests to shared directories were answered.
    """

    now: int = 0
    arrived: int = 0
    received: int = 0
    asked: int = 0

    @classmethod
    def of(cls, machine: Machine) -> Position:
        return cls(
            machine.timeline.now,
            machine.board.console.arrived,
            machine.semihosting.received,
            machine.attachments.asked,
        )


#: Where a machine stands after a reset.
BEGINNING = Position()


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Everything that determines a run besides its input. ``state`` is the state hash before the first instruction, and
    ``position`` is where the machine stands then. Each of the ``shares`` is a tag and whether it is read-only.
    """

    dbt: str
    memory: int
    board: str
    cpu: str
    epoch: int
    insn_ns: float
    rng_seed: int
    semihosting: bool
    files: bool
    command_line: str
    state: str
    position: Position = BEGINNING
    shares: tuple[tuple[str, bool], ...] = ()

    def is_later(self, other: RunIdentity) -> bool:
        """Return True if this machine is further than one at the beginning of ``other``."""
        return self.position.now > other.position.now

    def differences(self, other: RunIdentity) -> str:
        """Return in words how this run differs from ``other``, which was recorded, or an empty text if it does not.

        The states are not compared if this machine is further.
        """
        texts = []
        for name, mine in asdict(self).items():
            theirs = getattr(other, name)
            if mine != theirs and name in _IN_WORDS:
                texts.append(f"{_IN_WORDS[name]} is {_show(mine)} here and was {_show(theirs)}")
        if not texts and self.state != other.state and not self.is_later(other):
            texts.append("it is another program, or what goes with it (its disk, device tree, command line) is")
        return "; ".join(texts)


_IN_WORDS = {
    "dbt": "dbt's version",
    "memory": "the size of the RAM",
    "board": "the board",
    "cpu": "the processor",
    "epoch": "the time of day at the start",
    "insn_ns": "the time of an instruction in ns",
    "rng_seed": "the seed of random numbers",
    "semihosting": "semihosting",
    "files": "access to files",
    "shares": "the list of shared directories",
    "command_line": "the program's name and arguments",
}


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{tag},ro" if read_only else tag for tag, read_only in value) or "empty"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def identify(machine: Machine, version: str) -> RunIdentity:
    """Return what a loaded machine is about to run. ``version`` is that of dbt."""
    host = machine.semihosting
    return RunIdentity(
        version,
        machine.ram.size,
        machine.options.board_model.name,
        machine.cpu_model,
        host.epoch,
        machine.timeline.insn_ns,
        machine.options.rng_seed,
        machine.semihosting_enabled,
        host.jail is not None,
        host.command_line.decode("latin-1"),
        state_hash(machine),
        Position.of(machine),
        tuple((share.tag, share.read_only) for share in machine.options.shares),
    )


# -- to record -----------------------------------------------------------------------------------


class RecordingNotWritten(RecordingError):
    """Raised if a recording cannot be written. ``cause`` is the error of the host, or of its name."""

    def __init__(self, message: str, cause: OSError | ValueError) -> None:
        super().__init__(message)
        self.cause = cause


class RecordedInput:
    """An input source that notes what another one delivers: ``note`` gets it, piece by piece."""

    def __init__(self, inner: InputSource) -> None:
        self._inner = inner
        self._accesses = AccessCounter()

    def _note(self, item: Item) -> None:
        raise NotImplementedError

    @property
    def next_delivery(self) -> int | None:
        return self._inner.next_delivery

    @property
    def ended(self) -> bool:
        return self._inner.ended

    def due(self, now: int) -> int | None:
        return self._inner.due(now)

    def pass_time(self, now: int, behind: int) -> int:
        ticks = self._inner.pass_time(now, behind)
        if ticks:
            self._note(PassedTime(now, ticks))
        return ticks

    def poll(self, now: int, room: int, access: bool = False) -> bytes:
        number = self._accesses.number(now, access)
        data = self._inner.poll(now, room, access)
        if data:
            self._note(Delivery(UART, now, data, number))
        return data

    def read(self, now: int, size: int) -> bytes | None:
        data = self._inner.read(now, size)
        if data is not None:
            self._note(Delivery(READ, now, data))
        return data

    def arrivals(self, now: int) -> Sequence[Arrival]:
        found = self._inner.arrivals(now)
        for arrival in found:
            self._note(DatedArrival(now, arrival))
        return found

    @property
    def has_arrivals(self) -> bool:
        return self._inner.has_arrivals

    def ask(self, now: int, operation: Callable[[], bytes]) -> bytes:
        outcome = self._inner.ask(now, operation)
        self._note(Answered(now, outcome))
        return outcome

    def wait(self, seconds: float) -> None:
        self._inner.wait(seconds)


class Recorder(RecordedInput):
    """An input source that records what another one delivers in a file."""

    def __init__(
        self,
        inner: InputSource,
        path: str,
        identity: RunIdentity,
        origin: Mapping[str, object] | None = None,
        file: int | None = None,
    ) -> None:
        """Begin a recording, which replaces an existing file. Raise RecordingError if it cannot be written.

        ``origin`` says how the run was made, as a JSON object. It is for whoever reads the recording. ``file`` is the
        descriptor of an empty file that is open already, and becomes the recorder's.
        """
        super().__init__(inner)
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        try:
            self._file = os.open(path, flags, 0o666) if file is None else file
        except (OSError, ValueError) as error:
            raise self._failure(error) from None
        self._write({"dbt-recording": _FORMAT, **asdict(identity), "origin": origin})

    def _note(self, item: Item) -> None:
        match item:
            case PassedTime(now, ticks):
                self._write([TIME, now, ticks])
            case DatedArrival(now, (receiver, data)):
                self._write([ARRIVAL, now, receiver, data.decode("latin-1")])
            case Answered(now, outcome):
                self._write([ANSWER, now, b2a_base64(outcome, newline=False).decode()])
            case Delivery("uart", now, data, number):
                self._write([UART, now, data.decode("latin-1"), number])
            case Delivery(_, now, data):
                self._write([READ, now, data.decode("latin-1")])

    def position(self) -> object:
        """See :class:`dbt.vm.input.PositionedInput`."""
        return None

    def go_back(self, position: object) -> None:
        """Raise RecordingError: what is in the file has been recorded."""
        raise RecordingError(f"{self._path}: a machine that is being recorded cannot be rolled back")

    def mark(self, icount: int) -> None:
        """Record that the guest has executed so many instructions, as far as a recording without an end is repeated."""
        self._write(["reached", icount])

    def end(self, machine: Machine, result: RunResult) -> None:
        """Record how the run ended. Nothing may be recorded afterwards."""
        self._write(["end", asdict(End.of(machine, result, result.reason.value))])
        self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, line: object) -> None:
        view = memoryview(json.dumps(line).encode() + b"\n")
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self.close()  # what comes later would make no sense without this
            raise self._failure(error) from None

    def _failure(self, error: OSError | ValueError) -> RecordingNotWritten:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return RecordingNotWritten(f"{self._path}: the recording cannot be written: {reason}", error)


# -- to read -------------------------------------------------------------------------------------


def settled_hash(machine: Machine) -> str:
    """Return the state hash of a machine that does not execute, after the devices have done what is due.

    They do it before the guest goes on, but a machine may have been stopped before or after that.
    """
    machine.timeline.run_due()
    return state_hash(machine)


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended. ``now`` is the virtual time in ticks, and ``state`` the state hash at the end."""

    icount: int
    now: int
    reason: str
    exit_code: int | None
    state: str

    @classmethod
    def of(cls, machine: Machine, result: RunResult, reason: str) -> End:
        """Return the end of a run that has just returned ``result``. ``reason`` is a value of :class:`StopReason`."""
        return cls(result.icount, machine.timeline.now, reason, result.exit_code, settled_hash(machine))

    def describe(self) -> str:
        code = "" if self.exit_code is None else f" with {self.exit_code}"
        return f"{self.reason}{code} after {self.icount} instructions"


@dataclass(frozen=True, slots=True)
class Recording:
    """The content of a recording. ``deliveries`` and ``passed`` are in the order in which they came. ``origin`` is what
    the recorder was given, or anything else: it is not checked. ``reached`` is the last instruction count that the run
    is known to have got to, if it says so.
    """

    path: str
    identity: RunIdentity
    deliveries: tuple[Delivery, ...]
    end: End | None
    passed: tuple[PassedTime, ...] = ()
    arrivals: tuple[DatedArrival, ...] = ()
    origin: object = None
    answers: tuple[Answered, ...] = ()
    reached: int | None = None


def read_recording(path: str) -> Recording:
    """Return the recording in a file, without a line that is not complete. Raise RecordingError if the file is none."""
    try:
        lines = read_bounded(path, lambda head: _LARGEST_RECORDING).split(b"\n")[:-1]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RecordingError(f"{path}: the recording cannot be read: {reason}") from None
    identity, origin = _read_header(path, lines[0] if lines else b"")
    deliveries: list[Delivery] = []
    passed: list[PassedTime] = []
    arrivals: list[DatedArrival] = []
    answers: list[Answered] = []
    end: End | None = None
    reached: int | None = None
    for number, line in enumerate(lines[1:], 2):
        try:
            item = json.loads(line)
            if type(item) is not list or any(type(value) is bool or _is_out_of_range(value, _LIMIT) for value in item):
                raise ValueError("no line of a recording")
            match item:
                case ["uart", int(time), str(text), int(access)] if end is None:
                    deliveries.append(Delivery(UART, time, text.encode("latin-1"), access))
                case ["read", int(time), str(text)] if end is None:
                    deliveries.append(Delivery(READ, time, text.encode("latin-1")))
                case ["time", int(time), int(ticks)] if end is None and ticks > 0:
                    passed.append(PassedTime(time, ticks))
                case ["arrival", int(time), str(receiver), str(text)] if end is None:
                    arrivals.append(DatedArrival(time, Arrival(receiver, text.encode("latin-1"))))
                case ["answer", int(time), str(text)] if end is None:
                    answers.append(Answered(time, a2b_base64(text, strict_mode=True)))
                    Outcome.unpack(answers[-1].outcome)
                case ["reached", int(icount)] if end is None and icount >= (reached or 0):
                    reached = icount
                case ["end", dict(fields)] if end is None:
                    end = End(**_typed(fields, _END_FIELDS))
                    StopReason(end.reason)
                case _:
                    raise ValueError("no line of a recording")
        except (ValueError, TypeError, KeyError, RecursionError):
            raise RecordingError(f"{path}: the recording is damaged in line {number}") from None
    found = (tuple(passed), tuple(arrivals), origin, tuple(answers), reached)
    return Recording(path, identity, tuple(deliveries), end, *found)


_END_FIELDS: Mapping[str, tuple[type, ...]] = {
    "icount": (int,),
    "now": (int,),
    "reason": (str,),
    "exit_code": (int, type(None)),
    "state": (str,),
}
_IDENTITY_FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("dbt", "board", "cpu", "command_line", "state"), (str,)),
    **dict.fromkeys(("memory", "epoch", "rng_seed"), (int,)),
    "insn_ns": (int, float),
    **dict.fromkeys(("semihosting", "files"), (bool,)),
}


def _is_out_of_range(value: object, limit: int) -> bool:
    return isinstance(value, int) and not 0 <= value < limit


def _typed(fields: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    found = [(fields[name], allowed) for name, allowed in types.items()]
    if not all(type(value) in allowed and not _is_out_of_range(value, 2 * _LIMIT) for value, allowed in found):
        raise TypeError
    return {name: fields[name] for name in types}


def _position(values: object) -> Position:
    if type(values) is not list or any(type(value) is not int or _is_out_of_range(value, _LIMIT) for value in values):
        raise TypeError
    return Position(*values)


def _shares(values: object) -> tuple[tuple[str, bool], ...]:
    if type(values) is not list:
        raise TypeError
    shares = []
    for value in values:
        match value:
            case [str(tag), bool(read_only)]:
                shares.append((tag, read_only))
            case _:
                raise TypeError
    return tuple(shares)


def _read_header(path: str, line: bytes) -> tuple[RunIdentity, object]:
    try:
        header = json.loads(line)
        version = header["dbt-recording"]
        if version == _FORMAT:
            identity = RunIdentity(
                **_typed(header, _IDENTITY_FIELDS),
                shares=_shares(header["shares"]),
                position=_position(header["position"]),
            )
            if not 0 <= identity.epoch < END_OF_EPOCHS or identity.insn_ns not in INSN_NS_CHOICES:
                raise ValueError
            return identity, header.get("origin")
    except (ValueError, TypeError, KeyError, RecursionError):
        raise RecordingError(f"{path}: this is no recording of dbt") from None
    raise RecordingError(f"{path}: this recording has format {version}, and this dbt knows format {_FORMAT}")
