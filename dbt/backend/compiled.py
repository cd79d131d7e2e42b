"""A compiled region: native code, the guest words that it was made from, and the context that it was made under.

It is kept on disk and sent by the compiler's process in one binary form.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gpa, Gva, MappedPage
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.frontend.context import TranslationContext, WrongContext

if TYPE_CHECKING:
    from dbt.backend.block_flows import BlockFlows

#: Entry, start, instructions; then the lengths of what follows: context, entries, pages, runs, compile record, flows,
#: code.
_HEADER = struct.Struct("<III7I")
_RUN = struct.Struct("<II")


class WrongRegion(ValueError):
    """Raised for bytes that are not a compiled region."""


class Refused(NamedTuple):
    """An answer without a region, with the reason."""

    reason: str


class CompiledRegion(NamedTuple):
    """Native code, position-independent, whose function begins at offset ``start`` and has the handlers' signature.

    All addresses are GPAs. The region is entered at ``entry``, from which it was formed, and at the ``others``.
    ``runs`` are the guest words that it was made from: addresses and bytes, in order, without overlap.
    ``insns`` counts the compiled instructions; those of a block on several call paths count each time.
    ``context`` is the translation context. If it has the MMU on, the code also requires that ``pages`` are mapped so.
    ``compile_record`` says how the region was made (:mod:`dbt.backend.compile_record`). It is empty unless it was asked
    for. ``flows`` says what the code counts, if it counts.
    """

    entry: Gpa
    start: int
    insns: int
    runs: tuple[tuple[Gpa, bytes], ...]
    code: bytes
    context: TranslationContext
    others: tuple[Gpa, ...] = ()
    pages: tuple[MappedPage, ...] = ()
    compile_record: bytes = b""
    flows: BlockFlows | None = None

    def gva_of(self, gpa: Gpa) -> Gva:
        """Return the virtual address by which the code was at ``gpa``, which must be in one of its ``pages``."""
        if not self.context.has_mmu:
            return Gva(gpa)
        virtual = next(page.virtual for page in self.pages if page.physical == gpa >> PAGE_SHIFT)
        return Gva(virtual << PAGE_SHIFT | gpa & PAGE_SIZE - 1)

    def pack(self) -> bytes:
        """Return the binary form."""
        context = self.context.describe().encode()
        flows = b"" if self.flows is None else self.flows.pack()
        tail = self.compile_record, flows, self.code
        counts = (len(self.others), len(self.pages), len(self.runs), *map(len, tail))
        header = _HEADER.pack(self.entry, self.start, self.insns, len(context), *counts)
        numbers = [*self.others, *(page for pair in self.pages for page in pair)]
        runs = b"".join(_RUN.pack(gpa, len(data)) + data for gpa, data in self.runs)
        numbers_packed = struct.pack(f"<{len(numbers)}I", *numbers)
        return b"".join((header, context, numbers_packed, runs, *tail))

    @classmethod
    def unpack(cls, body: bytes) -> CompiledRegion:
        """Return the region of which :meth:`pack` made ``body``.

        Raises WrongRegion if the lengths do not fit, the code does not contain its start, or its flows are wrong.
        """
        try:
            entry, start, insns, context_size, others, pages, runs, record, counting, code = _HEADER.unpack_from(body)
            at = _HEADER.size
            context = TranslationContext.parse(body[at : at + context_size].decode())
            at += context_size
            numbers = struct.unpack_from(f"<{others + 2 * pages}I", body, at)
            at += 4 * len(numbers)
            found = []
            for _ in range(runs):
                gpa, size = _RUN.unpack_from(body, at)
                at += _RUN.size
                found.append((Gpa(gpa), body[at : at + size]))
                at += size
        except (struct.error, UnicodeDecodeError, WrongContext) as error:
            raise WrongRegion(f"not a compiled region: {error}") from error
        behind = at + record + counting
        if behind + code != len(body) or start >= code:
            raise WrongRegion("not a compiled region: its length is wrong")
        if bool(counting) != context.block_counters:
            raise WrongRegion("not a compiled region: its flows do not belong to its context")
        mapped = tuple(map(MappedPage, numbers[others::2], numbers[others + 1 :: 2]))
        return cls(
            Gpa(entry),
            start,
            insns,
            tuple(found),
            body[behind:],
            context,
            tuple(map(Gpa, numbers[:others])),
            mapped,
            body[at : at + record],
            _unpack_flows(body[at + record : behind], code) if counting else None,
        )


def _unpack_flows(data: bytes, code_size: int) -> BlockFlows:
    from dbt.backend.block_flows import BlockFlows  # which few runs need

    try:
        return BlockFlows.unpack(data, code_size)
    except ValueError as error:
        raise WrongRegion(f"not a compiled region: {error}") from error


def as_runs(words: dict[Gpa, int]) -> tuple[tuple[Gpa, bytes], ...]:
    """Return guest words by physical address as runs of consecutive ones."""
    runs: list[tuple[Gpa, bytearray]] = []
    for gpa in sorted(words):
        data = words[gpa].to_bytes(4, "little")
        if runs and runs[-1][0] + len(runs[-1][1]) == gpa:
            runs[-1][1].extend(data)
        else:
            runs.append((gpa, bytearray(data)))
    return tuple((gpa, bytes(data)) for gpa, data in runs)
