"""The micro VM of a container."""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final

from dbt.containers.runtime import jobs
from dbt.containers.runtime.checkpoint import PortState, SessionState, write_checkpoint
from dbt.containers.runtime.domains import ContainerDomains
from dbt.containers.runtime.port import AgentPort
from dbt.containers.runtime.process_table import processes_of, table
from dbt.containers.runtime.resync import Resync, Sessions, Summary
from dbt.containers.runtime.root_request import (
    CGROUP,
    UPPER,
    check_texts,
    exec_request,
    files_request,
    limits_request,
    lower_view,
    renewed_request,
)
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.shares import domain_limits
from dbt.containers.runtime.spec import (
    Ended,
    Limits,
    PathFailure,
    PathStat,
    Process,
    ProcessFailure,
    RuntimeFailure,
    Spec,
    Stats,
    VmEnded,
)
from dbt.containers.runtime.usage import stats_of, usage_files
from dbt.hypervisor.carrier import VmLost
from dbt.hypervisor.lifecycle import DomainState, LifecycleError
from dbt.hypervisor.port_ring import PieceRing
from dbt.linux.container_request import ContainerRequest
from dbt.linux.protocol import Failure, Frame, FromGuest, ProtocolError, ToGuest, frame

#: How long the guest may take to end by itself, in seconds.
_END_S: Final = 10.0
_ANSWER_S: Final = 30.0
_KILLED: Final = 137
_MAIN: Final = 0  # the session of the container's own program
_MODIFIED, _ADDED, _DELETED = range(3)
_KINDS: Final = {"C": _MODIFIED, "A": _ADDED, "D": _DELETED}
_LOWER: Final = "/container/lower"
_GONE: Final = frozenset({DomainState.DEFINED, DomainState.CRASHED})


