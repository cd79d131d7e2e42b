"""The native stitcher, which makes code of a page's hot ops by copying stencils and filling their holes.

``stitch(cpu, op)`` follows the code from an op through its page, as far as it was executed, and lays out its blocks.
Jumps within the page are linked. Another jump goes to an *edge*, a stub that counts, stitches its target when that is
hot, and links the jump then. Nothing in stitched code depends on the virtual address of its page, on the mode or on
the translation context, just as nothing in an op does.

The head of a block takes its instructions from the budget. What a stencil cannot do bails: a stub gives back the
instructions that were not executed, and goes to the handler of the op, which does the instruction again.

An op at which a block begins has the block's head as its handler. The handler of the image is noted in the op.
"""

from __future__ import annotations

from collections.abc import Callable

from dbt.abi.layout import (
    LEAST_INSNS,
    MAX_BLOCK,
    NOT_STITCHABLE,
    OP_COVERED,
    OP_HOTNESS,
    OP_ORIGINAL,
    OP_SIZE_SHIFT,
    OPS_PER_PAGE,
    PAGE_SHIFT,
    PAGE_SIZE,
    STITCH_COUNTERS_IN_PAGE_SHIFT,
    STITCH_COUNTERS_OFFSET,
    STITCHED,
)
from dbt.abi.stitching import BLOCK, LISTED, MAX_BLOCKS, NO_STENCIL, STUB_BYTES
from dbt.backend.builder import Builder, Value, define
from dbt.backend.decode import find_row, has_pc_operand
from dbt.backend.predecode import ROW
from dbt.backend.stencil_lowering import FormFlags, Hole, Link
from dbt.backend.stencil_table import MAX_STENCIL, PATCH, STENCIL, WIDTH_1
from dbt.backend.stencils import Special
from dbt.backend.stitch_workspace import Mark, StitchedPage, To, Workspace, in_image, link_to, op_place
from dbt.backend.unrolled import FIRST_REGISTER
from isa.arm.a32.decoding import CONDITION_SHIFT

#: The room that must be in the arena before a page is stitched: for each instruction its stencil and some stubs.
RESERVE = OPS_PER_PAGE * (MAX_STENCIL + 4 * STUB_BYTES)


# -- copying a stencil -------------------------------------------------------------------------


def _emit_stencil() -> Builder:
    """``emit_stencil(cpu, stencil, op, place, bail, target)``: copy a stencil and fill its holes.

    ``op`` has the operands; ``bail`` and ``target`` are entries of fixups. The jumps SKIP go to the list of skips.
    """
    parameters = {"stencil": "i64", "op": "ptr", "place": "i64", "bail": "i64", "target": "i64"}
    f = define("emit_stencil", parameters, attributes="noinline")
    w = Workspace(f)
    entry = w.get("stencils", "ptr").at(f["stencil"] << 4)
    source = w.get("code", "ptr").at(entry.load("i32").to("i64"))
    size = entry.at(4).load("i32").to("i64")
    used = w.get("used")
    end = used + size
    target = w.get("write", "ptr").at(used)
    with f.count(0, size, 8, "i64") as at:
        f.store(source.at(at).load("i64", 1), target.at(at), 1)
    first = w.get("patches", "ptr").at(entry.at(8).load("i32").to("i64") << 3)
    with f.count(0, entry.at(12).load("i32").to("i64") << 3, PATCH.size, "i64") as at:
        _patch(f, w, first.at(at), used, end)
    w.set("used", end)
    log = w.get("stencil_log", "ptr")
    with f.when(log.ne(0)):
        noted = log.element("i16", used)
        with f.when(noted.load("i16").eq(0)):  # the head of a block is not what is written over it later
            f.store((f["stencil"] + 1).to("i16"), noted)
    f.ret()
    return f


assert STENCIL.size == 1 << 4 and PATCH.size == 1 << 3


