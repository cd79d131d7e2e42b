"""The dump of every region's stages as files for people to read (``dbt run --dump``).

    DIR/index.txt                a line for each region that was finished: sizes and times
    DIR/0001-00008078/guest.txt  its blocks, disassembled, with the edges between them
                      uops.txt   what the instructions do, in the language of isa/ir/uop.py
                      region.ll, region.opt.ll  LLVM IR as lowered, and after the passes
                      region.s, region.o        LLVM's assembly text, and the object that is linked

A stage is written as soon as it is reached, so if LLVM crashes on a region, its IR is there. The dump is written in
the compile worker, which shares the counts with the process that runs the guest.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from dbt.abi.addresses import Gva
from dbt.backend.compiled import CompiledRegion
from dbt.frontend.forming import Block, Place, Region
from isa.ir.uop import Access, Uop

#: Takes a word and its address.
Disassemble = Callable[[int, Gva], str]
_TITLE = "# dbt: regions compiled"
_COLUMNS = "# folder       blocks insns  bytes   form  lower   opt codegen  (ms)  entry"
_FOLDER = re.compile(r"\d{4,}-[0-9a-f]{8}")
STAGES = ("guest.txt", "uops.txt", "region.ll", "region.opt.ll", "region.s", "region.o")
#: The stages at which the time since the previous one is taken: forming, lowering, passes, code generation.
_TIMED = ("guest.txt", "region.ll", "region.opt.ll", "region.o")
# Indices of the counts that the compile worker shares with the process that runs the guest.
_BEGUN, _WRITTEN, _FAILED, _REASON = range(4)


@dataclass(frozen=True, slots=True)
class DumpCounts:
    """``failed`` counts regions that could not be written, and ``reason`` says why the last one could not."""

    written: int
    failed: int
    reason: str


class RegionDump:
    """The dump of one run. An earlier one in the same directory is removed. Raises OSError.

    ``disassembler`` makes the disassembler when it is needed. ``symbolize`` turns an address into text for people.
    """

    def __init__(
        self, directory: str, disassembler: Callable[[], Disassemble], symbolize: Callable[[Gva], str], title: str = ""
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.disassembler = disassembler
        self.symbolize = symbolize
        self.counts_shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
        self.index = os.path.join(self.directory, "index.txt")
        os.makedirs(self.directory, exist_ok=True)
        self._remove_earlier()
        with open(self.index, "w", encoding="utf-8") as index:
            index.write(f"{_TITLE}{title}\n{_COLUMNS}\n")

    def _remove_earlier(self) -> None:
        try:
            with open(self.index, encoding="utf-8", errors="replace") as index:
                ours = index.readline().startswith(_TITLE)
        except FileNotFoundError:
            return
        for name in os.listdir(self.directory) if ours else ():
            if _FOLDER.fullmatch(name):
                for stage in STAGES:
                    with suppress(FileNotFoundError):
                        os.unlink(os.path.join(self.directory, name, stage))
                with suppress(OSError):  # the directory has other files in it
                    os.rmdir(os.path.join(self.directory, name))

    @property
    def counts(self) -> DumpCounts:
        _, written, failed, reason = self.counts_shared[: _REASON + 1]
        return DumpCounts(written, failed, os.strerror(reason) if failed else "")

    def begin(self, region: Region, started: float) -> DumpedRegion:
        """Begin the dump of a region that has been formed since the time ``started``."""
        self.counts_shared[_BEGUN] += 1
        dumped = DumpedRegion(self, region, self.counts_shared[_BEGUN], started)
        dumped.show("guest.txt", lambda: _text(_guest_lines(region, self.disassembler(), self.symbolize)))
        dumped.show("uops.txt", lambda: _text(_uops_lines(region, self.disassembler())))
        return dumped


class DumpedRegion:
    """A region that is being compiled. A file that cannot be written is counted, and the compilation goes on."""

    def __init__(self, dump: RegionDump, region: Region, number: int, started: float) -> None:
        self._dump = dump
        self._region = region
        self._name = f"{number:04}-{region.entry:08x}"
        self._since = started
        self._times: list[float] = []
        self._failed = False

    def show(self, stage: str, make: Callable[[], str | bytes]) -> None:
        """Write a stage that has been reached. The time for writing is not in the index."""
        if stage in _TIMED:
            self._times.append(time.perf_counter() - self._since)
        path = os.path.join(self._dump.directory, self._name, stage)
        content = make()
        self._write(path, "wb", content.encode() if isinstance(content, str) else content)
        self._since = time.perf_counter()

    def finish(self, compiled: CompiledRegion) -> None:
        """Enter the region into the index."""
        times = "".join(f"{1000 * seconds:7.2f}" for seconds in self._times)
        sizes = f"{len(self._region.blocks):6} {compiled.insns:5} {len(compiled.code):6}"
        line = f"{self._name} {sizes}{times}        {_address(self._region.entry, self._dump.symbolize)}\n"
        self._write(self._dump.index, "ab", line.encode())
        if not self._failed:
            self._dump.counts_shared[_WRITTEN] += 1

    def _write(self, path: str, mode: str, content: bytes) -> None:
        if self._failed:
            return
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, mode) as file:
                file.write(content)
        except OSError as error:
            self._failed = True
            self._dump.counts_shared[_FAILED] += 1
            self._dump.counts_shared[_REASON] = error.errno or 0


# -- the stages before LLVM ----------------------------------------------------------------------


def _text(lines: Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _guest_lines(region: Region, disassemble: Disassemble, symbolize: Callable[[Gva], str]) -> Iterator[str]:
    numbers = {place: number for number, place in enumerate(region.blocks)}
    sources: dict[Place, list[int]] = {}
    for number, block in enumerate(region.blocks.values()):
        for place in dict.fromkeys(block.successors()):
            sources.setdefault(place, []).append(number)
    yield f"; region of {len(numbers)} blocks, {region.insns} instructions"
    for number, block in enumerate(region.blocks.values()):
        came = [*(["outside"] if number == 0 else []), *map(str, sources.get(block.place, ()))]
        yield ""
        yield f"block {number}  {_address(block.place.pc, symbolize)}{_context(block.place)}"
        yield f"  ; from {', '.join(came) or 'nowhere'}"
        for insn in block.insns:
            yield f"  {insn.pc:08x}:  {insn.word:08x}  {disassemble(insn.word, insn.pc)}"
        yield from _edges(block, numbers)


def _address(gva: Gva, symbolize: Callable[[Gva], str]) -> str:
    text = f"{gva:#010x}"
    symbol = symbolize(gva)
    return text if symbol.startswith("0x") else f"{text} {symbol}"


def _context(place: Place) -> str:
    """Return the call path of a block as text: the return addresses, or the function if all callers share its copy."""
    ways = [f"in {gva - 1:#010x}" if gva & 1 else f"returns to {gva:#010x}" for gva in reversed(place.calls)]
    return f"  ({', then '.join(ways)})" if ways else ""


def _edges(block: Block, numbers: dict[Place, int]) -> Iterator[str]:
    def name(place: Place) -> str:
        return f"block {numbers[place]}" if place in numbers else f"{place.pc:#010x} (leaves)"

    for gva, word in sorted(block.words.items()):
        yield f"  ; constant: {gva:#010x} holds {word:#010x}"
    for uop, places in block.branches.items():
        kind = uop.attr.value if isinstance(uop.attr, Enum) else uop.attr
        yield f"  ; {kind} to {', '.join(map(name, dict.fromkeys(places))) or 'wherever it goes (leaves)'}"
    for table in block.tables.values():
        for number, place in table.places.items():
            yield f"  ; table entry {number} to {name(place)}"
    if block.next is not None:
        yield f"  ; on to {name(block.next)}"


def _uops_lines(region: Region, disassemble: Disassemble) -> Iterator[str]:
    for number, block in enumerate(region.blocks.values()):
        yield f"block {number}"
        for insn in block.insns:
            yield f"  {insn.pc:08x}:  {insn.word:08x}  {disassemble(insn.word, insn.pc)}"
            yield from uop_lines(insn.uops, "    ", {})


def uop_lines(block: list[Uop], indent: str, names: dict[Uop, str]) -> Iterator[str]:
    """Yield uops as lines in which each value has a name. ``v3:1`` has one bit, others have 32."""
    for uop in block:
        args = ", ".join(_operand(arg, names) for arg in uop.args)
        text = f"{uop.op}{_attribute(uop.attr)} {args}".rstrip()
        if uop.width:
            names[uop] = f"v{len(names)}{'' if uop.width == 32 else f':{uop.width}'}"
            text = f"{names[uop]} = {text}"
        yield indent + text
        yield from uop_lines(uop.body, indent + "  ", names)


def _operand(uop: Uop, names: dict[Uop, str]) -> str:
    if uop.number is not None:
        return f"{uop.number:#x}" if uop.number > 9 else str(uop.number)
    return uop.op if uop.op in ("bit_index", "bit_ordinal") else names[uop]


def _attribute(attr: object) -> str:
    match attr:
        case None:
            return ""
        case Access(size, signed, aligned, user):
            return f".{8 * size}{'.signed' * signed}{'.aligned' * aligned}{'.user' * user}"
        case Enum():
            return f".{attr.value}"
        case _:
            return f".{attr}"
