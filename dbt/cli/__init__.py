"""The command line. It takes arguments and returns an exit status. A user never sees a traceback."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def main() -> None:
    """Run the ``dbt`` command. It exits without the interpreter's finalization, which takes longer than many guests."""
    try:
        _postpone("inspect")
        gc.disable()  # until a guest runs: nearly all that is made before it stays, and looking for what does not costs
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
    if (images := sys.modules.get("dbt.host.qcow2_writer")) is not None:
        for refused in images.close_open_images():
            os.write(2, f"dbt: {refused}\n".encode())
    # What a command that compiles nothing has not imported has nothing to do at the end.
    if (unfinished := sys.modules.get("dbt.engine.unfinished")) is not None:
        unfinished.write_down_unfinished_work()
    if (worker := sys.modules.get("dbt.engine.worker")) is not None:
        worker.let_compilers_finish()
    os._exit(status)


def _postpone(name: str) -> None:
    """Put a placeholder in the place of a module of the standard library, which is imported when it is used.

    The module dataclasses imports inspect, and so seven other modules, which takes nearly as long as starting Python.
    It uses inspect only to describe a dataclass without a docstring. (importlib's LazyLoader does not help: up to
    Python 3.11 already the statement ``import`` makes it load.)
    """
    if name in sys.modules:
        return

    def load(attribute: str) -> Any:
        if sys.modules.get(name) is placeholder:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    placeholder = ModuleType(name)
    vars(placeholder)["__getattr__"] = load
    sys.modules[name] = placeholder