def _patch(f: Builder, w: Workspace, patch: Value, used: Value, end: Value) -> None:
    """Write the code of one patch."""
    site = used + patch.load("i16").to("i64")
    kind, operand = patch.at(2).load("i8"), f["op"].at(patch.at(3).load("i8"))
    with f.repeat() as done:
        with f.when(kind.uge(int(Link.CONT)) & kind.ult(WIDTH_1)):
            with f.when(kind.eq(int(Link.BAIL))):
                w.add_fixup(site, f["bail"])
                done.leave()
            with f.when(kind.eq(int(Link.TARGET))):
                w.add_fixup(site, f["target"])
                done.leave()
            with f.when(kind.eq(int(Link.SKIP))):
                number = w.get("skips")
                f.store(site, w.array("skip_list").element("i64", number))
                w.set("skips", number + 1)
                done.leave()
            w.link(site, end)
            done.leave()
        value = f.variable("i32", 0)
        plain = kind & (WIDTH_1 - 1)
        with f.when(plain.eq(int(Hole.REGISTER))):
            value.set(operand.load("i8").to("i32") << 2)
        with f.when(plain.eq(int(Hole.SLOT4))):
            value.set(operand.load("i32"))
        with f.when(plain.eq(int(Hole.SLOT2))):
            value.set(operand.load("i16").to("i32"))
        with f.when(plain.eq(int(Hole.SLOT1))):
            value.set(operand.load("i8").to("i32"))
        with f.when(plain.eq(int(Hole.PLACE))):
            value.set(f["place"].to("i32"))
        with f.when(plain.eq(int(Hole.OP))):
            value.set(f["op"].to("i64").to("i32"))
        with f.when(plain.eq(int(Hole.ARGUMENT))):
            value.set(w.array("arguments").element("i32", patch.at(3).load("i8")).load("i32"))
        found = value.get() + patch.at(4).load("i32")
        place = w.get("write", "ptr").at(site)
        with f.when(kind.uge(WIDTH_1)):
            f.store(found.to("i8"), place)
            done.leave()
        f.store(found, place, 1)
        done.leave()


# -- finding the blocks ------------------------------------------------------------------------


def _discover() -> Builder:
    """``discover_blocks(cpu, page, first)``: mark what is to be stitched of a page, from the op ``first`` on."""
    f = define("discover_blocks", {"page": "i64", "first": "i64"}, attributes="noinline")
    w = Workspace(f)
    page = StitchedPage(f, w, f["page"])
    depth, index, length = f.variable("i64", 0), f.variable("i64", 0), f.variable("i64", 0)

    def follow(number: Value) -> None:
        f.store(number.to("i16"), page.stack.element("i16", depth.get()))
        depth.set(depth.get() + 1)

    follow(f["first"])
    with f.repeat() as paths:
        with f.when(depth.get().eq(0)):
            paths.leave()
        depth.set(depth.get() - 1)
        index.set(page.stack.element("i16", depth.get()).load("i16").to("i64"))
        length.set(0)
        with f.repeat() as path:
            number = index.get()
            with f.when(number.uge(OPS_PER_PAGE)):
                path.leave()
            mark = page.mark(number)
            marks = mark.load("i8")
            with f.when(marks.has(int(Mark.VISITED))):
                f.store(marks | int(Mark.LEADER), mark)
                path.leave()
            handler = page.op(number).load("ptr")
            with f.when(~in_image(f, handler) | handler.eq(f.function("decode"))):
                path.leave()  # it was not executed, or is stitched, or belongs to a region
            row = find_row(f, page.word(number))
            row_number = (row.to("i64") - f.load_native("decode_rows")) // ROW.size
            form = page.form(row_number)
            with f.when(form.load("i16").eq(NO_STENCIL)):
                path.leave()
            leads = length.get().eq(0).choose(int(Mark.LEADER), 0, "i8")
            f.store(marks | leads | int(Mark.VISITED), mark)
            f.store(row_number.to("i16"), page.row_number(number))
            length.set((length.get() + 1).eq(MAX_BLOCK).choose(0, length.get() + 1))
            with f.when(form.at(2).load("i8").has(int(FormFlags.ENDS))):
                _follow_successors(f, page, number, row, follow)
                path.leave()
            index.set(number + 1)
    f.ret()
    return f


