"""Further programs in a container: docker exec."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import msgspec

from dbt.containers.engine.output import Output
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import VmEnded


class ExecConfig(msgspec.Struct, rename="pascal"):
    """The body of the request for another program."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    console_size: tuple[int, int] | None = None
    cmd: list[str] | str | None = None
    env: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class Exec:
    """A program that somebody wants to run in the container ``container_id``, runs, or has run."""

    def __init__(self, container_id: str, config: ExecConfig, argv: list[str]) -> None:
        self.id = secrets.token_hex(32)
        self.container_id = container_id
        self.config = config
        self.argv = argv
        self.output = Output()
        self.session: Session | None = None
        self.exit_code: int | None = None
        self.is_running = False
        self.has_begun = False
        #: Set when the program executes, or will never do so.
        self.was_started = asyncio.Event()

    async def follow(self, session: Session) -> int:
        """Carry what the program writes, until its end. Return its exit code."""
        try:
            await self.output.carry(session, lambda stream, data: None)
            self.exit_code = await session.wait()
        except VmEnded:
            self.exit_code = 137
        finally:
            self.is_running = False
            self.output.end()
        return self.exit_code

    def json(self) -> dict[str, Any]:
        """Return what docker's inspect says of it."""
        config = self.config
        return {
            "ID": self.id,
            "Running": self.is_running,
            "ExitCode": self.exit_code,
            "ProcessConfig": {
                "tty": config.tty,
                "entrypoint": self.argv[0],
                "arguments": self.argv[1:],
                "privileged": config.privileged,
                **({"user": config.user} if config.user else {}),
            },
            "OpenStdin": config.attach_stdin,
            "OpenStderr": config.attach_stderr,
            "OpenStdout": config.attach_stdout,
            "CanRemove": False,
            "ContainerID": self.container_id,
            "DetachKeys": config.detach_keys,
            "Pid": self.session.pid if self.session else 0,
        }
