"""The command line: arguments go in, an exit status comes out, and no traceback reaches a user."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The ``dbt`` command. Ends without the interpreter's farewell, which takes longer than many a guest."""
    try:
        from dbt.cli.app import run_app

        status = int(run_app(sys.argv[1:]))
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except KeyboardInterrupt:  # before the command could deal with it, which is not a guest's business either
        os.write(2, b"dbt: interrupted\n")
        status = 130
    except BrokenPipeError:
        status = 141
    os._exit(status)
