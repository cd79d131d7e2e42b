"""A machine in a process of its own, as its host sees it. What the process says is believed as far as it is checked."""

from __future__ import annotations

import math
import os
import pickle
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypeVar
from uuid import UUID

from dbt.devices.state import StateError
from dbt.engine.priority import seconds_on_processor
from dbt.host.guest_notices import GuestNotices
from dbt.host.net_option import Net
from dbt.host.network import HubEnd
from dbt.hypervisor.carrier import Conduct, Facts, Name, Outcome, Terms, VmLost
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.channel import Channel, ChannelEnded, Late, WrongMessage
from dbt.hypervisor.process.state_files import received_state

if TYPE_CHECKING:
    from dbt.hypervisor.console_ring import ConsoleRing
    from dbt.hypervisor.limits import Limits
    from dbt.hypervisor.process.leaving import LeavingProcess
    from dbt.vm.identity import Identity
    from dbt.vm.machine import Machine
    from dbt.vm.vm_state import VmState

#: How long a process may take to answer, in seconds: to boot, to hash or to save, when told to stop, and to end.
_PATIENCE_S: Final = 120.0
_STOP_S: Final = 30.0
_END_S: Final = 5.0
#: How much CPU time a turn may take besides its own, in seconds, and how often that is looked at.
_MORE_CPU_S: Final = 2.0
_LOOK_S: Final = 0.25
#: How much of what was typed may be in a process at once, in bytes.
_MOST_TYPED: Final = 1 << 16
_KINDS: Final[dict[str, type[Exception]]] = {
    "StateError": StateError,
    "ValueError": ValueError,
    "TypeError": TypeError,
    "OSError": OSError,
}
_WITH_FILES: Final = (say.Saved, say.Files, say.DisksToCopy, say.Released)
_Answer = TypeVar("_Answer", bound=say.FromVm)


class ProcessMaker(Protocol):
    """What a machine's host needs of the carrier that made the process."""

    def reap(self, pid: int) -> int | None:
        """End a process if it has not ended. Return how it did, or None if it has been forked by another carrier."""

    def forget_lease(self, uuid: UUID) -> None:
        """Remove the lease of a process that has ended and could not do so itself."""

    def forget(self, descriptor: int) -> None:
        """Do not look at a channel any more, which is about to be closed."""

    def notice(self, line: str) -> None:
        """Tell the user something about a machine."""

    def forked(
        self,
        name: Name,
        files: Sequence[int],
        arguments: bytes,
        identity: Identity,
        console: ConsoleRing,
        nets: Sequence[Net],
        conduct: Conduct,
    ) -> ProcessVm:
        """Return a machine in the state in two files, which has another identity."""


