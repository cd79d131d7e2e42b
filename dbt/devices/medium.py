"""What is on a disk, as sectors of 512 bytes: a file of the host's, or a file with blocks that have changed since.

A medium is not part of a device: it stays when the guest resets the board.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from dbt.devices.state import Stateful, Wiring

SECTOR: Final = 512
#: The error numbers of a host whose disk is full, or of which its user has no more.
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
#: The unit in which an overlay keeps changed data, in bytes.
BLOCK: Final = 4096
#: The time of a request in nanoseconds: of each, and of a byte of its data (as a fraction).
LATENCY_NS: Final = 20_000
BYTES_PER_NS: Final = 1
_ZERO_BLOCK: Final = bytes(BLOCK)
#: Bytes of zeros that are written at once.
_ZEROS: Final = bytes(1 << 20)


class DiskFile(Protocol):
    """A file of the host's with the content of a disk. Methods raise OSError if the host fails."""

    #: The size in bytes, as it was when the file was opened.
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes. What is behind the end of the file is zero."""

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``."""

    def flush(self) -> None:
        """Return when all that was written will survive a failure of the host."""


@dataclass(eq=False)
class Medium(Stateful):
    """A medium of ``sectors`` sectors. Accesses are to whole sectors of it; they raise OSError if the host fails."""

    file: Wiring[DiskFile]
    read_only: Wiring[bool]
    sectors: int = field(init=False)

    def __post_init__(self) -> None:
        self.sectors = -(-self.file.size // SECTOR)

    def is_possible(self) -> bool:
        return self.sectors == -(-self.file.size // SECTOR)

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from byte ``offset`` on."""
        raise NotImplementedError

    def write(self, offset: int, data: bytes) -> None:
        raise NotImplementedError

    def write_zeros(self, offset: int, size: int) -> None:
        for at in range(0, size, len(_ZEROS)):
            self.write(offset + at, _ZEROS[: size - at])

    def flush(self) -> None:
        """Make what was written survive a failure of the host, as far as the medium survives the machine at all."""
        raise NotImplementedError


@dataclass(eq=False)
class DirectMedium(Medium):
    """The file itself. What the guest writes is there, and stays there if the machine goes back in time."""

    def read(self, offset: int, size: int) -> bytes:
        return self.file.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        self.file.write(offset, data)

    def flush(self) -> None:
        self.file.flush()


def forgotten(changed: Mapping[int, bytes]) -> None:
    """Keep nothing: what has changed does not survive the machine."""


@dataclass(eq=False)
class OverlaidMedium(Medium):
    """The file, which never changes, and the blocks that were written, by number, as part of the machine's state.

    ``preserve`` is called with these when the guest flushes, to put them where they survive the machine.
    """

    preserve: Wiring[Callable[[Mapping[int, bytes]], None]] = forgotten
    changed: dict[int, bytes] = field(default_factory=dict)

    def is_possible(self) -> bool:
        blocks = -(-self.sectors * SECTOR // BLOCK)
        is_block = all(0 <= number < blocks and len(data) == BLOCK for number, data in self.changed.items())
        return super().is_possible() and is_block

    def read(self, offset: int, size: int) -> bytes:
        changed = self.changed
        first, last = offset // BLOCK, (offset + size - 1) // BLOCK
        if not changed or not any(number in changed for number in range(first, last + 1)):
            return self.file.read(offset, size)
        return b"".join(self._read_block(number)[start:end] for number, start, end in _blocks(offset, size))

    def _read_block(self, number: int) -> bytes:
        data = self.changed.get(number)
        return self.file.read(number * BLOCK, BLOCK) if data is None else data

    def write(self, offset: int, data: bytes) -> None:
        at = 0
        for number, start, end in _blocks(offset, len(data)):
            piece = data[at : at + end - start]
            if end - start < BLOCK:
                before = self._read_block(number)
                piece = before[:start] + piece + before[end:]
            self.changed[number] = _ZERO_BLOCK if piece == _ZERO_BLOCK else piece
            at += end - start

    def flush(self) -> None:
        self.preserve(self.changed)


def _blocks(offset: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield the blocks that a range of bytes touches: the number, and where the range begins and ends in the block."""
    end = offset + size
    for number in range(offset // BLOCK, -(-end // BLOCK)):
        base = number * BLOCK
        yield number, max(offset - base, 0), min(end - base, BLOCK)