def _follow_successors(
    f: Builder, page: StitchedPage, number: Value, row: Value, follow: Callable[[Value], None]
) -> None:
    """Mark and follow where an instruction that ends a block goes."""
    form = page.form_of(number)
    flags = form.at(2).load("i8")
    is_direct = flags.has(int(FormFlags.DIRECT))
    with f.when(is_direct):
        target = page.target(number, form)
        with f.when(target.ult(PAGE_SIZE)):
            to = target.to("i64") >> 2
            counted = to.ult(number + 1) | flags.has(int(FormFlags.CALL))
            more = counted.choose(int(Mark.LEADER | Mark.COUNTED), int(Mark.LEADER), "i8")
            f.store(page.mark(to).load("i8") | more, page.mark(to))
            with f.when(~page.mark(to).load("i8").has(int(Mark.VISITED))):
                follow(to)
    falls = page.is_conditional(number, row) | flags.has(int(FormFlags.FALLS | FormFlags.CALL))
    with f.when(~falls & ~is_direct):  # behind a return there often is a function, which others call
        behind = page.mark(number + 1)
        f.store(behind.load("i8") | int(Mark.COUNTED), behind)
    with f.when(falls | ~is_direct):
        follow(number + 1)


# -- laying out the blocks ---------------------------------------------------------------------


def _lay_out() -> Builder:
    """``lay_out_blocks(cpu, page)``: emit all blocks that are marked."""
    f = define("lay_out_blocks", {"page": "i64"}, attributes="noinline")
    w = Workspace(f)
    page = StitchedPage(f, w, f["page"])
    with f.count(0, OPS_PER_PAGE, type_="i64") as first, f.when(page.leads(first)):
        end = f.variable("i64", first)
        with f.repeat() as block:
            number = end.get()
            end.set(number + 1)
            with f.when(page.form_of(number).at(2).load("i8").has(int(FormFlags.ENDS))):
                block.leave()
            following = page.mark(number + 1).load("i8")  # there is one more mark than ops
            with f.when(~following.has(int(Mark.VISITED)) | following.has(int(Mark.LEADER))):
                block.leave()
        after = end.get()
        f.store(w.get("used").to("i32"), page.place(first))
        _emit_head(f, w, page, first, after - first)
        with f.count(first, after, type_="i64") as number:
            f.call("emit_insn", f.cpu, f["page"], number, after - number)
        with f.when(page.falls(after - 1)):
            with f.when(after.eq(OPS_PER_PAGE)):
                w.emit(Special.JUMP, target=link_to(To.CROSS, after, 0, f.value("i32", PAGE_SIZE)))
            with f.when(after.ult(OPS_PER_PAGE) & ~page.leads(after)):
                w.emit(Special.JUMP, target=link_to(To.HEAD, after))
        _log_block(w, page, first, after - first)
    f.ret()
    return f


def _emit_head(f: Builder, w: Workspace, page: StitchedPage, first: Value, length: Value) -> None:
    w.argument(0, length.to("i32"))
    bail = link_to(To.BAIL, first, length)
    counter = w.get("counters")
    counted = page.mark(first).load("i8").has(int(Mark.COUNTED)) & counter.ult(w.get("counts"))
    with f.when(counted):
        group, place = counter >> STITCH_COUNTERS_IN_PAGE_SHIFT, counter & (1 << STITCH_COUNTERS_IN_PAGE_SHIFT) - 1
        offset = (group << PAGE_SHIFT | place << 2).to("i32") + STITCH_COUNTERS_OFFSET
        f.store(w.get("warm").to("i32"), f.cpu.at(offset.to("i64")))
        w.set("counters", counter + 1)
        w.argument(1, offset)
        w.argument(2, _counted(length))
        w.emit(w.measuring(Special.COUNTED_HEAD), bail=bail)
        with w.each_skip() as site:
            w.add_fixup(site, link_to(To.HOT, first, length, offset))
    with f.when(~counted):
        w.emit(w.measuring(Special.HEAD), bail=bail)


def _counted(length: Value) -> Value:
    """Return what the head of a block of this length counts."""
    return length.ult(LEAST_INSNS).choose(LEAST_INSNS, length).to("i32")


def _log_block(w: Workspace, page: StitchedPage, first: Value, length: Value) -> None:
    """Count the block that ends here, and note it if there is a log."""
    f, log = w.f, w.get("block_log")
    with f.when(log.ne(0)):
        root = w.get("root")
        arrivals = f.load_native("code_pages", "ptr").at((root << OP_SIZE_SHIFT) + OP_HOTNESS).load("i16").to("i32")
        place = page.place(first).load("i32")
        size = w.get("used").to("i32") - place
        entry = w.get("block_log", "ptr").at((w.get("blocks") & MAX_BLOCKS - 1) * BLOCK.size)
        for number, value in enumerate(
            (page.op_number(first), place, size, length.to("i32"), root.to("i32"), arrivals)
        ):
            f.store(value, entry.at(4 * number))
    w.increase("blocks")


