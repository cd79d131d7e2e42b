"""A container: its life from a record to a VM and back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Final

from dbt.containers.engine.errors import BadParameter, Conflict, EngineError, NotModified
from dbt.containers.engine.health import HealthChecks
from dbt.containers.engine.parts import Parts
from dbt.containers.engine.peers import Peer
from dbt.containers.engine.recorded import recording_plan
from dbt.containers.engine.records import Record, RecordsError
from dbt.containers.engine.restarting import Restarts
from dbt.containers.engine.running_notes import RunningNotes
from dbt.containers.engine.signals import signal_number
from dbt.containers.engine.start_errors import start_error
from dbt.containers.engine.stored_container import StoredContainer
from dbt.containers.engine.timestamps import ZERO, now
from dbt.containers.engine.waiting import Exit, Waiters
from dbt.containers.images.image import Image
from dbt.containers.network.errors import NetworkFailure
from dbt.containers.network.membership import Membership
from dbt.containers.runtime.checkpoint import PortState
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import Ended, RuntimeFailure, VmEnded, VmMoved
from dbt.host.net_option import Forward
from dbt.hypervisor.migration import Place, Settings

_DEFAULT_STOP_S: Final = 10
#: How long a program may take to end after SIGKILL, in seconds. Then its VM is ended.
_KILL_S: Final = 10.0
_SIGKILL: Final = 9
#: The exit code of a container of which nobody knows how it has ended, as docker's.
_LOST: Final = 255
_log = logging.getLogger(__name__)


class Container(StoredContainer):
    """A container that can be started. ``remove_itself`` is called for one with --rm that has ended."""

    def __init__(
        self, parts: Parts, record: Record, image: Image, remove_itself: Callable[[Container], Awaitable[None]]
    ) -> None:
        super().__init__(parts, record, image)
        self.exits = Waiters()
        self.starts = Waiters()
        self.removals = Waiters()
        self.is_being_removed = False
        #: It is on its way to another engine.
        self.is_moving = False
        self._remove_itself = remove_itself
        self._lock = asyncio.Lock()
        self._restarts = Restarts()
        self._restarting: asyncio.Task[None] | None = None
        self._health = HealthChecks(self)
        self._begun = 0.0
        self._beginning: asyncio.Task[ContainerVm] | None = None  # while its VM starts
        self._living: asyncio.Task[None] | None = None
        self._notes = RunningNotes(os.path.join(self.folder, "running"))
        self._log_has_failed = self._is_shutting_down = False
        self._restarts_asked = 0  # restarts that are not over
        self._is_given_up = False  # its VM has ended, or is about to, and it is removed then

    # -- its beginning -------------------------------------------------------------------------

    async def start(self, checkpoint: str | None = None) -> None:
        """Start it, from a checkpoint's directory if there is one. Raise NotModified, Conflict, BadParameter."""
        # Who has begun to start a VM has to know in the end whether there is one, also if the client has gone.
        await asyncio.shield(self._keep_task(self._start_if_possible(checkpoint)))

    async def _start_if_possible(self, checkpoint: str | None) -> None:
        async with self._lock:
            state = self.record.state
            if state.paused:
                raise Conflict("cannot start a paused container, try unpause instead")
            if (state.going_to or state.coming_from) and not self.is_moving:
                raise Conflict(self.doubt)
            if state.running and not state.restarting:
                raise NotModified("container is already running")
            if self.is_being_removed or state.dead:
                raise Conflict("container is marked for removal and cannot be started")
            state.stopped_by_user = False
            self._forget_restart()
            await self._start(checkpoint)

    async def _start(self, checkpoint: str | None = None) -> None:
        state, definition = self.record.state, self.record.definition
        if checkpoint is not None and definition.recording:
            raise BadParameter("a container that is recorded starts at its beginning, and from no checkpoint")
        state.starting, state.restarting = True, False
        try:
            self.save()
        except RecordsError:
            state.starting = False
            raise
        try:
            self._notes.forget()
            async with self.files.closed():
                runtime, place = self._parts.runtime, await self.networks.join()
                if checkpoint is None:
                    plan = recording_plan(definition, self._parts.places)
                    vm = await self._start_vm(runtime.start(self.spec(), place, plan))
                else:
                    vm = await runtime.start_from(self.spec(), checkpoint, place)
        except (RuntimeFailure, NetworkFailure) as failure:
            raise await self._has_failed(failure) from None
        except Exception as error:  # which nobody has foreseen: it does not run, and can be started again
            await self._has_failed(RuntimeFailure(f"it could not be started: {error}"))
            raise
        self._note_ports(place)
        self._is_live(vm)
        state.started, state.pid = now(), vm.main.pid
        state.exit_code, state.error, state.oom_killed = 0, "", False
        self.save()
        self.starts.tell(Exit(0))
        self.tell("start")
        self._health.begin()

    async def _start_vm(self, starting: Coroutine[None, None, ContainerVm]) -> ContainerVm:
        """Return the VM that starts. Raise RuntimeFailure if that fails, or if somebody does not wait for it."""
        self._beginning = asyncio.get_running_loop().create_task(starting)
        try:
            return await self._beginning
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # who waits is given up, and not only the start
                raise
            raise RuntimeFailure("it was stopped before its program began") from None
        finally:
            self._beginning = None

    async def _let_begin(self, timeout: int) -> None:
        """Let a start come to its end that has begun, within so many seconds; -1 is for ever."""
        if (beginning := self._beginning) is not None:
            await asyncio.wait([beginning], timeout=None if timeout < 0 else timeout)
            beginning.cancel()

    async def _has_failed(self, failure: RuntimeFailure | NetworkFailure) -> Exception:
        """Be a container that could not be started. Return the error for who wants to start it."""
        state = self.record.state
        code, error = start_error(self.id, self.name, failure)
        state.running = state.starting = state.restarting = False
        state.exit_code, state.error, state.pid = code, str(error), 0
        self.save()
        await self.networks.leave()
        self.output.end()
        self.starts.tell(Exit(code, str(error)))
        if self.record.definition.host.auto_remove:
            await self._remove_itself(self)
        return error

    def _is_live(self, vm: ContainerVm) -> None:
        """Have a VM, and follow what it does."""
        self.vm, self._is_given_up = vm, False
        self._begun = time.monotonic()
        self.log.open()
        vm.follow(self)
        state = self.record.state
        state.running, state.starting, state.paused = True, False, vm.is_paused
        self._living = self.spawn(self._live(vm))

    def _note_ports(self, place: Membership) -> None:
        self.record.state.ports = [(one.protocol, one.address, one.port, one.guest_port) for one in place.ports]

    def publish(self) -> None:
        """Publish the ports of a container that has come from another engine. If that fails, it goes on without."""
        try:
            self.networks.publish()
        except NetworkFailure as failure:
            _log.error("the container %s has come without its ports: %s", self.id[:12], failure)

    async def arrive(self, vm: ContainerVm, port: PortState | None, files: Mapping[str, bytes]) -> None:
        """Be a container whose VM has come from another engine, with these ``files`` about names. Raise RuntimeFailure
        or NetworkFailure.
        """
        state, place = self.record.state, self.networks.place
        assert place is not None
        self._notes.forget()
        await self._parts.runtime.go_on(vm, port, place, files)
        self._note_ports(place)
        self._is_live(vm)
        state.pid, state.coming_from = vm.main.pid, ""
        self.save()
        self.tell("migrate")
        self._health.begin()

    async def depart(self, place: Place, peer: Peer, settings: Settings) -> PortState:
        """Move its VM to another engine, which waits for it at a place. After that, this container can only be removed.
        Raise RuntimeFailure if it stays.
        """
        vm, state = self.vm, self.record.state
        assert vm is not None and self._living is not None
        state.going_to, state.going_by = peer.text, peer.place.credentials
        self.save()
        try:
            port = await vm.leave(place, settings)
        except BaseException:
            if not vm.is_undecided:
                state.going_to = ""
                self.save()
            raise
        await self._living
        self._health.end()
        self._notes.close()
        self.log.close()
        self.vm = None
        self.output.end()
        await self._leave_networks()
        return port

    async def attach_again(self) -> None:
        """Find the VM that it had when the engine was killed, or be a container that has ended."""
        state = self.record.state
        if not state.running and not state.starting:
            return
        was_starting, notes = state.starting, self._notes.read()
        place = await self.networks.rejoin([Forward(*one) for one in state.ports])
        try:
            vm = await self._parts.runtime.attach_again(self.spec(), place, state.pid, state.paused, notes.place, self)
        except (RuntimeFailure, OSError) as failure:
            _log.error("the container %s is lost: %s", self.id[:12], failure)
            vm = None
        if vm is not None:
            self._is_live(vm)
            if was_starting:  # nobody has been told when
                state.started, state.exit_code, state.error = now(), 0, ""
            state.restarting = False
            state.pid = vm.main.pid
            self.save()
            self._health.begin()
            return
        await self._leave_networks()
        was_started = state.running
        state.running = state.starting = state.paused = state.restarting = False
        state.pid = 0
        if was_started:
            ended = notes.ended or Ended(_LOST)
            state.exit_code, state.oom_killed, state.finished = ended.exit_code, ended.oom_killed, now()
        self._save_or_log()

    async def decide(self) -> None:
        """Have its VM here and nowhere else, although it was on its way to another engine, or here. Raise Conflict if
        nobody doubts that, or if it cannot go on.
        """
        state = self.record.state
        if not (state.going_to or state.coming_from) or self.is_moving:
            raise Conflict(f"nobody doubts where the container {self.id} is")
        try:
            if self.vm is not None and self.vm.is_undecided:
                await self._parts.runtime.decide(self.vm, self.networks.place)
                if state.coming_from:
                    await self._settle_here(self.vm)
        except RuntimeFailure as failure:
            raise Conflict(f"the container cannot go on here: {failure}") from None
        state.going_to = state.coming_from = state.error = ""
        self.save()
        if self.vm is None and state.running:
            await self._has_ended(Ended(_LOST, False, "its machine is at no engine any more"))

    async def _settle_here(self, vm: ContainerVm) -> None:
        """Have the networks of this engine, with a VM that has come from another one when this one was killed."""
        place = self.networks.place
        assert place is not None
        self.publish()
        self._note_ports(place)
        await self._parts.runtime.settle(vm, {})
        self.tell("migrate")

    async def give_up(self) -> None:
        """End its VM, which is undecided, if that is here."""
        if self.vm is None:
            return
        over = self.exits.add()
        await self.vm.destroy()
        await over

    async def start_with_engine(self) -> None:
        """Start it again if its policy says that it runs when the engine does."""
        state, policy = self.record.state, self.record.definition.host.restart_policy
        if (
            not state.running
            and state.started != ZERO
            and Restarts.at_begin(policy, state.stopped_by_user, state.restarts, state.exit_code)
        ):
            async with self._lock:
                await self._start()

    # -- its end -------------------------------------------------------------------------------

    def _keep(self, stream: int, data: bytes) -> None:
        if self.record.definition.host.log_config.type == "none":
            return
        try:
            self.log.write(stream, data)
        except OSError as error:
            self._log_fails(error)

    @property
    def has_unkept(self) -> bool:
        """See :class:`dbt.containers.runtime.linked_vm.Follower`."""
        return self.log.has_begun

    def note_place(self, position: int) -> None:
        """See :class:`dbt.containers.runtime.linked_vm.Follower`."""
        try:
            self._notes.note_place(position)
        except OSError as error:
            self._log_fails(error)

    def wants_the_rest(self) -> bool:
        """See :class:`dbt.containers.runtime.linked_vm.Follower`."""
        self._is_given_up = self._removes_itself
        place = self.networks.place
        is_recorded = bool(self.record.definition.recording)
        return not self._is_given_up or is_recorded or (place is not None and place.has_sent)

    @property
    def _removes_itself(self) -> bool:
        """True if it is removed when it ends."""
        return self.record.definition.host.auto_remove and not self._restarts_asked

    def note_end(self, ended: Ended) -> None:
        """See :class:`dbt.containers.runtime.linked_vm.Follower`."""
        try:
            self._notes.note_end(ended)
        except OSError as error:
            self._log_fails(error)

    def _log_fails(self, error: OSError) -> None:
        if not self._log_has_failed:
            _log.error("the log of the container %s cannot be written: %s", self.id[:12], error)
        self._log_has_failed = True

    async def _live(self, vm: ContainerVm) -> None:
        """Follow a VM until its end, and what comes after it."""

        def keep(stream: int, data: bytes) -> None:
            self._keep(stream, data)
            vm.note_kept()

        carrying = asyncio.get_running_loop().create_task(self.output.carry(vm.main, keep))
        try:
            ended = await vm.wait()
        except VmMoved:
            await carrying
            return
        await carrying
        await self._has_ended(ended)

    async def _has_ended(self, ended: Ended) -> None:
        async with self._lock:  # a start that has begun comes first, and the next one after this
            delay = await self._note_end(ended)
        if delay is not None:
            self._restarting = self.spawn(self._restart_later(delay))
            return
        if (self._is_given_up or self._removes_itself) and not self.is_being_removed:
            await self._remove_itself(self)

    async def _note_end(self, ended: Ended) -> float | None:
        """Be a container that has ended. Return after how many seconds it is started again, or None for never."""
        self._health.end()
        self._notes.close()
        with contextlib.suppress(OSError):
            self.log.close()
        state = self.record.state
        ran_s = time.monotonic() - self._begun
        delay = None
        if not state.stopped_by_user and not self.is_being_removed and not self._is_shutting_down:
            policy = self.record.definition.host.restart_policy
            delay = self._restarts.delay(policy, state.restarts, ended.exit_code, ran_s)
        self.vm = None
        state.paused, state.pid = False, 0
        state.running = state.restarting = delay is not None
        state.exit_code, state.oom_killed, state.error = ended.exit_code, ended.oom_killed, ended.error
        state.finished = now()
        self._save_or_log()
        self.execs.clear()
        self.output.end()
        if ended.oom_killed:
            self.tell("oom")
        self.tell("die", exitCode=str(ended.exit_code), execDuration=str(int(ran_s)))
        await self._leave_networks()
        self.exits.tell(Exit(ended.exit_code, ended.error))
        return delay

    def _save_or_log(self) -> None:
        try:
            self.save()
        except RecordsError as error:  # it ends nevertheless
            _log.error("the end of the container %s is not remembered: %s", self.id[:12], error)

    async def _leave_networks(self) -> None:
        try:
            await self.networks.leave()
        except NetworkFailure as error:  # the next engine forgets who is in networks and does not run
            _log.error("the container %s is in its networks still: %s", self.id[:12], error)

    async def _restart_later(self, delay: float) -> None:
        await asyncio.sleep(delay)
        self._restarting = None  # from here on it is not given up any more
        async with self._lock:
            if not self.record.state.restarting or self.is_being_removed:
                return
            self.record.state.restarts += 1
            try:
                await self._start()
            except EngineError as error:
                _log.error("the container %s cannot be started again: %s", self.id[:12], error)

    def _forget_restart(self) -> None:
        if self._restarting is not None:
            self._restarting.cancel()
            self._restarting = None

    async def kill(self, number: int) -> None:
        """Send it a signal. Raise Conflict if it does not run."""
        if self.vm is None:
            raise Conflict(f"Container {self.id} is not running")
        self.check_decided()
        state = self.record.state
        chosen = self.record.definition.config.stop_signal
        if number == _SIGKILL or not chosen or signal_number(chosen) == number:
            state.stopped_by_user = True  # what comes is its end, and no failure
            self.save()
        with contextlib.suppress(VmEnded):
            await self.vm.kill(number)
            if state.paused and state.stopped_by_user:
                await self._resume()
        self.tell("kill", signal=str(number))
        if number == _SIGKILL and self.vm is not None:  # dockerd, too, answers when it is dead
            over = self.exits.add()
            await asyncio.wait([over], timeout=_KILL_S)
            over.cancel()

    async def stop(self, timeout: int | None = None, signal: str = "", by_user: bool = True) -> None:
        """Let it end: by its own signal, and by SIGKILL after ``timeout`` seconds; -1 is never. Raise NotModified if it
        does not run.
        """
        state, config = self.record.state, self.record.definition.config
        if not state.running and not state.starting:
            raise NotModified("container is already stopped")
        if by_user:
            self.check_decided()
        number = signal_number(signal or config.stop_signal or "SIGTERM")
        if timeout is None:
            timeout = _DEFAULT_STOP_S if config.stop_timeout is None else config.stop_timeout
        state.stopped_by_user = by_user or state.stopped_by_user
        self._save_or_log()
        self._forget_restart()
        await self._let_begin(timeout)
        async with self._lock:  # a start that has begun comes first
            if state.restarting:
                state.running = state.restarting = False
                self._save_or_log()
        await self._end(number, timeout)
        self.tell("stop")

    async def _end(self, number: int, timeout: int) -> None:
        over = self.exits.add()
        try:
            if self.vm is not None:
                await self._signal(number)
                await asyncio.wait([over], timeout=None if timeout < 0 else timeout)
            if self.vm is not None and not over.done():
                await self._signal(_SIGKILL)
                await asyncio.wait([over], timeout=_KILL_S)
            if self.vm is not None and not over.done():
                await self.vm.destroy()
                await over
        finally:
            over.cancel()

    async def _signal(self, number: int) -> None:
        if self.vm is not None:
            with contextlib.suppress(VmEnded):
                await self.vm.kill(number)
                if self.record.state.paused:
                    await self._resume()
            self.tell("kill", signal=str(number))

    async def restart(self, timeout: int | None, signal: str) -> None:
        """Let it end, if it runs, and start it. It is not removed between."""
        self._restarts_asked += 1
        try:
            if self.record.state.running:
                await self.stop(timeout, signal)
            await self.start()
        finally:
            self._restarts_asked -= 1
        self.tell("restart")

    async def shut_down(self) -> None:
        """Let it end with the engine."""
        self._is_shutting_down = True
        with contextlib.suppress(NotModified):
            await self.stop(by_user=False)

    async def close(self) -> None:
        """End what is left of it, before its record and directory go."""
        self._forget_restart()
        async with self.files.closed():
            pass
        self.output.end()

    async def checkpoint(self, name: str, folder: str, ends: bool) -> None:
        """Write a checkpoint, and end if it ``ends`` with that. Raise Conflict or RuntimeFailure."""
        if self.vm is None:
            raise Conflict(f"Container {self.id} not running")
        path = self.checkpoints.new_path(name, folder)
        vm, state = self.vm, self.record.state
        state.stopped_by_user = state.stopped_by_user or ends
        await vm.checkpoint(path, goes_on=not ends)
        self.tell("checkpoint")

    # -- standing still ------------------------------------------------------------------------

    async def pause(self) -> None:
        """Let it stand still. Raise Conflict if it does already, or does not run."""
        state = self.record.state
        if not state.running or self.vm is None:
            raise Conflict(f"Container {self.id} is not running")
        self.check_decided()
        if state.paused:
            raise Conflict(f"Container {self.id} is already paused")
        vm = self.vm
        await vm.pause()
        state.paused = True
        try:
            self.save()
        except RecordsError:  # the next engine would let it go on
            state.paused = False
            await vm.resume()
            raise
        self.tell("pause")

    async def unpause(self) -> None:
        """Let it go on. Raise Conflict if it does not stand still."""
        self.check_decided()
        if not self.record.state.paused:
            raise Conflict(f"Container {self.id} is not paused")
        await self._resume()

    async def _resume(self) -> None:
        assert self.vm is not None
        await self.vm.resume()
        self.record.state.paused = False
        self.save()
        self.tell("unpause")

    async def session(self) -> Session | None:
        """Return its own program as soon as there is one, or None if it could not be started."""
        if self.vm is None:
            await self.starts.add()
        return None if self.vm is None else self.vm.main
