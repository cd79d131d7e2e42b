"""Building the image of the threaded tier's handlers, in a process of its own (:mod:`dbt.backend.build_process`)."""

from __future__ import annotations

import array
import re
from dataclasses import dataclass

from dbt.backend.charging import charging_text
from dbt.backend.code_pages import code_pages_text
from dbt.backend.debug_points import debug_points_text
from dbt.backend.decode import decode_text
from dbt.backend.device_access import device_access_text
from dbt.backend.dirty_log import dirty_log_text
from dbt.backend.dispatch import dispatch_text
from dbt.backend.handlers import build_handlers, guards
from dbt.backend.image import ENTRY_POINTS, Image
from dbt.backend.link import link_objects
from dbt.backend.lower import module_text
from dbt.backend.native_exceptions import native_exceptions_text
from dbt.backend.originals import originals_text
from dbt.backend.predecode import NO_HOLE, ROW, Candidate, DecodeTable, build_decode_table
from dbt.backend.routines import routines_text
from dbt.backend.shadow import shadow_text
from dbt.backend.slowpath import slowpath_text
from dbt.backend.stencil_table import StencilTable, link_stencils
from dbt.backend.stencils import generate_stencils
from dbt.backend.stitched_code import stitched_code_text
from dbt.backend.stitcher import stitcher_text
from dbt.frontend.optimizations import PASSES
from isa.arm.architecture import CALLOUT_NUMBERS

#: Handlers are compiled in two modules, because two processors need half the time for them.
_MODULES = 2
_HEAD = re.compile(r"^define (.*) \{$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GeneratedCode:
    """``texts`` are the LLVM modules that are to be compiled, and linked in this order; ``guard_names`` has the names
    of the guards.
    """

    texts: list[str]
    rows: list[Candidate]
    guard_names: list[str]


def _modules(definitions: list[str]) -> list[str]:
    """Return modules of about equal size with these definitions, and declarations of what the others define."""
    heads = [_HEAD.findall(definition) for definition in definitions]
    size, ends = 0, list[int]()
    for number, definition in enumerate(definitions, 1):
        size += len(definition)
        ends += [number] * (size * _MODULES // sum(map(len, definitions)) - len(ends))
    starts = [0, *ends[:-1]]
    texts = []
    for start, end in zip(starts, ends, strict=True):
        others = [f"declare {head}" for those in (*heads[:start], *heads[end:]) for head in those]
        texts.append(module_text(*others, *definitions[start:end]))
    return texts


def generate_code() -> GeneratedCode:
    """Generate all handlers from the specification. Does not import llvmlite."""
    from isa.arm.a32 import REGISTRY

    handlers = build_handlers(list(REGISTRY))
    guard_list = list(guards())
    definitions = [definition for _, definition in guard_list]
    functions = [
        *handlers.functions,
        *definitions,
        dispatch_text(),
        decode_text(),
        code_pages_text(),
        charging_text(),
        native_exceptions_text(),
        slowpath_text(),
        dirty_log_text(),
        device_access_text(),
        shadow_text(),
        stitcher_text(),
        stitched_code_text(),
        routines_text(),
        originals_text(),
        debug_points_text(),  # behind the handlers: see docs/decisions/debugger-stops.md
    ]
    return GeneratedCode(_modules(functions), handlers.rows, [name for name, _ in guard_list])


def build_stencils(opt: int = 2) -> StencilTable:
    """Generate and compile the stencils. Imports llvmlite; takes seconds."""
    from dbt.backend.llvm import compile_object
    from isa.arm.a32 import REGISTRY

    stencils = generate_stencils(REGISTRY)
    return link_stencils(compile_object(stencils.text, PASSES, opt, absolute=True), stencils.forms)


def compile_module(text: str, opt: int = 2) -> bytes:
    """Return the object of one module. Imports llvmlite; takes seconds."""
    from dbt.backend.llvm import compile_object

    return compile_object(text, PASSES, opt)


def build_image(opt: int = 2) -> Image:
    """Generate, compile and link all handlers and stencils."""
    code = generate_code()
    return link_code(code, [compile_module(text, opt) for text in code.texts], build_stencils(opt))


def link_code(code: GeneratedCode, objects: list[bytes], stencils: StencilTable) -> Image:
    """Return the image of compiled code, of which there is an object for each module, and of the stencils."""
    return link_image(objects, code.rows, build_decode_table(code.rows), code.guard_names, stencils)


def link_image(
    objects: list[bytes], rows: list[Candidate], table: DecodeTable, guard_names: list[str], stencils: StencilTable
) -> Image:
    """Return the image of the compiled handlers, the decoder's rows and the stencils."""
    code, symbols = link_objects(objects)
    packed = bytearray()
    for row in rows:
        holes = [*row.holes, NO_HOLE, NO_HOLE][:2]
        pairs = [byte for pair in row.pc_operands for byte in pair]
        packed += ROW.pack(
            row.mask, row.value, *holes[0], *holes[1], symbols[row.handler], symbols[row.fill],
            row.has_condition, len(row.pc_operands), row.since, *pairs, *[0] * (8 - len(pairs)),
        )  # fmt: skip
    lines = [f"{symbols[name]} {name}" for name in ENTRY_POINTS]
    lines += [f"{symbols[row.handler]} {row.handler} {row.name}" for row in rows]
    return Image(
        code,
        array.array("I", table.index).tobytes(),
        array.array("H", table.pool).tobytes(),
        bytes(packed),
        array.array("I", [symbols[name] for name in guard_names]).tobytes(),
        array.array("I", [symbols[row.handler] for row in rows if row.counts]).tobytes(),
        "\n".join(CALLOUT_NUMBERS).encode(),
        stencils.code,
        stencils.stencils,
        stencils.patches,
        stencils.forms,
        "\n".join(lines).encode(),
    )
