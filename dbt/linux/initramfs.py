"""Archives for Linux' initial RAM file system, in cpio's format "newc".

The format is in Linux' documentation, driver-api/early-userspace/buffer-format.rst. They are written here, because
making device files takes privileges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: Modes of a directory, a program, a symbolic link and a character device of root's.
DIRECTORY: Final = 0o040755
PROGRAM: Final = 0o100755
LINK: Final = 0o120777
DEVICE: Final = 0o020600
#: A name, a mode, the content and the numbers of a device.
Entry = tuple[str, int, bytes, tuple[int, int]]


def archive(entries: Sequence[Entry]) -> bytes:
    """Return an archive. All files belong to root and are from 1970."""
    data = bytearray()
    for inode, (name, mode, content, (major, minor)) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))], 1):
        encoded = name.encode() + b"\0"
        links = 2 if mode == DIRECTORY else 1
        fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, major, minor, len(encoded), 0)
        data += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        data += bytes(-len(data) % 4) + content
        data += bytes(-len(data) % 4)
    return bytes(data)
