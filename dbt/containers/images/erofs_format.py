"""EROFS on the disk: the structures that the writer and the reader share (Linux, fs/erofs/erofs_fs.h).

An image has a superblock in its first block, then data, then inodes. An inode's number (*nid*) is its place in units of
32 bytes from where inodes begin. All inodes are of the long form. Behind an inode are its extended attributes, and its
*tail*: content that has no block of its own.
"""

from __future__ import annotations

import stat
import struct
from typing import Final

BLOCK: Final = 4096
SLOT: Final = 32
SUPERBLOCK_AT: Final = 1024
MAGIC: Final = 0xE0F5E1E2
#: The superblock says that inodes have times.
MTIME: Final = 2
BLOCK_BITS: Final = 12
#: magic, checksum, compatible features, block bits, extension slots, root's nid, inodes, time, ns, blocks, blocks of
#: inodes and shared attributes, UUID, volume, incompatible features, compression, devices
SUPERBLOCK: Final = struct.Struct("<IIIBBHQQIIII16s16sIHHH38x")
#: format, size of attributes, mode, reserved, size, union, number, uid, gid, mtime, ns, links
INODE: Final = struct.Struct("<HHHHQIIIIQII16x")
PLAIN, INLINE = 0, 2
LONG_FORM: Final = 1
#: nid, offset of the name in the block, kind
ENTRY: Final = struct.Struct("<QHBx")
XATTR_HEADER: Final = 12
#: length of the name, prefix, length of the value
XATTR: Final = struct.Struct("<BBH")
#: An attribute's name is stored without its prefix.
PREFIXES: Final = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
KINDS: Final = {
    **{stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFSOCK: 6},
    stat.S_IFLNK: 7,
}


def encode_device(major: int, minor: int) -> int:
    """Return a device's number as Linux stores it in 32 bits."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def decode_device(number: int) -> tuple[int, int]:
    """Return major and minor number."""
    return number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
