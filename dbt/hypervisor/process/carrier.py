"""The carrier that gives each machine a process of its own."""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING
from uuid import UUID

from dbt.hypervisor.carrier import Boot, Conduct, Found, Name, RecordingFile, VmLost
from dbt.hypervisor.jail.measures import Strictness
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.attaching import connect, end_others, machine_of
from dbt.hypervisor.process.channel import Channel, ChannelEnded
from dbt.hypervisor.process.lease import check_directory, lease_path, read_lease
from dbt.hypervisor.process.process_vm import ProcessVm, as_outcome, behaviour
from dbt.hypervisor.process.state_files import StateEncoder
from dbt.hypervisor.process.zygote_start import take_zygote
from dbt.hypervisor.threads import silent
from dbt.memory.closing import Closing

if TYPE_CHECKING:
    from dbt.host.net_option import Net
    from dbt.hypervisor.console_ring import ConsoleRing
    from dbt.hypervisor.process.arriving import ArrivingProcesses
    from dbt.vm.identity import Identity
    from dbt.vm.options import HostOptions
    from dbt.vm.vm_state import VmState


class NotSent(ValueError):
    """Raised for a function that boots a machine and cannot be sent to a process. The text has the remedy."""


class ProcessCarrier(Closing):
    """See :class:`dbt.hypervisor.carrier.Carrier`. The processes are forked from a *zygote*, which is started for the
    first machine.

    ``directory`` is where machines have their leases (:mod:`dbt.hypervisor.process.lease`). They go on without this
    process then, and :meth:`attach` finds them again. Without it, they end with this process.

    The function that boots a machine is sent to its process, so it has to be one that :mod:`pickle` can send: one of a
    module, such a function with arguments (:func:`functools.partial`), or an object of a module's class. ``modules``
    are imported by the zygote, so that what this function needs is shared.

    ``jail`` says how strict the processes' jails are (:mod:`dbt.hypervisor.jail`): "on", "strict" or "off". ``notice``
    is told once of each measure that the host does not give, and of requests of disks that the host cannot do.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        modules: Sequence[str] = (),
        jail: Strictness | str = Strictness.ON,
        notice: Callable[[str], None] = silent,
    ) -> None:
        self._strictness, self.notice = Strictness(jail), notice
        self._told: set[str] = set()
        self._directory = "" if directory is None else os.path.abspath(os.fspath(directory))
        if self._directory:
            check_directory(self._directory)
        self._modules = list(modules)
        self._zygote: subprocess.Popen[bytes] | None = None
        self._channel: Channel[say.FromZygote] | None = None
        self._asking = Lock()
        self._encoder = StateEncoder()
        self._epoll = select.epoll()
        self._watched: dict[int, str] = {}  # by the descriptors of their channels, the names of domains

    # -- the zygote ------------------------------------------------------------------------------

    def _ask(self, message: say.ToZygote, files: Sequence[int] = ()) -> say.FromZygote:
        with self._asking:
            try:
                return self._asked(message, files)
            except ChannelEnded:  # somebody has ended it, as a host without memory does: another one takes its place
                self._end_zygote()
                return self._asked(message, files)

    def _asked(self, message: say.ToZygote, files: Sequence[int] = ()) -> say.FromZygote:
        channel = self._started()
        channel.send(message, files)
        return channel.receive()

    def _started(self) -> Channel[say.FromZygote]:
        if self._channel is None:
            self._channel = self._start()
        return self._channel

    def _end_zygote(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._zygote is not None:
            self._zygote.wait()  # it ends when nobody is at the other end
            self._zygote = None

    def prepare(self) -> None:
        """Start what the processes are forked from, which the first machine would wait for."""
        with self._asking:
            self._started()

    def _start(self) -> Channel[say.FromZygote]:
        self._zygote, connection = take_zygote()
        channel: Channel[say.FromZygote] = Channel(connection, say.FromZygote)
        path = [entry or os.getcwd() for entry in sys.path]
        channel.send(say.Preload(path, self._modules, self._strictness.value))
        channel.receive()
        return channel

    def _spawned(self, name: Name, console: ConsoleRing) -> ProcessVm:
        """Return a new process, which has no machine yet."""
        ours, theirs = socket.socketpair()
        with theirs:
            answer = self._ask(
                say.Spawn(name.name, str(name.uuid), self._directory, self._strictness.value), [theirs.fileno()]
            )
        if not isinstance(answer, say.Spawned):
            ours.close()
            raise OSError(f"no process for the domain {name.name} can be forked: {getattr(answer, 'text', answer)}")
        channel: Channel[say.FromVm] = Channel(ours, say.FromVm)
        return self._watch(name, ProcessVm(self, name.uuid, answer.pid, os.pidfd_open(answer.pid), channel, console))

    def _watch(self, name: Name, vm: ProcessVm) -> ProcessVm:
        self._watched[vm.fileno()] = name.name
        self._epoll.register(vm, select.EPOLLIN)
        return vm

    def forget_lease(self, uuid: UUID) -> None:
        """See :class:`dbt.hypervisor.process.process_vm.ProcessMaker`."""
        if self._directory:
            read_lease(lease_path(self._directory, uuid))

    def forget(self, descriptor: int) -> None:
        """See :class:`dbt.hypervisor.process.process_vm.ProcessMaker`."""
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def stirring(self) -> Sequence[str]:
        """See :class:`dbt.hypervisor.carrier.Carrier`."""
        return [self._watched[file] for file, _ in self._epoll.poll(0) if file in self._watched]

    def fork_ahead(self, vm: ProcessVm) -> None:
        """Have a process for the next machine from now on before it is asked for, which has copied the pages that the
        process of this one has written to. Raise VmLost, and RuntimeError if that is not possible.
        """
        vm.ask(say.Written(), say.Files)
        self._give(say.ForkAhead(), vm.files(1))

    def make_model(self, vm: ProcessVm) -> None:
        """Let machines share what they have in memory as it is in the process of this one, which has been restored as
        they are. It may have met nothing that others must not see. Raise VmLost, and RuntimeError if there is a model
        already, or if none can be made of this process.
        """
        vm.ask(say.Heap(), say.Files)
        self._give(say.Model(), vm.files(1))

    def keep_code(self, vm: ProcessVm) -> None:
        """Let machines that are restored as this one was begin with the code that it has decoded and stitched since. It
        may have met nothing of somebody else's. Raise VmLost, and RuntimeError if there is such code already, or if it
        cannot be had.
        """
        if not vm.ask(say.Code(), say.Files).count:
            raise RuntimeError("the machine has no code that others could have")
        self._give(say.HaveCode(), vm.files(1))

    def _give(self, message: say.Model | say.HaveCode | say.ForkAhead, files: Sequence[int]) -> None:
        """Give files that a machine's process has sent to the zygote. Raise RuntimeError if it does not take them."""
        try:
            answer = self._ask(message, files)
        except ChannelEnded:
            raise RuntimeError("what machines are forked from has ended") from None
        finally:
            for file in files:
                os.close(file)
        if isinstance(answer, say.Failed):
            raise RuntimeError(answer.text)

    @property
    def outside_events(self) -> Mapping[int, int]:
        """See :class:`dbt.hypervisor.carrier.Carrier`."""
        return {self._epoll.fileno(): select.POLLIN}

    def reap(self, pid: int) -> int | None:
        """End a process if it has not ended. Return how it did, or None if it has been forked by another carrier."""
        with self._asking:
            if self._channel is None:
                return None
            try:
                answer = self._asked(say.Reap(pid))
            except ChannelEnded:  # with it went what it knew
                self._end_zygote()
                return None
        return answer.status if isinstance(answer, say.Reaped) else None

    def close(self) -> None:
        """End the zygote. The machines must have been closed, or go on without this process."""
        with self._asking:
            self._end_zygote()

    # -- machines --------------------------------------------------------------------------------

    def boot(self, name: Name, boot: Boot, console: ConsoleRing, conduct: Conduct) -> ProcessVm:
        """See :class:`dbt.hypervisor.carrier.Carrier`. Raise NotSent for a function that cannot be sent."""
        try:
            pickled = pickle.dumps(boot)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise NotSent(
                f"the function that boots the domain {name.name} cannot be sent to a process ({error}): use one of a "
                "module, or functools.partial of such a one"
            ) from None
        return self._begun(name, say.Boot(pickled, behaviour(conduct)), (), console)

    def arguments(self, options: HostOptions) -> bytes:
        return pickle.dumps(options)

    def restore(
        self,
        name: Name,
        state: VmState,
        arguments: object,
        console: ConsoleRing,
        conduct: Conduct,
        identity: Identity | None = None,
        recording: RecordingFile | None = None,
    ) -> ProcessVm:
        assert isinstance(arguments, bytes)
        packed = b"" if identity is None else pickle.dumps(identity)
        recorded = b"" if recording is None else pickle.dumps((recording.path, recording.origin))
        files = self._encoder.files(state)
        more = () if recording is None else (recording.file,)
        try:
            message = say.Restore(arguments, packed, b"", behaviour(conduct), recorded, state.ram.parts)
            return self.restored(name, (*files, *more), message, console)
        finally:
            for file in files:
                os.close(file)

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
        message = say.Restore(arguments, pickle.dumps(identity), pickle.dumps(tuple(nets)), behaviour(conduct))
        return self.restored(name, files, message, console)

    def restored(self, name: Name, files: Sequence[int], message: say.Restore, console: ConsoleRing) -> ProcessVm:
        return self._begun(name, message, files, console)

    def _begun(
        self, name: Name, message: say.Boot | say.Restore | say.Prepare, files: Sequence[int], console: ConsoleRing
    ) -> ProcessVm:
        vm = self._spawned(name, console)
        for measure, why in vm.begin(message, files).items():
            if measure not in self._told:
                self._told.add(measure)
                self.notice(f"the processes of machines are jailed without {measure}: {why}")
        return vm

    def arriving(self, name: Name, options: HostOptions, console: ConsoleRing, conduct: Conduct) -> ArrivingProcesses:
        from dbt.hypervisor.process.arriving import ArrivingProcesses

        def prepared(values: int) -> ProcessVm:
            return self._begun(name, say.Prepare(pickle.dumps(options), behaviour(conduct)), [values], console)

        return ArrivingProcesses(prepared, options)

    def attach(self, name: Name, console: ConsoleRing, conduct: Conduct) -> Found | None:
        if not self._directory:
            return None
        had_one = os.path.exists(lease_path(self._directory, name.uuid))
        found = connect(self._directory, name.uuid)
        if found is None:
            if had_one:
                self.notice(f"the machine of the domain {name.name} has ended while no host was there")
            return None
        vm = self._watch(name, ProcessVm(self, name.uuid, found.pid, found.pidfd, found.channel, console))
        ended, doubt = vm.take_over(conduct, machine_of(self._directory, name.uuid))
        return Found(vm, None if ended is None else as_outcome(ended), doubt)

    def end_others(self, kept: Collection[UUID]) -> list[str]:
        """End the machines in the directory of leases that nobody attaches to, but for those of the domains that are
        ``kept``. Return the names of the others.
        """
        return end_others(self._directory, kept) if self._directory else []


__all__ = ["NotSent", "ProcessCarrier", "VmLost"]
