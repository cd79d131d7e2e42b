"""A map for Linux's perf, which names translated code by guest symbol (``dbt run --perf-map``).

``perf record dbt run --perf-map ...`` and then ``perf report``: perf looks for ``/tmp/perf-<pid>.map``, lines of start,
size and name (tools/perf/Documentation/jit-interface.txt).
"""

from __future__ import annotations

import errno
import os
import stat
import time

from dbt.abi.addresses import Gva, Hva
from dbt.abi.exits import VmExit
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.backend.compiled import CompiledRegion
from dbt.engine.observer import Observer
from dbt.vm.machine import Machine

#: Seconds between looks for new stitched blocks, at least.
_LOOK_INTERVAL = 0.1


class PerfMap(Observer):
    """Writes the map of this process. Raises OSError if that is impossible.

    :meth:`begin` is called with a loaded machine before its run, and :meth:`end` after it.
    """

    wants_stitch_log = True

    def __init__(self, directory: str = "/tmp") -> None:
        self.path = os.path.join(directory, f"perf-{os.getpid()}.map")
        self._file = os.fdopen(_create(self.path), "w", encoding="utf-8", buffering=1)
        self._machine: Machine
        self._blocks = 0  # how many stitched blocks are in the map
        self._looked = 0.0

    def begin(self, machine: Machine) -> None:
        """Name the handlers, by the instruction that each is for."""
        self._machine = machine
        tier = machine.tier
        for address, size, name in tier.native_symbols():
            # A handler's name is followed by those of the instruction and its form.
            self._write(address, size, f"dbt: {name.partition(' ')[2] or name}")

    def region_installed(self, region: CompiledRegion, address: Hva, kept: bool) -> None:
        self._write(address, len(region.code), f"guest: {self._machine.symbolize(region.gva_of(region.entry))}")

    def left_guest(self, exit_: VmExit) -> None:
        if time.monotonic() - self._looked >= _LOOK_INTERVAL:
            self._name_blocks()

    def end(self) -> None:
        """Name what was stitched last."""
        self._name_blocks()
        self._file.close()

    def _name_blocks(self) -> None:
        """Name the blocks that were stitched since the last look. Their stubs have no names of their own."""
        self._looked = time.monotonic()
        log = self._machine.tier.stitch_log
        if log is None or log.length == self._blocks:
            return
        virtual = self._virtual_pages()
        for block in log.blocks(self._blocks):
            page = virtual.get(block.gpa >> PAGE_SHIFT, block.gpa >> PAGE_SHIFT)
            gva = Gva(page << PAGE_SHIFT | block.gpa & PAGE_SIZE - 1)
            self._write(block.address, block.size, f"stitched: {self._machine.symbolize(gva)}")
        self._blocks = log.length

    def _virtual_pages(self) -> dict[int, int]:
        """Return the virtual page of each physical one with code, as far as it is known; with the MMU off, of none."""
        return {
            gpa >> PAGE_SHIFT: gva >> PAGE_SHIFT
            for _, pages in self._machine.tier.shadow_pages()
            for gva, gpa, _, rights in pages
            if "x" in rights.lower()
        }

    def _write(self, address: Hva, size: int, name: str) -> None:
        self._file.write(f"{address:x} {size:x} {name}\n")


def _create(path: str) -> int:
    """Return a descriptor of a new file, in the place of a stale one of the user. Raise OSError.

    The name can be guessed and everybody may write to the directory, so that what is there already is neither
    followed nor written to.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        status = os.lstat(path)
        if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
            why = f"it is there already, and is not a file of yours (user {status.st_uid} made it)"
            raise FileExistsError(errno.EEXIST, why, path) from None
    os.unlink(path)
    return os.open(path, flags, 0o600)
