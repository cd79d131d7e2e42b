"""The content of RAM at one moment, frozen: the base of a machine's RAM, or what is written to a file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.memory.contents import nonzero_parts
from dbt.memory.ram import Ram, RamLayout

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class RamImage:
    """What RAM of the layout ``layout`` holds, in a file in memory that nobody can change (memfd_create(2)).

    In this file the offset of a byte is its GPA. Pages that are zero take no memory. Machines map the file privately,
    so any number of them share it. It is released when :meth:`close` has been called, or the image is gone, and no
    machine maps it any more.

    Raises OSError if the host has no room for it.
    """

    def __init__(self, layout: RamLayout, parts: Iterable[tuple[Gpa, bytes]]) -> None:
        """``parts`` are GPA and content of whole pages of RAM, in the order of their addresses. Others are zero."""
        self.layout = layout
        self._parts: list[tuple[int, int]] = []  # GPA and size in bytes of what may not be zero
        self._handle = os.memfd_create("dbt-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._handle, layout.end)
            for gpa, data in parts:
                self._write(gpa, data)
            fcntl.fcntl(self._handle, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            self.close()
            raise

    @classmethod
    def of(cls, ram: Ram) -> RamImage:
        """Return the image of what ``ram`` holds now."""
        return cls(ram.layout, nonzero_parts(ram))

    def _write(self, gpa: Gpa, data: bytes) -> None:
        size = len(data)
        if gpa % PAGE_SIZE or size % PAGE_SIZE or not self.layout.covers(gpa, size):
            raise ValueError(f"{size:#x} bytes at {gpa:#x} are not whole pages of RAM at {self.layout}")
        if self._parts and gpa < sum(self._parts[-1]):
            raise ValueError(f"the pages at {gpa:#x} come after those at {self._parts[-1][0]:#x}")
        written = 0
        while written < size:
            written += os.pwrite(self._handle, data[written:] if written else data, gpa + written)
        start = gpa
        if self._parts and sum(self._parts[-1]) == gpa:
            start = Gpa(self._parts.pop()[0])
        self._parts.append((start, gpa + size - start))

    def share(self) -> RamImage:
        """Return another image of the same file in memory, which is closed by itself. Raise OSError."""
        shared = RamImage.__new__(RamImage)
        shared.layout, shared._parts, shared._handle = self.layout, self._parts, os.dup(self._handle)
        return shared

    def map_into(self, ram: Ram) -> None:
        """Let ``ram``, which has the same layout, hold what the image holds. Its stores do not change the image.

        Raise OSError if the host refuses, after which the machine must be given up.
        """
        if ram.layout != self.layout:
            raise ValueError(f"an image of RAM at {self.layout} does not fit RAM at {ram.layout}")
        ram.map_file(self._handle, self._parts)

    def read(self, gpa: Gpa, size: int) -> bytes:
        """Return ``size`` bytes at ``gpa``. Raise ValueError if they are not all RAM."""
        if not self.layout.covers(gpa, size):
            raise ValueError(f"{size:#x} bytes at {gpa:#x} are not all RAM at {self.layout}")
        data = bytearray()
        while len(data) < size:
            data += os.pread(self._handle, size - len(data), gpa + len(data))
        return bytes(data)

    @cached_property
    def pages(self) -> Sequence[int]:
        """The numbers of the pages that are not zero, in order."""
        return [gpa >> PAGE_SHIFT for gpa, _ in self.nonzero_pages()]

    def nonzero_pages(self) -> Iterator[tuple[Gpa, bytes]]:
        """Yield GPA and content of each page that is not all zeros, in the order of their addresses."""
        for start, size in self._parts:
            for at in range(start, start + size, _PIECE):
                piece = self.read(Gpa(at), min(_PIECE, start + size - at))
                for offset in range(0, len(piece), PAGE_SIZE):
                    page = piece[offset : offset + PAGE_SIZE]
                    if page != _ZERO_PAGE:
                        yield Gpa(at + offset), page

    @property
    def is_closed(self) -> bool:
        return self._handle < 0

    def close(self) -> None:
        """Give the file up now. Machines that map it keep it alive. A second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self.close()


_ZERO_PAGE = bytes(PAGE_SIZE)
_PIECE = 64 << 10
