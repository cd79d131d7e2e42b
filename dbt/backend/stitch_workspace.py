"""The stitcher's workspace in functions that are being written: its fields, the page that is stitched, and fixups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, IntFlag

from dbt.abi.layout import CODE_PAGE_STRIDE_SHIFT, OP_SIZE_SHIFT, OPS_PER_PAGE, PAGE_SHIFT
from dbt.abi.stitching import ARRAY_OFFSETS, FIELD_OFFSETS, FORM, STUB_BYTES
from dbt.backend.builder import Builder, Value
from dbt.backend.decode import row_field
from dbt.backend.predecode import ROW
from dbt.backend.stencil_lowering import FormFlags
from dbt.backend.stencils import MEASURED, Special
from isa.arm.a32.decoding import CONDITION_SHIFT
from isa.arm.operands import ALWAYS

#: The bytes of a jump's distance.
DISTANCE_SIZE = 4


class Mark(IntFlag):
    """What the stitcher notes of an op of the page."""

    VISITED = 1  # it is to be stitched
    LEADER = 2  # a block begins here
    COUNTED = 4  # it is the head of a loop or a function


class To(IntEnum):
    """Where a jump goes: the lowest byte of an entry of the list of fixups.

    The next byte is a number of instructions, the next two are the number of an op in the page, and the upper half is
    what else is needed.
    """

    HEAD = 0
    BAIL = 1
    CROSS = 2  # the upper half is the target's distance from the page
    HOT = 3  # the upper half is the offset of the counter


class Workspace:
    """The workspace in a function that is being written."""

    def __init__(self, f: Builder) -> None:
        self.f = f
        self.base = f.load_native("stitcher", "ptr")

    def field(self, name: str) -> Value:
        return self.base.at(FIELD_OFFSETS[name])

    def get(self, name: str, type_: str = "i64") -> Value:
        return self.field(name).load(type_)

    def set(self, name: str, value: Value | int) -> None:
        self.f.store(self.f.value("i64", value), self.field(name))

    def increase(self, name: str, by: Value | int = 1) -> None:
        self.set(name, self.get(name) + by)

    def array(self, name: str) -> Value:
        return self.base.at(ARRAY_OFFSETS[name])

    def argument(self, number: int, value: Value | int) -> None:
        """Set an argument of the special stencil that is emitted next."""
        self.f.store(self.f.value("i32", value), self.array("arguments").element("i32", number))

    def emit(
        self,
        stencil: Value | int,
        op: Value | int = 0,
        place: Value | int = 0,
        bail: Value | int = 0,
        target: Value | int = 0,
    ) -> None:
        """Copy a stencil to the end of the code. Its jumps SKIP are in the list of skips then."""
        f = self.f
        values = [f.value("i64", stencil), f.value("ptr", op)]
        values += [f.value("i64", value) for value in (place, bail, target)]
        self.set("skips", 0)
        f.call("emit_stencil", f.cpu, *values)

    def measuring(self, special: Special) -> Value:
        """Return the number of a special stencil (an i64), or of the one that measures if that is asked for."""
        return self.get("measures") * int(MEASURED) + int(special)

    @contextmanager
    def each_skip(self) -> Iterator[Value]:
        """Execute the body with the place of each jump SKIP of the last stencil."""
        with self.f.count(0, self.get("skips"), type_="i64") as number:
            yield self.array("skip_list").element("i64", number).load("i64")

    def link(self, site: Value, place: Value) -> None:
        """Let the jump whose distance is at offset ``site`` go to the code at offset ``place``."""
        distance = (place - (site + DISTANCE_SIZE)).to("i32")
        self.f.store(distance, self.get("write", "ptr").at(site), 1)

    def add_fixup(self, site: Value, to: Value) -> None:
        number = self.get("fixups")
        entry = self.array("fixup_list").at(number << 4)
        self.f.store(site, entry)
        self.f.store(to, entry.at(8))
        self.set("fixups", number + 1)

    def offset_of(self, handler: Value) -> Value:
        """Return the offset in the arena of a handler; it is not less than the size if it is elsewhere."""
        return handler.to("i64") - self.get("execute")

    def has_room_for_stubs(self) -> Value:
        """Return an i1: the arena has room for a stub or two."""
        return (self.get("used") + 2 * STUB_BYTES).ult(self.get("size"))

    def holds(self, handler: Value) -> Value:
        """Return an i1: the handler is stitched code."""
        return self.offset_of(handler).ult(self.get("size"))


def link_to(kind: To, number: Value, count: Value | int = 0, extra: Value | None = None) -> Value:
    """Return the entry of a jump in the list of fixups; all but ``extra`` (an i32) are i64."""
    f = number.f
    found = number << 16 | f.value("i64", count) << 8 if isinstance(count, Value) else number << 16 | count << 8
    if extra is not None:
        found = found | extra.to("i64") << 32
    return found | int(kind)


def in_image(f: Builder, handler: Value) -> Value:
    """Return an i1: the handler belongs to the image."""
    return (handler.to("i64") - f.load_native("image")).ult(f.load_native("image_size"))


def op_place(f: Builder, op: Value) -> tuple[Value, Value]:
    """Return the number of an op's guest page, and of the op in it (i64 each)."""
    offset = op.to("i64") - f.load_native("code_pages")
    return offset >> CODE_PAGE_STRIDE_SHIFT, offset >> OP_SIZE_SHIFT & (OPS_PER_PAGE - 1)


