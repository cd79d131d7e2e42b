"""Why a container or a program was not started, as docker says it, and the exit code that it has then."""

from __future__ import annotations

import re
from typing import Final

from dbt.containers.engine.errors import BadParameter, EngineError
from dbt.containers.network.errors import Forbidden, NetworkFailure
from dbt.containers.runtime.spec import ProcessFailure, RuntimeFailure

_INSIDE: Final = "runc create failed: unable to start container process: "
_START: Final = f"failed to create shim task: OCI runtime create failed: {_INSIDE}"
_EXEC: Final = "OCI runtime exec failed: exec failed: "
#: What comes next in docker's sentence, unless runc has found the fault before it starts a process.
_EXEC_INSIDE: Final = "unable to start container process: "
_BEFORE: Final = ("Cwd must be ",)
#: The beginnings of sentences that docker says without any other before them, and what of ports.
_BARE: Final = ("unable to find ", "Unable to find ", "uids and gids must be ")
_OF_PORTS: Final = ("Bind for ", "Error starting userland proxy")
_NO_FOLDER: Final = re.compile(r'chdir to cwd \("(.*)"\) set in config\.json failed: not a directory', re.DOTALL)
#: The exit code of a container that was not started, and of a program that was not.
_NOT_STARTED: Final = 128
_NOT_EXECUTED: Final = 126


def start_error(id: str, name: str, failure: RuntimeFailure | NetworkFailure) -> tuple[int, Exception]:
    """Return the exit code of a container that was not started, and the error for who wanted that."""
    text = str(failure)
    if isinstance(failure, ProcessFailure) and (found := _NO_FOLDER.fullmatch(text)):
        return _NOT_STARTED, EngineError(f"Cannot mkdir: {found[1]} is not a directory")
    if isinstance(failure, ProcessFailure) and not text.startswith(_BARE):
        return failure.exit_code, BadParameter(f"{_START}{text}: unknown")
    if isinstance(failure, NetworkFailure):
        if isinstance(failure, Forbidden) and text.startswith(_OF_PORTS):
            text = f"driver failed programming external connectivity on endpoint {name} ({id}): {text}"
            return _NOT_STARTED, EngineError(text)
        return _NOT_STARTED, failure
    return _NOT_STARTED, EngineError(text)


def exec_error(failure: ProcessFailure) -> tuple[int, Exception]:
    """Return the same for another program in a container."""
    text = str(failure)
    if not text.startswith(_BARE):
        text = f"{_EXEC}{'' if text.startswith(_BEFORE) else _EXEC_INSIDE}{text}: unknown"
    return _NOT_EXECUTED, BadParameter(text)
