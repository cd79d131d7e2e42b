"""The table of stencils: their code and their holes, as the native stitcher reads them."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dbt.abi.stitching import FORM, MAX_JUMPS, MAX_SKIPS, NO_STENCIL
from dbt.backend import elfobject
from dbt.backend.elfobject import ElfObject, Symbol
from dbt.backend.link import LinkError
from dbt.backend.stencil_lowering import FormStencil, Hole, Link, stencil_name
from dbt.backend.stencils import FIRST_FORM

#: Offset in the code, size in bytes, number of the first patch, number of patches.
STENCIL = struct.Struct("<IIII")
#: Offset in the stencil, kind (Hole or Link), operand, addend. WIDTH_1 is added to the kind where one byte is patched.
PATCH = struct.Struct("<HBBi")
_LENGTH = struct.Struct("<I")
WIDTH_1 = 0x80
#: The stitcher copies in units of so many bytes, so so many may be read behind a stencil.
COPIED = 8
#: The most bytes of a stencil. The stitcher makes room for as many instructions as a page has.
MAX_STENCIL = 1024

_R_PC32, _R_PLT32, _R_32, _R_32S, _R_8, _R_PC8 = 2, 4, 10, 11, 14, 15
_JUMP, _JUMP_SIZE = 0xE9, 5
_EXECUTABLE = 4


@dataclass(frozen=True, slots=True)
class StencilTable:
    """The sections of the image that are made of the stencils."""

    code: bytes
    stencils: bytes
    patches: bytes
    forms: bytes

    def pack(self) -> bytes:
        """Return the table as bytes: each section with its length before it."""
        parts = (self.code, self.stencils, self.patches, self.forms)
        return b"".join(_LENGTH.pack(len(part)) + part for part in parts)

    @classmethod
    def unpack(cls, data: bytes) -> StencilTable:
        """Return what :meth:`pack` made bytes of."""
        parts, at = [], 0
        while at < len(data):
            end = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
            parts.append(data[at + _LENGTH.size : end])
            at = end
        return cls(*parts)


def link_stencils(object_bytes: bytes, forms: Iterable[FormStencil]) -> StencilTable:
    """Take the stencils out of the compiled object. Forms whose stencil cannot be copied have none in the table."""
    elf = ElfObject(object_bytes)
    code, stencils, patches = bytearray(), bytearray(), bytearray()
    numbers: dict[int, int] = {}  # by the number in the object: the number in the table
    found = dict(_stencils(elf))
    for number in range(len(found)):
        body, holes = found[number]
        if holes is None:
            if number < FIRST_FORM:
                raise LinkError(f"stencil {number} cannot be copied")
            continue
        numbers[number] = len(numbers)
        first = len(patches) // PATCH.size
        for hole in holes:
            patches += PATCH.pack(*hole)
        stencils += STENCIL.pack(len(code), len(body), first, len(holes))
        code += body + bytes(-len(body) % COPIED)
    rows = b"".join(
        FORM.pack(
            NO_STENCIL if form.number is None else numbers.get(form.number, NO_STENCIL),
            form.flags, form.slot, form.ahead, _unrolled_count(form, numbers), numbers.get(form.unrolled, 0),
        )
        for form in forms
    )  # fmt: skip
    return StencilTable(bytes(code) + bytes(COPIED), bytes(stencils), bytes(patches), rows)


def _unrolled_count(form: FormStencil, numbers: dict[int, int]) -> int:
    """Return how many of the form's unrolled stencils can be copied, without a gap."""
    count = 0
    while count < form.unrolled_count and form.unrolled + count in numbers:
        count += 1
    return count


_Patch = tuple[int, int, int, int]


def _stencils(elf: ElfObject) -> Iterator[tuple[int, tuple[bytes, list[_Patch] | None]]]:
    """Yield number, code and patches of each stencil. The patches are None if it refers to something that is not
    copied.
    """
    (text,) = (n for n, section in enumerate(elf.sections) if section.flags & _EXECUTABLE and section.size)
    contents = elf.contents(elf.sections[text])
    relocations = sorted(
        (
            relocation
            for section in elf.sections
            if section.type == elfobject.RELA and section.info == text
            for relocation in elf.relocations(section)
        ),
        key=lambda relocation: relocation[0],
    )
    offsets = [offset for offset, *_ in relocations]
    for symbol in elf.symbols:
        if symbol.section != text or not symbol.name.startswith(_PREFIX):
            continue
        start, end = symbol.value, symbol.value + symbol.size
        body = contents[start:end]
        mine = relocations[bisect_left(offsets, start) : bisect_left(offsets, end)]
        try:
            patches = [_patch(offset - start, kind, target, addend) for offset, kind, target, addend in mine]
        except LinkError:
            patches = None
        if patches and patches[-1][:2] == (len(body) - 4, Link.CONT) and body[-_JUMP_SIZE] == _JUMP:
            patches.pop()
            body = body[:-_JUMP_SIZE]
        if len(body) > MAX_STENCIL or not _has_room(patches or []):
            patches = None
        yield int(symbol.name.removeprefix(_PREFIX)), (body, patches)


def _has_room(patches: Iterable[_Patch]) -> bool:
    """Return True if the stitcher's lists have room for the jumps of a stencil."""
    kinds = [kind for _, kind, _, _ in patches]
    jumps = kinds.count(Link.BAIL) + kinds.count(Link.TARGET)
    return jumps <= MAX_JUMPS and kinds.count(Link.SKIP) <= MAX_SKIPS


_PREFIX = stencil_name(0)[:-1]
_LINKS = {link.name.lower(): link for link in Link}


def _patch(offset: int, kind: int, symbol: Symbol, addend: int) -> _Patch:
    """Return a patch of a relocation. Raises LinkError for one that the stitcher does not know."""
    link = _LINKS.get(symbol.name)
    if link is not None and kind in (_R_PC32, _R_PLT32) and addend == -4:
        return offset, link, 0, 0
    if symbol.name.startswith("hole."):
        _, hole, operand, _ = symbol.name.split(".")
        if kind in (_R_32, _R_32S):
            return offset, Hole(int(hole)), int(operand), addend
        if kind == _R_8:
            return offset, Hole(int(hole)) | WIDTH_1, int(operand), addend
    raise LinkError(f"relocation {kind} against {symbol.name!r}")