class StitchedPage:
    """The page that is being stitched, in a function that is being written."""

    def __init__(self, f: Builder, w: Workspace, page: Value) -> None:
        self.f, self.w = f, w
        self.page = page
        self.ops = f.load_native("code_pages", "ptr").at(page << CODE_PAGE_STRIDE_SHIFT)
        self.words = f.load_native("ram_host", "ptr").at(page << PAGE_SHIFT)
        self.stack = w.array("stack")

    def op(self, number: Value) -> Value:
        return self.ops.at(number << OP_SIZE_SHIFT)

    def op_number(self, number: Value) -> Value:
        """Return the number of the op (an i32) by which stubs name it: its offset in the code pages, in ops."""
        return (self.page << CODE_PAGE_STRIDE_SHIFT - OP_SIZE_SHIFT | number).to("i32")

    def word(self, number: Value) -> Value:
        return self.words.element("i32", number).load("i32")

    def mark(self, number: Value) -> Value:
        return self.w.array("marks").at(number)

    def leads(self, number: Value) -> Value:
        """Return an i1: a block that is to be stitched begins there."""
        both = int(Mark.VISITED | Mark.LEADER)
        return (self.mark(number).load("i8") & both).eq(both)

    def row_number(self, number: Value) -> Value:
        return self.w.array("rows").element("i16", number)

    def row(self, number: Value) -> Value:
        """Return the decoder's row of a visited op."""
        row_number = self.row_number(number).load("i16").to("i64")
        return self.f.load_native("decode_rows", "ptr").at(row_number * ROW.size)

    def form(self, row_number: Value) -> Value:
        return self.w.get("forms", "ptr").at(row_number * FORM.size)

    def form_of(self, number: Value) -> Value:
        """Return the entry of the form of a visited op."""
        return self.form(self.row_number(number).load("i16").to("i64"))

    def place(self, number: Value) -> Value:
        return self.w.array("places").element("i32", number)

    def is_conditional(self, number: Value, row: Value) -> Value:
        """Return an i1: the instruction has a condition that is evaluated before its stencil."""
        return row_field(row, "has_condition", "i8").ne(0) & (self.word(number) >> CONDITION_SHIFT).ne(ALWAYS)

    def target(self, number: Value, form: Value) -> Value:
        """Return the distance (an i32) from the start of the page to the target of a direct branch."""
        slot = self.op(number).at(form.at(3).load("i8"))
        return number.to("i32") * 4 + form.at(4).load("i8").to("i32") + slot.load("i32")

    def falls(self, number: Value) -> Value:
        """Return an i1: control may go on behind the instruction."""
        flags = self.form_of(number).at(2).load("i8")
        falls = ~flags.has(int(FormFlags.ENDS)) | flags.has(int(FormFlags.FALLS))
        return falls | self.is_conditional(number, self.row(number))
