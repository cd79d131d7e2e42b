"""The command line. It takes arguments and returns an exit status. A user never sees a traceback."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the ``dbt`` command. It exits without the interpreter's finalization, which takes longer than many guests."""
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
    worker = sys.modules.get("dbt.engine.worker")  # which a command that compiles nothing has not imported
    if worker is not None:
        worker.let_compilers_finish()
    os._exit(status)
