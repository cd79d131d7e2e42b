"""The process of one machine: it does what its host asks, and goes on by itself when the host is gone."""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from uuid import UUID

from dbt.codecache.store import cache_directory
from dbt.devices.state import StateError
from dbt.engine.arena import lease_arena
from dbt.engine.region_tier import RegionTier
from dbt.engine.worker import CompileWorker, share_worker
from dbt.host.net_option import Net
from dbt.host.network import HubEnd
from dbt.host.ninep.tree import DESCRIPTORS
from dbt.hypervisor import carrier
from dbt.hypervisor.carrier import Conduct, Facts, Outcome, Terms, check_machine
from dbt.hypervisor.console_ring import ConsoleRing
from dbt.hypervisor.jail.landlock import Folder
from dbt.hypervisor.jail.measures import Policy, Strictness, enter, machine_policy, require
from dbt.hypervisor.limits import limit_devices, set_memory
from dbt.hypervisor.port_ring import PortRing
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.channel import Channel, ChannelEnded
from dbt.hypervisor.process.compilers import RemoteCompiler
from dbt.hypervisor.process.handing_over import HandingOver
from dbt.hypervisor.process.lease import HeldLease, take_lease
from dbt.hypervisor.process.originals import Originals
from dbt.hypervisor.process.rests import Rests
from dbt.hypervisor.process.state_files import received_state, state_files
from dbt.hypervisor.threads import host_arguments
from dbt.memory.contents import keep_page_map_open
from dbt.vm.identity import Identity, store_of_clone, with_identity
from dbt.vm.machine import Machine
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from dbt.vm.vm_state import VmState, machine_options

if TYPE_CHECKING:
    from dbt.hypervisor.recorded import RecordedMachine
    from dbt.vm.options import HostOptions

#: The exceptions that a host raises again as what they are. Others become a RuntimeError.
KINDS: Final = (StateError, ValueError, TypeError, OSError)
#: The reasons after which a guest can execute another turn.
GOING_ON: Final = frozenset({StopReason.FUEL, StopReason.INTERRUPTED, StopReason.WAITING})
_libc: Final = ctypes.CDLL(None)


