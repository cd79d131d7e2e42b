"""A snapshot with all that it is based on: an increment has only what differs from its parent.

The parent's file is in the directory of the increment, under the name that the increment has for it, and is recognised
by its digest. A name leads to no other directory, so that a file from a stranger makes nobody read elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from operator import itemgetter
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import GUEST_PAGES, PAGE_SHIFT
from dbt.devices.state import State
from dbt.memory.closing import Closing
from dbt.memory.ram import RamLayout
from dbt.snapshot.errors import SnapshotError
from dbt.snapshot.file import SnapshotFile
from dbt.snapshot.format import Parent

#: So many files may be one snapshot together.
MAX_DEPTH: Final = 256
_NOT: Final = bytes.maketrans(b"\0\1", b"\1\0")


class SnapshotChain(Closing):
    """The open files of the snapshot ``path``: first this file, then its parent, up to one without. SnapshotError."""

    def __init__(self, path: str) -> None:
        self.files: list[SnapshotFile] = []
        try:
            self.files.append(SnapshotFile(path))
            while (parent := self.files[-1].header.parent) is not None:
                if len(self.files) == MAX_DEPTH:
                    raise SnapshotError(
                        f"{path}: the snapshot has more than {MAX_DEPTH - 1} parents, one behind the other. "
                        "Save the machine again without a parent"
                    )
                self.files.append(self._open_parent(self.files[-1], parent))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in self.files:
            file.close()

    def _open_parent(self, child: SnapshotFile, parent: Parent) -> SnapshotFile:
        name = os.fsdecode(parent.name)
        path = os.path.join(os.path.dirname(os.path.realpath(child.path)), name)
        wanted = f"which is the snapshot {parent.digest.hex()[:16]}"
        try:
            file = SnapshotFile(path)
        except SnapshotError as error:
            raise SnapshotError(
                f"{child.path}: this is an increment to {name}, {wanted}, and that cannot be used: {error}"
            ) from None
        if file.digest != parent.digest:
            file.close()
            raise SnapshotError(
                f"{child.path}: this is an increment to {name}, {wanted}, and {path} is the snapshot "
                f"{file.digest.hex()[:16]}. Put the file back that the increment was made from"
            )
        if file.header.layout != child.header.layout:
            file.close()
            raise child.damaged(f"has RAM at {child.header.layout}, and its parent at {file.header.layout}")
        return file

    @property
    def layout(self) -> RamLayout:
        return self.files[0].header.layout

    @property
    def digest(self) -> bytes:
        """The digest that names the snapshot."""
        return self.files[0].digest

    def values(self) -> State:
        """Return the state but for RAM, as plain values that have not been checked. Raise SnapshotError."""
        return self.files[0].values()

    def pieces(self) -> Iterator[tuple[Gpa, bytes]]:
        """Yield the content of RAM where it is not zero: the GPA and the bytes of one or several pages, in the order of
        their addresses. Raise SnapshotError.
        """
        if len(self.files) == 1:
            yield from self.files[0].pieces()
            return
        from heapq import merge

        taken = bytearray(GUEST_PAGES)  # 1 for a page whose content a file before this one has, or knows to be zero
        sources = []
        for file in self.files:
            pages = file.header.pages
            wanted = b"".join(taken[start : start + count] for start, count in pages.runs()).translate(_NOT)
            sources.append(file.pieces(wanted))
            for start, count in (*pages.runs(), *file.header.cleared.runs()):
                taken[start : start + count] = b"\1" * count
        yield from merge(*sources, key=itemgetter(0))

    def parts(self) -> list[tuple[int, int]]:
        """Return GPA and size in bytes of the parts of RAM that :meth:`pieces` yields, in order."""
        if len(self.files) == 1:
            runs = self.files[0].header.pages.runs()
            return [(start << PAGE_SHIFT, count << PAGE_SHIFT) for start, count in runs]
        import re

        there = bytearray(GUEST_PAGES)
        for file in reversed(self.files):
            for pages, mark in ((file.header.pages, b"\1"), (file.header.cleared, b"\0")):
                for start, count in pages.runs():
                    there[start : start + count] = mark * count
        runs = (found.span() for found in re.finditer(rb"\x01+", there))
        return [(start << PAGE_SHIFT, (end - start) << PAGE_SHIFT) for start, end in runs]

    def check(self) -> None:
        """Read all files and check them. Raise SnapshotError."""
        for file in self.files:
            file.check()
