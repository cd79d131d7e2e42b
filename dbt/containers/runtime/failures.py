"""Why a program of a container was not started, as docker says it."""

from __future__ import annotations

import errno
import json
import os

from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import Process, ProcessFailure, RuntimeFailure


def start_failure(process: Process, session: Session) -> RuntimeFailure:
    """Return why a program was not started, as docker says it."""
    assert session.failure is not None
    error, tag, place = session.failure
    reason, name = os.strerror(error).lower(), process.argv[0] if process.argv else ""
    quoted = json.dumps(name, ensure_ascii=False)
    match tag:
        case "p" if not name or (error == errno.ENOENT and "/" not in name):
            return ProcessFailure(f"exec: {quoted}: executable file not found in $PATH", 127)
        case "p" if error == errno.ENOENT:
            return ProcessFailure(f"exec: {quoted}: stat {name}: no such file or directory", 127)
        case "p":
            return ProcessFailure(f"exec: {quoted}: {reason}", 126)
        case "d":
            return ProcessFailure(f'chdir to cwd ("{process.cwd}") set in config.json failed: {reason}', 126)
        case "U":
            return ProcessFailure(_unknown_user(process, error), 126)
    about = session.items[place] if place < len(session.items) else "the request"
    return RuntimeFailure(f"the container's guest cannot prepare {about}: {reason}")


def too_long(process: Process) -> ProcessFailure:
    """Return why a program was not started that has too many arguments, or too large an environment."""
    name = json.dumps(process.argv[0] if process.argv else "", ensure_ascii=False)
    return ProcessFailure(f"exec: {name}: {os.strerror(errno.E2BIG).lower()}", 126)


def _unknown_user(process: Process, error: int) -> str:
    """Return who is not known. Of several groups, the guest does not say which."""
    user, _, group = process.user.partition(":")
    if error != errno.ESRCH:
        return f"unable to find user {user}: no matching entries in passwd file"
    if group and not group.isdigit():
        return f"unable to find group {group}: no matching entries in group file"
    names = [name for name in process.groups if name and not name.isdigit()]
    what = f"group {names[0]}" if len(names) == 1 else f"one of the groups {', '.join(names)}"
    return f"Unable to find {what}: no matching entries in group file"
