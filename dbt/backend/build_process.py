"""The process that builds the image of the handlers, which :mod:`dbt.codecache.handlers` starts.

It is a process of its own because LLVM's fatal errors end the process, and so that the process that runs the guest
never imports llvmlite. It imports the specification only where it can say what is wrong with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import NoReturn

#: The status of the process if the handlers cannot be generated from the specification.
NOT_GENERATED = 3


def write_image(die_with: Callable[[int], None]) -> None:
    """Build the image and write it to standard output. ``die_with`` lets a process end with its parent.

    If the code cannot be generated, end the process with NOT_GENERATED. The last line of standard error says why then.
    """
    stencils = _beside(die_with, _packed_stencils)
    try:
        from dbt.backend.build import compile_module, generate_code, link_code

        code = generate_code()
    except Exception as error:
        _explain(error)
        sys.exit(NOT_GENERATED)
    *others, own = code.texts
    compiled = [_beside(die_with, partial(compile_module, text)) for text in others]
    last = compile_module(own)

    from dbt.backend.stencil_table import StencilTable

    objects = [*(one() for one in compiled), last]
    sys.stdout.buffer.write(link_code(code, objects, StencilTable.unpack(stencils())).pack())


def _packed_stencils() -> bytes:
    from dbt.backend.build import build_stencils

    return build_stencils().pack()


def _explain(error: Exception) -> None:
    import traceback

    traceback.print_exception(error)
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    print(", ".join(line.strip() for line in lines), file=sys.stderr)


def _beside(die_with: Callable[[int], None], build: Callable[[], bytes]) -> Callable[[], bytes]:
    """Start to build a part in a child process. Return a function that waits for what ``build`` returns."""
    parent = os.getpid()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _write(writer, build, lambda: die_with(parent))
    os.close(writer)

    def wait() -> bytes:
        with os.fdopen(reader, "rb") as pipe:
            data = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            sys.exit(NOT_GENERATED if status == NOT_GENERATED else f"a part cannot be built (status {status})")
        return data

    return wait


def _write(writer: int, build: Callable[[], bytes], die_with_parent: Callable[[], None]) -> NoReturn:
    """In the child: build a part, write it, and end the process."""
    status = 1
    try:
        die_with_parent()
        data = build()
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data)
        status = 0
    except Exception as error:
        _explain(error)
        status = NOT_GENERATED
    finally:
        sys.stderr.flush()
        os._exit(status)