class ProcessVm:
    """See :class:`dbt.hypervisor.carrier.Vm`."""

    facts: Facts

    def __init__(
        self, maker: ProcessMaker, uuid: UUID, pid: int, pidfd: int, channel: Channel[say.FromVm], console: ConsoleRing
    ) -> None:
        """Take over the descriptor ``pidfd`` of the process and the channel to it."""
        self._uuid = uuid
        self._maker, self.pid, self._pidfd, self._channel = maker, pid, pidfd, channel
        self._console = console
        self._disk_failures = GuestNotices(maker.notice, "failures of disks")
        self._arguments, self._is_recorded = b"", False
        self._hubs: dict[str, HubEnd] = {}
        self._sent_frames: dict[str, list[bytes]] = {}  # which leave when the turn is accounted for
        self._has_arrivals = False
        self._waits_until: int | None = None
        self._unread = 0
        self._stop_by: float | None = None  # when a turn has to be over that was interrupted
        self._lost = ""  # why there is no process any more

    def begin(self, message: say.Boot | say.Restore | say.Prepare, files: Sequence[int] = ()) -> dict[str, str]:
        """Have the process make its machine. Raise what that raises, after the end of the process. Return the measures
        of its jail that the host does not give.
        """
        try:
            booted = self.ask(message, say.Booted, files)
            self._learn(booted)
            return booted.missing
        except BaseException:
            self.close()
            raise

    def take_over(self, conduct: Conduct, booted: say.Booted | None) -> tuple[say.Done | None, str]:
        """Become the host of a process that has none, and whose machine is as ``booted`` says. Return the last turn of
        its guest, if that has ended, and why the guest must not be executed, if it may be elsewhere.
        """
        try:
            answer = self.ask(say.Attach(behaviour(conduct)), say.Attached)
            if booted is None:
                self.fail("nobody knows what it was when its guest had executed nothing")
            if answer.uuid != str(self._uuid):
                self.fail(f"it has the machine of another domain, {answer.uuid}")
        except BaseException:
            self._let_go()
            raise
        self._learn(booted)
        self._print(answer.printed, answer.written - len(answer.printed))
        return answer.ended, answer.doubt

    def _learn(self, booted: say.Booted) -> None:
        nets = tuple(Net(card.end, card.mac) for card in booted.cards)
        self.facts = Facts(booted.ticks_per_second, nets, booted.hears_outside, booted.has_limits)
        self._arguments, self._is_recorded = booted.arguments, booted.is_recorded
        for net in nets:
            kind, _, name = net.end.partition(":")
            if kind == "hub" and name not in self._hubs:
                self._hubs[name] = HubEnd(name)

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def machine(self) -> Machine:
        raise RuntimeError(f"the machine is in process {self.pid}: use the methods of its domain")

    # -- asking ----------------------------------------------------------------------------------

    def ask(
        self,
        message: say.ToVm,
        kind: type[_Answer],
        files: Sequence[int] = (),
        meanwhile: Callable[[], object] = lambda: None,
    ) -> _Answer:
        """Return the answer of a kind to a message. Raise VmLost if there is none, and what the process has raised.

        ``meanwhile`` is called while the process works. What it raises is raised when there is an answer.
        """
        self._send(message, files)
        try:
            meanwhile()
        finally:
            answer = self._receive(monotonic() + _PATIENCE_S)
        if isinstance(answer, say.Failed):
            raise _KINDS.get(answer.kind, RuntimeError)(answer.text)
        if self._channel.has_files and kind not in _WITH_FILES:
            self.fail("it sent files that nobody has asked for")
        if not isinstance(answer, kind):
            self.fail(f"it answers a {type(message).__name__} with a {type(answer).__name__}")
        return answer

    def _send(self, message: say.ToVm, files: Sequence[int] = ()) -> None:
        if self._lost:
            raise VmLost(self._lost)
        try:
            self._channel.send(message, files)
        except ChannelEnded as ended:
            self.fail(str(ended))

    def _receive(self, deadline: float | None) -> say.FromVm:
        """Return the next message that answers something."""
        while True:
            try:
                message = self._channel.receive(deadline)
            except (ChannelEnded, WrongMessage, Late) as error:
                self.fail(str(error))
            if not isinstance(message, say.Arrived):
                self._hear_pending()
                return message
            self._has_arrivals = True

    def _hear_pending(self) -> None:
        """Hear what the process has told right after an answer."""
        try:
            while (message := self._channel.receive_pending()) is not None:
                if not isinstance(message, say.Arrived):
                    self.fail(f"it says {type(message).__name__}, and nobody has asked")
                self._has_arrivals = True
        except WrongMessage as error:
            self.fail(str(error))

    def fail(self, why: str) -> NoReturn:
        """End a process that is lost."""
        if not self._lost:
            with suppress(ProcessLookupError):
                if why and not self._has_ended(0.2):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._lost = f"the process of the machine is lost: {why}{_end_text(self._maker.reap(self.pid))}"
        raise VmLost(self._lost)

    def _has_ended(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(1000 * seconds))

    # -- turns -----------------------------------------------------------------------------------

    def execute(self, terms: Terms) -> Outcome:
        """See :class:`dbt.hypervisor.carrier.Vm`. A process that is lost has failed."""
        typed = self._console.read(max(_MOST_TYPED - self._unread, 0)) or b""
        frames = {name: frames for name, end in self._hubs.items() if (frames := end.receive())}
        waits_until, self._waits_until, self._has_arrivals, self._stop_by = self._waits_until, None, False, None
        cpu_s = seconds_on_processor(self.pid)
        try:
            self._send(say.Execute(*terms, waits_until, typed, frames, self._console.kept))
            outcome = self._over(self._receive_done(terms.seconds, cpu_s))
        except VmLost as lost:
            return Outcome.failed(str(lost), 0)
        return outcome._replace(host_ns=int((seconds_on_processor(self.pid) - cpu_s) * 1e9))

    def _receive_done(self, seconds: float, cpu_s: float) -> say.Done:
        """Return the end of a turn of so many seconds, which began when the process had used ``cpu_s`` of CPU time."""
        last = math.inf if math.isinf(seconds) else monotonic() + seconds + _PATIENCE_S
        while not self._channel.has_data(_LOOK_S):
            most = math.inf if self._stop_by is None else self._stop_by
            is_late = seconds_on_processor(self.pid) > cpu_s + seconds + _MORE_CPU_S
            if is_late or monotonic() > min(last, most):
                self.fail("it does not end its turn")
        answer = self._receive(min(last, monotonic() + _PATIENCE_S))
        if not isinstance(answer, say.Done) or (answer.reason and answer.reason not in say.REASONS):
            self.fail("it ends its turn with what is no end of one")
        return answer

    def _over(self, done: say.Done) -> Outcome:
        self._unread = done.unread
        self._print(done.printed, done.lost)
        for line in done.disk_failures:
            self._disk_failures.tell(line, line)
        self._sent_frames = {name: frames for name, frames in done.frames.items() if name in self._hubs}
        return as_outcome(done)

    def _print(self, printed: bytes, lost: int) -> None:
        self._console.note_lost(max(lost, 0))
        if printed:
            self._console.write(printed)

    def interrupt(self) -> None:
        self._stop_by = monotonic() + _STOP_S
        with suppress(VmLost, ChannelEnded):
            if not self._lost:
                self._channel.send(say.Interrupt())

    def wait_until(self, tick: int) -> None:
        """See :class:`dbt.hypervisor.carrier.Vm`. It is done with the next turn, or before something else."""
        self._waits_until = tick

    def release_frames(self) -> None:
        for name, frames in self._sent_frames.items():
            self._hubs[name].send(*frames)
        self._sent_frames = {}

    @property
    def has_arrivals(self) -> bool:
        return self._has_arrivals or any(end.has_frames for end in self._hubs.values())

    @property
    def outside_events(self) -> Mapping[int, int]:
        return {descriptor: select.POLLIN for end in self._hubs.values() for descriptor in end.descriptors()}

    def limit_devices(self, limits: Limits) -> None:
        if self.facts.has_limits:
            self.ask(say.LimitDevices(pickle.dumps(limits)), say.Ready)

    def plug(self, cards: Mapping[int, int]) -> None:
        self.ask(say.Plug(list(cards)), say.Ready, list(cards.values()))

    def conduct(self, conduct: Conduct) -> None:
        self.ask(behaviour(conduct), say.Ready)

    # -- to look at ------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let the time pass of which the process has not heard yet."""
        if (tick := self._waits_until) is not None:
            self._waits_until = None
            self.ask(say.WaitUntil(tick), say.Ready)

    def press_power_key(self, reboots: bool = False) -> None:
        self.ask(say.PressPowerKey(reboots), say.Ready)

    def set_memory(self, size: int) -> None:
        self.ask(say.SetMemory(size), say.Ready)

    def state_hash(self) -> str:
        self.settle()
        return self.ask(say.Hash(), say.Value).data.decode("ascii", "replace")

    def registers(self) -> Sequence[int]:
        self.settle()
        return self.ask(say.Registers(), say.Words).registers

    def icount(self) -> int:
        return self.ask(say.Registers(), say.Words).icount

    def read(self, address: int, size: int) -> bytes:
        data = self.ask(say.Read(address, size), say.Value).data
        if len(data) != size:
            self.fail(f"it returns {len(data)} bytes of {size}")
        return data

    def write(self, address: int, data: bytes) -> None:
        self.ask(say.Write(address, data), say.Ready)

    # -- its state and its end -------------------------------------------------------------------

    def files(self, count: int) -> list[int]:
        """Return the files that came with the last answer, so many, which the caller closes."""
        try:
            return self._channel.take_files(count)
        except WrongMessage as error:
            self.fail(str(error))

    def _state_files(self) -> list[int]:
        """Return the files of its state, which the caller closes."""
        self.settle()
        self.ask(say.Save(), say.Saved)
        return self.files(2)

    def leaving(self) -> LeavingProcess:
        from dbt.hypervisor.process.leaving import LeavingProcess

        return LeavingProcess(self)

    def save(self) -> VmState:
        values, ram = self._state_files()
        return received_state(values, ram)

    @property
    def arguments(self) -> bytes:
        return self._arguments

    def fork(
        self, name: Name, identity: Identity, console: ConsoleRing, nets: Sequence[Net], conduct: Conduct
    ) -> ProcessVm:
        files = self._state_files()
        try:
            return self._maker.forked(name, files, self._arguments, identity, console, nets, conduct)
        finally:
            for file in files:
                os.close(file)

    def close(self) -> None:
        if self._is_recorded and not self._lost:
            self._end_recording()
        if not self._lost:
            with suppress(ChannelEnded):
                self._channel.send(say.End())
            if not self._has_ended(_END_S):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._maker.reap(self.pid)
        self._lost = self._lost or "it was closed"
        self._let_go()

    def _end_recording(self) -> None:
        """Let the process record where its machine is. If it cannot, the recording says that it is not complete."""
        self._is_recorded = False
        with suppress(VmLost, RuntimeError):
            self.settle()
            self.ask(say.EndRecording(), say.Ready)

    def _let_go(self) -> None:
        """Give back what this process has of the other one."""
        self._maker.forget_lease(self._uuid)
        for end in self._hubs.values():
            end.close()
        self._hubs.clear()
        if self._channel.fileno() >= 0:
            self._maker.forget(self._channel.fileno())
        self._channel.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def behaviour(conduct: Conduct) -> say.Behaviour:
    return say.Behaviour(*conduct)


def as_outcome(done: say.Done) -> Outcome:
    """Return the outcome of a turn of another process."""
    return Outcome(
        say.REASONS.get(done.reason),
        done.message,
        done.exit_code,
        done.instructions,
        done.charged,
        done.host_ns,
        done.wait_ns,
        done.now,
        done.resets,
        done.ahead,
    )


def _end_text(status: int | None) -> str:
    """Return in words how a process has ended."""
    if status is None or status == 0:
        return ""
    if status > 0:
        return f". It ended with status {status}"
    with suppress(ValueError):
        return f". It was ended by {signal.Signals(-status).name}"
    return f". It was ended by signal {-status}"
