"""Why a program of a container was not started, as docker says it."""

from __future__ import annotations

import errno
import os

from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import Process, ProcessFailure, RuntimeFailure


def start_failure(process: Process, session: Session) -> RuntimeFailure:
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
            what = f"group {group}: no matching entries in group file"
            if error != errno.ESRCH:
                what = f"user {user}: no matching entries in passwd file"
            return ProcessFailure(f"unable to find {what}", 126)
    about = session.items[place] if place < len(session.items) else "the request"
    return RuntimeFailure(f"the container's guest cannot prepare {about}: {reason}")
