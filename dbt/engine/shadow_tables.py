"""The memory of the shadow page tables (:mod:`dbt.backend.shadow`), and a reader of what native code has filled."""

from __future__ import annotations

from collections.abc import Iterator

from dbt.abi.addresses import Gpa, Gva, Hva
from dbt.abi.cpu import CpuState
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import (
    CODE,
    CODE_PAGE_STRIDE,
    LOG_BYTES,
    LOG_ENTRIES,
    MEGABYTES,
    PAGE_SHIFT,
    PAGE_SIZE,
    SPACE_BYTES,
    SPACES,
    TABLE_BYTES,
    TABLES,
)

#: A page: GVA, GPA, size in bytes, and rights: letters of ``r w x``, in capitals for user mode.
ShadowPage = tuple[Gva, Gpa, int, str]


class ShadowTables:
    """The shadow page tables of one virtual CPU."""

    def __init__(self, cpu: CpuState, ram_address: Hva, code_pages_address: Hva) -> None:
        """``ram_address`` and ``code_pages_address`` are the HVAs that belong to GPA 0."""
        self._cpu = cpu
        self._ram, self._code_pages = ram_address, code_pages_address
        self._spaces, self._log, self._extents = HostRange(SPACE_BYTES), HostRange(LOG_BYTES), HostRange(MEGABYTES)
        self._entries = self._spaces.view().cast("Q")
        self._lines = self._log.view().cast("I")
        cpu.set_native("spaces", self._spaces.address)
        cpu.set_native("fill_log", self._log.address)
        cpu.set_native("extents", self._extents.address)

    def _filled_lines(self, space: int) -> list[int]:
        """Return the log of a space. An entry has the number of a page, and above it the number of a table."""
        first = space * LOG_ENTRIES
        return self._lines[first : first + self._cpu.native("fill_counts", space)].tolist()

    def code_mapping(self, table: Hva) -> dict[int, int]:
        """Return the physical page numbers of code by virtual ones, as far as the code table at an HVA is filled."""
        space, number = divmod((table - self._spaces.address) // TABLE_BYTES, TABLES)
        pages = {line & 0xFFFFF for line in self._filled_lines(space) if line >> 20 == number}
        at = (table - self._spaces.address) // 8
        entries = {page: self._entries[at + page] for page in sorted(pages)}
        return {page: (ops - self._code_pages) // CODE_PAGE_STRIDE for page, ops in entries.items() if ops}

    def pages(self) -> Iterator[tuple[int, Iterator[ShadowPage]]]:
        """Yield the number of each address space, and the pages that are filled in its tables."""
        for space in range(SPACES):
            yield space, self._filled(space)

    def _filled(self, space: int) -> Iterator[ShadowPage]:
        found: dict[int, dict[str, int]] = {}
        for line in sorted(set(self._filled_lines(space))):
            page, table = line & 0xFFFFF, line >> 20
            entry = self._entries[((space * TABLES + table) * TABLE_BYTES >> 3) + page]
            if not entry:
                continue
            if table % 3 == CODE:
                gpa = (entry - self._code_pages) // CODE_PAGE_STRIDE << PAGE_SHIFT
            else:
                gpa = entry + (page << PAGE_SHIFT) - self._ram & (1 << 64) - 1
            found.setdefault(page, {})["rwxRWX"[table]] = gpa
        for page, rights in sorted(found.items()):
            letters = "".join(sorted(rights, key="rwxRWX".index))
            yield Gva(page << PAGE_SHIFT), Gpa(next(iter(rights.values()))), PAGE_SIZE, letters

    def give_back(self) -> None:
        """Give the memory of the tables back to the host. Precondition: they have been flushed."""
        self._spaces.discard(0, SPACE_BYTES)
        self._log.discard(0, LOG_BYTES)

    def close(self) -> None:
        """Release the memory. No native code may run for this CPU any more."""
        for memory in (self._spaces, self._log, self._extents):
            memory.close()
