"""The tree of page digests: one hash of RAM that is kept up while pages change, on either side of a migration.

A leaf is the BLAKE3 of a page, or 32 zero bytes for a page of zeros. A node is the BLAKE3 of the leaves of 256
consecutive pages. The root is the BLAKE3 of what else the state has, and of number and digest of each node that has a
page other than zeros. Two states with one root have the same values and the same RAM, or somebody has found two inputs
of BLAKE3 with one digest: the root is as strong as the state hash (docs/decisions/migration.md). When 100 pages have
changed, 100 pages and the nodes above them are hashed again, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from blake3 import blake3

from dbt.abi.layout import PAGE_SIZE

_DIGEST: Final = 32
_NODE_SHIFT: Final = 8
_NODE_PAGES: Final = 1 << _NODE_SHIFT
_ZERO_LEAF: Final = bytes(_DIGEST)
_ZERO_NODE: Final = bytes(_DIGEST * _NODE_PAGES)


class PageTree:
    """The digests of RAM that is all zeros at first. Pages have numbers: that of GPA 0 is 0. The pieces of a disk are
    pages of another ``size`` in bytes, a power of 2.
    """

    def __init__(self, size: int = PAGE_SIZE) -> None:
        self._shift, self._zero_page = size.bit_length() - 1, bytes(size)
        self._leaves: dict[int, bytearray] = {}  # by the number of the node
        self._nodes: dict[int, bytes] = {}  # those that are up to date
        self._present: dict[int, int] = {}  # a bit for each page that is not zero, by the number of the node

    def update(self, first: int, data: bytes | memoryview[int]) -> None:
        """Note the content of consecutive pages from number ``first`` on."""
        view, shift, zero = memoryview(data), self._shift, self._zero_page
        for number in range(len(view) >> shift):
            page = view[number << shift : number + 1 << shift]
            self._set(first + number, _ZERO_LEAF if page == zero else blake3(page).digest())

    def clear(self, first: int, count: int) -> None:
        """Note that consecutive pages are zero."""
        for page in range(first, first + count):
            self._set(page, _ZERO_LEAF)

    def _set(self, page: int, digest: bytes) -> None:
        node, at = page >> _NODE_SHIFT, (page & _NODE_PAGES - 1) * _DIGEST
        leaves = self._leaves.get(node)
        if leaves is None:
            leaves = self._leaves[node] = bytearray(_ZERO_NODE)
        leaves[at : at + _DIGEST] = digest
        bit = 1 << (page & _NODE_PAGES - 1)
        present = self._present.get(node, 0)
        self._present[node] = present & ~bit if digest is _ZERO_LEAF else present | bit
        self._nodes.pop(node, None)

    def is_present(self, page: int) -> bool:
        """Return True if a page is not zero."""
        return bool(self._present.get(page >> _NODE_SHIFT, 0) >> (page & _NODE_PAGES - 1) & 1)

    def settle(self) -> None:
        """Hash the nodes above what has changed, so that :meth:`root` has less to do."""
        for node, leaves in self._leaves.items():
            if node not in self._nodes and leaves != _ZERO_NODE:
                self._nodes[node] = blake3(leaves).digest()

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield number of the first page and count of each run of pages that are not zero. Runs may touch."""
        for node in sorted(self._present):
            bits, at = self._present[node], node << _NODE_SHIFT
            while bits:
                zeros = (bits & -bits).bit_length() - 1
                bits >>= zeros
                count = (~bits & bits + 1).bit_length() - 1
                yield at + zeros, count
                bits >>= count
                at += zeros + count

    def root(self, values: bytes) -> bytes:
        """Return the digest of RAM and of ``values``, which are all of the state besides."""
        self.settle()
        found = blake3(len(values).to_bytes(8, "little"))
        found.update(values)
        for node in sorted(self._leaves):
            if (digest := self._nodes.get(node)) is not None:
                found.update(node.to_bytes(8, "little") + digest)
        return found.digest()