def _emit_insn() -> Builder:
    """``emit_insn(cpu, page, number, left)``: emit an instruction. ``left`` of the block are not executed, with it."""
    f = define("emit_insn", {"page": "i64", "number": "i64", "left": "i64"}, attributes="noinline")
    w = Workspace(f)
    number = f["number"]
    page = StitchedPage(f, w, f["page"])
    row, form, word = page.row(number), page.form_of(number), page.word(number)
    place = number << 2
    conditional = page.is_conditional(number, row)
    skips, first_skip, second_skip = (f.variable("i64", 0) for _ in range(3))
    with f.when(conditional):
        w.emit((word >> CONDITION_SHIFT).to("i64") + int(Special.FIRST_CONDITION))
        skips.set(w.get("skips"))
        first_skip.set(w.array("skip_list").load("i64"))
        second_skip.set(w.array("skip_list").at(8).load("i64"))
    with f.when(has_pc_operand(f, row, word).ne(0)):
        w.emit(Special.SET_PC, place=place)
    target = f.variable("i64", 0)
    with f.when(form.at(2).load("i8").has(int(FormFlags.DIRECT))):
        distance = page.target(number, form)
        inside = distance.ult(PAGE_SIZE)
        near = link_to(To.HEAD, (distance >> 2).to("i64"))
        target.set(inside.choose(near, link_to(To.CROSS, f.value("i64", 0), 0, distance)))
    stencil = _unrolled_or_not(f, w, form, page.op(number))
    w.emit(stencil, page.op(number), place, link_to(To.BAIL, number, f["left"]), target.get())
    with f.when(skips.get().ugt(0)):
        w.link(first_skip.get(), w.get("used"))
    with f.when(skips.get().ugt(1)):
        w.link(second_skip.get(), w.get("used"))
    f.ret()
    return f


def _unrolled_or_not(f: Builder, w: Workspace, form: Value, op: Value) -> Value:
    """Return the number (i64) of the stencil of an instruction. If it is unrolled, its registers become arguments."""
    stencil = f.variable("i64", form.load("i16").to("i64"))
    most = form.at(5).load("i8").to("i64")
    with f.when(most.ne(0)):
        count = f.variable("i64", 0)
        rest = f.variable("i32", op.at(form.at(3).load("i8")).load("i16").to("i32"))
        with f.repeat() as bits:
            mask = rest.get()
            with f.when(mask.eq(0) | count.get().ugt(most)):
                bits.leave()
            number = f.trailing_zeros(mask)
            f.store(number << 2, w.array("arguments").element("i32", count.get() + FIRST_REGISTER))
            count.set(count.get() + 1)
            rest.set(mask & (mask - 1))
        with f.when(count.get().ne(0) & count.get().ult(most + 1)):
            stencil.set(form.at(6).load("i16").to("i64") + count.get() - 1)
    return stencil.get()


# -- linking -----------------------------------------------------------------------------------


