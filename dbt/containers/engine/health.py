"""Health checks: a program that runs in a container now and then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from dbt.containers.engine.creation import with_variables
from dbt.containers.engine.errors import EngineError
from dbt.containers.engine.records import Health
from dbt.containers.engine.specs import process_of
from dbt.containers.engine.timestamps import now
from dbt.containers.images.config import HealthCheck
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import Process, ProcessFailure, RuntimeFailure

if TYPE_CHECKING:
    from dbt.containers.engine.container import Container

_NS: Final = 10**9
_INTERVAL_S: Final = 30.0
_TIMEOUT_S: Final = 30.0
_START_INTERVAL_S: Final = 5.0
_RETRIES: Final = 3
#: How much of what a check says is kept, and of how many.
_MOST_OUTPUT: Final = 4096
_MOST_RESULTS: Final = 5
_SHELL: Final = ["/bin/sh", "-c"]


def command_of(check: HealthCheck | None, shell: list[str] | None) -> list[str] | None:
    """Return the command of a health check, or None if there is none."""
    test = check.test if check is not None else None
    match test:
        case None | [] | ["NONE", *_]:
            return None
        case ["CMD-SHELL", *rest]:
            return [*(shell or _SHELL), *rest]
        case ["CMD", *rest]:
            return rest
        case _:
            return None


class HealthChecks:
    """Checks a container while it runs."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin, if the container has a check."""
        config = self._container.record.definition.config
        command = command_of(config.healthcheck, config.shell)
        if command is None:
            self._container.record.state.health = None
            return
        assert config.healthcheck is not None
        self._container.record.state.health = Health()
        self._container.save()
        self._task = self._container.spawn(self._run(command, config.healthcheck))

    def end(self) -> None:
        """End: the container has ended."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, command: list[str], check: HealthCheck) -> None:
        begun = asyncio.get_running_loop().time()
        period = check.start_period / _NS
        while True:
            health = self._container.record.state.health
            assert health is not None
            is_new = health.status == "starting" and asyncio.get_running_loop().time() - begun < period
            interval = check.interval / _NS or _INTERVAL_S
            if is_new:
                interval = check.start_interval / _NS or min(_START_INTERVAL_S, interval)
            await asyncio.sleep(interval)
            if self._container.shown_state.paused:
                continue
            result = await self._check(command, check.timeout / _NS or _TIMEOUT_S)
            is_forgiven = asyncio.get_running_loop().time() - begun < period
            self._note(health, result, check.retries or _RETRIES, is_forgiven)

    async def _check(self, command: list[str], timeout_s: float) -> dict[str, Any]:
        """Return docker's result of one check."""
        container, begun = self._container, now()
        own = process_of(container.record.definition)
        process = Process(tuple(command), with_variables({}, list(own.env)), own.cwd, own.user, own.groups)
        code, said = -1, b""
        session: Session | None = None
        try:
            vm = container.running_vm()
            async with asyncio.timeout(timeout_s):
                session = await vm.exec(process)
                while (piece := await session.read()) is not None:
                    said = (said + piece[1])[:_MOST_OUTPUT]
                code = await session.wait()
        except TimeoutError:
            said = f"Health check exceeded timeout ({timeout_s:g}s): ".encode() + said
            if session is not None:
                await session.kill(9)
        except ProcessFailure as failure:
            code, said = failure.exit_code, str(failure).encode()
        except (RuntimeFailure, EngineError) as failure:
            said = str(failure).encode()
        return {"Start": begun, "End": now(), "ExitCode": code, "Output": said.decode("utf-8", "replace")}

    def _note(self, health: Health, result: dict[str, Any], retries: int, is_forgiven: bool) -> None:
        before = health.status
        health.log = [*health.log, result][-_MOST_RESULTS:]
        if result["ExitCode"] == 0:
            health.failing, health.status = 0, "healthy"
        elif not (is_forgiven and before == "starting"):
            health.failing += 1
            if health.failing >= retries:
                health.status = "unhealthy"
        self._container.save()
        if health.status != before:
            self._container.tell(f"health_status: {health.status}")
