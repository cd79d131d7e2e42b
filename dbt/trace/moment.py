"""Opening a moment of a traced run in the debugger: the command that does it."""

from __future__ import annotations

import shlex

#: Any free port, because two runs are often looked at side by side. The command says which it is.
_PORT = 0


def debugger_command(path: str, icount: int, files: str | None = None) -> str:
    """Return the command that runs the guest of the trace at ``path`` up to ``icount`` and lets gdb connect there.

    ``files`` is the directory that the user has given to the guest.
    """
    given = "" if files is None else f" --files {shlex.quote(files)}"
    name = shlex.quote(f"./{path}" if path.startswith("-") else path)
    return f"dbt replay --at {icount} --gdb {_PORT}{given} {name}"