class VmProcess:
    """The machine of this process. ``lease`` is its lease, if it goes on without a host. ``originals`` has what its
    memory was when it was forked, if it was.
    """

    def __init__(
        self,
        name: str,
        uuid: UUID,
        lease: HeldLease | None,
        strictness: Strictness,
        originals: Originals | None = None,
    ) -> None:
        self._name, self.uuid, self._lease, self._strictness = name, uuid, lease, strictness
        self._originals = originals
        self._console = ConsoleRing()
        self._printed = 0  # how much of the console's output has been sent
        self._machine: Machine | None = None
        self._booted: say.Booted | None = None
        self._hubs: dict[str, HubEnd] = {}
        self._has_told = False  # that something has come
        self._rests = Rests()
        self.conduct = Conduct(0, 0, None, 0, False, False)
        #: How many instructions the guest may still execute, or None for any number.
        self.instructions_left: int | None = None
        self.most_memory: int | None = None
        #: The last turn, if the guest cannot go on after it.
        self.ended: say.Done | None = None
        self.moves = HandingOver()
        self._recorded: RecordedMachine | None = None

    @property
    def machine(self) -> Machine:
        if self._machine is None:
            raise RuntimeError("there is no machine yet")
        return self._machine

    # -- the host --------------------------------------------------------------------------------

    def serve(self, channel: Channel[say.ToVm]) -> None:
        """Do what hosts ask, until one says that this is the end, or the host is gone and there is no lease."""
        while True:
            with suppress(ChannelEnded):
                if self._serve_host(channel):
                    return
            channel.close()
            self.moves.forget()
            if self._lease is None or not self.moves.is_kept:
                return
            from dbt.hypervisor.process.alone import go_on_alone

            channel = go_on_alone(self, self._lease.listener)

    def _serve_host(self, channel: Channel[say.ToVm]) -> bool:
        """Answer one host. Return True if it says that this is the end."""
        while True:
            self._await_message(channel)
            message = channel.receive()
            answer: say.FromVm
            files: Sequence[int] = ()
            match message:
                case say.End():
                    return True
                case say.Interrupt():  # of a turn that is over
                    continue
                case say.Execute():
                    answer = self.execute(message, channel.has_data)
                case _:
                    answer, files = self._answered(message, channel)
            try:
                channel.send(answer, files)
            finally:
                for file in files:
                    os.close(file)

    def _rest(self, deep: bool) -> None:
        """Give memory back to the host, because the guest does not execute for a while."""
        if self.has_machine:
            self.machine.tier.rest(deep)
            if deep and self._originals is not None:
                self._originals.drop_equal()
            _libc.malloc_trim(0)
        self._rests.rested(deep)

    @property
    def _shared(self) -> Originals:
        """The memory that this process had when it was forked."""
        if self._originals is None:
            raise RuntimeError("this process was forked before the memory that it has was put in order")
        return self._originals

    def _await_message(self, channel: Channel[say.ToVm]) -> None:
        """Return when the host has said something. Meanwhile tell it once if something comes for the guest, and give
        memory back.
        """
        while not channel.has_data():
            hears = self._booted is not None and self._booted.hears_outside
            is_listening = hears and not self._has_told and not self.moves.has_ends_elsewhere
            poll = select.poll()
            poll.register(channel, select.POLLIN)
            for descriptor, event in (self.machine.outside_events if is_listening else {}).items():
                poll.register(descriptor, event)
            rest = self._rests.next()
            heard = poll.poll(None if rest is None else 1000 * rest[0])
            if rest is not None and not heard:
                self._rest(rest[1])
            elif is_listening and self.machine.input_source.has_arrivals:
                self._has_told = True
                channel.send(say.Arrived())

    def _answered(self, message: say.ToVm, channel: Channel[say.ToVm]) -> tuple[say.FromVm, Sequence[int]]:
        """Return the answer to a message, and the files that come with it, which the caller closes."""
        try:
            match message:
                case say.Save():
                    with self.machine.save() as state:
                        return say.Saved(), state_files(state)
                case say.Written():
                    return say.Files(1), [self._shared.written()]
                case say.Heap():
                    self._rest(deep=True)
                    return say.Files(1), [self._shared.own_heap()]
                case say.Code():
                    code = self.machine.tier.warm_code() if isinstance(self.machine.tier, RegionTier) else None
                    return say.Files(0 if code is None else 1), [] if code is None else [code]
                case say.Restore():
                    values, ram, *more = channel.take_files(3 if message.recording else 2)
                    try:
                        return self._restore(message, received_state(values, ram, message.parts), *more), ()
                    except BaseException:
                        self._close_recording(*more)
                        raise
                case say.Plug(cards):
                    for card, file in zip(cards, channel.take_files(len(cards)), strict=True):
                        self.machine.plug_net(card, file)
                    return say.Ready(), ()
                case say.Prepare():
                    (file,) = channel.take_files(1)
                    self._take_behaviour(message.behaviour)
                    machine, self._console = self.moves.prepare(message, file, self._console)
                    return self._become(machine), ()
                case _:
                    found = None if self._machine is None else self.moves.answer(message, self._machine, channel)
                    return found or (self._value(message), ())
        except Exception as error:  # whatever it is, the host is told
            kind = next((kind for kind in KINDS if isinstance(error, kind)), RuntimeError)
            return say.Failed(kind.__name__, str(error)), ()

    def _value(self, message: say.ToVm) -> say.FromVm:
        match message:
            case say.Boot(boot, behaviour):
                self._take_behaviour(behaviour)
                machine = pickle.loads(boot)(self._console)
                check_machine(machine, self._name)
                return self._become(machine)
            case say.Behaviour():
                self._take_behaviour(message)
            case say.LimitDevices(limits):
                limit_devices(self.machine, pickle.loads(limits))
            case say.PressPowerKey(reboots):
                self.machine.press_power_key(reboots)
            case say.SetMemory(size):
                set_memory(self.machine, size)
            case say.WaitUntil(tick):
                self.machine.wait_until(tick, until_woken=True)
            case say.EndRecording() if self._recorded is not None:
                self._recorded.end()
            case say.Hash():
                return say.Value(state_hash(self.machine).encode())
            case say.Registers():
                return say.Words(list(self.machine.r), self.machine.icount)
            case say.Read(address, size):
                return say.Value(self.machine.read(address, size))
            case say.Write(address, data):
                self.machine.write(address, data)
            case _:
                raise RuntimeError(f"a {type(message).__name__} makes no sense here")
        return say.Ready()

    def _take_behaviour(self, behaviour: say.Behaviour) -> None:
        self.conduct = Conduct(
            behaviour.rate,
            behaviour.cap,
            behaviour.core_time,
            behaviour.period_ms,
            behaviour.goes_on,
            behaviour.holds_frames,
        )

    # -- the machine -----------------------------------------------------------------------------

    def _become(self, machine: Machine) -> say.Booted:
        """Have a machine, and describe it, before its guest has executed anything."""
        if self._machine is not None:
            machine.close()
            raise RuntimeError("there is a machine already")
        if self.conduct.holds_frames:
            machine.hold_frames()
        facts = Facts.of(machine)
        for net in facts.nets:
            kind, _, name = net.end.partition(":")
            if kind == "hub" and name not in self._hubs:
                self._hubs[name] = HubEnd(name)
        self._machine, self._rests = machine, Rests()
        arguments = host_arguments(machine)(self._console)
        del arguments["console"], arguments["notice"]
        cards = [say.Card(net.end, net.mac) for net in facts.nets]
        booted = say.Booted(
            facts.ticks_per_second,
            facts.hears_outside,
            facts.has_limits,
            cards,
            pickle.dumps(arguments),
            {},
            self._recorded is not None,
        )
        if self._lease is not None:
            self._lease.keep_machine(say.encode(booted))
        booted.missing = self._jail(machine)
        self._booted = booted
        return booted

    def _jail(self, machine: Machine) -> dict[str, str]:
        """Enter the jail, for ever. Return the measures that the host does not give. The guest has executed nothing."""
        assert machine.tier  # which maps native code
        if self._originals is not None:
            self._originals.keep_maps_open()
        if self._strictness is Strictness.OFF:
            return {}
        keep_page_map_open()
        self._arena = lease_arena()  # before memory cannot be made executable any more
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.close(null)
        missing = enter(policy_of(machine))
        require(self._strictness, missing)
        return missing

    def _restore(self, message: say.Restore, state: VmState, recording: int = -1) -> say.Booted:
        self._take_behaviour(message.behaviour)
        arguments: HostOptions = pickle.loads(message.arguments)
        if "port" in machine_options(state.values)["devices"]:
            self._console = PortRing()
        arguments["console"] = self._console
        if message.nets:
            arguments["nets"] = pickle.loads(message.nets)
        with state:
            if not message.identity:
                return self._begin(Machine.restore(state, **arguments), message, recording)
            identity: Identity = pickle.loads(message.identity)
            drives = arguments.get("drives", ())
            arguments["drives"] = [drive._replace(snapshot=drive.is_overlaid, overlay="") for drive in drives]
            if (vsock := arguments.get("vsock")) is not None:
                arguments["vsock"] = vsock._replace(end="none")
            arguments["xenstore"] = store_of_clone(arguments.get("xenstore"), identity.uuid)
            nets: Sequence[Net] = arguments.get("nets", ())
            arguments["nets"] = [net._replace(mac=mac) for net, mac in zip(nets, identity.addresses, strict=True)]
            made = Machine.restore(VmState(with_identity(state.values, identity), state.ram), **arguments)
            return self._begin(made, message, recording)

    def _begin(self, machine: Machine, message: say.Restore, recording: int) -> say.Booted:
        """Have a machine, whose input is recorded in a file if there is one. It begins with warm code if there is."""
        if isinstance(machine.tier, RegionTier):
            machine.tier.adopt_warm_code()
        if message.recording:
            from dbt.hypervisor.recorded import RecordedMachine

            try:
                path, origin = pickle.loads(message.recording)
                self._recorded = RecordedMachine(machine, carrier.RecordingFile(recording, path, origin))
            except BaseException:
                machine.close()
                raise
        return self._become(machine)

    def _close_recording(self, *files: int) -> None:
        """Close the recording of a machine that could not be made, or its file if there is no recording."""
        recorded, self._recorded = self._recorded, None
        if recorded is not None:
            recorded.close()
            return
        for file in files:
            os.close(file)

    def execute(self, message: say.Execute, stop: Callable[[], bool] | None = None) -> say.Done:
        """Execute a turn."""
        self._has_told = False
        if isinstance(self._console, PortRing):
            has = self._printed  # which the host has, since it goes on
            self._console.forget(has if message.kept is None else min(message.kept, has))
        for hub, frames in message.frames.items():
            if (end := self._hubs.get(hub)) is not None:
                end.send(*frames)
        if message.typed:
            self._console.send(message.typed)
        try:
            if message.wait_until is not None:
                self.machine.wait_until(message.wait_until, until_woken=True)
        except Exception as error:  # of a device
            outcome = Outcome.failed(f"{type(error).__name__}: {error}", self.machine.vcpu.now())
        else:
            terms = Terms(*(getattr(message, name) for name in Terms._fields))
            outcome = carrier.execute(self.machine, terms, stop)
        self._rests.executed(outcome.host_ns / 1e9)
        if self.conduct.holds_frames:
            self.machine.release_frames()
        if self._recorded is not None:
            outcome = self._recorded.note(outcome)
        done = self._done(outcome)
        self.most_memory = message.memory
        if message.instructions is not None:
            self.instructions_left = message.instructions - done.instructions
        self.ended = None if outcome.reason in GOING_ON else done
        return done

    def _done(self, outcome: Outcome) -> say.Done:
        printed, written = self._console.read_from(self._printed)
        lost = written - self._printed - len(printed)
        self._printed = written
        message = outcome.message
        if outcome.error is not None:
            message = f"{type(outcome.error).__name__}: {outcome.error}"
        if outcome.reason not in GOING_ON and isinstance(self._console, PortRing):
            message += f"\n{self._console.log}"
        return say.Done(
            "" if outcome.reason is None else outcome.reason.value,
            message,
            outcome.exit_code,
            outcome.instructions,
            outcome.charged,
            outcome.host_ns,
            outcome.wait_ns,
            outcome.now,
            outcome.resets,
            outcome.ahead,
            printed,
            lost,
            self._console.unread,
            {hub: end.receive() for hub, end in self._hubs.items()},
            [failure.line for failure in self.machine.take_disk_failures().values()],
        )

    def warm_up(self, template: Machine) -> None:
        """Do for the first time what hosts ask: make a machine in the state of ``template``, execute turns of it, look
        at it and save it, and give memory back.
        """
        behaviour = say.Behaviour(1_000_000, 100_000, None, 100, False, False)
        arguments = host_arguments(template)(self._console)
        del arguments["console"], arguments["notice"]
        ours, theirs = socket.socketpair()
        host, channel = Channel[say.FromVm](ours, say.FromVm), Channel[say.ToVm](theirs, say.ToVm)
        with template.save() as state:
            files = state_files(state)
        host.send(say.Restore(pickle.dumps(arguments), b"", b"", behaviour), files)
        turn = say.Execute(100_000, 1.0, True, None, None, None, None, None, b"", {})
        for message in (turn, turn, turn, say.Registers(), say.Save(), say.End()):
            host.send(message)
        self.serve(channel)
        self._rest(deep=True)
        self.close()
        for one in (host, channel):
            one.close()
        for file in files:
            os.close(file)

    def attached(self) -> say.Attached:
        """Return what a new host has to know."""
        printed, self._printed = self._console.read_from(0)
        return say.Attached(str(self.uuid), self.ended, self.moves.doubt, printed, self._printed)

    def take_over(self, behaviour: say.Behaviour) -> None:
        """Hear of a new host how to go on without it."""
        self._take_behaviour(behaviour)
        self._has_told = False

    @property
    def has_machine(self) -> bool:
        return self._booted is not None

    def close(self) -> None:
        """Give back what this process has."""
        if self._lease is not None:
            self._lease.release()
        for end in self._hubs.values():
            end.close()
        if self._recorded is not None:
            self._recorded.close()
        if self._machine is not None:
            self._machine.close()


