"""Further programs in containers: docker exec."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec

from dbt.containers.engine.api.streams import media_type
from dbt.containers.engine.attaching import Attachment, Wish, detach_keys
from dbt.containers.engine.config import words
from dbt.containers.engine.container import Container
from dbt.containers.engine.creation import check_program_texts, with_variables
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.errors import BadParameter, Conflict, EngineError, NotFound
from dbt.containers.engine.execs import Exec, ExecConfig
from dbt.containers.engine.output import frame
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.containers.engine.specs import process_of
from dbt.containers.engine.start_errors import exec_error
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import Process, ProcessFailure, RuntimeFailure
from dbt.daemon.http_messages import Answer, Hijack, RawStream, Response

#: How long a client may want to resize the terminal of a program before that executes, in seconds, as with dockerd.
_START_S: Final = 10.0


def exec_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Execs(engine)
    return [
        Route("POST", "/containers/{id}/exec", api.create),
        Route("POST", "/exec/{id}/start", api.start),
        Route("POST", "/exec/{id}/resize", api.resize),
        Route("GET", "/exec/{id}/json", api.inspect),
    ]


class _Start(msgspec.Struct, rename="pascal"):
    """The body of the request that starts it."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


class _Execs:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _find(self, call: Call) -> tuple[Container, Exec]:
        for container in self._engine.containers:
            if (found := container.execs.get(call.parts["id"])) is not None:
                return container, found
        raise NotFound(f"No such exec instance: {call.parts['id']}")

    async def create(self, call: Call) -> Answer:
        container, config = self._engine.containers.find(call.parts["id"]), call.json(ExecConfig)
        argv = words(config.cmd)
        if not argv:
            raise BadParameter("No exec command specified")
        check_program_texts((*argv, *(config.env or ()), config.user, config.working_dir))
        detach_keys(config.detach_keys)
        container.running_vm()
        made = Exec(container.id, config, argv)
        container.execs[made.id] = made
        container.tell(f"exec_create: {' '.join(argv)}", execID=made.id)
        return json_answer({"Id": made.id}, 201)

    async def start(self, call: Call) -> Answer:
        (container, exec), wish = self._find(call), call.json(_Start, _Start())
        config = exec.config
        process = _process(container, exec, wish.console_size or config.console_size)
        if wish.detach:
            await _begin(container, exec, process)
            return Response(200, b"", "")
        streams = {1: config.attach_stdout or config.tty, 2: config.attach_stderr}
        keys = detach_keys(config.detach_keys) if config.tty else b""
        chosen = frozenset(number for number, is_wanted in streams.items() if is_wanted)
        raw_wish = Wish(chosen, config.attach_stdin, config.tty, not config.tty, keys)

        async def carry(raw: RawStream) -> None:  # the answer comes before the program, and so do the reasons why not
            listener = exec.output.listen()
            try:
                session = await _begin(container, exec, process)
            except (EngineError, RuntimeFailure) as error:
                text = f"{error}\r\n".encode()
                await raw.write(text if config.tty else frame(1, text))
                return

            async def own_session() -> Session:
                return session

            if await Attachment(raw, raw_wish, listener).carry(own_session):
                container.tell("exec_detach", execID=exec.id)

        return Hijack(carry, content_type=media_type(config.tty, call.version))

    async def resize(self, call: Call) -> Answer:
        _, exec = self._find(call)
        rows, columns = call.number("h"), call.number("w")
        if rows is None or columns is None:
            raise BadParameter('strconv.Atoi: parsing "": invalid syntax')
        with contextlib.suppress(TimeoutError):  # a client resizes at once, when it has sent the request for the start
            async with asyncio.timeout(_START_S):
                await exec.was_started.wait()
        if exec.session is None or not exec.is_running:
            raise BadParameter(f"cannot resize a stopped exec: {exec.id}")
        await exec.session.resize(rows, columns)
        return Response(200, b"", "")

    async def inspect(self, call: Call) -> Answer:
        return json_answer(self._find(call)[1].json())


async def _begin(container: Container, exec: Exec, process: Process) -> Session:
    """Start the program. Raise BadParameter if that is not possible, as docker does, and Conflict."""
    vm = container.running_vm()
    if exec.has_begun:
        what = "has already run" if exec.exit_code is not None else "is already running"
        raise Conflict(f"Error: Exec command {exec.id} {what}")
    exec.has_begun = True
    container.tell(f"exec_start: {' '.join(exec.argv)}", execID=exec.id)
    try:
        session = await vm.exec(process)
    except ProcessFailure as failure:
        exec.was_started.set()
        exec.exit_code, error = exec_error(failure)
        raise error from None
    exec.session, exec.is_running = session, True
    exec.was_started.set()
    container.spawn(_follow(container, exec, session))
    return session


async def _follow(container: Container, exec: Exec, session: Session) -> None:
    code = await exec.follow(session)
    container.tell("exec_die", execID=exec.id, exitCode=str(code))


def _process(container: Container, exec: Exec, size: tuple[int, int] | None) -> Process:
    config, own = exec.config, process_of(container.record.definition)
    rows, columns = size or (0, 0)
    variables = {one.partition("=")[0]: one for one in own.env}
    if config.tty:
        variables.setdefault("TERM", "TERM=xterm")
    return Process(
        tuple(exec.argv),
        with_variables(variables, config.env or []),
        config.working_dir or own.cwd,
        config.user or own.user,
        own.groups,
        config.tty,
        rows or 24,
        columns or 80,
        config.attach_stdin,
        config.privileged,
    )
