"""The process that builds the image of the handlers, which :mod:`dbt.codecache.handlers` starts.

It is a process of its own because LLVM's fatal errors end the process, and so that the process that runs the guest
never imports llvmlite. It imports the specification only where it can say what is wrong with it.
"""

from __future__ import annotations

import sys

#: The status of the process if the handlers cannot be generated from the specification.
NOT_GENERATED = 3


def write_image() -> None:
    """Build the image and write it to standard output.

    If the code cannot be generated, end the process with NOT_GENERATED. The last line of standard error says why then.
    """
    try:
        from dbt.backend.build import compile_code, generate_code

        code = generate_code()
    except Exception as error:
        import traceback

        traceback.print_exception(error)
        lines = "".join(traceback.format_exception_only(error)).splitlines()
        print(", ".join(line.strip() for line in lines), file=sys.stderr)
        sys.exit(NOT_GENERATED)
    sys.stdout.buffer.write(compile_code(code).pack())