class ContainerVm:
    """The VM of a container. All methods belong to the event loop of its runtime.

    Each raises VmEnded if the VM has ended or ends meanwhile, and RuntimeFailure if the guest cannot do what is asked.
    """

    #: The program of the container; one that has ended at once in a VM that was opened for a stopped container.
    main: Session

    def __init__(self, domains: ContainerDomains, spec: Spec) -> None:
        self.spec = spec
        self._domains = domains
        self._port = AgentPort(self._send)
        self._loop = asyncio.get_running_loop()
        self._is_gone = asyncio.Event()
        self._is_destroyed = asyncio.Event()
        self._destroying: asyncio.Task[None] | None = None
        self._is_watched = False  # a task waits for the container's program
        self._has_finished = asyncio.Event()  # the guest executes nothing any more that counts
        self._is_ending = False
        self._reason = ""
        self._result: asyncio.Future[Ended] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resync: Resync | None = None  # while it is not known where frames begin
        self._asked: Resync | None = None
        self._found: asyncio.Future[Sessions] = self._loop.create_future()
        self._port.takers[FromGuest.SYNCED] = self._take_sessions
        self._port.takers[FromGuest.FINISHED] = self._take_finished
        self.domain = domains.define(spec.id, self._hear, **domain_limits(spec.limits))
        console = self.domain.console
        assert isinstance(console, PieceRing)
        console.take, console.lose = self._take, self._lose

    # -- its life ------------------------------------------------------------------------------

    async def begin(self, request: ContainerRequest, has_program: bool) -> None:
        """Start the container's own program in a guest that waits. Raise ProcessFailure or RuntimeFailure, after which
        there is no VM.
        """
        try:
            self.main = self._port.open(request)
            await self.main.started()
            if self.main.failure is not None:
                raise _start_failure(self.spec.process, self.main)
            if not has_program:
                await self.main.wait()
        except BaseException:
            await self.destroy()
            raise
        if has_program:
            self._begin_watch()

    async def attach(self) -> bool:
        """Take over the VM of a process that has been killed. Return False if there is none that could be."""
        self._resync = self._asked = Resync()
        found = None
        try:
            if await asyncio.to_thread(self.domain.attach):
                found = await self._answered(self._asked)
        except (OSError, VmLost) as error:
            self._reason = str(error)
        if found is None:
            await self.destroy()
            return False
        self._adopt(found)
        self._begin_watch()
        return True

    async def _answered(self, asked: Resync) -> Sessions | None:
        """Ask the agent which sessions there are. Return None if it does not say so."""
        self._asked, self._found = asked, self._loop.create_future()
        self._send(asked.question)
        gone = self._loop.create_task(self._is_gone.wait())
        either: set[asyncio.Future[Any]] = {gone, self._found}
        await asyncio.wait(either, timeout=_ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        return self._found.result() if self._found.done() else None

    async def checkpoint(self, folder: str, goes_on: bool = False) -> None:
        """Write the state of the VM to a directory, which must not exist, and end the VM unless it ``goes_on``. What
        the container has written can be read before it goes on. Raise RuntimeFailure if it cannot be written.
        """
        self._check()
        self._port.hold()
        try:
            if await self._answered(Resync()) is None:  # after which nothing is on its way to the guest
                raise RuntimeFailure(f"the guest of the container {self.spec.id[:12]} does not answer")
            await self.pause()
            state = await asyncio.to_thread(self._domains.state_of, self.domain)
            await asyncio.sleep(0)  # what the guest has sent is taken before
            with state:
                await asyncio.to_thread(write_checkpoint, folder, state, self.spec.disk, self._port_state())
            if goes_on:
                await self.resume()
        except RuntimeFailure:
            if self.domain.state is DomainState.PAUSED:
                await self.resume()
            raise
        finally:
            self._port.release()
        if not goes_on:
            self._is_ending = True
            await self.destroy()

    def _port_state(self) -> PortState:
        begun, sessions = self._port.state
        return PortState(begun, [SessionState(n, one.pid, *one.flow) for n, one in sessions.items() if one.pid])

    async def go_on(self, state: PortState) -> None:
        """Go on where a checkpoint was made. The guest has other random numbers from now on, and its clock is right."""
        summaries = [Summary(one.number, False, True, one.pid, one.credit, one.waiting) for one in state.sessions]
        if not any(one.number == _MAIN for one in summaries):
            await self.destroy()
            raise RuntimeFailure("the checkpoint is of a container without a program")
        self._port.begin_with(state.begun)
        self._adopt(Sessions(None, summaries))
        self._begin_watch()
        await self._answer(renewed_request())

    def _adopt(self, found: Sessions) -> None:
        """Have the sessions that there were. What others than the main one write is not for anybody any more."""
        for one in found.sessions:
            session = self._port.adopt(one.number)
            session.go_on(one.pid, one.credit, one.waiting)
            if one.number == _MAIN:
                self.main = session
            else:
                self._spawn(jobs.drain(session))
        if found.status is not None:
            self.main = self._port.adopt(_MAIN)
            self.main.have_ended(found.status)

    def _take_sessions(self, answer: Frame) -> None:
        if self._asked is None or self._found.done():
            raise ProtocolError("the guest says which sessions there are, and nobody has asked")
        found = self._asked.sessions(answer)
        if not any(one.number == _MAIN for one in found.sessions) and found.status is None:
            raise ProtocolError("the guest has no program")
        self._found.set_result(found)

    def _take_finished(self, one: Frame) -> None:
        if not self._is_ending:
            raise ProtocolError("the guest ends, and nobody has asked it to")
        self._has_finished.set()

    def _lose(self, count: int) -> None:
        """Hear, in the thread that executes the guest, that something it has sent is missing."""
        self._loop.call_soon_threadsafe(self._receive_gap, count)

    def _receive_gap(self, count: int) -> None:
        if self._resync is None:
            self._break(f"{count} bytes of what the guest has sent are missing")

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin_watch(self) -> None:
        self._is_watched = True
        self._spawn(self._watch())

    async def _watch(self) -> None:
        """Wait for the container's own program, and end the VM after it."""
        code, oom_killed, error = _KILLED, False, ""
        try:
            code = await self.main.wait()
            oom_killed = await self._was_killed_for_memory()
        except VmEnded as ended:
            error = "" if self._is_ending else str(ended)
        except RuntimeFailure as failure:
            error = str(failure)
        await self._wind_up()
        self._result.set_result(Ended(code, oom_killed, error))
        await self.destroy()

    async def _was_killed_for_memory(self) -> bool:
        (events,) = await jobs.read_files(self._port, f"{CGROUP}/memory.events")
        lines = [line.split() for line in (events or b"").decode("ascii", "replace").splitlines()]
        return any(line[0] == "oom_kill" and line[1] != "0" for line in lines if len(line) == 2)

    async def _wind_up(self) -> None:
        """Let the guest write what it has to its disk. After that, or if it does not, nothing of it counts any more."""
        self._is_ending = True
        try:
            if self.domain.state is DomainState.PAUSED:
                await self.resume()
            self._port.send(frame(ToGuest.FINISH, stream=1))
            async with asyncio.timeout(_END_S):
                await self._has_finished.wait()
        except (TimeoutError, RuntimeFailure):
            pass  # it is ended in any case

    async def destroy(self) -> None:
        """End the VM at once, and give back everything that it has of the host."""
        self._is_ending = True
        if self._destroying is None:
            self._destroying = self._loop.create_task(self._destroy())
        await asyncio.shield(self._destroying)

    async def _destroy(self) -> None:
        await asyncio.to_thread(self._domains.forget, self.domain)
        self._end("the container's VM was ended")
        if not self._is_watched and not self._result.done():
            self._result.set_result(Ended(_KILLED))
        self._is_destroyed.set()

    @property
    def is_ending(self) -> bool:
        """True if the VM has ended, or is about to."""
        return self._is_ending or self._is_gone.is_set()

    def when_gone(self, call: Callable[[ContainerVm], None]) -> None:
        """Have something called when nothing is left of the VM."""

        async def wait() -> None:
            await self.gone()
            call(self)

        self._spawn(wait())

    async def gone(self) -> None:
        """Return when nothing of the VM is left, and its disk can be used by another one."""
        await self._is_destroyed.wait()

    def _end(self, why: str) -> None:
        self._port.end(why)
        self._is_gone.set()
        self._has_finished.set()

    def _hear(self, state: DomainState, reason: str) -> None:
        if state in _GONE:
            self._reason = self._reason or reason
            self._end(f"the VM of the container {self.spec.id[:12]} has ended: {self._reason}")

    def _take(self, data: bytes) -> None:
        """Take what the guest has sent, in the thread that executes it."""
        self._loop.call_soon_threadsafe(self._receive, data)

    def _receive(self, data: bytes) -> None:
        if self._is_gone.is_set():
            return
        try:
            if self._resync is not None:
                found = self._resync.feed(data)
                if found is None:
                    return
                data, self._resync = found, None
            self._port.feed(data)
        except ProtocolError as error:
            self._break(str(error))

    def _break(self, why: str) -> None:
        """End a VM whose guest does what the agent does not do."""
        self._reason = why
        self._end(f"the VM of the container {self.spec.id[:12]} is ended: {why}")
        self._spawn(self.destroy())

    def _send(self, data: bytes) -> None:
        self.domain.console.send(data)

    async def kill(self, number: int) -> None:
        """Send a signal to PID 1 of the container."""
        self._check()
        await self.main.kill(number)

    async def pause(self) -> None:
        """Let the guest stand still, at an instruction. Its time does not pass."""
        await self._change(self.domain.pause)

    async def resume(self) -> None:
        """Let the guest go on."""
        await self._change(self.domain.resume)

    async def _change(self, change: Callable[[], None]) -> None:
        self._check()
        try:
            await asyncio.to_thread(change)
        except LifecycleError as error:
            raise RuntimeFailure(str(error)) from None

    async def stop(self) -> None:
        """End the VM: its file systems are synchronised, and what runs is killed."""
        if not self._is_gone.is_set():
            await self._wind_up()
        await self.destroy()

    async def wait(self) -> Ended:
        """Return how the container has ended, when nothing of it changes any more. The VM ends by itself after PID 1 of
        the container. :meth:`gone` says when all of it is gone.
        """
        return await asyncio.shield(self._result)

    def _check(self) -> None:
        if self._is_gone.is_set():
            raise VmEnded(f"the VM of the container {self.spec.id[:12]} has ended")

    # -- programs ------------------------------------------------------------------------------

    @property
    def _pid(self) -> int | None:
        """The process ID of the container's own program in its guest, or None if there is none."""
        return None if self.main.has_ended else self.main.pid

    async def exec(self, process: Process) -> Session:
        """Start another program in the container. Raise ProcessFailure if that is not possible."""
        self._check()
        check_texts((*process.argv, *process.env, process.cwd, process.user, *process.groups))
        if self._pid is None:
            raise VmEnded(f"the container {self.spec.id[:12]} has no program any more")
        session = self._port.open(exec_request(self.spec, process, self._pid))
        await session.started()
        if session.failure is not None:
            raise _start_failure(process, session)
        return session

    async def top(self, ps_args: str = "") -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Return the columns of ps(1) and a row for each process. ``ps_args`` chooses among -ef, aux and -o LIST."""
        request = ContainerRequest()
        request.job("p")
        processes = processes_of(await self._answer(request))
        return table([one for one in processes if one.spaces > 1], ps_args)

    async def stats(self) -> Stats:
        """Return what the container uses."""
        self._check()
        return stats_of(await jobs.read_files(self._port, *usage_files(self._pid or 1)))

    async def update(self, limits: Limits) -> None:
        """Give the container other limits."""
        await self._answer(limits_request(limits))
        changes = domain_limits(limits)
        await asyncio.to_thread(lambda: self.domain.set_limits(**changes))

    # -- files ---------------------------------------------------------------------------------

    async def _answer(self, request: ContainerRequest) -> bytes:
        self._check()
        return await jobs.answer(self._port, request)

    async def stat(self, path: str) -> PathStat:
        """Return what is at a path. Raise PathFailure."""
        path = _checked(path)
        request = files_request(self._pid)
        request.job("s", path)
        fields = (await self._answer(request)).split(b" ", 3)
        if len(fields) != 4 or not all(field.isdigit() and len(field) < 20 for field in fields[:3]):
            raise RuntimeFailure("the container's guest does not say what is at a path")
        mode, size, mtime = map(int, fields[:3])
        name = posixpath.basename(path.rstrip("/")) or "/"
        return PathStat(name, size, mode, mtime, fields[3].decode("utf-8", "surrogateescape"))

    async def get_archive(self, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """Return what is at a path, and a tar archive of it. Raise PathFailure."""
        found = await self.stat(path)
        request = files_request(self._pid)
        request.job("P", _checked(path), found.name)
        return found, await self._output(request)

    async def put_archive(self, path: str, tar: AsyncIterator[bytes], no_overwrite: bool = False) -> None:
        """Unpack a plain tar archive in the directory at a path. With ``no_overwrite``, a directory does not replace
        what is none, nor the other way round. Raise PathFailure.
        """
        self._check()
        request = files_request(self._pid)
        request.job("U", _checked(path), "n" if no_overwrite else "")
        session = await jobs.begin(self._port, request)
        try:
            async for piece in tar:
                await session.write(piece)
                if session.has_ended:
                    break
            session.end_input()
        except BaseException:
            await session.kill(9)
            raise
        finally:
            said = self._loop.create_task(_last(session))
        await said

    async def changes(self) -> Sequence[tuple[int, str]]:
        """Return the paths that differ from the image: 0 was modified, 1 added, 2 deleted. They are sorted."""
        request = ContainerRequest()
        lower_view(request, self.spec, _LOWER)
        request.job("D", UPPER, _LOWER)
        lines = (await self._answer(request)).decode("utf-8", "surrogateescape").split("\0")
        found = [(_KINDS[line[0]], line[1:]) for line in lines if line[:1] in _KINDS and line]
        return sorted(found, key=lambda one: one[1])

    async def export(self) -> AsyncIterator[bytes]:
        """Return a tar archive of all files of the container."""
        request = files_request(None)
        request.job("P", "/", "")
        return await self._output(request)

    async def diff_layer(self) -> AsyncIterator[bytes]:
        """Return what differs from the image as an OCI layer: a tar archive with whiteouts."""
        request = ContainerRequest()
        request.job("L", UPPER)
        return await self._output(request)

    async def _output(self, request: ContainerRequest) -> AsyncIterator[bytes]:
        self._check()
        return jobs.output(await jobs.begin(self._port, request))


async def _last(session: Session) -> None:
    async for _ in jobs.output(session):
        continue


def _checked(path: str) -> str:
    """Return an absolute path. Raise PathFailure for what can be none."""
    if not path or len(path.encode("utf-8", "surrogateescape")) > 4000 or "\0" in path:
        raise PathFailure(f"{path!r:.80}: this is no path", errno.EINVAL)
    return path if path.startswith("/") else f"/{path}"


def _start_failure(process: Process, session: Session) -> RuntimeFailure:
    """Return why a program was not started, as docker says it."""
    assert session.failure is not None
    error, tag, place = session.failure
    reason, name = os.strerror(error).lower(), process.argv[0] if process.argv else ""
    match tag:
        case "p" if error == errno.ENOENT and "/" not in name:
            return ProcessFailure(f'exec: "{name}": executable file not found in $PATH', 127)
        case "p" if error == errno.ENOENT:
            return ProcessFailure(f'exec: "{name}": stat {name}: no such file or directory', 127)
        case "p":
            return ProcessFailure(f'exec: "{name}": {reason}', 126)
        case "d":
            return ProcessFailure(f'chdir to cwd ("{process.cwd}") set in config.json failed: {reason}', 126)
        case "U":
            user, _, group = process.user.partition(":")
            what = (
                f"group {group}: no matching entries in group file"
                if _is_group(session.failure, user)
                else (f"user {user}: no matching entries in passwd file")
            )
            return ProcessFailure(f"unable to find {what}", 126)
    about = session.items[place] if place < len(session.items) else "the request"
    return RuntimeFailure(f"the container's guest cannot prepare {about}: {reason}")


def _is_group(failure: Failure, user: str) -> bool:
    return failure.error == errno.ESRCH
