"""The process that builds the image of the handlers, which :mod:`dbt.codecache.handlers` starts.

It is a process of its own because LLVM's fatal errors end the process, and so that the process that runs the guest
never imports llvmlite. It imports the specification only where it can say what is wrong with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from dbt.backend.stencil_table import StencilTable

#: The status of the process if the handlers cannot be generated from the specification.
NOT_GENERATED = 3


def write_image(die_with: Callable[[int], None]) -> None:
    """Build the image and write it to standard output. ``die_with`` lets a process end with its parent.

    If the code cannot be generated, end the process with NOT_GENERATED. The last line of standard error says why then.
    """
    stencils = _build_stencils_beside(die_with)
    try:
        from dbt.backend.build import compile_code, generate_code

        code = generate_code()
    except Exception as error:
        _explain(error)
        sys.exit(NOT_GENERATED)
    sys.stdout.buffer.write(compile_code(code, stencils).pack())


def _explain(error: Exception) -> None:
    import traceback

    traceback.print_exception(error)
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    print(", ".join(line.strip() for line in lines), file=sys.stderr)


def _build_stencils_beside(die_with: Callable[[int], None]) -> Callable[[], StencilTable]:
    """Start to build the stencils in a child process. Return a function that waits for them.

    It takes nearly as long as the rest, so a host with two processors builds the image in half the time.
    """
    parent = os.getpid()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _write_stencils(writer, lambda: die_with(parent))
    os.close(writer)

    def wait() -> StencilTable:
        with os.fdopen(reader, "rb") as pipe:
            data = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            sys.exit(NOT_GENERATED if status == NOT_GENERATED else f"the stencils cannot be built (status {status})")
        from dbt.backend.stencil_table import StencilTable

        return StencilTable.unpack(data)

    return wait


def _write_stencils(writer: int, die_with_parent: Callable[[], None]) -> NoReturn:
    """In the child: build the stencils, write them, and end the process."""
    status = 1
    try:
        die_with_parent()
        from dbt.backend.build import build_stencils

        data = build_stencils().pack()
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data)
        status = 0
    except Exception as error:
        _explain(error)
        status = NOT_GENERATED
    finally:
        sys.stderr.flush()
        os._exit(status)
