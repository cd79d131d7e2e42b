"""Exit statuses: the guest's own exit code, or one from a range that programs seldom use.

A guest may exit with one of these numbers too. ``--json`` distinguishes them.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """The exit statuses of ``dbt`` that are not the guest's exit code."""

    DONE = 0
    DIVERGED = 118
    HALTED = 119
    USAGE = 120
    BAD_INPUT = 121
    GUEST_FAULT = 122
    FUEL = 123
    TIMEOUT = 124  # as timeout(1)
    FAILURE = 125  # as timeout(1), docker and others have it for themselves
    INTERRUPTED = 130  # 128 + SIGINT
    BROKEN_PIPE = 141  # 128 + SIGPIPE


MEANINGS = {
    Status.DIVERGED: "the replay differs from what was recorded",
    Status.HALTED: "the guest halted: nothing that it waits for can come",
    Status.USAGE: "the command line is wrong",
    Status.BAD_INPUT: "the program, source, recording or snapshot cannot be used",
    Status.GUEST_FAULT: "the guest caused a fault that nothing handles",
    Status.FUEL: "--fuel is used up",
    Status.TIMEOUT: "--timeout passed",
    Status.FAILURE: "dbt or the host failed",
    Status.INTERRUPTED: "Ctrl-C, Ctrl-A X, kill in a debugger, or quit in a monitor",
    Status.BROKEN_PIPE: "the reader of the output is gone",
}

#: The end of the text of ``--help``.
EPILOG = "Exit status: the guest's exit code, or\n" + "\n".join(
    f"  {status.value}  {meaning}" for status, meaning in MEANINGS.items()
)


class CommandError(Exception):
    """Raised if a command cannot go on. It has one paragraph for the user, and the exit status."""

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(message)
        self.status = status
