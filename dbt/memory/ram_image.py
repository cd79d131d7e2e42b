"""The content of RAM at one moment, frozen: the base of a machine's RAM, or what is written to a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.memory.contents import stored, touched
from dbt.memory.ram import Ram, RamFile, RamLayout

_ZERO_PAGE = bytes(PAGE_SIZE)
_PIECE = 64 << 10
#: If RAM has changed by so many bytes since it was mapped from a file, a fork copies them, and no new file is made.
_FEW = 2 << 20


class RamSource(Protocol):
    """What RAM of the layout ``layout`` can be mapped from."""

    layout: RamLayout

    def map_into(self, ram: Ram) -> None: ...


class HeldRam:
    """What the RAM holds already that it is mapped into. See :class:`RamSource`."""

    def __init__(self, layout: RamLayout) -> None:
        self.layout = layout

    def map_into(self, ram: Ram) -> None:
        """Leave RAM as it is."""


class RamImage:
    """What RAM of the layout ``layout`` holds, in a file in memory that nobody can change.

    Pages that are zero take no memory. Machines map the file privately, so any number of them share it. It is released
    when :meth:`close` has been called, or the image is gone, and no machine maps it any more.

    Raises OSError if the host has no room for it, and ValueError for parts that are not whole pages of RAM.
    """

    def __init__(self, layout: RamLayout, parts: Iterable[tuple[Gpa, bytes | memoryview[int]]]) -> None:
        """``parts`` are GPA and content of whole pages of RAM, in the order of their addresses. Others are zero."""
        self.layout = layout
        self._file: RamFile | None = RamFile(layout.end)
        end = 0
        for gpa, data in parts:
            if gpa % PAGE_SIZE or len(data) % PAGE_SIZE or not layout.covers(gpa, len(data)):
                raise ValueError(f"{len(data):#x} bytes at {gpa:#x} are not whole pages of RAM at {layout}")
            if gpa < end:
                raise ValueError(f"the pages at {gpa:#x} come after those that end at {end:#x}")
            self._file.write(gpa, data)
            end = gpa + len(data)
        self._file.seal()

    @classmethod
    def adopt(cls, layout: RamLayout, file: RamFile) -> RamImage:
        """Return the image of what somebody has written to a file in memory, which is sealed. Raise OSError."""
        file.seal()
        return cls._with(layout, file)

    @classmethod
    def received(cls, layout: RamLayout, handle: int, parts: list[tuple[int, int]] | None = None) -> RamImage:
        """Return the image in a file that another process has made and frozen. ``handle`` is the image's from now on.
        ``parts`` are those that are not zero, if that is known. Raise ValueError for any other file.
        """
        file = RamFile.received(handle, layout.end)
        if not file.is_frozen:
            raise ValueError("it is a file that may still be written to")
        if parts is None:
            file.find_parts()
        else:
            file.parts = parts
        return cls._with(layout, file)

    @classmethod
    def _with(cls, layout: RamLayout, file: RamFile) -> RamImage:
        """Return the image of a sealed file."""
        image = cls.__new__(cls)
        image.layout, image._file = layout, file
        return image

    @classmethod
    def of(cls, ram: Ram) -> RamImage:
        """Return the image of what ``ram`` holds now. No byte is copied if that is what it was mapped from, or if it is
        kept in a file, from which it is mapped privately then.
        """
        if (file := ram.freeze()) is not None:
            return cls.adopt(ram.layout, file)
        if ram.file is None or any(stored(ram)):
            return cls.copy_of(ram)
        return cls._with(ram.layout, ram.file)

    @classmethod
    def copy_of(cls, ram: Ram) -> RamImage:
        """Return the image of what ``ram`` holds now, in a file of its own."""
        return cls(ram.layout, ((gpa, ram.bytes[gpa : gpa + size]) for gpa, size in touched(ram)))

    @property
    def _open_file(self) -> RamFile:
        if self._file is None:
            raise ValueError("this image of RAM has been closed")
        return self._file

    @property
    def parts(self) -> list[tuple[int, int]]:
        """GPA and size in bytes of the parts that may not be zero, in the order of their addresses."""
        return self._open_file.parts

    def descriptor(self) -> int:
        """Return a descriptor of the file, for another process. The caller closes it."""
        return os.dup(self._open_file.handle)

    def share(self) -> RamImage:
        """Return another image of the same file in memory, which is closed by itself."""
        return self._with(self.layout, self._open_file)

    def map_into(self, ram: Ram) -> None:
        """Let ``ram``, which has the same layout, hold what the image holds. Its stores do not change the image.

        Raise OSError if the host refuses, after which the machine must be given up.
        """
        if ram.layout != self.layout:
            raise ValueError(f"an image of RAM at {self.layout} does not fit RAM at {ram.layout}")
        ram.map_file(self._open_file)

    def read(self, gpa: Gpa, size: int) -> bytes:
        """Return ``size`` bytes at ``gpa``. Raise ValueError if they are not all RAM."""
        if not self.layout.covers(gpa, size):
            raise ValueError(f"{size:#x} bytes at {gpa:#x} are not all RAM at {self.layout}")
        return self._open_file.get(gpa, size)

    @cached_property
    def pages(self) -> Sequence[int]:
        """The numbers of the pages that are not zero, in order."""
        return [gpa >> PAGE_SHIFT for gpa, _ in self.nonzero_pages()]

    def nonzero_pages(self) -> Iterator[tuple[Gpa, bytes]]:
        """Yield GPA and content of each page that is not all zeros, in the order of their addresses."""
        for start, size in self._open_file.parts:
            for at in range(start, start + size, _PIECE):
                piece = self.read(Gpa(at), min(_PIECE, start + size - at))
                for offset in range(0, len(piece), PAGE_SIZE):
                    page = piece[offset : offset + PAGE_SIZE]
                    if page != _ZERO_PAGE:
                        yield Gpa(at + offset), page

    @property
    def is_closed(self) -> bool:
        return self._file is None

    def close(self) -> None:
        """Give the file up now. Machines that map it keep it alive. A second call does nothing."""
        self._file = None


class RamFork:
    """What ``ram`` holds now, as the file that it was mapped from and the ``changed`` parts of it."""

    def __init__(self, ram: Ram, file: RamFile, changed: Sequence[tuple[Gpa, int]]) -> None:
        self.layout = ram.layout
        self._ram, self._file, self._changed = ram, file, changed

    def map_into(self, ram: Ram) -> None:
        """Let ``ram``, which has the same layout, hold it. Raise OSError if the host refuses."""
        ram.map_file(self._file)
        for gpa, size in self._changed:
            ram.bytes[gpa : gpa + size] = self._ram.bytes[gpa : gpa + size]


def forked(ram: Ram) -> RamSource:
    """Return what ``ram`` holds now, for other RAM. It is valid until ``ram`` changes.

    Afterwards both are private mappings of one file. Raise OSError if the host has no room for it.
    """
    if ram.file is not None:
        changed = list(stored(ram))
        if sum(size for _, size in changed) <= _FEW:
            return RamFork(ram, ram.file, changed)
    if (file := ram.freeze()) is not None:
        return RamImage.adopt(ram.layout, file)
    image = RamImage.copy_of(ram)
    image.map_into(ram)
    return image
