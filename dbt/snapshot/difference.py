"""What differs between two states: registers by name, devices by field, and pages of RAM by address and symbol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import CpuState
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.state import Plain, State
from dbt.inspector.symbols import SymbolTable
from dbt.memory.ram_image import RamImage
from dbt.snapshot.writer import changed_pages
from dbt.vm.vm_state import VmState
from isa.arm.state import BANKS, LAYOUT, PSR_MODE, Architecture, Mode, state_size

#: What :func:`registers` names otherwise than by the layout.
_NAMED = frozenset(("r", "n", "z", "c", "v", "q", "ge", "psr", "bank_r8", "bank_r13", "bank_r14", "spsr"))
_BANKED_MODES = {
    "usr": Mode.USER, "fiq": Mode.FIQ, "irq": Mode.IRQ,
    "svc": Mode.SUPERVISOR, "abt": Mode.ABORT, "und": Mode.UNDEFINED,
}  # fmt: skip
#: Of a page, so many symbols are named.
_MOST_SYMBOLS = 8
#: So many pages are looked for by the guest's page tables: 256 MB, more than any program has.
_MOST_PLACES = 1 << 16
_WORD = 4


@dataclass(frozen=True)
class ValueDifference:
    """A value that differs, by its name, and what it is in each state. None stands for a value that is not there."""

    name: str
    one: object
    other: object


@dataclass(frozen=True)
class PageDifference:
    """A page that differs: its address, how many of its bytes, the first and the last of them, and whose they are.

    ``gva`` is the address by which the guest's symbols reach the page, or None. ``symbols`` are in the order of their
    addresses, at most eight.
    """

    gpa: Gpa
    bytes: int
    first: Gpa
    last: Gpa
    gva: Gva | None
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class SnapshotDifference:
    """All that differs between two states. It is false if nothing does."""

    registers: tuple[ValueDifference, ...]
    devices: tuple[ValueDifference, ...]
    others: tuple[ValueDifference, ...]
    pages: tuple[PageDifference, ...]

    def __bool__(self) -> bool:
        return bool(self.registers or self.devices or self.others or self.pages)


def diff_snapshots(one: VmState, other: VmState) -> SnapshotDifference:
    """Return what differs between two states. The symbols are those of ``other``, under its page tables.

    Pages that only one of the machines has are not among them.
    """
    return SnapshotDifference(
        tuple(_differences("", registers(one.values), registers(other.values))),
        tuple(_differences("", one.values.get("devices"), other.values.get("devices"))),
        tuple(_differences("", _others(one.values), _others(other.values))),
        tuple(_page_differences(one, other)),
    )


# -- values ----------------------------------------------------------------------------------------


def registers(values: State) -> dict[str, int]:
    """Return the registers of a state by name, or none if it has no processor.

    Those that the mode does not use have names such as ``sp_irq``.
    """
    data = values.get("processor")
    if type(data) is not bytes or len(data) not in map(state_size, Architecture):
        return {}
    cpu = CpuState()
    try:
        cpu.words[: len(data) // 4] = memoryview(data).cast("I")
        found = dict(cpu.describe())
        if cpu.mode in BANKS:
            found |= _banked(cpu)
        for name, word in LAYOUT.words.items():
            if name not in _NAMED and word.offset < len(data):
                for n in range(word.count):
                    found[f"{name}[{n}]" if word.count > 1 else name] = cpu.words[word.index + n]
        return found
    finally:
        cpu.close()


def _banked(cpu: CpuState) -> dict[str, int]:
    """Return the registers of the banks that are not in use, and the SPSRs of all."""
    found: dict[str, int] = {}
    for suffix, mode in _BANKED_MODES.items():
        if (mode == Mode.FIQ) != (cpu.mode == Mode.FIQ) and mode in (Mode.FIQ, Mode.USER):
            found |= {f"r{number}_{suffix}": cpu.banked(number, mode) for number in range(8, 13)}
        if BANKS[mode] != BANKS[cpu.mode]:
            found |= {f"sp_{suffix}": cpu.banked(13, mode), f"lr_{suffix}": cpu.banked(14, mode)}
        if BANKS[mode]:
            found[f"spsr_{suffix}"] = cpu.words[LAYOUT["spsr"].index + BANKS[mode]]
    return found


def _others(values: State) -> dict[str, Plain]:
    return {name: value for name, value in values.items() if name not in ("processor", "devices")}


def _differences(name: str, one: object, other: object) -> Iterator[ValueDifference]:
    """Yield the innermost values that differ, by the path to them, such as ``UART0.received[3]``."""
    if isinstance(one, dict) and isinstance(other, dict):
        mine: Mapping[Any, Any] = one
        theirs: Mapping[Any, Any] = other
        for key in (*mine, *(key for key in theirs if key not in mine)):
            yield from _differences(f"{name}.{key}" if name else str(key), mine.get(key), theirs.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _differences(f"{name}[{number}]", first, second)
    elif type(one) is not type(other) or one != other:
        yield ValueDifference(name, one, other)


# -- pages -----------------------------------------------------------------------------------------


def _changed_pages(one: RamImage, other: RamImage) -> list[int]:
    """Return the numbers of the pages that differ, in order, of those that are RAM in both states."""
    if one.layout == other.layout:
        return changed_pages(one, other)
    pages = sorted({*one.pages, *other.pages})
    places = [(page, Gpa(page << PAGE_SHIFT)) for page in pages]
    both = [(page, gpa) for page, gpa in places if all(image.layout.covers(gpa, PAGE_SIZE) for image in (one, other))]
    return [page for page, gpa in both if one.read(gpa, PAGE_SIZE) != other.read(gpa, PAGE_SIZE)]


def _page_differences(one: VmState, other: VmState) -> Iterator[PageDifference]:
    pages = _changed_pages(one.ram, other.ram)
    if not pages:
        return
    symbols, places = _symbols(other)
    for page in pages:
        gpa = Gpa(page << PAGE_SHIFT)
        mine, theirs = one.ram.read(gpa, PAGE_SIZE), other.ram.read(gpa, PAGE_SIZE)
        words = [at for at in range(0, PAGE_SIZE, _WORD) if mine[at : at + _WORD] != theirs[at : at + _WORD]]
        differs = [at for word in words for at in range(word, word + _WORD) if mine[at] != theirs[at]]
        gva = places.get(page)
        yield PageDifference(
            gpa,
            len(differs),
            Gpa(gpa + differs[0]),
            Gpa(gpa + differs[-1]),
            gva,
            () if gva is None else tuple(_names(symbols, gva, words)),
        )


def _names(symbols: SymbolTable, gva: Gva, words: list[int]) -> Iterator[str]:
    """Yield the symbols of the words at these offsets from ``gva``, with the offset of the first word in each."""
    last, left = "", _MOST_SYMBOLS
    for word in words:
        found = symbols.find(Gva(gva + word))
        if found is not None and found[0] != last:
            if not left:
                return
            last, left = found[0], left - 1
            yield symbols.describe(Gva(gva + word))


def _symbols(state: VmState) -> tuple[SymbolTable, dict[int, Gva]]:
    """Return the symbols of a state's guest, and by number of the page of RAM the virtual page that they name it by.

    Without a machine that can have the state, nobody knows the guest's page tables, and no page has a name.
    """
    from dbt.devices.state import StateError
    from dbt.host.console import CaptureConsole
    from dbt.memory.virtual import BadAddress
    from dbt.vm.machine import Machine

    try:
        machine = Machine.restore(state, tier="reference", console=CaptureConsole())
    except StateError:
        return SymbolTable(), {}
    with machine:
        _ = machine.tier  # which knows the guest's page tables
        machine.cpsr = machine.cpsr & ~PSR_MODE | Mode.SYSTEM  # user mode has no access to a kernel's pages
        places: dict[int, Gva] = {}
        symbols, done = machine.symbols, 0
        for symbol in symbols.symbols:  # in the order of their addresses
            end = symbol.address + max(symbol.size, 1)
            for page in range(max(symbol.address >> PAGE_SHIFT, done), (end - 1 >> PAGE_SHIFT) + 1):
                done = page + 1
                try:
                    gpa = machine.inspector.locate(Gva(page << PAGE_SHIFT))
                except BadAddress:
                    continue
                places.setdefault(gpa >> PAGE_SHIFT, Gva(page << PAGE_SHIFT))
                if len(places) == _MOST_PLACES:
                    return symbols, places
        return symbols, places
