"""The micro VM of a container."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import posixpath
from collections.abc import AsyncIterator, Mapping, Sequence
from time import monotonic_ns
from typing import Final

from dbt.containers.network.interface import Interface
from dbt.containers.runtime import jobs
from dbt.containers.runtime.checkpoint import PortState, write_checkpoint
from dbt.containers.runtime.failures import start_failure, too_long
from dbt.containers.runtime.linked_vm import KILLED, LinkedVm
from dbt.containers.runtime.process_table import processes_of, table
from dbt.containers.runtime.resync import MAIN, Resync, Sessions, Summary
from dbt.containers.runtime.root_request import (
    CGROUP,
    UPPER,
    check_texts,
    exec_request,
    files_request,
    found_file,
    freezer_request,
    interfaces_request,
    limits_request,
    lower_view,
    renewed_request,
    written_files_request,
)
from dbt.containers.runtime.session import WINDOW, Session
from dbt.containers.runtime.shares import domain_limits
from dbt.containers.runtime.spec import (
    MOST_CARDS,
    Ended,
    Limits,
    PathFailure,
    PathStat,
    Process,
    RuntimeFailure,
    Stats,
    VmEnded,
    VmMoved,
)
from dbt.containers.runtime.usage import stats_of, usage_files
from dbt.engine.priority import seconds_on_processor
from dbt.hypervisor.carrier import VmLost
from dbt.hypervisor.lifecycle import LifecycleError
from dbt.hypervisor.migration import MigrationError, Place, Settings
from dbt.hypervisor.process.process_vm import ProcessVm
from dbt.linux.container_request import ContainerRequest
from dbt.linux.protocol import RequestError, ToGuest, frame

#: How long the guest may take to end by itself, in seconds.
_END_S: Final = 10.0
_MODIFIED, _ADDED, _DELETED = range(3)
_KINDS: Final = {"C": _MODIFIED, "A": _ADDED, "D": _DELETED}
_LOWER: Final = "/container/lower"
#: How long the container's programs may take to stand still, and how often it is looked whether they do, in seconds.
_FREEZE_S: Final = 5.0
_LOOK_S: Final = 0.01
#: How long the output of a container may take to be read that has ended. Its VM ends after that.
_READING_S: Final = 5.0


class ContainerVm(LinkedVm):
    """The VM of a container. All methods belong to the event loop of its runtime.

    Each raises VmEnded if the VM has ended or ends meanwhile, and RuntimeFailure if the guest cannot do what is asked.
    """

    # -- its life ------------------------------------------------------------------------------

    def have_core(self) -> None:
        """Have a whole core until the container's own program executes, and after its end: what the guest does then, or
        for the files of a container that does not run, is not that container's work.
        """
        if self.domain.limits.core_time != 1:
            with contextlib.suppress(VmLost):  # of which others hear
                self.domain.set_limits(core_time=1.0)

    async def _have_core(self) -> None:
        if self.domain.limits.core_time != 1:  # mostly it is, and a thread takes most of a millisecond
            await asyncio.to_thread(self.have_core)

    async def begin(self, request: ContainerRequest, has_program: bool) -> None:
        """Start the container's own program in a guest that waits. Raise ProcessFailure or RuntimeFailure, after which
        there is no VM.
        """
        try:
            self.main = self._port.open(request)
            await self.main.started()
            if self.main.failure is not None:
                raise start_failure(self.spec.process, self.main)
            if not has_program:
                await self.main.wait()
            else:
                _end_no_input(self.main, self.spec.process)
                if self.spec.limits.nano_cpus:
                    await asyncio.to_thread(self._limit, self.spec.limits)
        except BaseException:
            await self.destroy()
            raise
        if has_program:
            self._begin_watch()

    async def attach(self, pid: int = 0, is_paused: bool = False, place: int | None = None) -> bool:
        """Take over the VM of a process that has been killed. Return False if there is none that could be. ``place`` is
        what a follower was told last.

        With ``is_paused`` the guest is to stand still, as its user wants. Then, and if it is undecided, it is asked
        when it goes on. ``pid`` is the process ID of the container's own program.
        """
        self._resync = self._asked = Resync(place)
        found = None
        try:
            if await asyncio.to_thread(self.domain.attach, is_paused):
                if self.is_paused or self.is_undecided:
                    self._unasked = self._resync
                    self._adopt(Sessions(None, [Summary(MAIN, False, True, pid, WINDOW, 0)]))
                    self._begin_watch()
                    return True
                found = await self._answered(self._asked, adopts=True)
        except (OSError, VmLost) as error:
            self._reason = str(error)
        if found is None:
            await self.destroy()
            return False
        self._begin_watch()
        with contextlib.suppress(VmEnded):  # which is an end like any other from here on
            await self.thaw()  # the process that was killed may have frozen them
            _end_no_input(self.main, self.spec.process)  # which that may not have done yet
        return True

    async def resume(self, force: bool = False) -> None:
        """See :meth:`LinkedVm.resume`. Raise RuntimeFailure if the guest cannot go on, or does not answer."""
        if self._unasked is None:
            await super().resume(force)
            return
        asking = self._loop.create_task(self._answered(self._unasked, adopts=True))
        try:
            await asyncio.sleep(0)  # the question waits for the guest
            await super().resume(force)
        except BaseException:
            asking.cancel()
            raise
        self._unasked = None
        if await asking is None:
            await self.destroy()
            raise VmEnded(f"the guest of the container {self.spec.id[:12]} does not answer")

    async def checkpoint(self, folder: str, goes_on: bool = False) -> None:
        """Write the state of the VM to a directory, which must not exist, and end the VM unless it ``goes_on``. What
        the container has written can be read before it goes on. Raise RuntimeFailure if it cannot be written.
        """
        self._check()
        if self.is_paused:
            raise RuntimeFailure(f"the container {self.spec.id[:12]} is paused: let it go on before a checkpoint")
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
            if self.is_paused:
                await self.resume()
            raise
        finally:
            self._port.release()
        if not goes_on:
            self._is_ending = True
            await self.destroy()

    async def go_on(self, state: PortState) -> None:
        """Go on where a checkpoint was made. The guest has other random numbers from now on, and its clock is right."""
        summaries = [Summary(one.number, False, True, one.pid, one.credit, one.waiting) for one in state.sessions]
        if not any(one.number == MAIN for one in summaries):
            await self.destroy()
            raise RuntimeFailure("the checkpoint is of a container without a program")
        self._port.begin_with(state.begun)
        self._adopt(Sessions(None, summaries))
        self._take_early()
        self._begin_watch()
        await self._answer(renewed_request())

    async def find_place(self) -> None:
        """Go on without a :class:`PortState`: ask the guest. Output that nobody has read may be lost."""
        self._early, self._resync = None, Resync()
        if await self._answered(self._resync, adopts=True) is None:
            await self.destroy()
            raise RuntimeFailure(f"the guest of the container {self.spec.id[:12]} does not answer")
        self._begin_watch()
        await self._answer(renewed_request())

    async def leave(self, place: Place, settings: Settings) -> PortState:
        """Move the VM to another engine, which waits at a place. Return where its port is, after which this VM has
        ended: :meth:`wait` raises VmMoved. Raise RuntimeFailure if it stays, or if nobody knows where it is.
        """
        self._check()
        if self.is_paused:
            raise RuntimeFailure(f"the container {self.spec.id[:12]} is paused: let it go on before it is moved")
        self._port.hold()
        self._is_leaving = True
        try:
            if await self._answered(Resync()) is None:  # after which nothing is on its way to the guest
                raise RuntimeFailure(f"the guest of the container {self.spec.id[:12]} does not answer")
            await asyncio.to_thread(self.domain.migrate, place, settings)
            await self._is_gone.wait()
        except (MigrationError, LifecycleError, OSError) as error:
            raise RuntimeFailure(str(error)) from None
        finally:
            self._is_leaving = False
            self._port.release()
        assert self._left_with is not None
        return self._left_with

    def _begin_watch(self) -> None:
        self._is_watched = True
        self._spawn(self._watch())

    async def _watch(self) -> None:
        """Wait for the container's own program, and end the VM after it."""
        code, oom_killed, error = KILLED, False, ""
        try:
            code = await self.main.wait()
            await self._have_core()
            oom_killed = await self._was_killed_for_memory()
        except VmEnded as ended:
            if self._left_with is not None:
                await self.destroy()
                self._result.set_exception(VmMoved("the container is under another engine"))
                return
            error = "" if self._is_ending else str(ended)
        except RuntimeFailure as failure:
            error = str(failure)
        if self._follower is not None and self.main.has_code:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_READING_S):
                    await self.main.all_read()  # as long as there is a VM, the next process could
            self._follower.note_end(Ended(code, oom_killed, error))
        if self._follower is None or self._follower.wants_the_rest() or self.spec.mounts:
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
            if self.is_paused:
                await self.resume()
            await self._have_core()
            self._port.send(frame(ToGuest.FINISH, stream=1))
            async with asyncio.timeout(_END_S):
                await self._has_finished.wait()
        except (TimeoutError, RuntimeFailure):
            pass  # it is ended in any case

    async def kill(self, number: int) -> None:
        """Send a signal to PID 1 of the container."""
        self._check()
        await self.main.kill(number)

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
        try:
            request = exec_request(self.spec, process, self._pid)
        except RequestError:
            raise too_long(process) from None
        session = self._port.open(request)
        await session.started()
        if session.failure is not None:
            raise start_failure(process, session)
        _end_no_input(session, process)
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
        files = await jobs.read_files(self._port, *usage_files(self._pid or 1))
        return stats_of(files, self._cpu_ns(), monotonic_ns())

    def _cpu_ns(self) -> int:
        """Return the CPU time of the host that the machine has taken, with what it has of the turn that it is in. The
        domain's usage has whole turns, so that more could be told than passes between two questions.
        """
        vm = self.domain.vm
        of_process = int(seconds_on_processor(vm.pid) * 1e9) if isinstance(vm, ProcessVm) else 0
        return max(of_process, self.domain.usage.host_ns)

    async def update(self, limits: Limits) -> None:
        """Give the container other limits."""
        await self._answer(limits_request(limits))
        await asyncio.to_thread(self._limit, limits)

    def _limit(self, limits: Limits) -> None:
        self.domain.set_limits(**domain_limits(limits))

    async def freeze(self) -> None:
        """Let the container's programs stand still, while files can be read. Raise RuntimeFailure if they do not."""
        await self._answer(freezer_request(True))
        for _ in range(round(_FREEZE_S / _LOOK_S)):
            (events,) = await jobs.read_files(self._port, f"{CGROUP}/cgroup.events")
            if b"frozen 1" in (events or b""):
                return
            await asyncio.sleep(_LOOK_S)
        await self.thaw()
        raise RuntimeFailure(f"the programs of the container {self.spec.id[:12]} do not stand still")

    async def thaw(self) -> None:
        """Let the container's programs go on."""
        await self._answer(freezer_request(False))

    async def change_files(self, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        """Let files that the container finds (:attr:`Spec.files`) have other contents, but for those that the container
        has changed itself: they have not what they had ``before``.
        """
        changed = [path for path in self.spec.files if path in after and before.get(path) != after[path]]
        places = {path: found_file(self.spec, path) for path in changed}
        now = await jobs.read_files(self._port, *places.values()) if changed else []
        new = {places[path]: after[path] for path, one in zip(changed, now, strict=True) if one == before.get(path)}
        if new:
            await self._answer(written_files_request(new))

    async def set_interfaces(self, interfaces: Sequence[Interface], down: Sequence[int] = ()) -> None:
        """Give network cards their addresses, and let nobody see those that are ``down``."""
        self._check()
        names = [f"/sys/class/net/eth{card}/address" for card in range(MOST_CARDS)]
        found = await jobs.read_files(self._port, *names)
        shown = [card for card, content in enumerate(found) if content is not None]
        await self._answer(interfaces_request(interfaces, shown, down))

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
            self._spawn(jobs.drain(session))
            raise
        await self._loop.create_task(_last(session))

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


def _end_no_input(session: Session, process: Process) -> None:
    """Let the input of a program end that has none, as /dev/null does. A terminal goes on without any."""
    if not process.open_stdin and not process.tty:
        session.end_input()


async def _last(session: Session) -> None:
    async for _ in jobs.output(session):
        continue


def _checked(path: str) -> str:
    """Return an absolute path. Raise PathFailure for what can be none."""
    if not path or len(path.encode("utf-8", "surrogateescape")) > 4000 or "\0" in path:
        raise PathFailure(f"{path!r:.80}: this is no path", errno.EINVAL)
    return path if path.startswith("/") else f"/{path}"
