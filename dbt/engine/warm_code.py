"""Decoded and stitched code of one machine, for others that begin in the state in which it began.

What the guests of a template execute first is the same in each of them. A *model* has executed it. What was decoded and
stitched there of pages of RAM that are still as they were is written to a file in memory. A process that was forked
from the same one as the model's has its memory at the same addresses: it maps the code pages from the file,
copy-on-write, and copies the stitched code. Where anything is elsewhere, the guest's code is cold, as in the model.

The file is code of all that adopt it, so it has to be of a model that has executed nothing of somebody else's.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.abi.hostmemory import seal
from dbt.abi.layout import CODE_PAGE_STRIDE, PAGE_SHIFT
from dbt.memory.contents import stored

if TYPE_CHECKING:
    from dbt.engine.threaded import ThreadedTier
    from dbt.memory.ram import Ram

_WORD: Final = 8


class _Place(NamedTuple):
    """What has to be the same where code is adopted: addresses of memory, how code is stitched, and RAM's file."""

    cpu: int
    ram: int
    code_pages: int
    stitched: int
    image: int
    counts: int
    warm: int
    hot: int
    measures: int
    device: int
    inode: int
    changed: int

    @classmethod
    def of(cls, tier: ThreadedTier, ram: Ram) -> _Place | None:
        """Return the place of a tier, or None where there can be no warm code."""
        stitched, native = tier.stitched, tier.native
        if stitched is None or stitched.log is not None or native.initial_ops is None or ram.file is None:
            return None
        file = os.fstat(ram.file.handle)
        return cls(
            tier.cpu_address,
            ram.address,
            tier.code_pages.address,
            stitched.address,
            native.address,
            stitched.count("counts"),
            stitched.count("warm"),
            stitched.count("hot"),
            stitched.count("measures"),
            file.st_dev,
            file.st_ino,
            file.st_ctime_ns,
        )


class WarmCode:
    """The code in a file that :func:`write` has made, which is this object's from now on. Nobody can change it then.

    Raise OSError if the file cannot be read or sealed.
    """

    def __init__(self, file: int) -> None:
        seal(file)
        self._file = file
        (count,) = array("Q", os.pread(file, _WORD, 0))
        words = array("Q", os.pread(file, count * _WORD, _WORD))
        end = len(_Place._fields)
        self._place = _Place(*words[:end])
        self._counters, self._stitched_size, self._listed_size = words[end : end + 3]
        #: Runs of pages of RAM: the number of the first, and how many they are.
        self._runs = list(zip(words[end + 3 :: 2], words[end + 4 :: 2], strict=True))
        self._pages = frozenset(page for first, count in self._runs for page in range(first, first + count))
        self._stitched_at = (1 + len(words)) * _WORD

    def adopt(self, tier: ThreadedTier, ram: Ram) -> bool:
        """Let a machine have the code, whose RAM was mapped from its file and whose dirty log is that since then.
        Return False, and change nothing, if it has another place or another template, or if it has executed something,
        or if the hypervisor has written to one of the pages.
        """
        stitched = tier.stitched
        if stitched is None or next(tier.code_pages.pages(), None) is not None or _Place.of(tier, ram) != self._place:
            return False
        if not self._pages.isdisjoint(ram.dirty_log.pages):
            return False
        listed_at = self._stitched_at + self._stitched_size
        listed = os.pread(self._file, self._listed_size, listed_at)
        tier.code_pages.adopt(self._runs, self._file, _aligned(listed_at + self._listed_size))
        stitched.adopt(self._file, self._stitched_at, self._stitched_size, array("I", listed), self._counters)
        return True

    def close(self) -> None:
        os.close(self._file)


def write(tier: ThreadedTier, ram: Ram, left_out: Collection[int]) -> int | None:
    """Return a file in memory with the code of a machine but for that of the pages ``left_out``, or None if there can
    be none. The caller closes it. The guest must not be executing.
    """
    place, stitched = _Place.of(tier, ram), tier.stitched
    if place is None or stitched is None or stitched.count("resets"):
        return None
    changed = {page for gpa, size in stored(ram) for page in range(gpa >> PAGE_SHIFT, gpa + size >> PAGE_SHIFT)}
    runs = list(_runs([page for page in tier.code_pages.pages() if page not in changed and page not in left_out]))
    code, listed = stitched.code(), stitched.pages().tobytes()
    words = array("Q", (*place, stitched.count("counters"), len(code), len(listed)))
    for run in runs:
        words.extend(run)
    head = array("Q", (len(words), *words)).tobytes() + code + listed
    file = os.memfd_create("dbt-warm-code", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.pwrite(file, head, 0)
        at = _aligned(len(head))
        for first, count in runs:
            for page in range(first, first + count):
                os.pwrite(file, tier.code_pages.cooled(page), at)
                at += CODE_PAGE_STRIDE
        os.ftruncate(file, at)
    except BaseException:
        os.close(file)
        raise
    return file


def _aligned(size: int) -> int:
    return -(-size // CODE_PAGE_STRIDE) * CODE_PAGE_STRIDE


def _runs(pages: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first page and the number of pages of each run of these, which are in order."""
    start = 0
    for at in range(1, len(pages) + 1):
        if at == len(pages) or pages[at] != pages[at - 1] + 1:
            yield pages[start], at - start
            start = at
