"""What a trace has of stitched code: the blocks as they were at the end of the run, made of which stencils, with their
links.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from dbt.abi.addresses import Gpa, Hva
from dbt.abi.layout import OP_SIZE_SHIFT, STITCH_ARRIVALS
from dbt.backend.stencil_lowering import Hole, Link
from dbt.backend.stencil_table import PATCH, STENCIL, WIDTH_1
from dbt.backend.stencils import FIRST_FORM, Special, obstacle
from dbt.engine.code_pages import op_address
from dbt.engine.stitch_log import BlockState
from dbt.trace.shape import Fields, check
from isa.arm.a32 import DECODER
from isa.arm.operands import CONDITION_NAMES

_ABOUT = {
    "address": int,
    "size": int,
    "blocks": [Fields((int,) * 7)],
    "words": [str],
    "lost": int,
    "stencils": str,
    "patches": str,
    "names": [Fields((int, str))],
    "others": [Fields((int, int))],
}
_MOST_PATCHES = 256
_HEADS = {Special.HEAD, Special.COUNTED_HEAD, Special.MEASURED_HEAD, Special.MEASURED_COUNTED_HEAD}
_SPECIAL_TEXTS = {
    Special.HEAD: "head",
    Special.COUNTED_HEAD: "head that counts arrivals",
    Special.MEASURED_HEAD: "head",
    Special.MEASURED_COUNTED_HEAD: "head that counts arrivals",
    Special.SET_PC: "R15 as operand",
    Special.JUMP: "jump",
}


class Piece(NamedTuple):
    """A stencil in a block: offset and bytes in the code, and which instruction of the block it is for: -1 for the
    head.
    """

    offset: int
    size: int
    name: str
    insn: int


class BlockLink(NamedTuple):
    """A jump out of the piece at ``offset``. ``kind`` says how; ``to`` is the GPA where it goes, or None with
    ``distance`` from the first byte of the block's page, for another page.
    """

    offset: int
    kind: str
    to: Gpa | None
    distance: int = 0


@dataclass(frozen=True, slots=True)
class TracedBlock:
    """A stitched block. ``words`` are what RAM had at the end. ``offset`` and ``size`` are those of its code; ``root``
    is the op from which it was stitched, which had been arrived at ``arrivals`` times.
    """

    number: int
    gpa: Gpa
    words: tuple[int, ...]
    offset: int
    size: int
    root: Gpa
    arrivals: int
    state: BlockState


class StitchedTrace:
    """The stitched code of a trace. Raises ValueError or struct.error if it cannot be understood."""

    def __init__(self, content: bytes) -> None:
        (length,) = struct.unpack_from("<I", content)
        about: dict[str, Any] = check(json.loads(content[4 : 4 + length]), _ABOUT, "the stitched code")
        size = about["size"]
        self.address, self.lost = Hva(about["address"]), int(about["lost"])
        self.code = content[4 + length : 4 + length + size]
        starts = content[4 + length + size :]
        if len(starts) != 2 * size or len(about["words"]) != len(about["blocks"]):
            raise ValueError("the stitched code is not complete")
        self._starts = memoryview(starts).cast("H")
        self._stencils = bytes.fromhex(about["stencils"])
        self._patches = bytes.fromhex(about["patches"])
        self._names = {int(number): str(name) for number, name in about["names"]}
        self._others = {Gpa(gpa): int(word) for gpa, word in about["others"]}
        if sum(row[3] for row in about["blocks"]) > size:
            raise ValueError("stitched blocks overlap")
        self.blocks = [self._block(n, row, about["words"][n]) for n, row in enumerate(about["blocks"])]

    def _block(self, number: int, row: list[int], text: str) -> TracedBlock:
        gpa, insns, offset, size, root, arrivals, state = row
        data = bytes.fromhex(text)
        if len(data) != 4 * insns or not insns or offset + size > len(self.code):
            raise ValueError(f"stitched block {number} is not complete")
        words = struct.unpack(f"<{insns}I", data)
        return TracedBlock(number, Gpa(gpa), words, offset, size, Gpa(root), arrivals, BlockState(state))

    def blocks_at(self, gpa: Gpa) -> list[TracedBlock]:
        """Return the blocks that have the instruction at a GPA, in the order in which they were stitched."""
        return self._by_gpa.get(gpa, [])

    @cached_property
    def _by_gpa(self) -> dict[Gpa, list[TracedBlock]]:
        found: dict[Gpa, list[TracedBlock]] = defaultdict(list)
        for block in self.blocks:
            for number in range(len(block.words)):
                found[Gpa(block.gpa + 4 * number)].append(block)
        return found

    @cached_property
    def _heads(self) -> dict[int, TracedBlock]:
        return {block.offset: block for block in self.blocks}

    def code_of(self, block: TracedBlock) -> bytes:
        return self.code[block.offset : block.offset + block.size]

    def pieces(self, block: TracedBlock) -> list[Piece]:
        """Return the stencils that a block was made of. Each instruction has one of its form; what is before it, from
        the head on, prepares it.
        """
        return [Piece(at, size, self._name(number), insn) for at, size, number, insn in self._numbered_pieces(block)]

    def _numbered_pieces(self, block: TracedBlock) -> Iterator[tuple[int, int, int, int]]:
        end = block.offset + block.size
        places = [at for at in range(block.offset, end) if self._starts[at]]
        insn = -1
        for at, after in zip(places, [*places[1:], end], strict=True):
            number = self._starts[at] - 1
            if insn < 0 and number not in _HEADS:
                insn = 0
            yield at, after - at, number, min(insn, len(block.words) - 1)
            if number >= FIRST_FORM:
                insn += 1

    def _name(self, number: int) -> str:
        if number >= FIRST_FORM:
            return self._names.get(number, "?")
        if number >= Special.FIRST_CONDITION:
            return f"condition {CONDITION_NAMES[number - Special.FIRST_CONDITION]}"
        return _SPECIAL_TEXTS.get(Special(number), Special(number).name.lower())

    def links(self, block: TracedBlock) -> Iterator[tuple[int, BlockLink]]:
        """Yield, for each jump that leaves a piece of the block, the instruction that it is of and the link."""
        for at, _, number, insn in self._numbered_pieces(block):
            for offset, kind, _, _ in self._patches_of(number):
                if kind < Link.TARGET or kind >= WIDTH_1:  # no jump, or one within the stencil
                    continue
                target = at + offset + 4 + struct.unpack_from("<i", self.code, at + offset)[0]
                inside = block.offset < target <= block.offset + block.size and kind == Link.SKIP
                if not inside and (link := self._link(at + offset, target)) is not None:
                    yield insn, link

    def _patches_of(self, number: int) -> Iterator[tuple[int, int, int, int]]:
        _, _, first, count = STENCIL.unpack_from(self._stencils, number * STENCIL.size)
        if count > _MOST_PATCHES:
            raise ValueError(f"stencil {number} has {count} holes")
        for patch in range(first, first + count):
            yield PATCH.unpack_from(self._patches, patch * PATCH.size)

    def _link(self, site: int, target: int) -> BlockLink | None:
        """Return where a jump goes: to a block, or to a stub, which says by its arguments where it goes on."""
        if (block := self._heads.get(target)) is not None:
            return BlockLink(site, "block", block.gpa)
        number = self._starts[target] - 1 if 0 <= target < len(self._starts) else -1
        match number:
            case Special.BAIL | Special.MEASURED_BAIL:
                return BlockLink(site, "bail", self._op(target, number))
            case Special.HOT | Special.MEASURED_HOT:
                return BlockLink(site, "hot", self._op(target, number))
            case Special.EDGE:
                return BlockLink(site, "edge", self._op(target, number))
            case Special.ENTER:
                return BlockLink(site, "enter", self._op(target, number))
            case Special.CROSS_EDGE:
                return BlockLink(site, "edge", None, self._argument(target, number, 0))
            case Special.CROSS:
                distance = self._argument(target, number, 0) + self._argument(target, number, 2)
                return BlockLink(site, "block", None, distance)
        return None

    def _op(self, stub: int, number: int) -> Gpa:
        return op_address((self._argument(stub, number, 0) & 0xFFFFFFFF) << OP_SIZE_SHIFT)

    def _argument(self, stub: int, number: int, argument: int) -> int:
        """Return an argument of a stub, which was written into its code, as a signed number."""
        for offset, kind, operand, addend in self._patches_of(number):
            if kind & WIDTH_1 - 1 == Hole.ARGUMENT and operand == argument:
                size = 1 if kind & WIDTH_1 else 4
                return int.from_bytes(self.code[stub + offset : stub + offset + size], "little", signed=True) - addend
        raise ValueError(f"the stub at {stub:#x} has no argument {argument}")

    # -- why not -------------------------------------------------------------------------------

    def why_not(self, gpa: Gpa) -> str | None:
        """Return why an instruction is in no stitched block, or None if it is in one."""
        if self.blocks_at(gpa):
            return None
        word = self._others.get(gpa)
        if word is None:
            return "it was not executed, or was written over since"
        return self._obstacle(word) or f"no op with {STITCH_ARRIVALS} arrivals leads to it"

    def _obstacle(self, word: int) -> str | None:
        """Return why there is no stencil for a word, in words, or None if there is one."""
        insn = DECODER.decode(word)
        if insn is None:
            return "it is undefined"
        fields = insn.pattern.fields
        forms = [
            form for form in insn.forms() if all(fields[name].extract(word) == n for name, n in form.fixed.items())
        ]
        form = max(forms, key=lambda form: len(form.fixed))
        if f"{insn.name} {dict(form.fixed)}" in self._stitchable:
            return None
        return obstacle(insn, form) or "its stencil cannot be copied"

    @cached_property
    def _stitchable(self) -> set[str]:
        return set(self._names.values())