def policy_of(machine: Machine) -> Policy:
    """Return what the process of a machine may reach: compiled regions, and what the guest may by its options."""
    options = machine.options
    folders = [Folder(cache_directory())]
    folders += [Folder(share.path, not share.read_only) for share in options.shares if share.path is not None]
    if options.files is not None:
        folders.append(Folder(options.files, is_writable=True))
    has_sockets = options.vsock is not None and options.vsock.end.startswith("unix:")
    if has_sockets:
        assert options.vsock is not None
        folders.append(Folder(os.path.dirname(options.vsock.end.removeprefix("unix:")) or ".", is_writable=True))
    has_files = options.files is not None or any(share.path is not None for share in options.shares)
    if has_files:
        folders.append(Folder(DESCRIPTORS))  # by which a shared file is opened that was looked at
    return machine_policy(folders, has_files, has_sockets)


def run(connection: socket.socket, message: say.Spawn, compilers: socket.socket, originals: Originals | None) -> None:
    """Be the process of a machine, until its end. It has been forked for that from a zygote, whose memory is in
    ``originals`` if that has put it in order. ``compilers`` is where compilers are forked.
    """
    strictness = Strictness(message.jail)
    share_worker(CompileWorker(start=lambda: RemoteCompiler.start(compilers), yields=False))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uuid = UUID(message.uuid)
    channel: Channel[say.ToVm] = Channel(connection, say.ToVm)
    try:
        lease = take_lease(message.directory, message.name, uuid) if message.directory else None
    except OSError as error:
        channel.receive()  # what asks for a machine, which gets the answer
        channel.send(say.Failed(OSError.__name__, str(error)))
        return
    process = VmProcess(message.name, uuid, lease, strictness, originals)
    try:
        process.serve(channel)
    finally:
        process.close()
