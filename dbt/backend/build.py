"""Compiles the threaded tier's handlers into an image. Runs as a process of its own:

    python -m dbt.backend.build < /dev/null > image

because LLVM's fatal errors end the process, and so that the process that runs the guest never
imports llvmlite.
"""

from __future__ import annotations

import sys

from dbt.backend.handlers import build_handlers, guards
from dbt.backend.image import Image
from dbt.backend.link import link_image
from dbt.backend.lower import module_text
from dbt.backend.predecode import build_decode_table
from dbt.backend.slowpath import slowpath_text
from dbt.backend.support import support_text
from dbt.frontend.techniques import PASSES


def build_image(opt: int = 2) -> Image:
    """Generate, compile and link all handlers. Imports llvmlite; takes seconds."""
    from isa.a32 import REGISTRY

    handlers = build_handlers(list(REGISTRY))
    guard_list = list(guards())
    definitions = [definition for _, definition in guard_list]
    text = module_text(*handlers.functions, *definitions, support_text(), slowpath_text())
    from dbt.backend.llvm import compile_object

    object_bytes = compile_object(text, PASSES, opt)
    return link_image(object_bytes, handlers.rows, build_decode_table(handlers.rows), [name for name, _ in guard_list])


if __name__ == "__main__":
    sys.stdout.buffer.write(build_image().pack())