def _link_jumps() -> Builder:
    """``link_jumps(cpu, page)``: link the jumps of the new blocks: to each other, to older blocks, or to stubs."""
    f = define("link_jumps", {"page": "i64"}, attributes="noinline")
    w = Workspace(f)
    page = StitchedPage(f, w, f["page"])
    last_to, last_place = f.variable("i64", -1), f.variable("i64", 0)
    with f.count(0, w.get("fixups"), type_="i64") as entry:
        fixup = w.array("fixup_list").at(entry << 4)
        site, to = fixup.load("i64"), fixup.at(8).load("i64")
        kind, count = to.to("i8"), (to >> 8 & 0xFF).to("i32")
        number, extra = to >> 16 & 0xFFFF, (to >> 32).to("i32")
        place = f.variable("i64", 0)
        with f.when(kind.eq(int(To.HEAD))):
            place.set(page.place(number).load("i32").to("i64"))
            handler = page.op(number).load("ptr")
            with f.when(place.get().eq(0) & w.holds(handler)):
                place.set(w.offset_of(handler))
        with f.when(kind.eq(int(To.BAIL)) & to.eq(last_to.get())):
            place.set(last_place.get())  # of the same instruction
        with f.when(place.get().eq(0)):
            place.set(w.get("used"))
            w.argument(0, kind.eq(int(To.CROSS)).choose(extra, page.op_number(number)))
            w.argument(1, kind.eq(int(To.BAIL)).choose(count, site.to("i32")))
            stub = f.variable("i64", int(Special.EDGE))
            with f.when(kind.eq(int(To.BAIL))):
                stub.set(w.measuring(Special.BAIL))
            with f.when(kind.eq(int(To.CROSS))):
                stub.set(int(Special.CROSS_EDGE))
            with f.when(kind.eq(int(To.HOT))):
                stub.set(w.measuring(Special.HOT))
                w.argument(1, count)
                w.argument(2, extra)
                w.argument(3, _counted(count.to("i64")))
            w.emit(stub.get())
        w.link(site, place.get())
        last_to.set(to)
        last_place.set(place.get())
    f.ret()
    return f


def _install() -> Builder:
    """``install_blocks(cpu, page)``: let the ops at which the new blocks begin have them as handlers."""
    f = define("install_blocks", {"page": "i64"}, attributes="noinline")
    w = Workspace(f)
    page = StitchedPage(f, w, f["page"])
    image = f.load_native("image")
    visited = int(Mark.VISITED)
    with f.count(0, OPS_PER_PAGE, type_="i64") as number, f.when(page.mark(number).load("i8").has(visited)):
        w.increase("insns")
        op = page.op(number)
        f.store(op.at(OP_COVERED).load("i8") | STITCHED, op.at(OP_COVERED))
        with f.when(page.leads(number)):
            place = page.place(number).load("i32").to("i64")
            f.store((op.load("ptr").to("i64") - image).to("i32"), op.at(OP_ORIGINAL))
            f.store(w.get("execute", "ptr").at(place), op)
    rewrites = w.array("rewrites").at(f["page"])
    with f.when(~rewrites.load("i8").has(LISTED)):
        f.store(rewrites.load("i8") | LISTED, rewrites)
        f.store(f["page"].to("i32"), w.array("page_list").element("i32", w.get("pages")))
        w.increase("pages")
    f.ret()
    return f


def _stitch() -> Builder:
    """``stitch(cpu, op)``: stitch the code of a page from an op on, whose handler is the image's."""
    f = define("stitch", {"op": "ptr"}, attributes="noinline")
    w = Workspace(f)
    with f.when((w.get("used") + RESERVE).ugt(w.get("size"))):
        f.call("drop_stitched", f.cpu)
    page, first = op_place(f, f["op"])
    with f.count(0, OPS_PER_PAGE + 8, 8, "i64") as at:
        f.store(f.value("i64", 0), w.array("marks").at(at))
    with f.count(0, 4 * OPS_PER_PAGE, 8, "i64") as at:
        f.store(f.value("i64", 0), w.array("places").at(at))
    w.set("fixups", 0)
    w.set("root", (f["op"].to("i64") - f.load_native("code_pages")) >> OP_SIZE_SHIFT)
    mark = w.array("marks").at(first)
    f.store(f.value("i8", int(Mark.COUNTED)), mark)
    f.call("discover_blocks", f.cpu, page, first)
    with f.when(mark.load("i8").has(int(Mark.VISITED))):
        f.call("lay_out_blocks", f.cpu, page)
        f.call("link_jumps", f.cpu, page)
        f.call("install_blocks", f.cpu, page)
        f.ret()
    with f.when(f["op"].load("ptr").ne(f.function("decode"))):
        marks = f["op"].at(OP_COVERED)
        f.store(marks.load("i8") | NOT_STITCHABLE, marks)
    f.ret()
    return f


def stitcher_text() -> str:
    """Return the LLVM text of this module's definitions."""
    functions: list[Builder] = [
        _emit_stencil(),
        _discover(),
        _lay_out(),
        _emit_insn(),
        _link_jumps(),
        _install(),
        _stitch(),
    ]
    return "".join(f.text() for f in functions)
