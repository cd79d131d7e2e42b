"""The guest of the benchmark: Debian's kernel with a disk in RAM that has a script for one session of work."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dbt.linux.initramfs import DIRECTORY, PROGRAM, archive

_ROOT = Path(__file__).resolve().parents[2]
_LINUX_IO = _ROOT / "guests/io/images/linux_io"
_INIT = Path(__file__).with_name("init.sh")
#: The kernel modules, in the order in which they need each other.
_MODULES: Final = (
    *("virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net", "virtio_console"),
    *("netfs", "fscache", "9pnet", "9pnet_virtio", "9p"),
)
APPEND: Final = "console=ttyAMA0 quiet rdinit=/bench/init"
MEMORY_MB: Final = 256
#: What the guest prints when it is up, and around each part of its work.
UP: Final = b"=== UP ==="
_BEGIN, _END = "=== BEGIN {} ===", "=== END {} ==="


@dataclass(frozen=True)
class Work:
    """A part of a session: a line of the shell's. ``amount`` is how many bytes or requests it moves, in ``unit``."""

    name: str
    title: str
    line: str
    amount: float = 0
    unit: str = ""

    @property
    def begin(self) -> bytes:
        """What the guest prints before."""
        return _BEGIN.format(self.name).encode()

    @property
    def end(self) -> bytes:
        """What the guest prints afterwards."""
        return _END.format(self.name).encode()


@dataclass(frozen=True)
class Images:
    """The directory with Debian's kernel and its disk (docs/virt.md)."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def disk(self) -> Path:
        return self.folder / "initramfs-virt.cpio.gz"

    def missing(self) -> str:
        """Return what is not there, in words, or nothing."""
        names = [path.name for path in (self.kernel, self.disk) if not path.is_file()]
        return f"there is no {' and no '.join(names)} in {self.folder}" if names else ""

    def with_work(self, parts: Sequence[Work], path: Path, before: str = "", modules: Sequence[str] = ()) -> Path:
        """Write a disk whose first process does these parts, after a line of preparation and with more modules of the
        kernel. Return its path.
        """
        lines = [before, *(f"begin {work.name}; {work.line}; end {work.name}" for work in parts)]
        script = _INIT.read_text().replace("MODULES", " ".join((*_MODULES, *modules)))
        script = script.replace("# WORK\n", "\n".join(lines) + "\n")
        entries = [
            ("bench", DIRECTORY, b"", (0, 0)),
            ("bench/init", PROGRAM, script.encode(), (0, 0)),
            ("bench/linux_io", PROGRAM, _LINUX_IO.read_bytes(), (0, 0)),
        ]
        path.write_bytes(self.disk.read_bytes() + gzip.compress(archive(entries), 1, mtime=0))
        return path
